"""Beginnings with shared draws: both sides reset alike, and compared field by field as a step is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.fields import Found, first_look
from pytest_envequiv.contract import RATIO
from pytest_envequiv.pair import Field


def reset_fields(bench: Bench) -> list[Field]:
    return [
        f
        for f in bench.pair.fields
        if f.role == "state"
        or (f.name.startswith("observation") and not bench.pair.unseen)
        or f.name in ("mask", "agent")
    ]


def _errors(bench: Bench, field: Field) -> tuple[np.ndarray, ...]:
    """(error, tolerance, expected, actual), each (B, elements), of beginnings whose draws were shared.

    As for a step, a float error is measured by how far the reference's own beginnings move, here when its draws do.
    """
    pair, begun = bench.pair, bench.begun
    error, bound, x, y = first_look(pair, field, begun.rows, begun.ours, begun.theirs)
    if field.role == "state" and x.dtype.kind == "f":
        error = np.where(np.isnan(x), 0.0, error)  # None in the reference until the first step
    if not (error > bound).any() or not begun.ours.draws or pair.reset_mode != "tape":
        return error, bound, x, y
    spread = bench.once("resets pushed", lambda: _pushed(bench))[field.name]
    if field.exact:
        return np.where(spread > 0, 0.0, error), bound, x, y
    return error, bound + pair.contract.tolerance(field.name).ratio * spread, x, y


def shared(bench: Bench) -> Step | None:
    """Beginnings with the same draws, compared; None where draws cannot be shared. ``found`` has the fields that a
    reset shows."""
    if bench.pair.reset_mode == "none":
        return None
    step: Step = bench.once("beginnings compared", lambda: _compared(bench))
    return step


def _compared(bench: Bench) -> Step:
    found = {}
    nothing = np.zeros(len(bench.begun.rows), bool)
    for field in reset_fields(bench):
        error, bound, x, y = _errors(bench, field)
        found[field.name] = Found(field, x, y, error, bound, error > bound, nothing, nothing)
    return replace(bench.begun, found=found)


def _pushed(bench: Bench) -> dict[str, np.ndarray]:
    """How far each field of the reference's beginnings moves when its real-valued draws are pushed, in ulp."""
    pair, begun = bench.pair, bench.begun
    fields = reset_fields(bench)
    eps = max((f.eps for f in fields if not f.exact), default=float(np.finfo(np.float32).eps))
    spread = {f.name: np.zeros(pair.reference_values(f, begun.ours, begun.rows.clock).shape) for f in fields}
    rng = np.random.default_rng(53)
    signs = [rng.choice([-1.0, 1.0], len(begun.ours.draws or ())) for _ in range(2)]
    for ulps in (1.0, RATIO):
        for sign in (signs[0], -signs[0], signs[1], -signs[1]):
            tape = tuple(
                replace(d, value=(d.value * (1 + s * ulps * eps)).astype(d.value.dtype))
                if d.value.dtype.kind == "f"
                else d
                for d, s in zip(begun.ours.draws or (), sign, strict=True)
            )
            moved = pair.ref.reset(begun.rows.seeds, tape)
            for field in fields:
                a, b = (pair.reference_values(field, o, begun.rows.clock).astype(float) for o in (begun.ours, moved))
                apart = np.nan_to_num(np.abs(a - b), posinf=np.inf) / (1.0 if field.exact else ulps)
                spread[field.name] = np.maximum(spread[field.name], apart)
    return spread
