"""States to inject: near the boundaries of the fields, and the last steps before a limit. Live ones only.

A made-up state is never fed to both sides as it is. The reference is put there and stepped; if that does not end
its episode, the state it steps into is one an episode can still be in, and that is what both sides get.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv.backends.protocol import MASK, State
from pytest_envequiv.contract import holds, named_in
from pytest_envequiv.stimuli.play import Play, Rows, shown, told
from pytest_envequiv.stimuli.policies import extremes, uniform

if TYPE_CHECKING:  # a pair is handed in; nothing of it is needed to read this file
    from pytest_envequiv.pair import Pair

NEAR = (0.0, 1e-7, 1e-4, 1e-2, 3e-2, 1e-1, 2e-1)  # distances from a boundary, as a share of the field's range
EDGE_TRIES, EDGE_STAGES = 1_024, 20  # states tried for an edge; halvings on the way to it
DEPTH = 3  # steps from a made-up state within which states are looked at
PLACED = 256  # states of play in which the rule is asked about a whole number
WIDER = 1.5  # how far beyond what play saw a field without bounds is pushed


def fresh_actions(pair: Pair, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Half uniform, half corners."""
    found = {}
    for name, space in pair.ref.spec.action.items():
        flat, corner = uniform(space, count, rng), extremes(space, count, rng)
        found[name] = np.where((rng.random(count) < 0.5).reshape(-1, *[1] * (flat.ndim - 1)), flat, corner)
    return found


