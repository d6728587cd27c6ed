"""Comparing one step field by field: exact for whole numbers, calibrated for floats.

A float error is divided by how far the reference's own output moves when its inputs move by one unit in the last
place; up to ``ratio`` (64) of that is rounding. The floor of that spread is eps times the field's range, and the
reference is asked for more only where the floor does not explain an error. A whole number that differs counts
unless the reference's own answer flips within those ``ratio`` units: such a row is a tie and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import hadamard

from pytest_envequiv.backends.protocol import TERMINATED, Outcome, Tape
from pytest_envequiv.contract import Tolerance
from pytest_envequiv.errors import BackendError
from pytest_envequiv.pair import Field, Pair
from pytest_envequiv.stimuli.play import Rows

MOST_CALIBRATED = 1024  # rows for which the reference is asked how far rounding may carry it


@dataclass(frozen=True)
class Found:
    """How one field compared over B rows.

    expected, actual   (B, elements)
    error, tolerance   float (B, elements); for exact fields 0 or 1 against 0
    wrong              bool (B, elements): differences that rounding does not explain
    ties               bool (B,): exact differences at a rounding boundary of the reference
    unsure             bool (B,): errors that were not calibrated: the state cannot be pushed, or they are too many
    """

    field: Field
    expected: np.ndarray
    actual: np.ndarray
    error: np.ndarray
    tolerance: np.ndarray
    wrong: np.ndarray
    ties: np.ndarray
    unsure: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """bool[B]: rows that differ."""
        return np.asarray(self.wrong.any(1))

    @property
    def worst(self) -> float:
        """The largest error as a multiple of its tolerance, among rows that do not differ."""
        with np.errstate(all="ignore"):
            share = np.where(self.wrong, 0, self.error / np.where(self.tolerance > 0, self.tolerance, 1))
        return float(np.nanmax(share, initial=0.0))

    def why(self, tolerance: Tolerance) -> str:
        """Where the tolerance comes from, for a person."""
        if self.field.exact:
            return "exact: whole numbers, flags and masks must be the same"
        text = (
            f"{tolerance.ratio:g} times what one unit in the last place (eps {self.field.eps:.2g}) moves the "
            "reference here, at least eps times the field's range"
        )
        return text + (
            f"; contract: atol {tolerance.atol:g}, rtol {tolerance.rtol:g}" if tolerance.atol or tolerance.rtol else ""
        )


Values = Callable[[Outcome], np.ndarray]


def compare(pair: Pair, rows: Rows, ours: Outcome, theirs: Outcome) -> dict[str, Found]:
    """Every field of the pair over the rows of one step. Keys are field names."""
    first = {f.name: first_look(pair, f, rows, ours, theirs) for f in pair.fields}
    # The reference is asked about the worst rows first, in case there are too many to ask about all.
    share = np.zeros(len(rows))
    for error, bound, *_ in first.values():
        with np.errstate(all="ignore"):
            over = np.where(error > bound, error / np.where(bound > 0, bound, 1e-300), 0.0)
        share = np.maximum(share, over.max(1))
    suspects = np.argsort(-share, kind="stable")[: int((share > 0).sum())]
    calibration = calibrate(pair, rows, ours, np.sort(suspects[:MOST_CALIBRATED]))
    found = {f.name: _judged(pair, f, first[f.name], calibration) for f in pair.fields}
    rest = suspects[MOST_CALIBRATED:]
    if calibration is None or not len(rest) or any(f.wrong.any() for f in found.values()):
        return found
    # The worst rows are explained. The rest are asked about too: all by a few pushes, those left over by as many.
    soon = calibrate(pair, rows, ours, np.sort(rest), hasty=True)
    left = np.zeros(len(rows), bool)
    for field in pair.fields:
        left |= _judged(pair, field, first[field.name], _both(calibration, soon)).rows
    late = calibrate(pair, rows, ours, np.flatnonzero(left)[:MOST_CALIBRATED])
    return {f.name: _judged(pair, f, first[f.name], _both(calibration, soon, late), left) for f in pair.fields}


def terminated(outcome: Outcome) -> np.ndarray:
    """bool[B]: rows that ended by their own doing. What was only cut off still has a state like any other."""
    return np.asarray(outcome.outputs.get(TERMINATED, outcome.done), bool)


def counted(pair: Pair, field: Field, ours: Outcome, theirs: Outcome) -> np.ndarray:
    """bool[B]: rows in which the field is compared: where the episode is over, some fields are nobody's business."""
    over = terminated(ours) if field.role == "state" else ours.done
    if pair.begins_anew:
        over = ours.done | theirs.done
    return ~over if field.live_only else np.ones(len(ours.state), bool)


