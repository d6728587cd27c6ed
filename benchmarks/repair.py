"""What the engine without an API mends: one-slip copies of gymnax's classic control, against Gymnasium.

    python benchmarks/repair.py [--sample N] [--seed S] [--order 1|2] [--seconds T] [--output DIR] [NAME ...]

Of each pair ``--sample`` mutants that the suite catches (drawn from the seed; those it does not catch are replaced by
others) are mended as ``envequiv-repair --engine offline`` would: the suite, groups, the engine, the gate, until green
or given up. A mutant counts as repaired if the whole suite is then EQUAL on two seeds that were not used before.
``--order 2``: two slips at once, in different lines. Prints a table in Markdown and writes one JSON report.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_envequiv.power import loading
from pytest_envequiv.power.mutants import Mutant, mutants
from repair_agent import gate
from repair_agent.budget import Budget, Limits
from repair_agent.case import Case
from repair_agent.groups import groups
from repair_agent.journal import Journal
from repair_agent.offline.engine import Offline
from repair_agent.prices import table
from repair_agent.suite import Question, Run, judged
from repair_agent.tree import guard, worktree

CLASSES = {
    "CartPole-v1": "CartPole",
    "MountainCar-v0": "MountainCar",
    "MountainCarContinuous-v0": "ContinuousMountainCar",
    "Acrobot-v1": "Acrobot",
    "Pendulum-v1": "Pendulum",
}
# gymnax's own bug, mended first: else no repair could be EQUAL.
BUG = "(1 - (position >= params.goal_position) * (velocity < 0))"
MENDED = "(1 - (position == params.min_position) * (velocity < 0))"
HELD_OUT = (1_000_003, 1_000_033)
TRIES = 3  # attempts at a group
GROUPS = 8  # groups before it is enough


@dataclass
class Repaired:
    """One broken copy and what became of it. Seconds: of the search alone, and of everything from the first report on
    to the last ruling; ``suite``: of one run of the whole suite."""

    ids: list[str]
    kinds: list[str]
    changes: list[str]
    repaired: bool = False
    same: bool = False  # the text is the original's again
    search: float = 0.0
    seconds: float = 0.0
    suite: float = 0.0
    steps: list[str] = field(default_factory=list)
    why: str = ""


def original(name: str) -> tuple[str, list[Mutant]]:
    """The text of a gymnax environment, and the mutants of what of it runs."""
    target = f"gymnax:{name}"
    file = loading.sources(target)[0]
    text = Path(file).read_text(encoding="utf-8").replace(BUG, MENDED)
    running = loading.reached(target)
    assert running is not None
    return text, [m for m in mutants(text, file) if not m.function or m.function in running[file]]


def slipped(text: str, chosen: list[Mutant]) -> str:
    """The text with all of the mutants' edits, the last first, so that places stay where they are."""
    for mutant in sorted(chosen, key=lambda m: -m.start):
        text = text[: mutant.start] + mutant.after + text[mutant.start + len(mutant.before) :]
    return text


