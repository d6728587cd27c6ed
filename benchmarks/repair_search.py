"""Of the slips that benchmarks/repair.py seeds, how many the search alone undoes: no pytest, no gate, one process.

    python benchmarks/repair_search.py [--sample N] [--seed S] [--seconds T] [--minutes M] [NAME ...]

A tenth of the work of benchmarks/repair.py, to see where the engine without an API stands. Each mutant that the checks
of L1 to L3 catch (those of honesty are left out) is searched for with what they blame. What is found counts as

    same     the original's syntax tree again: it is EQUAL wherever the original is
    other    another edit with which all saved transitions agree: it may be as good, which the gate would say
    half     an edit after which other fields still differ: another search would follow
    none     nothing within --seconds of computing time

Seconds are computing time, of one process that knows the reference's answers to earlier questions: not what a person
waits. Prints a line a mutant and a table in Markdown.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import linecache
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
from repair import PORTS, Port, original, slipped

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.remembering import remembering
from pytest_envequiv.judge import Judge
from pytest_envequiv.power.mutants import Mutant
from pytest_envequiv.verdict import EQUAL, LEVELS, Settings
from repair_agent.budget import Budget, Limits
from repair_agent.case import Case
from repair_agent.findings import OPEN, Finding, Run
from repair_agent.groups import groups
from repair_agent.journal import Journal
from repair_agent.offline import engine, screening
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.tree.worktree import Worktree

SOON = engine.SOON  # of the time, after which half a repair is good enough: as the engine has it


@dataclass(frozen=True)
class Searched:
    """One mutant: what was found (a word of the module's text), after how many candidates and seconds, and where."""

    mutant: Mutant
    word: str
    number: int
    seconds: float
    group: str
    change: str


class Enough(Exception):
    """What was found will do."""


@cache
def reference(name: str) -> Any:
    return remembering(name, {})


def findings(judge: Judge) -> dict[str, Finding]:
    """What the checks say; those of L3 where the others are all EQUAL."""
    found: dict[str, Finding] = {}
    for level in LEVELS[:3]:
        if level == "L3" and any(finding.word != EQUAL for finding in found.values()):
            break
        for check in judge.checks:
            if check.level == level and check.subject != "honest":
                said = judge.run(check.id)
                blame = tuple(said.evidence.get("blame", ()))
                about = (f"envequiv::{check.id}", check.id, level, check.subject, check.field)
                found[check.id] = Finding(*about, said.word, said.summary, said.follows, None, blame)
    return found


def judged(question: Question, ref: Any) -> Run:
    """What the checks say of the port as it lies on disk, in this process."""
    try:
        target = open_backend(question.target, {}, ref.spec)
        with tempfile.TemporaryDirectory() as output:
            settings = Settings(question.ref, question.target, levels=LEVELS[:3], output=output)
            judge = Judge(settings, ref=ref, target=target, shrink=False)
            found = findings(judge)
            order = (judge.describe().get("dataflow") or {}).get("order", ())
    except Exception as error:
        shut = Finding(f"envequiv::{OPEN}", OPEN, "L1", "open", "pair", "DIFFERENT", str(error))
        return Run({OPEN: shut}, (OPEN,), exit=1)
    return Run(found, tuple(found), tuple(order))


def searched(port: Port, text: str, mutant: Mutant, folder: Path, ref: Any, seconds: float) -> Searched | None:
    """None if the checks do not catch the slip."""
    placed(port, slipped(text, [mutant]), folder)
    question = Question(port.ref, port.target)
    run = judged(question, ref)
    if all(finding.word == EQUAL for finding in run.findings.values()):
        return None
    group, tree = groups(run)[0], Worktree(folder, folder, "", "", (port.file,), folder)
    case = Case(question, tree, group, run, Budget(Limits(dollars=0), table()), Journal(folder / "trajectory.jsonl"))
    job = screening.Job.from_json(engine._job(case, [port.file], [], 1, 1e6))
    began, found, at = time.process_time(), list[dict[str, Any]](), [0]

    def tell(kind: str, **values: Any) -> None:
        at[0] = max(at[0], values.get("number", 0) % (1 << 30))
        found.extend([values] if kind == "found" else [])
        spent = time.process_time() - began
        if (kind == "found" and values["clean"] and not values["strays"]) or spent > (SOON if found else 1) * seconds:
            raise Enough

    with suppress(Enough), tempfile.TemporaryDirectory() as scratch:
        screening.searched(job, 0, Path(scratch), tell)
    spent = round(time.process_time() - began, 1)
    best = min(found, key=lambda f: (not f["clean"], f["strays"], f["number"]), default=None)
    if best is None:
        return Searched(mutant, "none", at[0] + 1, spent, group.key, "")
    same = ast.dump(ast.parse(best["text"])) == ast.dump(ast.parse(text))
    word = "same" if same else "other" if best["clean"] else "half"
    return Searched(mutant, word, best["number"] + 1, spent, group.key, best["change"])


def placed(port: Port, text: str, folder: Path) -> None:
    """The port with this text on disk, and nothing of an earlier one in memory."""
    shutil.rmtree(folder, ignore_errors=True)
    for file, written in (*port.beside, (port.file, text)):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(written, encoding="utf-8")
    top = port.target.partition(":")[0]
    for module in [m for m in sys.modules if m.split(".")[0] == top]:
        del sys.modules[module]
    importlib.invalidate_caches()
    linecache.clearcache()


def measured(name: str, folder: Path, options: argparse.Namespace) -> Iterator[Searched]:
    text, every = original(PORTS[name])
    order = random.Random(f"{options.seed} {name}").sample(every, len(every))
    ref = reference(PORTS[name].ref)
    found = tried = 0
    while found < options.sample and order:
        tried += 1
        result = searched(PORTS[name], text, order.pop(), folder, ref, options.seconds)
        if result is not None:
            found += 1
            slip = f"{result.mutant.before} -> {result.mutant.after}".replace("\n", " ")[:90]
            told = f"candidate {result.number}, {result.seconds:g} s, {result.group}"
            change = "" if result.word == "same" else f" | {result.change}"
            print(f"{name} {found}: {result.word} ({told}): {slip}{change}", flush=True)
            yield result
    print(f"{name}: {tried - found} of {tried} were not caught", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PORTS)} (default: all)")
    parser.add_argument("--sample", type=int, default=12, help="caught mutants a pair (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="computing time of one search (default 60)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no other round is begun")
    options = parser.parse_args()
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    signal.signal(signal.SIGALRM, screening._slow)
    screening.remembering = lambda name, options, folder: reference(name)  # the search's questions are asked once, too
    folder = Path(tempfile.mkdtemp(prefix="envequiv-search-"))
    sys.path.insert(0, str(folder))
    began, told, end = datetime.now(), dict[str, list[Searched]](), time.monotonic() + 60 * options.minutes
    left = {name: measured(name, folder, options) for name in options.names or PORTS}
    try:
        while left and time.monotonic() < end:
            for name, results in list(left.items()):
                result = next(results, None)
                if result is None:
                    del left[name]
                else:
                    told.setdefault(name, []).append(result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    load = " ".join(f"{number:.1f}" for number in os.getloadavg())
    print(f"\n{began:%Y-%m-%d %H:%M} to {datetime.now():%H:%M}, load {load}\n")
    show(told)


def show(told: dict[str, list[Searched]]) -> None:
    words = ("same", "other", "half", "none")
    head = ("pair", "slips", *words, "median seconds", "kinds of none")
    for row in (head, ["---"] * len(head)):
        print(f"| {' | '.join(row)} |")
    for name, results in (*told.items(), ("all", [r for v in told.values() for r in v])):
        counted = Counter(r.word for r in results)
        seconds = [r.seconds for r in results if r.word in ("same", "other")]
        median = f"{statistics.median(seconds):.0f}" if seconds else "-"
        missed = Counter(r.mutant.kind for r in results if r.word == "none")
        kinds = ", ".join(f"{kind} {count}" for kind, count in missed.most_common()) or "-"
        print(f"| {' | '.join((name, str(len(results)), *(str(counted[w]) for w in words), median, kinds))} |")


if __name__ == "__main__":
    main()