def first_look(pair: Pair, field: Field, rows: Rows, ours: Outcome, theirs: Outcome) -> tuple[np.ndarray, ...]:
    """(error, floor tolerance, expected, actual); rows in which the field does not count have no error."""
    expected, actual = pair.values(field, ours, theirs, rows.clock)
    counts = counted(pair, field, ours, theirs)
    if field.exact:
        error = (expected != actual).astype(float)
        bound = np.zeros_like(error)
    else:
        x, y = expected.astype(float), actual.astype(float)
        with np.errstate(all="ignore"):
            error = np.abs(x - y)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        error = np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf))
        tolerance = pair.contract.tolerance(field.name)
        size = np.maximum(field.scale, np.where(np.isfinite(x), np.abs(x), 0))
        bound = tolerance.ratio * field.eps * size + tolerance.atol + tolerance.rtol * np.abs(np.nan_to_num(x))
    return np.where(counts[:, None], error, 0.0), bound, expected, actual


@dataclass(frozen=True)
class Calibration:
    """What the reference's outputs did when the inputs of the rows ``chosen`` were pushed.

    spread   field -> (n, elements): of floats how far they moved, of whole numbers whether they flipped. In units of
             one push of one ulp: what 64 ulp do is divided by 64, so that a jump within that distance is part of it
    """

    chosen: np.ndarray
    spread: dict[str, np.ndarray]


def calibrate(pair: Pair, rows: Rows, ours: Outcome, chosen: np.ndarray, hasty: bool = False) -> Calibration | None:
    """Push the inputs of the ``chosen`` rows of the reference, which led to ``ours``; None if it cannot be done."""
    if pair.ref.spec.state != "fields":
        return None
    if not len(chosen):
        return Calibration(chosen, {})
    few, known = rows.take(chosen), ours.take(chosen)
    tape = known.draws if pair.step_mode == "tape" and known.draws else None
    try:
        return Calibration(chosen, _spread(pair, few, tape, hasty))
    except BackendError:
        if tape is None:
            raise
        # A pushed row may take another branch, and ask for a draw that was not made: all rows draw anew, alike.
        return Calibration(chosen, _spread(pair, few, None, hasty))


def _spread(pair: Pair, few: Rows, tape: Tape | None, hasty: bool) -> dict[str, np.ndarray]:
    base = pair.ref.step(few.state.edited(), few.action, few.seeds, tape)
    reach = max((pair.contract.tolerance(f.name).ratio for f in pair.fields), default=64.0)
    patterns = 2 * len(_patterns(few))
    near, far = range(0, patterns, 2), range(patterns)  # far pushes go both ways, for thresholds
    if hasty:
        return _moved(pair, few, base, tape, reach, range(2))
    slope = _moved(pair, few, base, tape, 1.0, near)
    jump = _moved(pair, few, base, tape, reach, far)
    # What is beyond a jump has its own rounding: an angle that is wrapped lands on the other side, and not at its edge.
    beyond = {name: np.where(jump[name] > 2 * slope[name], slope[name], 0.0) for name in jump}
    return {name: np.maximum(slope[name], jump[name]) + beyond[name] for name in jump}


