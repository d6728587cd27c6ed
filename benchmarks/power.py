"""What the verifier catches, on the five Gymnasium/gymnax pairs of classic control, by mutants of the gymnax side.

    python benchmarks/power.py [--sample N] [--seed S] [--profile quick] [--workers W] [--timeout T]
                               [--output DIR] [--styles] [NAME ...]

MountainCarContinuous is measured on a copy of gymnax's file, made in a temporary folder, in which the wall bug is
mended; the others on gymnax as it is installed. With ``--styles`` the ports are those in ``benchmarks/styles``, two or
three of each, written in manners of their own: constants of the module, a class, closures, loops, branches, matrices.
What survives ``quick`` and is detectable is judged again with ``thorough``. Everything is drawn from the seed. Writes
one JSON report and one plot a pair, and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import wall

from pytest_envequiv import contents
from pytest_envequiv.power import cli, run, table
from pytest_envequiv.power.measure import Result
from pytest_envequiv.power.mutants import Mutant
from pytest_envequiv.verdict import Settings, pair_name

STYLES = (
    ("CartPole-v1", "pole_vector"),
    ("CartPole-v1", "cart_tuple"),
    ("CartPole-v1", "pole_class"),
    ("MountainCar-v0", "hill_cond"),
    ("MountainCar-v0", "hill_where"),
    ("MountainCar-v0", "hill_vec"),
    ("MountainCarContinuous-v0", "hill_class:Hill"),
    ("MountainCarContinuous-v0", "hill_closure"),
    ("MountainCarContinuous-v0", "hill_parts"),
    ("Acrobot-v1", "acro_loop"),
    ("Acrobot-v1", "acro_matrix"),
    ("Pendulum-v1", "swing"),
    ("Pendulum-v1", "pend_vec"),
    ("Pendulum-v1", "pend_xy"),
)
NAMES = ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1")


def measured(name: str, target: str, options: argparse.Namespace) -> list[str]:
    """One pair: its row of the table."""
    settings = Settings(f"gymnasium:{name}", target, profile=options.profile, seed=options.seed, output=options.output)
    plan = run.Plan(settings, workers=options.workers, every=options.every, timeout=options.timeout)
    running, idle = run.listed(plan)
    chosen = running
    if options.sample and options.sample < len(running):
        chosen = random.Random(options.seed).sample(running, options.sample)
    began = time.perf_counter()
    results = cli.shown(plan, chosen)
    seconds = time.perf_counter() - began
    pairs = list(zip(chosen, results, strict=True))
    print(f"\n{name}: {len(running):,} mutants, {len(chosen):,} measured in {seconds:.0f} s\n", flush=True)
    print(table.text(pairs, len(idle)), flush=True)
    left = [m for m, r in pairs if r.word == "survived" and table.detectable(r)]
    again = (
        cli.shown(replace(plan, settings=replace(settings, profile="thorough"), audit=1 << 30), left) if left else []
    )
    _written(plan, pairs, idle, list(zip(left, again, strict=True)), options.output, name)
    told = table.summary(pairs)
    killed, rest = table.killed(results), len(left) - sum(r.word == "killed" for r in again)
    return [
        f"{name}, {target}" if options.styles else name, f"{len(chosen):,} of {len(running):,}",
        f"{told['broken'] + told['hung']}", f"{told['equivalent']}",
        f"{told['illegal_only'] + told['unreached_only']}", str(killed),
        f"{killed.whole - rest} of {killed.whole}",
        str(table.blamed(results, 1)), str(table.blamed(results, 5)), str(table.roots(results)),
        f"{told['seconds_median']:.1f} s", f"{len(told['doubtful'])} of {told['audited']}", f"{seconds:.0f} s",
    ]  # fmt: skip


def _written(
    plan: run.Plan,
    pairs: list[tuple[Mutant, Result]],
    idle: list[Mutant],
    again: list[tuple[Mutant, Result]],
    output: str,
    name: str,
) -> None:
    told = cli.document(plan, pairs, idle, contents.package_hash(plan.settings.target))
    told["thorough"] = [{"diff": m.diff(), **r.as_json()} for m, r in again]
    where = Path(output) / "power" / f"{pair_name(plan.settings.ref, plan.settings.target)}.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(told, indent=1), encoding="utf-8")
    title = f"mutants of {plan.settings.target} ({name}), {plan.settings.profile}"
    table.plot(pairs, title, str(where.with_suffix(".png")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--styles", action="store_true", help="the ports of benchmarks/styles in gymnax's place")
    parser.add_argument("--sample", type=int, help="mutants a pair (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--every", type=int, default=4, help="each Nth mutant is asked at all levels")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a mutant counts as hung")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", default=".envequiv")
    options = parser.parse_args()
    head = (
        "pair", "measured", "do not run", "equivalent", "unreachable", "killed", "with thorough", "line first",
        "line in five", "root field", "median", "doubtful", "took",
    )  # fmt: skip
    rows = []
    sys.path.insert(0, str(Path(__file__).parent / "styles"))
    with tempfile.TemporaryDirectory() as folder:
        own = [(name, wall.target(folder) if name == wall.NAME else f"gymnax:{name}") for name in NAMES]
        for name, target in STYLES if options.styles else own:
            if not options.names or name in options.names:
                rows.append(measured(name, target, options))
    print()
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
