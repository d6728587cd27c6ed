"""How both sides can be given the same random numbers: by a tape of draws, by the same seed, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv import align, mapping
from pytest_envequiv.backends.protocol import Arrays, Outcome, State
from pytest_envequiv.errors import BackendError
from pytest_envequiv.side import Side
from pytest_envequiv.stimuli import draws as drawing
from pytest_envequiv.stimuli.play import Rows, seeds_for

if TYPE_CHECKING:  # a pair is handed in
    from pytest_envequiv.pair import Pair

TOGETHER, AS_MUCH = 0.98, 1.25  # correlation, and how much further, with which two sides make nearly the same of a draw
MOST_NUMBERS = 32  # of a reset, each of which is looked at alone


def align_resets(pair: Pair, seeds: np.ndarray, own: Outcome) -> tuple[drawing.Matching | None, str]:
    """How both sides can begin alike: "tape", "seed" or "none"; which draws are which, if they are shared, or if the
    target's are too coarse for that."""
    ours, coarse = pair.sample.resets, None
    if ours.draws is not None and own.draws is not None and any(not drawing.trivial(d) for d in ours.draws):
        match = drawing.match(ours.draws, own.draws)
        again = replace(drawing.match(drawing.regrouped(ours.draws, own.draws), own.draws), regrouped=True)
        ways = [
            way for m in (match, again) if m.links and not m.unused for way in ((m, m.by_place()) if m.moved else (m,))
        ]
        tried = [(way, pair.target.reset(seeds, pair.fed(way, ours.draws, lambda: own))) for way in ways]
        # Draws that look alike but are used in another way bring no two episodes together.
        for way, fed in tried:
            if _alike(pair, ours, fed) >= 0.5 or _same_states(pair, ours, fed):
                return way, "tape"
        for way, fed in tried:
            if way.whole and _together(pair, ours, fed) and _each_alike(pair, seeds, own, way, fed):
                return way, "tape"
        coarse = match if match.coarse else None  # so coarse that no two beginnings are alike
    return coarse, "seed" if _alike(pair, ours, own) >= align.ENOUGH else "none"


def align_steps(pair: Pair, own: Outcome, seeds: np.ndarray) -> tuple[drawing.Matching | None, str]:
    """How a step's draws are shared: "none needed", "tape", "seed" or "distribution"."""
    ours = pair.sample.outcome.draws
    rows = np.arange(len(seeds)) % pair.sample.episodes
    action = {k: v[rows] for k, v in pair.sample.rows.action.items()}
    stepped = pair.target.step(own.state, pair.target_action(action), seeds)
    theirs = stepped.draws
    drawn_ours = [d for d in ours or () if not drawing.trivial(d)]
    drawn_theirs = [d for d in theirs or () if not drawing.trivial(d)]
    if ours is not None and not drawn_ours and theirs is not None and not drawn_theirs:
        return None, "none needed"
    if ours is not None and theirs is not None and drawn_ours and drawn_theirs:
        match = drawing.match(ours, theirs)
        if match.whole:
            return match, "tape"
    if not _varies(pair.ref, pair.sample.rows) and not _varies_target(pair, own, action):
        return None, "none needed"
    same_kind = pair.ref.spec.kind == pair.target.spec.kind
    return None, "seed" if same_kind and _same_stream(pair) else "distribution"


def one_sided(pair: Pair) -> str:
    """What is said where only one side draws in a step, and it matters, though the states are known in full.

    Where the reference holds something the target has not, that may be its luck (a deck that was shuffled at the
    reset, of which the other side draws one card at a time): then distributions have to decide.
    """
    if pair.step_mode != "distribution" or not pair.map.usable or pair.sample.outcome.draws is None:
        return ""
    theirs = pair.example_outcome.draws
    if theirs is None:
        return ""
    drawn = [[d for d in draws if not drawing.trivial(d)] for draws in (pair.sample.outcome.draws, theirs)]
    if bool(drawn[0]) == bool(drawn[1]) or (drawn[1] and pair.map.unread):
        return ""
    names = ("reference", "target") if drawn[0] else ("target", "reference")
    kinds = ", ".join(f"{d.kind} at {d.site}" for d in drawn[0] or drawn[1])
    return f"only the {names[0]} draws in a step ({kinds}); the {names[1]} leaves nothing to chance"


def _varies(side: Side, rows: Rows) -> bool:
    """Whether the reference's step depends on its seed."""
    if side.spec.state == "none":
        return bool(side.spec.draws == "none")
    few = rows.take(slice(0, 64))
    first, second = (
        side.step(
            State(few.state.fields, few.state.hidden if side.spec.state == "snapshot" else None),
            few.action,
            seeds_for(n, count=len(few)),
        )
        for n in (5, 6)
    )
    return mapping.apart(first, second)


