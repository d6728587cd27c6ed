"""What rounding does to the original: how far its results go where its float inputs are pushed a little.

Zero is never pushed: it is not the result of rounding. Nor are fields that only ever hold whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_envequiv.backends.protocol import MASK
from pytest_envequiv.power.evidence import actions, over, size_of, take
from pytest_envequiv.power.programs import Programs, Rows, run

PUSHES = 32  # of each row that is looked at closely


def pushed(programs: Programs, what: str, rows: Rows, ulps: int, still: set[str], seed: int) -> Rows:
    """The results (B * PUSHES, ...) of a program with its float inputs pushed by 1 to ``ulps`` units in the last place,
    each element its own way; the first two pushes of a row go all the way down and up. ``still``: fields not pushed."""
    rng = np.random.default_rng([seed, 3])
    count = len(rows["seed"])
    many = {name: np.repeat(value, PUSHES, 0) for name, value in rows.items()}
    for name, value in many.items():
        if value.dtype.kind != "f" or name in still:
            continue
        size = np.exp(rng.uniform(0, np.log(ulps), value.shape)).round()
        way = rng.choice([-1, 1], value.shape)
        for i, all_the_way in enumerate((-1, 1)):
            way.reshape(count, PUSHES, -1)[:, i], size.reshape(count, PUSHES, -1)[:, i] = all_the_way, ulps
        far = value + way * size * np.where(value == 0, 0, np.spacing(np.abs(value)))
        many[name] = far.astype(value.dtype)
    return run(programs.compiled(what), many, 1 << 10)


LANES, COPIES, STEPS = 128, 3, 300


@dataclass(frozen=True)
class Track:
    """One step of LANES free-running episodes.

    rows      what went in: actions and seeds are for others to run along with
    expected  what came out
    spread    how far the copies that are pushed at every step are from it, by field
    together  bool[LANES]: the episode goes on, and the copies agree on all that is exact and nearly on the rest
    """

    rows: Rows
    expected: Rows
    spread: Rows
    together: np.ndarray


def tracks(programs: Programs, resets: Rows, still: set[str], seed: int) -> list[Track]:
    """Episodes of the original from its own resets, each beside COPIES of itself whose floats are pushed by one unit in
    the last place at every step, but those of the fields ``still``."""
    rng = np.random.default_rng([seed, 6])
    step, count = programs.compiled("step"), LANES * (1 + COPIES)
    results = {name: np.repeat(value[:LANES], 1 + COPIES, 0) for name, value in resets.items()}
    together, found = np.ones(LANES, bool), []
    unit = rng.random((LANES, size_of(programs.functional.action)), np.float32)
    limit = programs.functional.time_limit
    for _ in range(min(STEPS, limit + 1 if limit else STEPS)):
        unit = np.where(rng.random((LANES, 1)) < 0.8, unit, np.round(1.4 * rng.random(unit.shape, np.float32) - 0.2, 1))
        mask = results[MASK][:: 1 + COPIES] if MASK in results else None
        rows = {name: results[name].copy() for name in programs.names}
        for name, value in rows.items():
            if value.dtype.kind == "f" and name not in still:
                way = rng.choice([-1, 1], value.shape)
                way[:: 1 + COPIES] = 0
                value += (way * np.spacing(np.abs(value)) * (value != 0)).astype(value.dtype)
        chosen = actions(unit.clip(0, 1), programs.functional.action, mask)
        rows |= {name: np.repeat(np.asarray(value), 1 + COPIES, 0) for name, value in chosen.items()}
        rows["seed"] = np.repeat(rng.integers(0, 2**31, LANES).astype(np.uint32), 1 + COPIES)
        results = step(rows)
        spread = {}
        for name, value in results.items():
            lanes = value.reshape(LANES, 1 + COPIES, -1)
            far = np.abs(lanes[:, 1:].astype(float) - lanes[:, :1].astype(float)).max(1)
            spread[name] = far.reshape(LANES, *value.shape[1:])
            if name not in programs.opaque:
                large = np.abs(lanes[:, 0].astype(float)) + 1e-6
                together &= ~((far > 1e-3 * large) if value.dtype.kind == "f" else far != 0).any(1)
        only = take(rows, np.arange(0, count, 1 + COPIES)), take(results, np.arange(0, count, 1 + COPIES))
        found.append(Track(*only, spread, together.copy()))
        together &= ~over(only[1])
        if not together.any():
            break
    return found
