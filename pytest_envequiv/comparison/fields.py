"""Comparing one step field by field: exact for whole numbers, calibrated for floats.

A float error is divided by how far the reference's own output moves when its inputs move by one unit in the last
place; up to ``ratio`` (64) of that is rounding. The floor of that spread is eps times the field's range, and the
reference is asked for more only where the floor does not explain an error. A whole number that differs counts
unless the reference's own answer flips within those ``ratio`` units: such a row is a tie and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_envequiv.backends.protocol import Outcome
from pytest_envequiv.contract import Tolerance
from pytest_envequiv.pair import Field, Pair
from pytest_envequiv.stimuli.play import Rows

PUSHES = 4  # perturbed copies of a row at each of the two distances
MOST_CALIBRATED = 1024  # rows for which the reference is asked how far rounding may carry it


@dataclass(frozen=True)
class Found:
    """How one field compared over B rows.

    expected, actual   (B, elements)
    error, tolerance   float (B, elements); for exact fields 0 or 1 against 0
    wrong              bool (B, elements): differences that rounding does not explain
    ties               bool (B,): exact differences at a rounding boundary of the reference
    unsure             bool (B,): errors that could not be calibrated, because no side's state can be pushed
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
    first = {f.name: _first_look(pair, f, rows, ours, theirs) for f in pair.fields}
    # The reference is asked about the worst rows first, in case there are too many to ask about all.
    share = np.zeros(len(rows))
    for error, bound, *_ in first.values():
        with np.errstate(all="ignore"):
            over = np.where(error > bound, error / np.where(bound > 0, bound, 1e-300), 0.0)
        share = np.maximum(share, over.max(1))
    suspects = np.argsort(-share, kind="stable")[: int((share > 0).sum())]
    spreads, looked = calibrate(pair, rows, np.sort(suspects[:MOST_CALIBRATED]))
    return {f.name: _judged(pair, f, first[f.name], spreads, looked) for f in pair.fields}


def _first_look(pair: Pair, field: Field, rows: Rows, ours: Outcome, theirs: Outcome) -> tuple[np.ndarray, ...]:
    """(error, floor tolerance, expected, actual); rows in which the field does not count have no error."""
    expected, actual = pair.values(field, ours, theirs, rows.clock)
    counts = ~ours.done if field.live_only else np.ones(len(rows), bool)
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


def calibrate(
    pair: Pair, rows: Rows, chosen: np.ndarray
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]] | None, np.ndarray]:
    """How far the reference's outputs move when its inputs are pushed, for the ``chosen`` rows.

    Returns field -> (chosen, spread of floats or flips of whole numbers (n, elements)), or None where the
    reference's state cannot be pushed; and the chosen rows. The spread is in units of one push of one ulp: what
    64 ulp do is divided by 64, so that a jump within that distance is part of it.
    """
    if not len(chosen):
        return {}, chosen
    if pair.ref.spec.state != "fields":
        return None, chosen
    few = rows.take(chosen)
    spread: dict[str, np.ndarray] = {}
    base = pair.ref.step(few.state.edited(), few.action, few.seeds)
    reach = max((pair.contract.tolerance(f.name).ratio for f in pair.fields), default=64.0)
    for distance in (1.0, reach):
        for push in range(PUSHES):
            moved = pushed(pair, few, distance, push)
            outcome = pair.ref.step(moved.state, moved.action, moved.seeds)
            for field in pair.fields:
                x, y = _reference(pair, field, base, few), _reference(pair, field, outcome, few)
                if field.exact:
                    change = (x != y).astype(float)
                else:
                    with np.errstate(all="ignore"):
                        change = np.abs(x.astype(float) - y.astype(float)) / distance
                    change = np.where(np.isnan(change), np.inf, change)
                    change[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
                spread[field.name] = np.maximum(spread.get(field.name, 0.0), change)
    return {name: (chosen, value) for name, value in spread.items()}, chosen


def _reference(pair: Pair, field: Field, outcome: Outcome, rows: Rows) -> np.ndarray:
    return pair.reference_values(field, outcome, rows.clock)


def pushed(pair: Pair, rows: Rows, ulps: float, number: int) -> Rows:
    """The rows with every float input of the reference moved by ``ulps`` units in the last place, up or down.

    The unit is that of the coarsest precision either side keeps its state in. Directions are fixed by ``number``.
    """
    eps = max((f.eps for f in pair.fields if not f.exact), default=float(np.finfo(np.float32).eps))
    rng = np.random.default_rng([number, 31])

    def move(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind != "f":
            return value
        sign = rng.choice([-1.0, 1.0], value.shape)
        moved = value.astype(float) * (1 + sign * ulps * eps)
        return moved if value.dtype == np.float64 else moved.astype(value.dtype)

    state = rows.state.edited(**{k: move(v) for k, v in rows.state.fields.items()})
    action = {k: _inside(move(v), pair.ref.spec.action[k]) for k, v in rows.action.items()}
    return Rows(state, rows.seen, rows.clock, action, rows.seeds, rows.episode, rows.step)


def _inside(value: np.ndarray, space: object) -> np.ndarray:
    return np.clip(value, space.low, space.high).astype(value.dtype) if value.dtype.kind == "f" else value  # type: ignore[attr-defined]


def _judged(
    pair: Pair,
    field: Field,
    first: tuple[np.ndarray, ...],
    spreads: dict[str, tuple[np.ndarray, np.ndarray]] | None,
    looked: np.ndarray,
) -> Found:
    error, bound, expected, actual = first
    bound = bound.copy()
    suspect = error > bound
    ties = np.zeros(len(error), bool)
    unsure: np.ndarray = np.zeros(len(error), bool)
    if spreads is None:
        # Without a calibration only what no rounding could do counts; the rest is unknown.
        gross = np.isinf(error) | (error > 1e-2 * np.maximum(field.scale, 1e-12)) if not field.exact else suspect
        unsure = (suspect & ~gross).any(1)
        suspect &= gross
    elif field.name in spreads:
        chosen, spread = spreads[field.name]
        if field.exact:
            flipped = (spread > 0) & suspect[chosen]
            ties[chosen] = flipped.any(1)
            suspect[chosen] &= ~(spread > 0)
        else:
            bound[chosen] = np.maximum(bound[chosen], pair.contract.tolerance(field.name).ratio * spread)
            suspect[chosen] = error[chosen] > bound[chosen]
        # Rows beyond those calibrated are neither convicted nor cleared.
        beyond = np.ones(len(error), bool)
        beyond[looked] = False
        unsure = np.logical_and(suspect.any(1), beyond)
        suspect[beyond] = False
    return Found(field, expected, actual, error, bound, suspect, ties, unsure)
