"""What the engine without an API mends: one-slip copies of gymnax's classic control and of our Pong.

    python benchmarks/repair.py [--sample N] [--seed S] [--order 1|2] [--seconds T] [--minutes M] [NAME ...]

Of each pair ``--sample`` mutants that the suite catches (drawn from the seed; those it does not catch are replaced by
others) are mended as ``envequiv-repair --engine offline`` would: the suite, groups, the engine, the gate, until green
or given up. A mutant counts as repaired if the whole suite is then EQUAL on two seeds that were not used before; that
is asked once of one syntax tree (the original's, mostly), as the same seeds give the same verdict.
``--order 2``: two slips at once, in different lines. Prints a table in Markdown and writes one JSON report, after each
mutant anew.

Seconds are those that a person waits, on whatever else the machine had to do: the load average is told with them, and
the seconds that this program's processes computed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import wall

from pytest_envequiv.backends import loading
from pytest_envequiv.power.mutants import Mutant, mutants
from repair_agent import gate
from repair_agent.budget import Budget, Limits
from repair_agent.case import Case
from repair_agent.findings import Run
from repair_agent.groups import groups
from repair_agent.journal import Journal
from repair_agent.offline.engine import Offline
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.suite import COMPILED, judged
from repair_agent.tree import guard, worktree

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Port:
    """A pair to seed slips into. ``installed``: the name its port is found by; ``target``: that of the user's copy;
    ``file``: which file of the copy has the slips; ``beside``: its other files."""

    ref: str
    installed: str
    target: str
    file: str = "port.py"
    beside: tuple[tuple[str, str], ...] = ()


def classic(name: str, kind: str) -> Port:
    return Port(f"gymnasium:{name}", f"gymnax:{name}", f"port:{kind}")


def pong() -> Port:
    """Ours as a package of the user's, which does not know of the one it was copied from."""
    folder = ROOT / "targets" / "pong"
    init = '"""Pong in JAX."""\n\nfrom pong.port import Params, Pong, State, make\n'
    beside = {"__init__.py": init, **{n: (folder / n).read_text("utf-8") for n in ("spaces.py", "envequiv.toml")}}
    files = tuple((f"pong/{name}", text) for name, text in beside.items())
    return Port("targets.pong.reference", "targets.pong", "pong", "pong/port.py", files)


PORTS = {
    "CartPole-v1": classic("CartPole-v1", "CartPole"),
    "MountainCar-v0": classic("MountainCar-v0", "MountainCar"),
    "MountainCarContinuous-v0": classic("MountainCarContinuous-v0", "ContinuousMountainCar"),
    "Acrobot-v1": classic("Acrobot-v1", "Acrobot"),
    "Pendulum-v1": classic("Pendulum-v1", "Pendulum"),
    "Pong": pong(),
}
HELD_OUT = (1_000_003, 1_000_033)
TRIES = 3  # attempts at a group
GROUPS = 8  # groups before it is enough


@dataclass
class Repaired:
    """One broken copy and what became of it. Seconds: of the search alone, and of everything from the first report on
    to the last ruling; ``cpu``: what was computed in these; ``suite``: of the first run of the whole suite; ``load``:
    the machine's load average at the end."""

    ids: list[str]
    kinds: list[str]
    changes: list[str]
    repaired: bool = False
    same: bool = False  # the text is the original's again
    search: float = 0.0
    seconds: float = 0.0
    suite: float = 0.0
    cpu: float = 0.0
    load: float = 0.0
    steps: list[str] = field(default_factory=list)
    why: str = ""


def original(port: Port) -> tuple[str, list[Mutant]]:
    """The text of a port, and the mutants of what of it runs."""
    name = Path(port.file).name if port.beside else ""  # of a package; else the file of the module itself
    file = next(f for f in loading.sources(port.installed) if f.endswith(name))
    text = Path(file).read_text(encoding="utf-8")
    text = wall.mended(text) if wall.NAME in port.installed else text  # else no repair could be EQUAL
    package = port.installed.rpartition(":")[2]
    text = text.replace(f"from {package}.", f"from {port.target}.") if port.beside else text
    running = loading.reached(port.installed)
    assert running is not None
    return text, [m for m in mutants(text, file) if not m.function or m.function in running[file]]


def slipped(text: str, chosen: list[Mutant]) -> str:
    """The text with all of the mutants' edits, the last first, so that places stay where they are."""
    for mutant in sorted(chosen, key=lambda m: -m.start):
        text = text[: mutant.start] + mutant.after + text[mutant.start + len(mutant.before) :]
    return text