def mend(name: str, text: str, chosen: list[Mutant], folder: Path, options: argparse.Namespace) -> Repaired | None:
    """None if the suite does not catch the slip."""
    place = folder / "user"
    place.mkdir()
    (place / "port.py").write_text(slipped(text, chosen), encoding="utf-8")
    for words in (["init", "-q"], ["add", "-A"], [*AUTHOR, "commit", "-qm", "a port with a slip"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    question = Question(f"gymnasium:{name}", f"port:{CLASSES[name]}")
    tree = worktree.open_worktree(place, ("port.py",), "port", folder / "trees")
    run = judged(question, tree.root)
    if run.green or not run.findings:
        return None
    result = Repaired(
        [m.id for m in chosen],
        [m.kind for m in chosen],
        [f"{m.before} -> {m.after}" for m in chosen],
        suite=run.seconds,
    )
    began = time.monotonic()
    run = _looped(question, tree, run, result, folder, options)
    result.seconds = round(time.monotonic() - began, 1)
    text_now = (tree.root / "port.py").read_text(encoding="utf-8")
    result.same = text_now == text
    result.repaired = run.green and all(judged(question, tree.root, seed=seed).green for seed in HELD_OUT)
    if run.green and not result.repaired:
        result.why = "not EQUAL on other seeds"
    worktree.remove(tree)
    return result


AUTHOR = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]


def _looped(
    question: Question, tree: Any, run: Run, result: Repaired, folder: Path, options: argparse.Namespace
) -> Run:
    frozen = guard.frozen(question, tree)
    budget, journal = Budget(Limits(dollars=0), table()), Journal(folder / "trajectory.jsonl")
    engine, given_up = Offline(options.seconds, options.parts), set[str]()
    for _ in range(GROUPS):
        left = [g for g in groups(run) if g.key not in given_up]
        if run.green or not left:
            break
        group = left[0]
        for number in range(TRIES):
            started = time.monotonic()
            case = Case(question, tree, group, run, budget, journal, number)
            attempt = engine.attempt(case)
            result.search += time.monotonic() - started
            ruling = gate.ruled(case, frozen) if attempt.changed else None
            said = "" if ruling is None else "accepted" if ruling.accepted else f"refused: {ruling.why}"
            result.steps.append(f"{group.key}: {attempt.why} {said}".strip())
            if ruling is None:
                given_up.add(group.key)
                break
            if ruling.accepted and ruling.run is not None:
                worktree.commit(tree, attempt.why)
                run = ruling.run
                break
            worktree.revert(tree)
        else:
            given_up.add(group.key)
    result.search = round(result.search, 1)
    result.why = "" if run.green else "; ".join(sorted(given_up))
    return run


def measured(name: str, options: argparse.Namespace) -> list[Repaired]:
    text, every = original(name)
    rng = random.Random(f"{options.seed} {name}")
    order = rng.sample(every, len(every))
    found: list[Repaired] = []
    tried = 0
    while len(found) < options.sample and len(order) >= options.order:
        chosen = [order.pop()]
        while len(chosen) < options.order and order:
            other = order.pop()
            if all(other.end_line < m.line or other.line > m.end_line for m in chosen):
                chosen.append(other)
        tried += 1
        folder = Path(tempfile.mkdtemp(prefix="envequiv-repair-"))
        try:
            result = mend(name, text, chosen, folder, options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if result is None:
            continue
        found.append(result)
        word = "mended" if result.repaired else "NOT mended"
        told = "; ".join(c.replace("\n", " ")[:70] for c in result.changes)
        print(
            f"{name} {len(found)}: {word} in {result.seconds:.0f} s ({result.search:.1f} s search): {told}", flush=True
        )
    print(f"{name}: {tried - len(found)} of {tried} were not caught, or did not open", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CLASSES)} (default: all)")
    parser.add_argument("--sample", type=int, default=12, help="caught mutants a pair (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--order", type=int, default=1, help="slips at once (default 1)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of one search (default 90)")
    parser.add_argument("--parts", type=int, default=os.cpu_count() or 1, help="processes of one search")
    parser.add_argument("--output", default=".envequiv")
    options = parser.parse_args()
    told, rows = {}, []
    for name in options.names or CLASSES:
        results = measured(name, options)
        told[name] = [asdict(r) for r in results]
        good = [r for r in results if r.repaired]
        left = Counter(k for r in results if not r.repaired for k in r.kinds)
        search, whole = (
            f"{statistics.median(v):.1f} s" if v else "-" for v in ([r.search for r in good], [r.seconds for r in good])
        )
        suite = f"{statistics.median(r.suite for r in results):.1f} s" if results else "-"
        missed = ", ".join(f"{k} {n}" for k, n in left.most_common()) or "-"
        rows.append((name, f"{len(good)} of {len(results)}", search, whole, suite, missed))
    where = Path(options.output) / "repair" / f"offline-order{options.order}-seed{options.seed}.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(told, indent=1), encoding="utf-8")
    head = ("pair", "repaired", "median search", "median, gate included", "one suite run", "kinds not repaired")
    print()
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
