"""``envequiv-power ref=A target=B``: seed bugs into the target and see what the verifier catches."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from pytest_envequiv import contents
from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.power import run, table
from pytest_envequiv.power.measure import Result
from pytest_envequiv.power.mutants import Mutant
from pytest_envequiv.verdict import PROFILES, WITHOUT_LEARNING, Settings, pair_name, side_named

NEEDS = "pip install 'pytest-envequiv[power]'"


def main(arguments: list[str] | None = None) -> int:
    """0: every detectable mutant was killed, or no alarm was false; 1: not so; 2: it could not be measured."""
    options = _parser().parse_args(arguments)
    try:
        return _measured(options)
    except (EnvequivError, OSError) as error:
        print(f"envequiv-power: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if error.name not in ("pebble", "matplotlib", "rich"):
            raise
        print(f"envequiv-power needs {error.name}; install it with: {NEEDS}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("envequiv-power: stopped", file=sys.stderr)
        return 2


FILE = "source file of the target to mutate (repeatable; default: those that its step and reset are written in)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="envequiv-power", description=__doc__)
    parser.add_argument("pair", nargs=2, metavar="ref=NAME target=NAME", type=side_named)
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="how much each run looks at")
    parser.add_argument("--levels", default=",".join(WITHOUT_LEARNING), help="levels that may kill (default: L1,L2,L3)")
    parser.add_argument("--seed", type=int, default=0, help="of the runs, and of the sample")
    parser.add_argument("--contract", help="TOML file, as for pytest --envequiv-contract")
    parser.add_argument("--sample", type=int, metavar="N", help="measure N mutants, drawn at random, instead of all")
    parser.add_argument(
        "--every", type=int, default=4, metavar="N", help="ask each Nth mutant at all levels (default 4)"
    )
    parser.add_argument(
        "--audit", type=int, default=10, metavar="N", help="put each Nth killed mutant before the oracle"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a mutant counts as hung")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--file", action="append", default=[], help=FILE)
    parser.add_argument("--output", default=".envequiv", help="folder for the report (default .envequiv)")
    parser.add_argument("--plot", metavar="FILE", help="also draw the rates, as .png or .svg")
    parser.add_argument(
        "--null", type=int, metavar="N", help="instead: false alarms in N runs of each side with itself"
    )
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    return parser


def _measured(options: argparse.Namespace) -> int:
    names = dict(options.pair)
    if len(names) < 2:
        raise EnvequivError("one ref=NAME and one target=NAME are needed")
    levels = tuple(level for level in WITHOUT_LEARNING if level in options.levels.split(","))
    settings = Settings(
        names["ref"], names["target"], levels=levels, profile=options.profile, seed=options.seed,
        contract=options.contract, output=options.output,
    )  # fmt: skip
    plan = run.Plan(
        settings,
        options.every,
        options.audit,
        options.timeout,
        options.workers,
        tuple(map(os.path.abspath, options.file)),
    )
    sys.path.insert(0, os.getcwd())
    hashed = contents.package_hash(settings.target)
    running, idle = run.listed(plan)
    if options.list:
        print("\n".join(f"{m.id}  {m.before!r} -> {m.after!r}" for m in running))
        return 0
    if not running:
        raise EnvequivError(f"no mutant could be made of {settings.target}: name a source file of it with --file")
    chosen = running
    if options.sample is not None and options.sample < len(running):
        chosen = random.Random(options.seed).sample(running, options.sample)
    results = shown(plan, chosen)
    pairs = list(zip(chosen, results, strict=True))
    print(table.text(pairs, len(idle)))
    where = Path(options.output) / "power" / f"{pair_name(settings.ref, settings.target)}.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(document(plan, pairs, idle, hashed), indent=1), encoding="utf-8")
    print(f"\nreport {where}")
    if options.plot:
        table.plot(pairs, f"{settings.target} against {settings.ref}, {settings.profile}", options.plot)
        print(f"plot   {options.plot}")
    if any(result.word == "error" for result in results):
        return 2
    rate = table.killed(results)
    return 0 if rate.part == rate.whole else 1


def shown(plan: run.Plan, chosen: list[Mutant]) -> list[Result]:
    """The results, with progress. Each is in PAIR-PROFILE.jsonl as soon as it is there: a run that is ended early loses
    nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counts: dict[str, int] = {}
    name = pair_name(plan.settings.ref, plan.settings.target)
    kept = Path(plan.settings.output) / "power" / f"{name}-{plan.settings.profile}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with kept.open("w", encoding="utf-8") as file, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("opening", total=len(chosen))

        def tell(result: Result) -> None:
            file.write(json.dumps(result.as_json()) + "\n")
            file.flush()
            counts[result.word] = counts.get(result.word, 0) + 1
            said = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
            progress.update(task, advance=1, description=said)

        return list(run.measured(plan, chosen, tell))


def document(
    plan: run.Plan, pairs: list[tuple[Mutant, Result]], idle: list[Mutant], target_hash: str
) -> dict[str, Any]:
    """The JSON report. ``kill_rate``, ``detectable``, ``killed`` and ``target_hash`` are what a certificate reads."""
    rate = table.killed(result for _, result in pairs)
    return {
        "envequiv_power": 1,
        "date": datetime.date.today().isoformat(),
        "settings": plan.settings.as_json(),
        "kill_rate": rate.share if rate.whole else None,
        "detectable": rate.whole,
        "killed": rate.part,
        "target_hash": target_hash,
        "summary": table.summary(pairs),
        "mutants": [
            {"line": m.line, "kind": m.kind, "topic": m.topic, "diff": m.diff(), **r.as_json()} for m, r in pairs
        ],
        "in_code_that_nothing_runs": [m.id for m in idle],
    }


if __name__ == "__main__":
    sys.exit(main())