def mend(port: Port, text: str, chosen: list[Mutant], folder: Path, options: argparse.Namespace) -> Repaired | None:
    """None if the suite does not catch the slip."""
    place = folder / "user"
    for file, written in (*port.beside, (port.file, slipped(text, chosen))):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(written, encoding="utf-8")
    for words in (["init", "-q"], ["add", "-A"], [*AUTHOR, "commit", "-qm", "a port with a slip"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    # No compiled program of an earlier mutant's repair, which ends in the same text, saves this one a second.
    os.environ.update(COMPILED, JAX_COMPILATION_CACHE_DIR=str(folder / "compiled"))
    # Nor what the reference answered to another's.
    question = Question(port.ref, port.target, options=(f"--envequiv-answers={folder / 'answers'}",))
    tree = worktree.open_worktree(place, (port.file,), "port", folder / "trees")
    with contextlib.closing(Offline(options.seconds, options.parts)) as engine:
        engine.begin(question, tree.root)  # as the program does: its libraries are loaded while the suite runs
        run = judged(question, tree.root)
        if run.green or not run.findings:
            return None
        result = Repaired(
            [m.id for m in chosen],
            [m.kind for m in chosen],
            [f"{m.before} -> {m.after}" for m in chosen],
            suite=run.seconds,
        )
        began, computed = time.monotonic(), _computed()
        run = _looped(question, tree, run, result, folder, engine)
    result.seconds, result.cpu = round(time.monotonic() - began, 1), round(_computed() - computed, 1)
    result.load = round(os.getloadavg()[0], 1)
    text_now = (tree.root / port.file).read_text(encoding="utf-8")
    result.same = ast.dump(ast.parse(text_now)) == ast.dump(ast.parse(text))
    result.repaired = run.green and _equal_elsewhere(question, tree, text_now)
    if run.green and not result.repaired:
        result.why = "not EQUAL on other seeds"
    worktree.remove(tree)
    return result


def _computed() -> float:
    """Seconds that the processes which were started, and have ended, computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _equal_elsewhere(question: Question, tree: Any, text: str) -> bool:
    key = question.ref, ast.dump(ast.parse(text))
    if key not in ELSEWHERE:
        ELSEWHERE[key] = all(judged(question, tree.root, seed=seed, fresh=True).green for seed in HELD_OUT)
    return ELSEWHERE[key]


ELSEWHERE: dict[tuple[str, str], bool] = {}  # what was judged on the seeds that are held out
AUTHOR = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]


def _looped(question: Question, tree: Any, run: Run, result: Repaired, folder: Path, engine: Offline) -> Run:
    frozen = guard.frozen(question, tree)
    budget, journal = Budget(Limits(dollars=0), table()), Journal(folder / "trajectory.jsonl")
    given_up = set[str]()
    for _ in range(GROUPS):
        left = [g for g in groups(run) if g.key not in given_up]
        if run.green or not left:
            break
        group = left[0]
        for number in range(TRIES):
            started = time.monotonic()
            case = Case(question, tree, group, run, budget, journal, number)
            with gate.ready(case) as begun:
                attempt = engine.attempt(case)
                result.search += time.monotonic() - started
                ruling = gate.ruled(case, frozen, begun) if attempt.changed else None
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


def measured(name: str, options: argparse.Namespace) -> Iterator[Repaired]:
    text, every = original(PORTS[name])
    rng = random.Random(f"{options.seed} {name}")
    order = rng.sample(every, len(every))
    found = tried = 0
    while found < options.sample and len(order) >= options.order:
        chosen = [order.pop()]
        while len(chosen) < options.order and order:
            other = order.pop()
            if all(other.end_line < m.line or other.line > m.end_line for m in chosen):
                chosen.append(other)
        tried += 1
        folder = Path(tempfile.mkdtemp(prefix="envequiv-repair-"))
        try:
            result = mend(PORTS[name], text, chosen, folder, options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if result is None:
            continue
        found += 1
        word = "mended" if result.repaired else f"NOT mended ({result.why})"
        told = "; ".join(c.replace("\n", " ")[:70] for c in result.changes)
        spent = f"{result.seconds:.0f} s ({result.search:.1f} s search, {result.cpu:.0f} s computed)"
        print(f"{name} {found}: {word} in {spent}, load {result.load:g}: {told}", flush=True)
        yield result
    print(f"{name}: {tried - found} of {tried} were not caught, or did not open", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PORTS)} (default: all)")
    parser.add_argument("--sample", type=int, default=12, help="caught mutants a pair (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--order", type=int, default=1, help="slips at once (default 1)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of one search (default 90)")
    parser.add_argument("--parts", type=int, default=os.cpu_count() or 1, help="processes of one search")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no other round is begun")
    parser.add_argument("--output", default=".envequiv")
    options = parser.parse_args()
    where = Path(options.output) / "repair" / f"offline-order{options.order}-seed{options.seed}.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    began, told = f"{datetime.now():%Y-%m-%d %H:%M}", dict[str, list[Repaired]]()
    # One of each pair, then another of each: what is there when the time is over is spread over all.
    end = time.monotonic() + 60 * options.minutes
    left = {name: measured(name, options) for name in options.names or PORTS}
    try:
        while left and time.monotonic() < end:
            for name, results in list(left.items()):
                result = next(results, None)
                if result is None:
                    del left[name]
                else:
                    told.setdefault(name, []).append(result)
                    where.write_text(json.dumps({n: [asdict(r) for r in v] for n, v in told.items()}, indent=1))
    except KeyboardInterrupt:
        print("interrupted: what there is")
    print(f"\n{began} to {datetime.now():%H:%M}, {os.cpu_count()} CPUs, {options.parts} processes a search\n")
    show(told)


def show(told: dict[str, list[Repaired]]) -> None:
    """The table in Markdown. Seconds are medians of those that were mended."""
    head = ("pair", "repaired", "search", "gate included", "under 30 s", "computed", "load", "kinds not repaired")
    for row in (head, ["---"] * len(head)):
        print(f"| {' | '.join(row)} |")
    for name, results in (*told.items(), ("all", [r for v in told.values() for r in v])):
        good = [r for r in results if r.repaired]
        missed = Counter(kind for r in results if not r.repaired for kind in r.kinds)
        spent = [(r.search, r.seconds, r.cpu) for r in good]
        medians = [f"{statistics.median(v):.0f} s" for v in zip(*spent, strict=True)]
        search, whole, computed = medians or ["-"] * 3
        load = f"{statistics.median(r.load for r in results):.1f}" if results else "-"
        soon = f"{sum(r.seconds < 30 for r in good)} of {len(good)}"
        kinds = ", ".join(f"{kind} {count}" for kind, count in missed.most_common()) or "-"
        row = (name, f"{len(good)} of {len(results)}", search, whole, soon, computed, load, kinds)
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
