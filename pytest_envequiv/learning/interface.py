"""What a policy sees of an environment and what it may do, told from the environment's spec.

An ``Interface`` holds numbers and names only, so it can be a static argument of a compiled function. Whatever an
environment shows becomes one row of floats; whatever it takes is a list of single choices and a list of real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.protocol import AGENT, MASK, Arrays, Space, Spec
from pytest_envequiv.errors import Limitation

ONE_HOT = 64  # whole numbers with at most so many values are shown to a policy one value a column


@dataclass(frozen=True)
class Part:
    """One observation: its name, number of elements, and, if each is shown one value a column, values and the first."""

    name: str
    size: int
    choices: int = 0
    low: int = 0


@dataclass(frozen=True)
class Act:
    """One action: ``low`` and ``high`` are of its elements; ``discrete``: each is a choice of low..high."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    discrete: bool


@dataclass(frozen=True)
class Interface:
    """``masked``: legal actions are said, and kept to. ``turns``: seats move in turn; the policy has seat 0, and
    whoever else's turn it is plays uniformly at random among what is legal."""

    sees: tuple[Part, ...]
    acts: tuple[Act, ...]
    masked: bool
    turns: bool
    seats: int

    @property
    def width(self) -> int:
        """Columns of what a policy sees."""
        return sum(p.size * (p.choices or 1) for p in self.sees) + (self.seats if self.turns else 0)

    @property
    def choices(self) -> tuple[int, ...]:
        """How many values each single choice has."""
        return tuple(
            int(high - low) + 1 for a in self.acts if a.discrete for low, high in zip(a.low, a.high, strict=True)
        )

    @property
    def reals(self) -> int:
        return sum(len(a.low) for a in self.acts if not a.discrete)


class Seen(NamedTuple):
    """What B lanes see. float32[B, width]; bool[B, choices, most] or None; bool[B], the policy's own turn."""

    features: Any
    legal: Any
    turn: Any


class Choice(NamedTuple):
    """What B lanes do: int32[B, choices], and float32[B, reals] in units of half an action's range."""

    picks: Any
    reals: Any


def interface_of(spec: Spec, outputs: Mapping[str, Any]) -> Interface:
    """``outputs``: of a reset, to see whether there is a mask and whose turn is said. Raises Limitation."""
    sees = tuple(_part(name, space) for name, space in sorted(spec.observation.items()) if name in outputs)
    acts = tuple(_act(name, space) for name, space in sorted(spec.action.items()))
    turns = AGENT in outputs and spec.seats > 1
    found = Interface(sees, acts, MASK in outputs, turns, spec.seats)
    if not found.width or not acts:
        raise Limitation(f"{spec.name}: a policy needs something to see and something to do")
    if found.masked:
        width, choices = outputs[MASK].shape[-1], found.choices
        if width != sum(choices):
            raise Limitation(f"{spec.name}: its mask has {width} columns, its actions have {sum(choices)} values")
    return found


def look(interface: Interface, outputs: Mapping[str, Any]) -> Seen:
    """What B lanes see of ``outputs`` with a leading batch axis; jax or numpy arrays."""
    rows = outputs[interface.sees[0].name].shape[0]
    columns = []
    for part in interface.sees:
        value = jnp.asarray(outputs[part.name]).reshape(rows, -1)
        if part.choices:
            value = jax.nn.one_hot(value.astype(jnp.int32) - part.low, part.choices, dtype=jnp.float32)
        columns.append(value.astype(jnp.float32).reshape(rows, -1))
    turn = jnp.ones(rows, bool)
    if interface.turns:
        agent = jnp.asarray(outputs[AGENT]).reshape(rows).astype(jnp.int32)
        columns.append(jax.nn.one_hot(agent, interface.seats, dtype=jnp.float32))
        turn = agent == 0
    legal = None
    if interface.choices:
        valid, place = _table(interface)
        legal = jnp.broadcast_to(jnp.asarray(valid), (rows, *valid.shape))
        if interface.masked:
            mask = jnp.asarray(outputs[MASK]).reshape(rows, -1).astype(bool)
            allowed = legal & mask[:, place]
            # Where nothing is legal (an episode that is over) anything may be chosen: it is not looked at.
            legal = jnp.where(allowed.any(-1, keepdims=True), allowed, legal)
    return Seen(jnp.concatenate(columns, 1), legal, turn)


def action_of(interface: Interface, choice: Choice) -> dict[str, Any]:
    """The choice as the environment takes it: name -> (B, *shape). Real numbers are clipped to their bounds."""
    rows = choice.picks.shape[0]
    found, picked, used = {}, 0, 0
    for act in interface.acts:
        low, high = jnp.asarray(act.low, jnp.float32), jnp.asarray(act.high, jnp.float32)
        if act.discrete:
            low = jnp.asarray(act.low, jnp.int32)
            value = choice.picks[:, picked : picked + len(act.low)] + low
            picked += len(act.low)
        else:
            value = choice.reals[:, used : used + len(act.low)]
            bounded = jnp.isfinite(low) & jnp.isfinite(high)
            middle, half = jnp.where(bounded, (low + high) / 2, 0.0), jnp.where(bounded, (high - low) / 2, 1.0)
            value = jnp.clip(middle + half * value, low, high)
            used += len(act.low)
        found[act.name] = value.reshape(rows, *act.shape).astype(jax.dtypes.canonicalize_dtype(act.dtype))
    return found


def as_numpy(interface: Interface, action: Mapping[str, Any]) -> Arrays:
    """The action in numpy, in the very dtype its space declares."""
    return {act.name: np.asarray(action[act.name]).astype(act.dtype) for act in interface.acts}


def _part(name: str, space: Space) -> Part:
    size = int(np.prod(space.shape, dtype=int))
    if space.kind == "discrete":
        low, high = int(np.min(space.low)), int(np.max(space.high))
        if 2 < high - low + 1 <= ONE_HOT:
            return Part(name, size, high - low + 1, low)
    return Part(name, size)


def _act(name: str, space: Space) -> Act:
    low, high = (np.broadcast_to(bound, space.shape).ravel().astype(float) for bound in (space.low, space.high))
    if space.kind == "discrete" and not np.isfinite(high - low).all():
        raise Limitation(f"{name}: a choice among endlessly many values cannot be learned")
    return Act(name, tuple(space.shape), space.dtype, tuple(low), tuple(high), space.kind == "discrete")


def _table(interface: Interface) -> tuple[np.ndarray, np.ndarray]:
    """bool[choices, most]: values that exist; int[choices, most]: their place among all values, as a mask has them."""
    counts = np.array(interface.choices)
    valid = np.arange(counts.max()) < counts[:, None]
    place = np.cumsum(counts)[:, None] - counts[:, None] + np.arange(counts.max())
    return valid, np.where(valid, place, 0)