def _varies_target(pair: Pair, own: Outcome, action: Arrays) -> bool:
    if pair.target.spec.state == "none":
        return pair.target.spec.draws == "none"
    state = own.state if pair.target.spec.state == "snapshot" else State(own.state.fields)
    first, second = (
        pair.target.step(state, pair.target_action(action), seeds_for(n, count=len(state))) for n in (5, 6)
    )
    return mapping.apart(first, second)


def _same_stream(pair: Pair) -> bool:
    """Whether both sides, from the same reset seeds and step seeds, draw the same."""
    rows = pair.sample.rows.take(slice(0, len(pair.sample.reset_seeds)))
    begun_ours, begun_theirs = pair.ref.reset(pair.sample.reset_seeds), pair.target.reset(pair.sample.reset_seeds)
    ours = pair.ref.step(begun_ours.state, rows.action, rows.seeds)
    theirs = pair.target.step(begun_theirs.state, pair.target_action(rows.action), rows.seeds)
    return _alike(pair, ours, theirs) >= align.ENOUGH


def _alike(pair: Pair, ours: Outcome, theirs: Outcome) -> float:
    """The share of rows whose observations agree."""
    agree = np.ones(len(ours.state), bool)
    for a, b in _columns(pair, ours, theirs):
        agree &= np.isclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
    return float(agree.mean()) if pair.observations else 0.0


def _together(pair: Pair, ours: Outcome, theirs: Outcome) -> bool:
    """Whether all that is seen goes up and down together on both sides: they make the same of their draws, but for a
    slip in it (another scale, half precision), which could not be told from chance if each side drew for itself."""
    columns = list(_columns(pair, ours, theirs))
    return any(np.ptp(a) for a, _ in columns) and all(_in_step(a, b) for a, b in columns)


def _each_alike(pair: Pair, seeds: np.ndarray, own: Outcome, way: drawing.Matching, fed: Outcome) -> bool:
    """Whether that is so for each number drawn: with another in its place, what is seen moves by about as much. What is
    drawn in another order and counts for little would go up and down with the rest."""
    ours = pair.sample.resets
    numbers = list(drawing.numbers(ours.draws or ()))
    if len(numbers) > MOST_NUMBERS:
        return False
    for number in numbers:
        tape = drawing.turned(ours.draws or (), number)
        try:
            moved = pair.ref.reset(seeds, tape), pair.target.reset(seeds, pair.fed(way, tape, lambda: own))
        except BackendError:  # it was made for no other
            return False
        pairs = zip(_columns(pair, *moved), _columns(pair, ours, fed), strict=True)
        if not all(_in_step(a - x, b - y) for (a, b), (x, y) in pairs):
            return False
    return True


def _columns(pair: Pair, ours: Outcome, theirs: Outcome) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each number that is seen: (float[B] of the reference, of the target)."""
    for target_name, name in pair.observations.items():
        x = np.asarray(ours.outputs[name], float).reshape(len(ours.state), -1)
        y = np.asarray(theirs.outputs[target_name], float).reshape(len(ours.state), -1)
        yield from zip(x.T, y.T, strict=True)


def _in_step(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two numbers rise and fall together, by about as much; or both stay where they are."""
    if not np.ptp(a) or not np.ptp(b):
        return not np.ptp(a) and not np.ptp(b)
    return bool(np.corrcoef(a, b)[0, 1] >= TOGETHER and 1 / AS_MUCH < np.std(b) / np.std(a) < AS_MUCH)


def _same_states(pair: Pair, ours: Outcome, theirs: Outcome) -> bool:
    """Whether all numbers of the target's states that vary are found in the reference's states. What is wrong
    then is how the states are shown."""
    rows = len(ours.state)

    def varying(fields: Mapping[str, np.ndarray]) -> np.ndarray:
        columns = [np.asarray(v, float).reshape(rows, -1) for v in fields.values()]
        every = np.concatenate(columns, 1) if columns else np.zeros((rows, 0))
        return every[:, (every != every[:1]).any(0)][:, : mapping.MOST_COLUMNS]

    free = getattr(pair.target.backend, "free", {})
    mine = varying(ours.state.fields)
    wanted = varying({k: v for k, v in theirs.state.fields.items() if k not in free})
    if not mine.shape[1] or not wanted.shape[1]:
        return False
    agree = [np.isclose(mine, column[:, None], rtol=1e-4, atol=1e-5).mean(0).max() for column in wanted.T]
    return bool(min(agree) >= align.ENOUGH)