def legal(actions: dict[str, np.ndarray], rows: Rows, pair: Pair, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Illegal actions replaced by legal ones, where there is a mask to keep to."""
    mask = told(pair.ref, rows.seen).get(MASK)
    space = pair.ref.spec.action.get("action")
    if mask is None or space is None or space.shape:
        return actions
    instead = np.where(mask, rng.random(mask.shape), -1).argmax(1) + int(space.low)
    index = np.clip(actions["action"] - int(space.low), 0, mask.shape[1] - 1).astype(int)
    fits = np.take_along_axis(mask, index[:, None], 1)[:, 0]
    return {**actions, "action": np.where(fits, actions["action"], instead).astype(space.dtype)}


def from_play(pair: Pair, played: Play, count: int, seed: int) -> Rows:
    """States met in play, with new actions: spread over episodes and steps, resets included."""
    rng = np.random.default_rng([seed, 11])
    picked = np.sort(rng.choice(len(played.rows), min(count, len(played.rows)), replace=False))
    rows = played.rows.take(picked)
    rows = Rows(
        State(rows.state.fields, rows.state.hidden),
        rows.seen,
        rows.clock,
        rows.action,
        rows.seeds,
        rows.episode,
        rows.step,
    )
    return rows.doing(legal(fresh_actions(pair, len(rows), rng), rows, pair, rng))


def stepped_into(pair: Pair, made_up: Rows, seed: int) -> Rows:
    """The live states the reference steps into from made-up ones, with new actions."""
    rng = np.random.default_rng([seed, 12])
    rows, _ = entered(pair, made_up)
    return rows.doing(legal(fresh_actions(pair, len(rows), rng), rows, pair, rng))


def entered(pair: Pair, made_up: Rows) -> tuple[Rows, np.ndarray]:
    """The live states the reference steps into from made-up ones, and int[B], which made-up row led to each.

    Their actions are those that led there.
    """
    outcome = pair.ref.step(made_up.state, made_up.action, made_up.seeds)
    finite = np.ones(len(made_up), bool)
    for name, value in outcome.state.fields.items():
        if value.dtype.kind == "f":  # NaN may stand for None; it must then have been there before
            known = np.isfinite(value) | np.isnan(made_up.state.fields[name])
            finite &= known.reshape(len(value), -1).all(1)
    on = np.flatnonzero(~outcome.done & finite)
    state = outcome.state.take(on).edited()
    rows = Rows(
        state,
        {k: v[on] for k, v in shown(outcome.outputs).items()},
        made_up.clock[on] + 1,
        {k: v[on] for k, v in made_up.action.items()},
        made_up.seeds[on],
        np.full(len(on), -1),
        np.full(len(on), -1),
    )
    lively = _lively(pair, rows)
    return rows.take(lively), on[lively]


def live(pair: Pair, rows: Rows) -> Rows:
    """Rows the contract's rule, if there is one, lets live."""
    return rows.take(_lively(pair, rows))


def _lively(pair: Pair, rows: Rows) -> np.ndarray:
    if pair.contract.live is None or not len(rows):
        return np.arange(len(rows))
    return np.flatnonzero(is_live(pair, rows))


def is_live(pair: Pair, rows: Rows) -> np.ndarray:
    """bool[B]: rows for which the contract's [live] rule holds; it may speak of the reference's settings, too."""
    values = {**rows.state.fields, **rows.seen}
    settings = {name: value for name, value in pair.ref.spec.constants.items() if name not in values}
    return holds(pair.contract.live or "True", {**values, **settings}, "[live] rule")


Ends = dict[tuple[str, int], tuple[float, float]]
SCAN_ROWS, SCAN_POINTS, BISECTIONS = 24, 20, 16


def ends(pair: Pair, played: Play, seed: int) -> Ends:
    """How far each float element can go before that alone ends episodes: (field, element) -> (low, high).

    A state beyond such an end may be entered from another beyond it without the episode ending, and still no episode
    can be in it: it would have ended on the way. Found by moving one element of live states outwards until the
    reference ends, and looking at the value it ends with.
    """
    rng = np.random.default_rng([seed, 16])
    alive = played.rows.take(np.flatnonzero(played.alive()))
    found: Ends = {}
    if not len(alive):  # every episode is one step long: no state is stepped into
        return found
    base = alive.take(np.sort(rng.choice(len(alive), min(SCAN_ROWS, len(alive)), replace=False)))
    for name in base.state.fields:
        if not continuous(played, name):
            continue
        for i in range(min(64, _width(base.state.fields[name]))):
            seen = played.rows.state.fields[name].reshape(len(played.rows), -1)[:, i]
            low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
            values = boundaries(pair, seen)
            below = -_first_end(pair, base, name, i, low, float(values.min()))
            above = _first_end(pair, base, name, i, high, float(values.max()))
            found[name, i] = (min(below, low), max(above, high))  # what play lived through is no end
    return found


def _first_end(pair: Pair, base: Rows, name: str, i: int, inner: float, outer: float) -> float:
    """The least value, in the direction from inner to outer, of one element with which moved rows end.

    Each row is moved by itself, in steps and then by bisection. Infinity if fewer than a fifth of them ever end; the
    value is negated where outer lies below inner.
    """
    sign = 1.0 if outer >= inner else -1.0
    count = len(base)

    def moved(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """points (rows,), for copies of base: which end, and the element's value after the step."""
        every = base.take(np.arange(len(points)) % count)
        fields = {n: v.copy() for n, v in every.state.fields.items()}
        fields[name].reshape(len(points), -1)[:, i] = points
        outcome = pair.ref.step(State(fields), every.action, every.seeds)
        return outcome.done, outcome.state.fields[name].reshape(len(points), -1)[:, i].astype(float)

    points = np.linspace(inner, outer, SCAN_POINTS)
    done = moved(np.repeat(points, count))[0].reshape(SCAN_POINTS, count)
    ending = done.any(0)
    if ending.mean() < 0.2:
        return np.inf
    first = done.argmax(0)
    inside, outside = points[np.maximum(first - 1, 0)], points[first]
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        over = moved(middle)[0]
        inside, outside = np.where(over, inside, middle), np.where(over, middle, outside)
    over, value = moved(outside)
    value = sign * value[ending & over]
    return float(value.min()) if len(value) else np.inf


def within(rows: Rows, limits: Ends, slack: float = 0.0) -> np.ndarray:
    """bool[B]: rows no element of which lies beyond an end, or nearer to it than ``slack`` of the way between ends."""
    inside = np.ones(len(rows), bool)
    for (name, i), (low, high) in limits.items():
        value = rows.state.fields[name].reshape(len(rows), -1)[:, i]
        room = slack * (high - low if np.isfinite(high - low) else max(abs(low if np.isfinite(low) else high), 1.0))
        inside &= ~((value < low + room) | (value > high - room))
    return inside


def near_boundaries(pair: Pair, played: Play, count: int, seed: int, limits: Ends) -> Rows:
    """States of play with one to three fields moved to, or close to, a boundary; then stepped into.

    Boundaries are what play reached, the bounds of observations that show the field, and the constants either
    side has that lie within the field's reach.
    """
    rng = np.random.default_rng([seed, 13])
    alive = played.rows
    base = alive.take(np.sort(rng.integers(0, len(alive), count)))
    elements = [
        (n, i) for n, v in base.state.fields.items() if movable(pair, played, n) for i in range(min(64, _width(v)))
    ]
    candidates = {(n, i): values for n, i in elements if len(values := places(pair, played, n, i))}
    if not candidates:
        return base.take(slice(0, 0))
    fields = {n: v.reshape(len(v), -1).copy() for n, v in base.state.fields.items()}
    whole = {n: not continuous(played, n) for n, _ in candidates}
    # A row moves each field with the chance that makes it one or two on average; the rest stays as played.
    chance = min(0.5, 1.5 / len(candidates))
    moved = np.zeros(count, bool)
    for place, ((name, i), values) in enumerate(candidates.items()):
        here = rng.random(count) < chance
        here |= (np.arange(count) % len(candidates) == place) & ~moved
        seen = alive.state.fields[name].reshape(len(alive), -1)[:, i]
        reach = max(float(np.nanmax(seen) - np.nanmin(seen)), 1e-6)
        offset = rng.choice(NEAR, count) * reach * rng.choice([-1.0, 1.0], count)
        value = rng.choice(values, count) + offset
        fields[name][here, i] = (settled(value, fields[name].dtype) if whole[name] else value)[here]
        moved |= here
    state = State({n: fields[n].reshape(v.shape).astype(v.dtype) for n, v in base.state.fields.items()})
    # Half of the made-up states are entered by the most extreme actions, half by any.
    made_up = replace(base, state=state, action=legal(fresh_actions(pair, count, rng), base, pair, rng))
    # One, two and three steps on: what is near a boundary and moving needs time to get there.
    parts, now = [], made_up
    for depth in range(DEPTH):
        entered = stepped_into(pair, now, seed + depth)
        now = entered.take(np.flatnonzero(within(entered, limits)))
        if not len(now):
            break
        parts.append(now)
    every = Rows.join(parts) if parts else made_up.take(slice(0, 0))
    near = every.take(np.sort(rng.permutation(len(every))[:count]))
    edges = at_edges(pair, played, count // 4, seed, limits)
    return near if edges is None else Rows.join([near, edges])


def at_edges(pair: Pair, played: Play, count: int, seed: int, limits: Ends) -> Rows | None:
    """Live states from which the next step only just ends the episode, or only just does not; None if there are none.

    A threshold that is off by a ten-thousandth shows on no state that is not this close to it. One element of a live
    state is moved until the episode ends two steps later instead of going on, and that place is closed in on by
    bisection; the states entered from both ends of the bracket, at several stages, are the ones that are given.
    """
    rng = np.random.default_rng([seed, 18])
    alive = played.rows.take(np.flatnonzero(played.alive()))
    if not len(alive):
        return None
    base = alive.take(rng.integers(0, len(alive), EDGE_TRIES))
    base = base.doing(legal(fresh_actions(pair, EDGE_TRIES, rng), base, pair, rng))
    then = legal(fresh_actions(pair, EDGE_TRIES, rng), base, pair, rng)
    elements = [
        (n, i) for n in base.state.fields if continuous(played, n) for i in range(min(64, _width(base.state.fields[n])))
    ]
    if not elements:
        return None
    which = rng.integers(0, len(elements), EDGE_TRIES)
    inside = np.zeros(EDGE_TRIES)
    outside = np.zeros(EDGE_TRIES)
    for place, (name, i) in enumerate(elements):
        here = which == place
        column = alive.state.fields[name].reshape(len(alive), -1)[:, i]
        inside[here] = base.state.fields[name].reshape(EDGE_TRIES, -1)[here, i]
        outside[here] = rng.choice(boundaries(pair, column), int(here.sum()))

    def entered(rows: np.ndarray, values: np.ndarray) -> tuple[Rows, np.ndarray]:
        """From the chosen rows with their element at ``values``: the states stepped into, and which end by the next
        step: 0 not, 1 with it, 2 already with the first."""
        some = base.take(rows)
        fields = {n: v.copy() for n, v in some.state.fields.items()}
        for place, (name, i) in enumerate(elements):
            here = which[rows] == place
            fields[name].reshape(len(rows), -1)[here, i] = values[here]
        first = pair.ref.step(State(fields), some.action, some.seeds)
        none = np.full(len(rows), -1)
        now = Rows(
            first.state.edited(),
            shown(first.outputs),
            some.clock + 1,
            {k: v[rows] for k, v in then.items()},
            some.seeds,
            none,
            none,
        )
        second = pair.ref.step(now.state, now.action, now.seeds)
        return now, np.where(first.done, 2, np.where(second.done, 1, 0))

    everyone = np.arange(EDGE_TRIES)
    starts, reaches = entered(everyone, inside)[1], entered(everyone, outside)[1]
    rows = everyone[(starts == 0) & (reaches > 0)][: max(count // 8, 1)]
    if not len(rows):
        return None
    inner, outer = inside[rows], outside[rows]
    parts = []
    for stage in range(EDGE_STAGES):
        middle = (inner + outer) / 2
        state, ends_by = entered(rows, middle)
        inner, outer = np.where(ends_by == 0, middle, inner), np.where(ends_by == 0, outer, middle)
        keep = np.flatnonzero((ends_by < 2) & within(state, limits) & (rng.random(len(rows)) < 8 / EDGE_STAGES))
        if stage >= 3 and len(keep):
            parts.append(state.take(keep))
    return live(pair, Rows.join(parts)) if parts else None


def continuous(played: Play, name: str) -> bool:
    """Whether a state field is a float that is never None (NaN) and not always whole: something to be pushed."""
    values = np.concatenate([played.rows.state.fields[name], played.resets.state.fields[name]])
    return values.dtype.kind == "f" and not np.isnan(values).any() and bool((values != np.round(values)).any())


def movable(pair: Pair, played: Play, name: str) -> bool:
    """Whether a state field may be given other values than play gave it: a float that is not always whole, or a number
    that the contract's [live] rule names, and so says what it may be. Clocks are moved by time alone."""
    if continuous(played, name):
        return True
    numbers = played.rows.state.fields[name].dtype.kind in "iuf"
    return bool(numbers and named_in(pair.contract.live, [name]) and name not in clocks(pair, played))


def walked(pair: Pair, played: Play) -> list[str]:
    """State fields that can only be come to by going there: whole numbers that are no clock, differ in play, and must
    not be moved."""
    left = [n for n in played.rows.state.fields if not movable(pair, played, n) and n not in clocks(pair, played)]
    values = {n: played.rows.state.fields[n] for n in left}
    return [n for n, v in values.items() if v.dtype.kind in "biu" and bool((v != v[:1]).any())]


def places(pair: Pair, played: Play, name: str, element: int) -> np.ndarray:
    """The boundaries of one element of a movable field. A whole number may be next to one, and anywhere the rule lets
    it be in some state of play."""
    rows, column = played.rows, played.rows.state.fields[name].reshape(len(played.rows), -1)[:, element]
    if continuous(played, name):
        return boundaries(pair, column)
    near = boundaries(pair, column, everywhere=True)
    values = np.unique(settled(np.concatenate([near - 1, near, near + 1]), column.dtype))
    few = rows.take(np.unique(np.linspace(0, len(rows) - 1, PLACED).astype(int)))
    every = few.take(np.tile(np.arange(len(few)), len(values)))
    fields = {n: v.copy() for n, v in every.state.fields.items()}
    fields[name].reshape(len(every), -1)[:, element] = np.repeat(values, len(few))
    kept = is_live(pair, replace(every, state=State(fields)))
    return values[kept.reshape(len(values), len(few)).any(1)].astype(float)


def settled(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Whole numbers near ``values``, in ``dtype``."""
    values = np.round(values)
    if dtype.kind in "iu":
        values = np.clip(values, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype)


def _width(value: np.ndarray) -> int:
    return int(np.prod(value.shape[1:], dtype=int))


def boundaries(pair: Pair, seen: np.ndarray, everywhere: bool = False) -> np.ndarray:
    """Values of one field at which something may change, given the values play saw; ``everywhere``: constants too that
    are far from those."""
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    middle, half = (low + high) / 2, max((high - low) / 2, 1e-6)
    reach = (-np.inf, np.inf) if everywhere else (middle - 4 * half, middle + 4 * half)
    constants = [
        float(c)
        for spec in (pair.ref.spec, pair.target.spec)
        for value in spec.constants.values()
        for c in np.ravel(value)
        if np.isfinite(c)
    ]
    constants += [
        float(b)
        for space in pair.ref.spec.observation.values()
        if space.kind == "box"
        for bound in (space.low, space.high)
        for b in np.unique(bound)
        if np.isfinite(b)
    ]
    both = [c for constant in constants for c in (constant, -constant) if reach[0] <= c <= reach[1]]
    ends = [low, high, middle - WIDER * half, middle + WIDER * half, 0.0 if low <= 0 <= high else middle]
    return np.unique(np.array(ends + both))


def clocks(pair: Pair, played: Play) -> list[str]:
    """State fields of the reference that count steps: whole, and one more after every step of play."""
    rows = played.rows
    on = played.alive()
    found = []
    for name, before in rows.state.fields.items():
        after = played.outcome.state.fields[name]
        if (
            before.dtype.kind in "iu"
            and _width(before) == 1
            and np.array_equal(after[on].ravel(), before[on].ravel() + 1)
        ):
            found.append(name)
    return found


def before_limit(pair: Pair, played: Play, count: int, seed: int) -> Rows:
    """States of play two, one and no steps before the time limit: the clock is moved, then stepped into."""
    limit, names = pair.time_limit, clocks(pair, played)
    if limit is None or not names:
        return played.rows.take(slice(0, 0))
    rng = np.random.default_rng([seed, 14])
    base = played.rows.take(np.sort(rng.integers(0, len(played.rows), count)))
    left = rng.integers(1, 5, count)  # steps to the limit before the reference steps in
    value = np.maximum(limit - left, 0)
    state = base.state.edited(
        **{n: value.reshape(base.state.fields[n].shape).astype(base.state.fields[n].dtype) for n in names}
    )
    made_up = replace(base, state=state, clock=value, action=legal(fresh_actions(pair, count, rng), base, pair, rng))
    return stepped_into(pair, made_up, seed + 1)
