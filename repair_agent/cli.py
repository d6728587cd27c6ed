"""Patch a JAX or Rust target until every check of the suite says EQUAL, under a budget.

envequiv-repair ref=gymnasium:CartPole-v1 target=pole --engine offline   no key, no cost
envequiv-repair ref=gymnasium:CartPole-v1 target=pole --dry-run          what a model would be asked
envequiv-repair ref=gymnasium:CartPole-v1 target=pole --dollars 2        offline first, then the model
envequiv-repair ref=gymnasium:CartPole-v1 target=pole --resume           go on after a limit or Ctrl-C
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from pytest_envequiv.verdict import side_named
from repair_agent import dry_run, findings, journal, loop, session, stub
from repair_agent.budget import Limits
from repair_agent.command import Command
from repair_agent.model.api import Unusable
from repair_agent.model.messages import Options
from repair_agent.prices import UnknownPrice, table
from repair_agent.question import Question
from repair_agent.tree.worktree import Unfit

PROFILES = ("quick", "standard", "thorough")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
CODES = """exit code:
  0    repaired and proven on unseen seeds, or equal from the start
  1    not; the best checkpoint is on its branch, and --resume goes on from it
  2    it could not begin: options, repository, key, price
  130  interrupted; the best checkpoint is kept"""

# What holds where nothing is said. --resume and --replay take what was said then before these.
DEFAULTS: dict[str, Any] = {
    "contract": None, "profile": "quick", "seed": 0, "files": [], "allow_import": [],
    "init": None, "language": None, "fast": None, "spec": None,
    "engine": "auto", "agent_command": None,
    "model": Options.model, "effort": None, "max_tokens": Options.max_tokens, "base_url": None, "price": [],
    "dollars": Limits.dollars, "seconds": None, "calls": None, "tokens": None, "tries": Limits.tries,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The exit code. Raises SystemExit for options that argparse refuses, and for --help."""
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # where names are looked for; nothing of a target is imported here
    try:
        with _ended_as_by_hand():
            return _asked(options, console)
    except KeyboardInterrupt:
        print("envequiv-repair: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, Unfit, UnknownPrice, Unusable) as error:
        print(f"envequiv-repair: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


@contextmanager
def _ended_as_by_hand() -> Iterator[None]:
    """A CI job that is cancelled (SIGTERM) ends as with Ctrl-C: nothing is left running, the checkpoint is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="envequiv-repair",
        description=__doc__,
        epilog=CODES,
        usage="envequiv-repair ref=NAME target=NAME [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("pair", nargs=2, type=side_named, metavar="ref=NAME target=NAME", help="named as for pytest --envequiv")
    add("--report", type=Path, metavar="FILE", help="pytest's JSON report to begin from, if it is of these files")
    add("--contract", metavar="FILE", help="the pair's contract, a TOML file")
    add("--profile", choices=PROFILES, help="of the suite (default: quick, or the report's)")
    add("--seed", type=_count, help="of the suite (default: 0, or the report's); the last word is spoken on others")
    add("--files", nargs="+", metavar="GLOB", help="files that may change (default: the target's own)")
    add("--allow-import", nargs="+", metavar="MODULE", help="modules that the target may import besides")
    add("--output", type=Path, metavar="FOLDER", help="for all records (default: .envequiv)")
    add("--no-land", action="store_true", help="leave the result on its branch, do not apply it here")
    new = parser.add_argument_group("a port from nothing").add_argument
    new("--init", choices=stub.WORKFLOWS, help="begin with a stub, by this workflow")
    new("--language", choices=stub.LANGUAGES, help="of the stub (default: jax)")
    new("--fast", metavar="NAME", help="verify: a fast port that exists already")
    new("--spec", metavar="FILE", help="specification: the text to build from")
    who = parser.add_argument_group("who mends").add_argument
    who("--engine", choices=session.ENGINES, help="default: auto, which is offline first, then the model")
    who("--agent-command", metavar="'CMD {prompt_file}'", help="another agent, in place of all these")
    who("--model", metavar="ID", help=f"of Anthropic (default: {Options.model})")
    who("--effort", choices=EFFORTS, help="of the model (default: its own)")
    who("--max-tokens", type=int, metavar="N", help=f"of one answer (default: {Options.max_tokens})")
    who("--base-url", metavar="URL", help="of the Messages API")
    who("--price", nargs="+", metavar="MODEL=IN,OUT[,WRITE,READ]", help="dollars per million tokens")
    limit = parser.add_argument_group("limits, none of which is overshot by a call").add_argument
    limit("--dollars", type=float, metavar="X", help=f"(default: {Limits.dollars:g})")
    limit("--seconds", type=float, metavar="X", help="of wall time")
    limit("--calls", type=int, metavar="N", help="of the model")
    limit("--tokens", type=int, metavar="N", help="of prompts and answers")
    limit("--tries", type=int, metavar="N", help=f"of one engine at one group of failures (default: {Limits.tries})")
    run = parser.add_argument_group("runs").add_argument
    run("--dry-run", action="store_true", help="plan, first prompt, files that may change, worst cost; no call")
    run("--resume", action="store_true", help="go on from the pair's last checkpoint, with the options it had")
    run("--replay", type=Path, metavar="FILE", help="a trajectory, run again without the API")
    return parser


def _count(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r}: a whole number from 0 up is needed")
    return int(word)


def _asked(options: argparse.Namespace, console: Console) -> int:
    names = dict(options.pair)
    if len(names) < 2:
        raise ValueError("one ref=NAME and one target=NAME are needed")
    output = Path(os.path.abspath(options.output or ".envequiv"))
    given = {name: value for name in DEFAULTS if (value := getattr(options, name)) is not None}
    _alone(options, given)
    before = _before(options, Question(names["ref"], names["target"]), output)
    said = {**before, **given}
    if options.output is not None:
        said["output"] = str(options.output)
    asked = {**DEFAULTS, **said}
    _consistent(asked)
    if options.report and asked["init"]:
        raise ValueError("--init begins with a stub, of which there is no report: leave --report out")
    if options.replay and asked["agent_command"]:
        raise ValueError("--replay runs a model's replies again; what --agent-command did cannot be replayed")
    request = session.Request(
        question=Question(names["ref"], names["target"], asked["profile"], asked["contract"], asked["seed"]),
        folder=Path.cwd(),
        output=output,
        files=tuple(asked["files"]),
        imports=tuple(asked["allow_import"]),
        report=options.report,
        workflow=asked["init"] or "repair",
        language=asked["language"] or "jax",
        fast=asked["fast"],
        specification=Path(asked["spec"]) if asked["spec"] else None,
        engine="command" if asked["agent_command"] else asked["engine"],
        command=asked["agent_command"],
        api=Options(asked["model"], asked["effort"], asked["base_url"], asked["max_tokens"]),
        prices=table(asked["price"]),
        limits=Limits(asked["dollars"], asked["seconds"], asked["calls"], asked["tokens"], asked["tries"]),
        land=not options.no_land,
        resume=options.resume,
        replay=options.replay,
        asked=said,
    )
    return dry_run.planned(request, console) if options.dry_run else session.repaired(request, console)


def _before(options: argparse.Namespace, question: Question, output: Path) -> dict[str, Any]:
    """What was asked for by whoever made what this run goes on from, runs again or reads. Raises ValueError."""
    if options.resume:
        return loop.load(session.place(output, question.ref, question.target) / session.STATE).asked
    if options.replay:
        events = journal.read(options.replay)
        begun = next((event for event in events if event["kind"] == "begin"), None)
        if begun is None:
            raise ValueError(f"{options.replay} is no trajectory of a repair: it has no beginning")
        then = begun["question"]
        if (then["ref"], then["target"]) != (question.ref, question.target):
            raise ValueError(f"{options.replay} is of ref={then['ref']} target={then['target']}, not of this pair")
        return {**begun["asked"], **{name: then[name] for name in ("profile", "contract", "seed")}}
    if options.report:
        settings = findings.read(options.report, question, Path.cwd()).settings
        return {name: settings[name] for name in ("profile", "contract", "seed") if settings.get(name) is not None}
    return {}


def _alone(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Raises ValueError for options that say two things about how to begin."""
    begins = {"--resume": options.resume, "--replay": options.replay, "--report": options.report}
    chosen = [name for name, value in begins.items() if value]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} do not go together: each says what to begin from")
    if options.dry_run and (options.resume or options.replay):
        raise ValueError(f"--dry-run does not go with {chosen[0]}: it shows how a repair begins")
    fixed = [f"--{name}" for name in ("contract", "profile", "seed", "files", "init", "language") if name in given]
    if options.resume and fixed:
        raise ValueError(f"--resume goes on as it was begun, and {fixed[0]} would change that: leave it out")


def _consistent(asked: Mapping[str, Any]) -> None:
    """Raises ValueError for options that cannot go together."""
    workflow = asked["init"]
    if workflow == "verify" and not asked["fast"]:
        raise ValueError("--init verify needs --fast NAME, the fast port to verify against")
    if workflow == "specification" and not asked["spec"]:
        raise ValueError("--init specification needs --spec FILE, the text to build from")
    if asked["language"] and not workflow:
        raise ValueError("--language goes with --init: a target that is there has its language already")
    if asked["fast"] and workflow != "verify":
        raise ValueError("--fast goes with --init verify")
    if asked["spec"] and workflow != "specification":
        raise ValueError("--spec goes with --init specification")
    if asked["spec"] and not Path(asked["spec"]).is_file():
        raise ValueError(f"--spec {asked['spec']}: there is no such file")
    if workflow and asked["engine"] == "offline" and not asked["agent_command"]:
        raise ValueError("--init begins with a stub, and no small edit mends that: leave --engine offline out")
    if asked["contract"] and not Path(asked["contract"]).is_file():
        raise ValueError(f"--contract {asked['contract']}: there is no such file")
    if asked["agent_command"]:
        Command(asked["agent_command"])
        program = shlex.split(asked["agent_command"])[0]
        if shutil.which(program) is None:
            raise ValueError(f"--agent-command: there is no program {program!r} here")
    for name in ("dollars", "seconds", "calls", "tokens", "tries", "max_tokens"):
        if asked[name] is not None and not asked[name] > 0:
            raise ValueError(f"--{name.replace('_', '-')} {asked[name]:g}: it must be more than nothing")


if __name__ == "__main__":
    sys.exit(main())
