"""``envequiv-repair ref=NAME target=NAME``: patch a JAX or Rust target until every check of the suite says EQUAL.

exit code 0: repaired and proven on unseen seeds, or equal from the start
          1: not; the best checkpoint is on its branch, and --resume goes on from it
          2: it could not begin: what was asked for, the environment or the key
          130: interrupted; the best checkpoint is kept
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from repair_agent import session, stub
from repair_agent.budget import Limits
from repair_agent.messages import Options
from repair_agent.model import Unusable
from repair_agent.prices import UnknownPrice, table
from repair_agent.suite import Question
from repair_agent.worktree import Unfit

PROFILES = ("quick", "standard", "thorough")
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # where names are looked for; nothing of a target is imported here
    try:
        return _asked(options, console)
    except KeyboardInterrupt:
        print("envequiv-repair: interrupted; what was accepted is kept: --resume goes on", file=sys.stderr)
        return 130
    except (ValueError, OSError, Unfit, UnknownPrice, Unusable) as error:
        print(f"envequiv-repair: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="envequiv-repair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", nargs=2, type=_named, metavar=("ref=NAME", "target=NAME"))
    parser.add_argument("--report", type=Path, metavar="FILE", help="a JSON report to begin from")
    parser.add_argument("--contract", metavar="FILE", help="the pair's contract, a TOML file")
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="of the suite (default: quick)")
    parser.add_argument("--seed", type=int, default=0, help="of the suite; the last word is spoken on others")
    parser.add_argument("--files", nargs="+", metavar="GLOB", help="files that may change (default: the target's own)")
    parser.add_argument("--allow-import", nargs="+", default=[], metavar="MODULE", help="the target may import it too")
    parser.add_argument("--output", type=Path, default=Path(".envequiv"), help="folder for all records (.envequiv)")
    parser.add_argument("--no-land", action="store_true", help="leave the result on its branch, do not apply it here")
    new = parser.add_argument_group("a port from nothing")
    new.add_argument("--init", choices=stub.WORKFLOWS, help="begin with a stub, by this workflow")
    new.add_argument("--fast", metavar="NAME", help="verify: a fast port that exists already")
    new.add_argument("--spec", type=Path, metavar="FILE", help="specification: the text to build from")
    engine = parser.add_argument_group("who mends")
    engine.add_argument("--engine", choices=session.ENGINES, default="auto", help="auto: offline first, then the model")
    engine.add_argument("--agent-command", metavar="'CMD {prompt_file}'", help="another agent in the model's place")
    engine.add_argument("--model", default=Options.model, help=f"Anthropic model id ({Options.model})")
    engine.add_argument("--effort", choices=EFFORTS, help="of the model (default: its own)")
    engine.add_argument("--max-tokens", type=int, default=Options.max_tokens, help="of one answer (%(default)s)")
    engine.add_argument("--base-url", metavar="URL", help="of the Messages API")
    engine.add_argument(
        "--price", nargs="+", default=[], metavar="MODEL=IN,OUT[,WRITE,READ]", help="dollars per million tokens"
    )
    limit = parser.add_argument_group("limits, none of which is overshot by a call")
    limit.add_argument("--dollars", type=float, default=10.0, help="(default: 10)")
    limit.add_argument("--seconds", type=float, help="of wall time")
    limit.add_argument("--calls", type=int)
    limit.add_argument("--tokens", type=int)
    limit.add_argument("--tries", type=int, default=3, help="of one engine at one group of failures (default: 3)")
    run = parser.add_argument_group("runs")
    run.add_argument(
        "--dry-run", action="store_true", help="plan, first prompt, files that may change, worst-case cost; no call"
    )
    run.add_argument("--resume", action="store_true", help="go on from the pair's last checkpoint")
    run.add_argument("--replay", type=Path, metavar="FILE", help="a trajectory, run again without the API")
    return parser


def _named(word: str) -> tuple[str, str]:
    side, _, name = word.partition("=")
    if side not in ("ref", "target") or not name:
        raise argparse.ArgumentTypeError(f"{word!r}: write ref=NAME target=NAME")
    return side, name


def _asked(options: argparse.Namespace, console: Console) -> int:
    names = dict(options.pair)
    if len(names) < 2:
        raise ValueError("one ref=NAME and one target=NAME are needed")
    _consistent(options)
    request = session.Request(
        question=Question(names["ref"], names["target"], options.profile, options.contract, options.seed),
        folder=Path.cwd(),
        output=Path(os.path.abspath(options.output)),
        files=tuple(options.files or ()),
        imports=tuple(options.allow_import),
        report=options.report,
        workflow=options.init or "repair",
        fast=options.fast,
        specification=options.spec,
        engine="command" if options.agent_command else options.engine,
        command=options.agent_command,
        api=Options(options.model, options.effort, options.base_url, options.max_tokens),
        prices=table(options.price),
        limits=Limits(options.dollars, options.seconds, options.calls, options.tokens, options.tries),
        land=not options.no_land,
        resume=options.resume,
        replay=options.replay,
    )
    return session.planned(request, console) if options.dry_run else session.repaired(request, console)


def _consistent(options: argparse.Namespace) -> None:
    """Raises ValueError for options that cannot go together."""
    if options.init == "verify" and not options.fast:
        raise ValueError("--init verify needs --fast NAME, the fast port to verify against")
    if options.init == "specification" and not options.spec:
        raise ValueError("--init specification needs --spec FILE, the text to build from")
    if options.fast and options.init != "verify":
        raise ValueError("--fast goes with --init verify")
    if options.spec and options.init != "specification":
        raise ValueError("--spec goes with --init specification")
    if options.init and (options.report or options.engine == "offline"):
        raise ValueError("--init begins with a stub: there is no report of it, and no small edit mends it")
    if options.replay and options.agent_command:
        raise ValueError("--replay runs a model's replies again; what --agent-command did cannot be replayed")
    for name in ("dollars", "seconds", "calls", "tokens", "tries", "max_tokens"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} {value:g}: it must be more than nothing")


if __name__ == "__main__":
    sys.exit(main())
