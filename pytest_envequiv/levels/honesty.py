"""L1 checks of honesty: that the answers are the target's own, and the same when nobody looks.

A port may be written by someone, or something, that wants it to pass. These checks are about how it might, other than
by being the same environment. What each can and cannot see is in docs/cheats.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv.backends.isolated import IsolatedBackend
from pytest_envequiv.backends.protocol import Outcome, State
from pytest_envequiv.backends.suspect import calls_back, eager_rows, faults
from pytest_envequiv.backends.watching import Ran, borrowed, installed, watching
from pytest_envequiv.bench import Bench
from pytest_envequiv.comparison.fields import compare
from pytest_envequiv.errors import Gone, OpenError
from pytest_envequiv.levels.behaviour import beyond_rounding
from pytest_envequiv.levels.finding import said
from pytest_envequiv.pair import Pair
from pytest_envequiv.side import Side
from pytest_envequiv.stimuli.play import Rows, play
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Verdict

LANES, STEPS = 32, 24  # episodes that are begun, and steps of each
CALLING = 64  # rows that are stepped operation by operation where the program calls back into Python
MOST = 256  # rows of each source of L2 that are asked again
SOURCES = ("play", "boundary", "limit")
WAITS = "L1-honest-unwatched"  # for a process that takes seconds to load: it comes last of all levels


def checks(pair: Pair) -> list[Check]:
    suspect, found = pair.suspect, ["judge"]
    if pair.target.spec.kind != "process":
        found.append("own_code")
    if suspect.own is not None:
        found.append("outside")
    if not pair.target.compiled and pair.target.spec.kind != "process":
        found.append("arrays")
    if _elsewhere_too(pair):
        found.append("unwatched")
    return [Check(f"L1-honest-{name}", "L1", "honest", name) for name in found]


def _elsewhere_too(pair: Pair) -> bool:
    """Whether the target can be opened where nothing shows that it is judged, and answers the same there."""
    return pair.suspect.named and not pair.suspect.foreign and pair.target.spec.draws != "none"


def begin(pair: Pair) -> None:
    """What ``unwatched`` has to wait for otherwise."""
    if _elsewhere_too(pair):
        pair.suspect.begin_elsewhere()


def honest(bench: Bench, check: Check) -> Verdict:
    return CHECKS[check.field](bench, check)


def judge(bench: Bench, check: Check) -> Verdict:
    """Whether something the judge relies on was replaced (``judge.py`` says so of every check, if it was)."""
    far = bench.pair.suspect.isolated
    if far is not None:
        replaced = far.replaced()
        text = f"the target replaced {replaced} in its own process"
        return said(check, DIFFERENT, text) if replaced else said(check, EQUAL, "nothing we use was replaced")
    return said(check, EQUAL, "nothing the judge relies on was replaced")


# -- whose code it is ------------------------------------------------------------------------------------------------


def own_code(bench: Bench, check: Check) -> Verdict:
    """Whether the target runs the code that is the reference."""
    pair = bench.pair
    reference, _, _ = bench.once("ran of ref", lambda: _ran(bench, pair.ref))
    target, disturbed, apart = bench.once("ran of target", lambda: _ran(bench, pair.target))
    suspect = pair.suspect
    own = None if suspect.own is None else str(suspect.own)
    found = borrowed(reference, target, own)
    opening = [place for place in borrowed(reference, suspect.opening, own) if place in reference.entered]
    evidence = {"functions": [f"{_short(file)}: {name}" for file, name in sorted({*found, *opening})]}
    if found or opening:
        file, name = min(found or opening, key=lambda place: "step" not in place[1])
        text = f"the target runs the reference's own code: {name} of {_short(file)}" + (
            "" if found else " (at opening)"
        )
        if _opened_twice(pair, reference, target):
            return said(check, EQUAL, "both sides are the same program, opened twice", (), evidence)
        return said(check, DIFFERENT, text, (), evidence)
    if disturbed:
        return said(check, DIFFERENT, "the target switches off Python's profiler, by which its code is looked at")
    if apart:
        return said(check, DIFFERENT, f"the target's {apart} is another while its code is looked at")
    return said(check, EQUAL, f"{len(target.everything)} functions of its own, none of the reference's", (), evidence)


def _opened_twice(pair: Pair, reference: Ran, target: Ran) -> bool:
    """Whether the reference itself was opened as the target, with nothing around it and by no name of its own."""
    if target.entered - reference.everything:
        return False
    own = pair.suspect.own
    return not pair.suspect.named or str(own) in {os.path.realpath(file) for file, _ in reference.entered}


def _ran(bench: Bench, side: Side) -> tuple[Ran, bool, str | None]:
    """The functions a side runs in resets and steps; whether it kept us from looking; and what it answers otherwise
    while we look (an output or field), or None."""
    seed = bench.settings.seed + 41
    backend: Any = side.backend
    eager = hasattr(backend, "step_as")  # operation by operation: what was compiled runs without its Python code
    few = play(side, LANES, 2, seed).rows.take(
        np.arange(CALLING if eager and calls_back(backend) else eager_rows(backend))
    )

    def answers() -> list[Outcome]:
        if not eager:
            return list(_played(side, seed))
        step = lambda: backend.step_as("eager", State(few.state.fields), few.action, few.seeds)  # noqa: E731
        reset = lambda: backend.reset_eagerly(few.seeds[:2])  # noqa: E731
        return [side.call("reset (eager)", reset), side.call("step (eager)", step)]

    usual, more = answers(), _elsewhere(bench, side)
    with _looking(side) as seen:
        watched = answers()
        for state, rows, ours in more:
            bench.pair.target_step(state, rows.action, rows.seeds, ours.draws)
    apart = next(filter(None, (_other(a, b) for a, b in zip(usual, watched, strict=True))), None)
    return seen.ran, seen.disturbed, None if side.spec.draws == "none" else apart


def _played(side: Side, seed: int) -> tuple[Outcome, Outcome]:
    """The outcomes of a few resets, and of steps from there."""
    episodes = play(side, LANES, STEPS, seed)
    return episodes.resets, episodes.outcome


def _other(a: Outcome, b: Outcome) -> str | None:
    """The first output or field of two answers to the same questions that rounding does not explain, or None."""
    return "number of steps" if len(a.state) != len(b.state) else beyond_rounding(a, b)


def _elsewhere(bench: Bench, side: Side) -> list[tuple[State, Rows, Outcome]]:
    """Rows of L2 as the target takes them: they are elsewhere than its first steps. None where each is slow."""
    pair = bench.pair
    if side is not pair.target or hasattr(side.backend, "step_as") or not pair.injectable():
        return []
    steps = [step for step in map(bench.step, SOURCES) if step is not None]
    chosen = [(step, _evenly(len(step.rows))) for step in steps]
    return [(pair.inject(step.rows.take(some)), step.rows.take(some), step.ours.take(some)) for step, some in chosen]


class _Seen:
    """What was seen by ``_looking``."""

    ran, disturbed = Ran(), False


@contextmanager
def _looking(side: Side) -> Iterator[_Seen]:
    """Notes which functions a side runs, here or in a process of its own."""
    seen = _Seen()
    if isinstance(side.backend, IsolatedBackend):
        side.backend.watch(True)
        try:
            yield seen
        finally:
            seen.ran, seen.disturbed = side.backend.watch(False), side.backend.disturbed
        return
    with watching() as watch:
        yield seen
    seen.ran, seen.disturbed = watch.ran, watch.disturbed


def _short(file: str) -> str:
    """A file without the folders of this machine."""
    return installed(file) or Path(file).name


# -- the same when nobody looks --------------------------------------------------------------------------------------


def unwatched(bench: Bench, check: Check) -> Verdict:
    """The same questions to the same target, in a process in which nothing shows that it is judged."""
    pair = bench.pair
    try:
        room = pair.suspect.elsewhere()
    except OpenError as error:
        return said(check, DIFFERENT, f"the target does not open where it cannot see that it is judged: {error}")
    other = Side("target", room)
    try:
        apart, transitions = _apart(bench, other)
    except Gone as error:
        word = INCONCLUSIVE if error.silent else DIFFERENT
        return said(check, word, f"where it cannot see that it is judged, {error}")
    finally:
        other.close()
    evidence = {"transitions": transitions}
    if apart:
        text = f"the target behaves otherwise where it cannot see that it is judged: {apart}"
        return said(check, DIFFERENT, text, (), evidence)
    return said(check, EQUAL, "the same in a process in which nothing shows that it is judged", (), evidence)


def _apart(bench: Bench, other: Side) -> tuple[str | None, int]:
    """What another process with the same target answers otherwise, and how many transitions were looked at."""
    pair, seed = bench.pair, bench.settings.seed + 43
    here = play(pair.target, LANES, STEPS, seed)
    total = len(here.rows)
    if pair.target.spec.state == "fields":  # each step from a state as it is read: histories may drift apart
        rows, begun = here.rows, other.reset(here.reset_seeds)
        asked = (State(rows.state.fields), rows.action, rows.seeds)
        answers = pair.target.step(*asked), other.step(*asked)
    else:
        begun, then = _played(other, seed)
        answers = here.outcome, then
    for when, a, b in (("after a reset", here.resets, begun), ("after a step", *answers)):
        if apart := _other(a, b):
            return f"{apart} {when}", total
    if not pair.injectable() or pair.step_mode == "distribution":
        return None, total
    for source in SOURCES:
        step = bench.step(source)
        if step is None:
            continue
        chosen = _evenly(len(step.rows))
        few, ours = step.rows.take(chosen), step.ours.take(chosen)
        usual = compare(pair, few, ours, pair.ask(few, ours)[1])
        with pair.instead(other):
            theirs = pair.ask(few, ours)[1]
        total += len(few)
        for name, found in compare(pair, few, ours, theirs).items():
            if (found.rows != usual[name].rows).any():
                return f"{name} in one step from {source} states", total
    return None, total


def _evenly(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, MOST).astype(int))


# -- what it takes, and what it does to arrays ------------------------------------------------------------------------


def outside(bench: Bench, check: Check) -> Verdict:
    """Whether answers may come from elsewhere: other programs, the network, files that are none of its own."""
    taken = bench.pair.suspect.taken()
    for what, found in (("starts another program", taken.programs), ("uses the network", taken.network)):
        if found:
            first = " ".join(sorted(found)[0].split())[:80]
            text = f"the target {what} ({first}): what answers there cannot be judged"
            return said(check, INCONCLUSIVE, text, (), {"found": sorted(found)})
    if taken.files:
        file = sorted(taken.files)[0]
        text = f"the target reads {Path(file).name}, which is not in its package: it may hold answers"
        return said(check, INCONCLUSIVE, text, (), {"found": sorted(map(os.path.basename, taken.files))})
    return said(check, EQUAL, "nothing but its own files")


def arrays(bench: Bench, check: Check) -> Verdict:
    """Whether what it returns stays as it was returned."""
    pair = bench.pair
    ours, theirs = (side.call("step", lambda side=side: faults(side.backend)) for side in (pair.ref, pair.target))
    only = [text for kind, text in theirs.items() if kind not in ours]
    if only:
        return said(check, DIFFERENT, f"the target {only[0]}")
    notes = tuple(f"both sides: it {text}" for kind, text in theirs.items() if kind in ours)
    return said(check, EQUAL, "what is returned stays as it was", notes)


CHECKS: dict[str, Callable[[Bench, Check], Verdict]] = {
    "judge": judge,
    "own_code": own_code,
    "outside": outside,
    "arrays": arrays,
    "unwatched": unwatched,
}
