"""A plain port that is not made for JAX's tracing: its functions are called row by row.

Functions that pass a state around are wrapped as an object that holds it, one place a leaf; an object that keeps its
own state is taken as it is. What functions draw from is a numpy Generator or, if they want that, a JAX key.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import jax
import numpy as np

from pytest_envequiv.backends import tapes
from pytest_envequiv.backends.codec import as_array, is_jax
from pytest_envequiv.backends.declared import numeric_constants
from pytest_envequiv.backends.discovery import Bare, clone
from pytest_envequiv.backends.lanes import Face, random_action, transposed
from pytest_envequiv.backends.protocol import AGENT, DONE, MASK, REWARD, TERMINATED, TRUNCATED, Space
from pytest_envequiv.backends.signatures import (
    KEY,
    OBSERVATION,
    SEED,
    STATE,
    UNSEEN,
    Port,
    call_of,
    conventions,
    fields_of,
    parts_of,
    parts_without_state,
    returned_names,
    split,
    state_place,
    unmasked,
)

OUTPUTS = (REWARD, TERMINATED, TRUNCATED, DONE, MASK, AGENT)


class Holder:
    """An object for a state that is passed around: its leaves by name, and what it draws from."""

    def __init__(self, source: Any):
        self.leaves = Bare()
        self.np_random = source


def functions_face(port: Port, jax_keys: bool) -> Face:
    """``jax_keys``: the functions draw from JAX keys. Raises what they raise, or TypeError in one line, if they cannot
    be called like this."""

    def drawing(holder: Holder, call: Any) -> dict[str, Any]:
        """What a call draws from, by role."""
        if not jax_keys:
            return {KEY: holder.np_random, SEED: int(holder.np_random.integers(2**31)) if call.takes(SEED) else 0}
        holder.np_random, now = jax.random.split(holder.np_random)
        return {KEY: now, SEED: int(jax.random.key_data(now)[-1] >> 1)}

    def begin(holder: Holder, seed: int | None) -> Any:
        if seed is None:
            given = drawing(holder, port.reset)
        elif jax_keys:
            key = jax.random.PRNGKey(seed)
            holder.np_random, given = jax.random.fold_in(key, 1), {KEY: key, SEED: seed}
        else:
            holder.np_random = tapes.generator(seed)
            given = {KEY: holder.np_random, SEED: seed}
        return port.reset(**given, params=port.params)

    def advance(holder: Holder, state: Any, chosen: Any) -> Any:
        action = chosen if set(port.action) == {"action"} else port.given(chosen)
        return port.step(**drawing(holder, port.step), params=port.params, state=state, action=action)

    def seen(given: Any, state: Any) -> dict[str, Any]:
        if given is None:
            observe = port.observe
            given = state if observe is None else observe(state=state, params=port.params, key=None)
        return _told(given)

    def reset(holder: Holder, seed: int | None) -> dict[str, Any]:
        state, given = split(begin(holder, seed), place)
        holder.leaves.update(exploded(state))
        return {name: np.zeros_like(value) for name, value in told.items()} if unseen else seen(given, state)

    def step(holder: Holder, chosen: Any) -> dict[str, Any]:
        state = rebuilt(template, holder.leaves)
        parts = stepped(holder, state, chosen)
        holder.leaves.update(exploded(parts[STATE]))
        outputs = {name: parts[name] for name in OUTPUTS if name in parts}
        return {**seen(parts.get(OBSERVATION), parts[STATE]), **outputs}

    def stepped(holder: Holder, state: Any, chosen: Any) -> dict[str, Any]:
        return parts_of(advance(holder, state, chosen), lambda part: _alike(part, state), names, prefer)

    probe = Holder(tapes.generator(0))
    action = random_action(port.action, np.random.default_rng(0))
    begun = begin(probe, 0)
    place = state_place(
        begun, lambda s: advance(probe, copy.deepcopy(s), action), _alike, returned_names(port.reset.function)
    )
    names, prefer = returned_names(port.step.function), place if isinstance(place, int) else 0
    template, first = split(begun, place)
    template = copy.deepcopy(template)  # a state, for its structure
    parts = stepped(probe, copy.deepcopy(template), action)
    told = {} if parts.get(OBSERVATION) is None else _told(parts[OBSERVATION])
    unseen = first is None and port.observe is None and bool(told) and not _alike(parts[OBSERVATION], parts[STATE])
    outputs = [reset(probe, 0), step(probe, action)][1]
    if not jax_keys and any(map(is_jax, [*outputs.values(), *probe.leaves.values()])):
        raise TypeError("it returns JAX arrays")
    return Face(
        name=port.name,
        kind="plain",
        make=lambda: Holder(tapes.generator(0)),
        reset=reset,
        stepper=lambda holder: lambda chosen: step(holder, chosen),
        outputs=transposed,
        action=port.action,
        observation=port.observation or _spaces(outputs),
        time_limit=port.time_limit,
        seats=int(np.size(outputs[REWARD])),
        constants={**port.constants, **numeric_constants(port.params)},
        conventions=conventions(DONE in outputs, unseen),
        notes=(UNSEEN,) if unseen else (),
    )


def object_face(thing: Any, make: Callable[[], Any] | None, port: Port) -> Face:
    """An object with ``reset([seed])`` and ``step(action)`` of no known library."""
    names = returned_names(type(thing).step)

    def reset(environment: Any, seed: int | None) -> dict[str, Any]:
        call = call_of(environment.reset, (KEY,))
        if (
            seed is not None
            and not (call.takes(SEED) or call.takes(KEY))
            and callable(getattr(environment, "seed", None))
        ):
            environment.seed(seed)
        begun = call.with_defaults(**{} if seed is None else {SEED: seed, KEY: tapes.generator(seed)})
        seen = begun[0] if isinstance(begun, tuple) and len(begun) == 2 and isinstance(begun[1], Mapping) else begun
        return _told((fields_of(seen) or {}).get(OBSERVATION, seen) if not isinstance(seen, Mapping) else seen)

    def step(environment: Any, chosen: Any) -> dict[str, Any]:
        action = chosen if set(port.action) == {"action"} else port.given(chosen)
        parts = parts_without_state(environment.step(action), names)
        return {**_told(parts[OBSERVATION]), **{name: parts[name] for name in OUTPUTS if name in parts}}

    first = make() if make else clone(thing)
    reset(first, 0)
    outputs = step(first, random_action(port.action, np.random.default_rng(0)))
    return Face(
        name=port.name,
        kind="plain",
        make=make or (lambda: clone(thing)),
        reset=reset,
        stepper=lambda environment: lambda chosen: step(environment, chosen),
        outputs=transposed,
        action=port.action,
        observation=port.observation or _spaces(outputs),
        time_limit=port.time_limit,
        seats=int(np.size(outputs[REWARD])),
        conventions=conventions(DONE in outputs, False),
    )


def _told(seen: Any) -> dict[str, Any]:
    found = unmasked(_observations(seen))
    return {n: np.asarray(v) != 0 if n == MASK else v for n, v in found.items()}


def _observations(seen: Any, name: str = OBSERVATION) -> dict[str, Any]:
    parts = fields_of(seen) if not isinstance(seen, tuple) or hasattr(seen, "_fields") else dict(enumerate(seen))
    if parts is None:
        return {name: seen if as_array(seen) is None else np.asarray(seen)}
    return {k: v for key, part in parts.items() for k, v in _observations(part, f"{name}.{key}").items()}


def _spaces(outputs: Mapping[str, Any]) -> dict[str, Space]:
    """What a step showed, without bounds."""
    seen = {name: np.asarray(value) for name, value in outputs.items() if name.startswith(OBSERVATION)}
    return {
        name: Space("box", v.shape, str(v.dtype), np.full(v.shape, -np.inf), np.full(v.shape, np.inf))
        for name, v in seen.items()
    }


# -- states as leaves ------------------------------------------------------------------------------------------------


def _items(state: Any) -> Mapping[Any, Any] | None:
    """The parts of a state that is made of parts."""
    if isinstance(state, tuple) and not hasattr(state, "_fields"):
        return dict(enumerate(state))
    fields = fields_of(state)
    if fields is None and as_array(state) is None and hasattr(state, "__dict__") and not callable(state):
        return vars(state)
    return fields


def exploded(state: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested state by name, as "ball.x"; a lone array or number is called "state"."""
    items = _items(state)
    if items is None:
        return {prefix or STATE: state}
    return {
        k: v
        for key, value in items.items()
        for k, v in exploded(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def rebuilt(template: Any, leaves: Mapping[str, Any], prefix: str = "") -> Any:
    """A state with the structure of ``template`` and the given leaves."""
    items = _items(template)
    if items is None:
        return leaves[prefix or STATE]
    parts = {key: rebuilt(value, leaves, f"{prefix}.{key}" if prefix else str(key)) for key, value in items.items()}
    if is_dataclass(template) and not isinstance(template, type):  # chex's are mappings as well
        return replace(template, **parts)
    if isinstance(template, tuple):
        return template._replace(**parts) if hasattr(template, "_replace") else tuple(parts.values())
    if isinstance(template, Mapping):
        twin = copy.copy(template)
        twin.update(parts)  # type: ignore[attr-defined]
        return twin
    twin = copy.copy(template)
    vars(twin).update(parts)
    return twin


def _alike(a: Any, b: Any) -> bool:
    """Made of the same parts; numbers and arrays of the same shapes."""
    if type(a) is not type(b) and (_items(a) is not None or _items(b) is not None):
        return False
    x, y = exploded(a), exploded(b)
    return x.keys() == y.keys() and all(_shape(x[k]) == _shape(y[k]) for k in x)


def _shape(value: Any) -> Any:
    array = as_array(value)
    return None if array is None or isinstance(value, (list, tuple)) else array.shape
