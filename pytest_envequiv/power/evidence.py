"""Where the oracle looks: transitions of the original, by policies and searches of the oracle's own.

Kinds of rows, in the order in which a difference on them counts:

play       long rollouts of thousands of lanes under mixed policies
limit      rows of play with their counters moved to where a limit or a type ends
broad      states made up around the visited ones, then entered by two steps of the original that end nothing
threshold  pairs of rows drawn together until a comparison of the original's code nearly flips between them
illegal    rows of play with actions outside of the action space
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.protocol import DONE, MASK, TERMINATED, TRUNCATED, Space
from pytest_envequiv.power.programs import Programs, Rows, inlined, run
from pytest_envequiv.whitebox.jaxprs import evaluate

UNBOUNDED = 3.0  # how far actions go in a direction without a bound
WIDTH = 256  # elements of what is seen that a policy may look at
MARGINS, PAIRS = 64, 128  # comparisons looked at, pairs of rows for each
MEMORY = 1 << 29  # bytes of rows of play and their results


@dataclass(frozen=True)
class Evidence:
    """``rows`` go into a step; ``expected`` is what the original makes of them."""

    origin: str
    rows: Rows
    expected: Rows

    def __len__(self) -> int:
        return len(self.rows["seed"])


def gathered(programs: Programs, count: int, size: int, seed: int) -> list[Evidence]:
    """About ``count`` transitions of play (fewer of large states), and of the other kinds; ``size`` rows a call."""
    rng = np.random.default_rng([seed, 0x0DD5])
    found: list[Evidence] = []

    def add(origin: str, rows: Rows) -> None:
        if rows:
            found.append(Evidence(origin, rows, run(programs.compiled("step"), rows, size)))

    add("play", play(programs, count, rng))
    add("limit", limits(programs, found[0], rng))
    add("broad", broad(programs, found[0], count // 4, size, rng))
    add("threshold", thresholds(programs, found, rng))
    add("illegal", illegal(programs, found[0], rng))
    return found


def over(results: Mapping[str, Any]) -> Any:
    """bool[B]: rows whose episode ended with this step."""
    ends = [results[name].astype(bool) for name in (TERMINATED, TRUNCATED, DONE) if name in results]
    first, *rest = ends
    for other in rest:
        first = first | other
    return first


def take(rows: Rows, chosen: np.ndarray) -> Rows:
    return {name: value[chosen] for name, value in rows.items()}


# -- play ------------------------------------------------------------------------------------------------------------


def play(programs: Programs, count: int, rng: np.random.Generator) -> Rows:
    """Rows of live states with the actions taken in them, shuffled. An episode that ends begins anew."""
    limit, spaces = programs.functional.time_limit, programs.functional.action
    steps = 512 if limit is None else int(np.clip(limit + 2, 64, 1024))
    lanes = max(32, min(count, MEMORY // programs.bytes_per_row) // steps)
    reset, step = (jax.vmap(programs.row(what)) for what in ("reset", "step"))
    policy = _policies(programs, lanes, rng)

    def seeds(key: Any) -> Any:
        return jax.random.bits(key, (lanes,), jnp.uint32) >> 1

    def tick(policy: Any, carry: Any, time: Any) -> Any:
        results, scale, last, key = carry
        key, *keys = jax.random.split(key, 4)
        seen = _seen(results)
        scale = jnp.maximum(scale, jnp.abs(seen).max(0))
        unit = _chosen(policy, seen / scale, last, time, keys[0])
        rows = {name: results[name] for name in programs.names}
        rows |= {**actions(unit, spaces, results.get(MASK)), "seed": seeds(keys[1])}
        after, fresh = step(rows), reset({"seed": seeds(keys[2])})
        ended = over(after)
        following = {
            name: jnp.where(ended.reshape(-1, *[1] * (value.ndim - 1)), value, after[name].astype(value.dtype))
            for name, value in fresh.items()
        }
        return (following, scale, unit, key), rows

    @jax.jit
    def rollout(key: Any, policy: Any) -> Any:
        begun = reset({"seed": seeds(key)})
        scale = jnp.full(_seen(begun).shape[1], 1e-6)
        return jax.lax.scan(partial(tick, policy), (begun, scale, policy["low"], key), jnp.arange(steps))[1]

    rows = jax.device_get(rollout(jax.random.PRNGKey(int(rng.integers(2**31))), policy))
    return take({n: v.reshape(-1, *v.shape[2:]) for n, v in rows.items()}, rng.permutation(steps * lanes))


def _policies(programs: Programs, lanes: int, rng: np.random.Generator) -> dict[str, Any]:
    """The habits of each lane, for actions as numbers from 0 to 1: 0 anything, 1 sticky, 2 always the same, 3 to and
    fro, 4 by the sign of one element of what is seen or of two, 5 by that of a random plane through it."""
    size = size_of(programs.functional.action)
    width = _seen(jax.eval_shape(jax.vmap(programs.row("reset")), {"seed": jnp.zeros(1, jnp.uint32)}), True)
    mode = rng.permutation(np.arange(lanes) % 6)
    weights = rng.normal(size=(lanes, width, size)) * 10 ** rng.uniform(-1, 1, (lanes, width, 1))
    chosen = np.zeros((lanes, width, size), bool)
    for also in (1.0, 0.5):
        element = rng.integers(0, width, (lanes, 1, size))
        np.put_along_axis(chosen, element, rng.random((lanes, 1, size)) < also, axis=1)
    weights[mode == 4] *= chosen[mode == 4]

    def extreme() -> np.ndarray:
        shape = (lanes, size)
        return np.where(rng.random(shape) < 0.7, rng.integers(0, 2, shape), rng.random(shape)).astype(np.float32)

    return {
        "mode": jnp.asarray(mode)[:, None],
        "weights": jnp.asarray(weights, jnp.float32),
        "sticks": jnp.asarray(rng.uniform(0.5, 0.99, (lanes, 1)), jnp.float32),
        "period": jnp.asarray(np.exp(rng.uniform(0, np.log(150), (lanes, 1))), jnp.int32),
        "low": jnp.asarray(extreme()),
        "high": jnp.asarray(extreme()),
        "noise": jnp.asarray(rng.choice([0.0, 0.02, 0.2], (lanes, 1)), jnp.float32),
    }


def _chosen(policy: dict[str, Any], seen: Any, last: Any, time: Any, key: Any) -> Any:
    """(lanes, size): the action of each lane as numbers from 0 to 1."""
    first, second, third = jax.random.split(key, 3)
    anything = jax.random.uniform(first, last.shape)
    mode = policy["mode"]
    sign = jnp.einsum("lws,lw->ls", policy["weights"], seen) > 0
    sticky = jnp.where(jax.random.uniform(second, mode.shape) < policy["sticks"], last, anything)
    to_and_fro = jnp.where((time // policy["period"]) % 2 == 0, policy["low"], policy["high"])
    habit = jnp.select(
        [mode == 0, mode == 1, mode == 2, mode == 3], [anything, sticky, policy["low"], to_and_fro], sign
    )
    return jnp.where(jax.random.uniform(third, mode.shape) < policy["noise"], anything, habit)


def _seen(results: Mapping[str, Any], only_width: bool = False) -> Any:
    """(B, at most WIDTH) floats: the observation, or the state where there is none; evenly chosen if there are more."""
    names = sorted(n for n in results if n.startswith("observation")) or sorted(n for n in results if "." in n)
    width = sum(int(np.prod(results[n].shape[1:])) for n in names)
    if only_width:
        return min(width, WIDTH)
    flat = jnp.concatenate([results[n].reshape(len(results[n]), -1).astype(jnp.float32) for n in names], 1)
    return jnp.nan_to_num(flat[:, np.linspace(0, width - 1, min(width, WIDTH)).astype(int)])


def size_of(spaces: Mapping[str, Space]) -> int:
    return sum(int(np.prod(space.shape)) for space in spaces.values())


def actions(unit: Any, spaces: Mapping[str, Space], mask: Any = None) -> dict[str, Any]:
    """Rows "action.<name>" of numbers from 0 to 1 (B, size): the lowest to the highest action, legal ones only."""
    found, at = {}, 0
    for name, space in spaces.items():
        count = int(np.prod(space.shape))
        u = unit[:, at : at + count].reshape(-1, *space.shape)
        at += count
        if space.kind == "box":
            low = np.where(np.isfinite(space.low), space.low, -UNBOUNDED).astype(np.float32)
            high = np.where(np.isfinite(space.high), space.high, UNBOUNDED).astype(np.float32)
            value = low + u * (high - low)
        elif mask is not None and space.shape == ():
            rank = jnp.floor(u * mask.sum(1)).clip(0, mask.sum(1) - 1)
            value = jnp.argmax(jnp.cumsum(mask, 1) > rank[:, None], 1) + space.low
        else:
            many = space.high - space.low + 1
            value = space.low + jnp.floor(u * many).clip(0, many - 1)
        found[f"action.{name}"] = value.astype(space.dtype)
    return found


# -- made from play --------------------------------------------------------------------------------------------------


def limits(programs: Programs, base: Evidence, rng: np.random.Generator) -> Rows:
    """Rows whose counters (what grows by one with every step) stand at 0, or just before the limit or the end of a
    small integer type. None without counters."""
    count = min(len(base), 1 << 15)
    rows, going = take(base.rows, np.arange(count)), ~over(take(base.expected, np.arange(count)))
    limit = programs.functional.time_limit
    ends = [0, 1, 126, 127, 254, 255, 32766, 32767, *([limit - 3, limit - 2, limit - 1, limit // 2] if limit else [])]
    counters = [
        name
        for name in programs.names
        if rows[name].ndim == 1 and rows[name].dtype.kind in "iu" and going.any()
        if (base.expected[name][:count][going] == rows[name][going] + 1).all()
    ]
    if not counters:
        return {}
    last = limit if limit is not None else 1 + max(int(base.rows[name].max()) for name in counters)
    drawn = rng.choice([v for v in ends if 0 <= v < last], count)
    return {**rows, **{name: drawn.astype(rows[name].dtype) for name in counters}}


def broad(programs: Programs, base: Evidence, count: int, size: int, rng: np.random.Generator) -> Rows:
    """States made of values of other rows, of the visited range and a tenth beyond it, and of its ends; then two steps
    of the original, of which only those that end nothing and stay finite are kept."""
    count = max(size, min(count, len(base) // 4) // size * size)
    rows = take(base.rows, rng.integers(0, len(base), count))
    for name in programs.names:
        if name in programs.opaque | programs.free:
            continue
        values, own = base.rows[name], rows[name]
        other = values[rng.integers(0, len(base), count)]
        low, high = values.min(0).astype(float), values.max(0).astype(float)
        if own.dtype.kind == "f":
            drawn = low - 0.1 * (high - low) + 1.2 * (high - low) * rng.random(own.shape)
        elif own.dtype.kind in "iu":
            drawn = np.floor(low + (high - low + 1) * rng.random(own.shape))
        else:
            drawn = rng.random(own.shape) < 0.5
        ends = np.where(rng.random(own.shape) < 0.5, low, high)
        which = rng.choice(4, count, p=[0.4, 0.3, 0.25, 0.05]).reshape(-1, *[1] * (own.ndim - 1))
        rows[name] = np.select([which == 0, which == 1, which == 2], [own, other, drawn.astype(own.dtype)], ends)
        rows[name] = rows[name].astype(own.dtype)
    for _ in range(2):
        after = run(programs.compiled("step"), rows, size)
        fine = ~over(after)
        for name in programs.names:
            if after[name].dtype.kind == "f":
                fine &= np.isfinite(after[name]).reshape(count, -1).all(1)
        if not fine.any():
            return {}
        kept = np.resize(np.flatnonzero(fine), count)
        rows = {name: after[name][kept] for name in programs.names}
        rows |= _acted(programs, after, kept, rng)
    return take(rows, np.arange(int(fine.sum())))


def _acted(programs: Programs, results: Rows, kept: np.ndarray, rng: np.random.Generator) -> Rows:
    """New actions and seeds for the chosen rows."""
    unit = rng.random((len(kept), size_of(programs.functional.action)), np.float32)
    unit = np.where(rng.random(unit.shape) < 0.3, np.round(unit), unit)
    mask = results[MASK][kept] if MASK in results else None
    drawn = {name: np.asarray(value) for name, value in actions(unit, programs.functional.action, mask).items()}
    return {**drawn, "seed": rng.integers(0, 2**31, len(kept)).astype(np.uint32)}


def illegal(programs: Programs, base: Evidence, rng: np.random.Generator) -> Rows:
    """Rows with actions up to a width beyond the bounds, or masked ones. None where there are no such actions."""
    count = min(len(base), 1 << 14)
    rows, changed = take(base.rows, np.arange(count)), False
    for name, space in programs.functional.action.items():
        if space.kind == "box" and space.bounded:
            width = space.high - space.low
            value = space.low - width + 3 * width * rng.random((count, *space.shape))
            rows[f"action.{name}"], changed = value.astype(space.dtype), True
        elif MASK in base.expected:
            value = rng.integers(space.low, space.high + 1, (count, *space.shape))
            rows[f"action.{name}"], changed = value.astype(space.dtype), True
    return rows if changed else {}


# -- thresholds ------------------------------------------------------------------------------------------------------


def thresholds(programs: Programs, found: list[Evidence], rng: np.random.Generator) -> Rows:
    """Rows on either side of the comparisons in a step's code. Between two rows that a comparison tells apart their
    floats are halved until nothing is left between them; a few rows a little further off are kept too.

    Comparisons inside loops and branches are not seen, nor those of no floats.
    """
    body, _ = programs.traced("step")
    names = sorted(programs.example("step"))
    floats = [n for n in names if programs.example("step")[n].dtype.kind == "f" and n not in programs.opaque]

    @jax.jit
    def margins(rows: Any) -> Any:
        return jax.vmap(lambda *given: _margins(body, given))(*(rows[n] for n in names))

    legal = [e for e in found if e.origin != "illegal"]
    pool = {n: np.concatenate([e.rows[n][:8192] for e in legal]) for n in names}
    signs = np.asarray(margins(pool))
    if not floats or signs.shape[1] == 0:
        return {}
    below, above = [], []
    for margin in signs.T[:MARGINS]:
        sides = (np.flatnonzero(margin < 0), np.flatnonzero(margin >= 0))
        if not all(map(len, sides)):
            sides = (np.flatnonzero(margin <= 0), np.flatnonzero(margin > 0))
        some = [rng.choice(side, PAIRS) if len(side) else np.zeros(PAIRS, int) for side in sides]
        below.append(some[0])
        above.append(some[1])
    which = np.repeat(np.arange(len(below)), PAIRS)
    low, high = (take(pool, np.concatenate(side)) for side in (below, above))
    high = {**high, **{n: low[n] for n in names if n not in floats}}
    side = _side(np.asarray(margins(low)), which)
    apart = side != _side(np.asarray(margins(high)), which)  # still told apart with the same integers
    low, high, which, side = take(low, apart), take(high, apart), which[apart], side[apart]
    if not len(which):
        return {}
    kept = []
    for halving in range(40):
        middle = {**low, **{n: (0.5 * (low[n].astype(float) + high[n])).astype(low[n].dtype) for n in floats}}
        as_low = _side(np.asarray(margins(middle)), which) == side
        for n in floats:
            chosen = as_low.reshape(-1, *[1] * (low[n].ndim - 1))
            low[n], high[n] = np.where(chosen, middle[n], low[n]), np.where(chosen, high[n], middle[n])
        if halving in (4, 9, 14, 19, 39):
            kept += [dict(low), dict(high)]
    return {n: np.concatenate([rows[n] for rows in kept]) for n in names}


def _side(margins: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.asarray(margins[np.arange(len(which)), which] >= 0)


def _margins(body: Any, given: Any) -> Any:
    """(n,): how far each comparison, minimum, maximum and clip of a jaxpr is from the other outcome, signed."""
    found: list[Any] = []

    def note(a: Any, b: Any) -> None:
        a, b = jnp.broadcast_arrays(a, b)
        if jnp.issubdtype(a.dtype, jnp.floating) and a.size <= MARGINS:
            found.append((a - b).ravel())

    def watched(equation: Any, inputs: Any) -> list[Any]:
        name = equation.primitive.name
        if name in ("lt", "le", "gt", "ge", "eq", "ne", "min", "max"):
            note(inputs[0], inputs[1])
        elif name == "clamp":
            note(inputs[1], inputs[0])
            note(inputs[1], inputs[2])
        return inlined(equation, inputs, watched)

    evaluate(body, given, watched)
    return jnp.concatenate(found) if found else jnp.zeros(0)