def _moved(
    pair: Pair, few: Rows, base: Outcome, tape: Tape | None, distance: float, numbers: Iterable[int]
) -> dict[str, np.ndarray]:
    """How far each field moves at most if the inputs are pushed by ``distance`` units, divided by that."""
    found: dict[str, np.ndarray] = {}
    for push in numbers:
        moved = pushed(pair, few, distance, push)
        outcome = pair.ref.step(moved.state, moved.action, moved.seeds, tape)
        for field in pair.fields:
            x, y = _reference(pair, field, base, few), _reference(pair, field, outcome, few)
            if field.exact:
                change = (x != y).astype(float)
            else:
                with np.errstate(all="ignore"):
                    change = np.abs(x.astype(float) - y.astype(float)) / distance
                change = np.where(np.isnan(change), np.inf, change)
                change[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
            found[field.name] = np.maximum(found.get(field.name, 0.0), change)
    return found


def _both(*parts: Calibration | None) -> Calibration:
    """Several calibrations as one; rows that are in two keep the larger spread."""
    known = [p for p in parts if p is not None and len(p.chosen)]
    chosen = np.unique(np.concatenate([p.chosen for p in known]))
    spread = {}
    for name, example in known[0].spread.items():
        spread[name] = np.zeros((len(chosen), example.shape[1]))
        for part in known:
            at = np.searchsorted(chosen, part.chosen)
            spread[name][at] = np.maximum(spread[name][at], part.spread[name])
    return Calibration(chosen, spread)


def _reference(pair: Pair, field: Field, outcome: Outcome, rows: Rows) -> np.ndarray:
    return pair.reference_values(field, outcome, rows.clock)


def _patterns(rows: Rows) -> np.ndarray:
    """Directions in which float inputs are pushed together, one a line: (patterns, elements) of -1 and 1.

    Lines of a Hadamard matrix: whatever the inputs' influences g are, and even if most cancel, some line moves the
    output by at least the root of the sum of their squares (Parseval), which single random directions do not promise.
    """
    floats = [v for part in (rows.state.fields, rows.action) for v in part.values() if v.dtype.kind == "f"]
    elements = sum(int(np.prod(v.shape[1:], dtype=int)) for v in floats)
    size = 4 if elements <= 4 else 8
    return hadamard(size).astype(float)[:, np.arange(max(elements, 1)) % size]


def pushed(pair: Pair, rows: Rows, ulps: float, number: int, noise: bool = False) -> Rows:
    """The rows with every float input of the reference moved by ``ulps`` units in the last place, up or down.

    The unit is that of the coarsest precision either side keeps its state in. Directions are those of pattern
    ``number // 2``, reversed if ``number`` is odd; or, as ``noise``, random for each row and element.
    """
    floats = [f for f in pair.fields if not f.exact]
    kept = [f.eps for f in floats if f.role == "state"] or [f.eps for f in floats]
    eps = max(kept, default=float(np.finfo(np.float32).eps))
    patterns = _patterns(rows)
    signs = patterns[number // 2 % len(patterns)] * (1.0 - 2.0 * (number % 2))
    rng = np.random.default_rng([number, 31])
    used = 0

    def move(value: np.ndarray) -> np.ndarray:
        nonlocal used
        if value.dtype.kind != "f":
            return value
        width = int(np.prod(value.shape[1:], dtype=int))
        sign = rng.choice([-1.0, 1.0], value.shape) if noise else signs[used : used + width].reshape(value.shape[1:])
        used += width
        moved = value.astype(float) * (1 + sign * ulps * eps)
        return moved if value.dtype == np.float64 else moved.astype(value.dtype)

    # A flag or a count that is kept as a float is exact: no rounding moves it.
    state = rows.state.edited(**{k: v if k in pair.whole else move(v) for k, v in rows.state.fields.items()})
    action = {k: _inside(move(v), pair.ref.spec.action[k]) for k, v in rows.action.items()}
    return Rows(state, rows.seen, rows.clock, action, rows.seeds, rows.episode, rows.step)


def _inside(value: np.ndarray, space: object) -> np.ndarray:
    return np.clip(value, space.low, space.high).astype(value.dtype) if value.dtype.kind == "f" else value  # type: ignore[attr-defined]


def _judged(
    pair: Pair,
    field: Field,
    first: tuple[np.ndarray, ...],
    calibration: Calibration | None,
    hasty: np.ndarray | None = None,
) -> Found:
    """``hasty``: rows that two pushes did not explain; they differ only if all pushes were tried on them."""
    error, bound, expected, actual = first
    bound = bound.copy()
    suspect = error > bound
    ties = np.zeros(len(error), bool)
    unsure: np.ndarray = np.zeros(len(error), bool)
    if calibration is None:
        # Without a calibration only what no rounding could do counts; the rest is unknown.
        gross = np.isinf(error) | (error > 1e-2 * np.maximum(field.scale, 1e-12)) if not field.exact else suspect
        unsure = np.asarray((suspect & ~gross).any(1))
        suspect &= gross
    elif field.name in calibration.spread:
        chosen, spread = calibration.chosen, calibration.spread[field.name]
        if field.exact:
            flipped = (spread > 0) & suspect[chosen]
            ties[chosen] = flipped.any(1)
            suspect[chosen] &= ~(spread > 0)
        else:
            # Both, not the larger: a jump at a threshold is all of the spread, and still has its own rounding.
            bound[chosen] += pair.contract.tolerance(field.name).ratio * spread
            suspect[chosen] = error[chosen] > bound[chosen]
        # Rows beyond those calibrated are neither convicted nor cleared.
        beyond = np.ones(len(error), bool)
        beyond[chosen] = False
        if hasty is not None:
            beyond[np.flatnonzero(hasty)[MOST_CALIBRATED:]] = True
        unsure = np.asarray(np.logical_and(suspect.any(1), beyond), bool)
        suspect[beyond] = False
    return Found(field, expected, actual, error, bound, suspect, ties, unsure)
