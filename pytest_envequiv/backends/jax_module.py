"""A plain port written in JAX, as the two pure functions of a ``Functional``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.declared import named_leaves, numeric_constants
from pytest_envequiv.backends.functional import Functional
from pytest_envequiv.backends.protocol import AGENT, DONE, MASK, REWARD, TERMINATED, TRUNCATED, Space
from pytest_envequiv.backends.signatures import (
    OBSERVATION,
    STATE,
    UNSEEN,
    Port,
    conventions,
    parts_of,
    returned_names,
    split,
    state_place,
    unmasked,
)

OUTPUTS = (REWARD, TERMINATED, TRUNCATED, DONE, MASK, AGENT)
FLAGS = (TERMINATED, TRUNCATED, DONE, MASK)


def functional(port: Port) -> Functional:
    """Raises what tracing raises, or TypeError in one line, if the port is not made for JAX.

    A port that takes its one-element actions without an axis gets them so.
    """
    try:
        return _functional(port)
    except (TypeError, ValueError):
        if not any(space.shape == (1,) for space in port.action.values()):
            raise
        try:
            return _functional(replace(port, action={name: _scalar(space) for name, space in port.action.items()}))
        except (TypeError, ValueError):
            pass
        raise


def _scalar(space: Space) -> Space:
    if space.shape != (1,):
        return space
    low, high = (np.broadcast_to(bound, (1,))[0] for bound in (space.low, space.high))
    return replace(space, shape=(), low=low, high=high)


def _functional(port: Port) -> Functional:
    key = jax.random.PRNGKey(0)
    example = {name: jax.ShapeDtypeStruct(space.shape, space.dtype) for name, space in port.action.items()}

    def begin(key: Any, params: Any = port.params) -> Any:
        seed = jax.random.key_data(key)[-1].astype(jnp.int32)  # the low word of PRNGKey(seed)
        return port.reset(key=key, seed=seed, params=params)

    def advance(key: Any, state: Any, action: Any, params: Any = port.params) -> Any:
        return port.step(key=key, seed=0, params=params, state=state, action=port.given(action))

    begun = jax.eval_shape(begin, key)
    place = state_place(
        begun, lambda state: jax.eval_shape(advance, key, state, example), _alike, returned_names(port.reset.function)
    )
    names = returned_names(port.step.function)
    prefer = place if isinstance(place, int) else 0

    def stepped(key: Any, state: Any, action: Any, params: Any = port.params) -> dict[str, Any]:
        return parts_of(advance(key, state, action, params), lambda part: _alike(part, state), names, prefer)

    state, begun = split(begun, place)
    told = jax.eval_shape(stepped, key, state, example).get(OBSERVATION)
    unseen = begun is None and port.observe is None and told is not None and not _alike(told, state)

    def seen(given: Any, state: Any, key: Any, params: Any) -> Any:
        """What is observed: as told, or looked up, or the state itself."""
        if given is not None:
            return given
        return state if port.observe is None else port.observe(state=state, params=params, key=key)

    def outputs(parts: dict[str, Any], observation: Any) -> dict[str, Any]:
        found = {name: jnp.asarray(parts[name]) for name in OUTPUTS if name in parts}
        flags = {name: value != 0 for name, value in found.items() if name in FLAGS}
        seen = unmasked(named_leaves(observation, OBSERVATION))
        if MASK in seen:
            seen[MASK] = seen[MASK] != 0
        return {**seen, **found, **flags}

    def reset(key: Any, params: Any = port.params) -> Any:
        state, given = split(begin(key, params), place)
        if unseen:
            return state, outputs({}, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), told))
        return state, outputs({}, seen(given, state, key, params))

    def step(key: Any, state: Any, action: Any, params: Any = port.params) -> Any:
        parts = stepped(key, state, action, params)
        return parts[STATE], outputs(parts, seen(parts.get(OBSERVATION), parts[STATE], key, params))

    state, _ = jax.eval_shape(reset, key)
    after, shown = jax.eval_shape(step, key, state, example)
    if not _alike(after, state):
        raise TypeError(f"step turns a state of shapes {_shapes(state)} into one of {_shapes(after)}")
    reward = shown[REWARD].shape
    return Functional(
        name=port.name,
        kind="plain",
        reset=reset,
        step=step,
        params=port.params,
        action=port.action,
        observation=port.observation
        or {name: _unbounded(value) for name, value in shown.items() if name.startswith(OBSERVATION)},
        time_limit=port.time_limit,
        constants={**port.constants, **numeric_constants(port.params)},
        seats=int(reward[0]) if reward else 1,
        conventions=conventions(DONE in shown, unseen),
        notes=(UNSEEN,) if unseen else (),
    )


def _alike(a: Any, b: Any) -> bool:
    """The same tree with leaves of the same shapes."""
    same: bool = jax.tree.structure(a) == jax.tree.structure(b)  # type: ignore[operator]
    return same and _shapes(a) == _shapes(b)


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [tuple(np.shape(leaf)) for leaf in jax.tree.leaves(tree)]


def _unbounded(value: Any) -> Space:
    return Space("box", value.shape, str(value.dtype), np.full(value.shape, -np.inf), np.full(value.shape, np.inf))
