"""A plain module or object with ``reset`` and ``step`` functions, in JAX or in numpy.

    reset(key) -> state                              or (state, observation), or (observation, state)
    step(state, action) -> ...                       or (state, action, key), or (key, state, action[, params])

What is what is read from the parameters' names and from the values: the state is what has the structure of the
reset's state; then come observation, reward, and terminated and truncated (or one done), and perhaps an info
dict. A dict or named tuple with those names is taken by name. ``observe(state)`` supplies a missing observation;
``action_space`` and ``observation_space`` (or ``num_actions``) may be given, else the reference's are used.
JAX code is traced and batched; what cannot be traced is called row by row with a numpy Generator as its key.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends import tapes
from pytest_envequiv.backends.functional import Functional, JaxBackend, named_spaces, numeric_constants
from pytest_envequiv.backends.lanes import Face, sample, transposed
from pytest_envequiv.backends.objects import ObjectBackend
from pytest_envequiv.backends.protocol import (
    AGENT,
    DONE,
    MASK,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Backend,
    Space,
    Spec,
)
from pytest_envequiv.errors import OpenError

STATES, ACTIONS = {"state", "s", "env_state", "st", "carry"}, {"action", "actions", "a", "act", "u"}
KEYS, PARAMS = (
    {"key", "rng", "rng_key", "prng_key", "k", "generator", "seed", "random_key"},
    {"params", "env_params", "p", "config"},
)
NAMED = {
    "state": "state", "observation": "observation", "obs": "observation", "reward": REWARD, "rewards": REWARD,
    "terminated": TERMINATED, "terminal": TERMINATED, "truncated": TRUNCATED, "done": DONE, "mask": MASK,
    "action_mask": MASK, "legal_action_mask": MASK, "agent": AGENT,
}  # fmt: skip


def claim(thing: Any, name: str, options: dict[str, Any], like: Spec | None = None) -> Backend | None:
    """Takes anything with callable ``reset`` and ``step``. ``like`` supplies spaces that are not declared."""
    if isinstance(thing, type):
        thing = thing(**options)
    if not (callable(getattr(thing, "reset", None)) and callable(getattr(thing, "step", None))):
        return None
    plan = _Plan(thing, name, options)
    action, observation = _spaces(thing, name, like)
    try:
        return JaxBackend(_functional(plan, thing, name, action, observation))
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError, ValueError, AttributeError) as traced:
        try:
            return ObjectBackend(_face(plan, thing, name, action, observation))
        except OpenError:
            raise
        except Exception as error:
            raise OpenError(
                f"{name}: step can neither be traced by JAX ({_line(traced)}) nor called ({_line(error)})"
            ) from error


class _Plan:
    """How the two functions want to be called."""

    def __init__(self, thing: Any, name: str, options: dict[str, Any]):
        self.thing, self.name = thing, name
        defaults = getattr(thing, "default_params", None)
        self.params = defaults() if callable(defaults) and not dataclasses.is_dataclass(defaults) else defaults
        self.options = options
        self.reset_roles = self._roles(thing.reset, ["key"])
        self.step_roles = self._roles(thing.step, ["state", "action", "key"])
        for role in ("state", "action"):
            if role not in self.step_roles:
                raise OpenError(
                    f"{name}: step{inspect.signature(thing.step)} has no parameter for the {role}; "
                    "expected step(state, action), step(state, action, key) or step(key, state, action)"
                )

    def _roles(self, function: Callable[..., Any], fallback: list[str]) -> list[str]:
        parameters = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        roles = []
        for parameter in parameters:
            word = parameter.name.lower()
            for role, words in (("state", STATES), ("action", ACTIONS), ("key", KEYS), ("params", PARAMS)):
                if word in words:
                    roles.append("seed" if word == "seed" else role)
                    break
            else:
                if parameter.default is not parameter.empty:
                    break
                left = [r for r in fallback if r not in roles]
                roles.append(left[0] if left else "params")
        return roles

    def call(self, roles: list[str], function: Callable[..., Any], **given: Any) -> Any:
        given = {"params": self.params, **given}
        return function(*[given[role] for role in roles])


def _spaces(thing: Any, name: str, like: Spec | None) -> tuple[Mapping[str, Space], Mapping[str, Space] | None]:
    def declared(attribute: str) -> Any:
        value = getattr(thing, attribute, None)
        if callable(value) and not hasattr(value, "shape"):
            try:
                return value()
            except TypeError:
                return value(getattr(thing, "default_params", None))
        return value

    space = declared("action_space")
    if space is not None:
        action: Mapping[str, Space] = named_spaces("action", space)
    elif isinstance(count := declared("num_actions") or declared("n_actions"), (int, np.integer)):
        action = {"action": Space("discrete", (), "int32", np.array(0), np.array(int(count) - 1))}
    elif like is not None:
        action = like.action
    else:
        raise OpenError(
            f"{name}: declares no action_space and no num_actions, and there is no reference to take it from"
        )
    space = declared("observation_space")
    return action, None if space is None else named_spaces("observation", space)


# -- JAX -----------------------------------------------------------------------------------------------------------


def _functional(
    plan: _Plan, thing: Any, name: str, action: Mapping[str, Space], observation: Mapping[str, Space] | None
) -> Functional:
    key = jax.random.PRNGKey(0)
    example = {k: jnp.zeros(s.shape, s.dtype) for k, s in action.items()}

    def raw_reset(key: Any) -> Any:
        return plan.call(plan.reset_roles, thing.reset, key=key, seed=key)

    def raw_step(key: Any, state: Any, chosen: Any) -> Any:
        given = chosen["action"] if set(chosen) == {"action"} else {k.split(".", 1)[1]: v for k, v in chosen.items()}
        return plan.call(plan.step_roles, thing.step, key=key, seed=key, state=state, action=given)

    begun = jax.eval_shape(raw_reset, key)
    which = _state_index(begun, lambda state: jax.eval_shape(raw_step, key, state, example), name)

    def outputs_of(parts: dict[str, Any], state: Any) -> dict[str, Any]:
        if "observation" not in parts:
            observe = getattr(thing, "observe", None) or getattr(thing, "observation", None)
            parts["observation"] = observe(state) if callable(observe) else state
        return _flat(parts)

    def reset(key: Any) -> Any:
        state, seen = _split_reset(raw_reset(key), which)
        return state, outputs_of({} if seen is None else {"observation": seen}, state)

    def step(key: Any, state: Any, chosen: Any) -> Any:
        parts = _parts(raw_step(key, state, chosen), jax.tree.structure(state), name)
        after = parts.pop("state")
        return after, outputs_of(parts, after)

    state, _ = jax.eval_shape(reset, key)
    _, outputs = jax.eval_shape(step, key, state, example)
    seen = observation or {
        k: Space("box", v.shape, str(v.dtype), np.full(v.shape, -np.inf), np.full(v.shape, np.inf))
        for k, v in outputs.items()
        if k.startswith("observation")
    }
    limit = getattr(thing, "max_steps_in_episode", None) or getattr(plan.params, "max_steps_in_episode", None)
    return Functional(
        name=name,
        kind="plain",
        reset=reset,
        step=step,
        action=action,
        observation=seen,
        time_limit=int(limit) if isinstance(limit, (int, np.integer)) else None,
        constants={**_module_constants(thing), **numeric_constants(plan.params)},
        seats=int(outputs[REWARD].shape[0]) if outputs[REWARD].shape else 1,
        conventions={"auto_reset": "none", "done": "merged" if DONE in outputs else "separate"},
    )


def _state_index(begun: Any, try_step: Callable[[Any], Any], name: str) -> int | None:
    """Which element of the reset's result is the state; None: all of it."""
    if not (isinstance(begun, tuple) and not hasattr(begun, "_fields") and len(begun) == 2):
        return None
    found = []
    errors = []
    for index in (0, 1):
        try:
            after = try_step(begun[index])
        except Exception as error:  # this one cannot be the state
            errors.append(error)
            continue
        if any(_alike(part, begun[index]) for part in (after if isinstance(after, tuple) else [after])):
            found.append((index, after))
    if not found:
        raise TypeError(
            f"step accepts neither part of what reset returns: {_line(errors[0]) if errors else 'no state comes back'}"
        )
    if len(found) == 1:
        return found[0][0]
    # Both fit: step returns the state in the same place among the first two as reset does.
    return 1 if isinstance(begun[0], jax.ShapeDtypeStruct) and not isinstance(begun[1], jax.ShapeDtypeStruct) else 0


def _alike(a: Any, b: Any) -> bool:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(np.shape(x) == np.shape(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _split_reset(begun: Any, which: int | None) -> tuple[Any, Any]:
    if which is None:
        return begun, None
    return begun[which], begun[1 - which]


def _parts(result: Any, structure: Any, name: str) -> dict[str, Any]:
    """What step returned, by name."""
    named = result._asdict() if hasattr(result, "_asdict") else result
    if isinstance(named, Mapping) and "state" in named:
        return {NAMED[k]: v for k, v in named.items() if k in NAMED}
    if not isinstance(result, tuple):
        raise TypeError(f"step returns a {type(result).__name__}; expected a tuple, or a dict with a 'state'")
    rest = list(result)
    places = [i for i, part in enumerate(rest[:2]) if jax.tree.structure(part) == structure]
    if not places:
        raise TypeError("step returns nothing with the structure of the state")
    return {"state": rest.pop(places[0]), **_numbered(rest)}


def _numbered(rest: list[Any]) -> dict[str, Any]:
    """What remains of a step's result when the state is taken out, by its place."""
    parts = {}
    if rest and isinstance(rest[-1], Mapping) and len(rest) > 2:
        rest, info = rest[:-1], rest[-1]
        mask = info.get("action_mask", info.get("legal_action_mask"))
        parts = {} if mask is None else {MASK: mask}
    names = {
        2: [REWARD, DONE],
        3: ["observation", REWARD, DONE],
        4: ["observation", REWARD, TERMINATED, TRUNCATED],
    }.get(len(rest))
    if names is None:
        raise TypeError(
            f"step returns {len(rest)} values besides the state; expected observation, reward, terminated, truncated"
        )
    return parts | dict(zip(names, rest, strict=True))


def _flat(parts: dict[str, Any]) -> dict[str, Any]:
    from pytest_envequiv.backends.functional import leaf_names

    outputs = {k: v for k, v in parts.items() if k != "observation"}
    seen = parts["observation"]
    names = leaf_names(seen)
    if names == ["state"]:
        return {**outputs, "observation": jax.tree.leaves(seen)[0]}
    return {**outputs, **{f"observation.{n}": v for n, v in zip(names, jax.tree.leaves(seen), strict=True)}}


def _module_constants(thing: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, value in vars(thing).items() if hasattr(thing, "__dict__") else ():
        if not name.startswith("_") and isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            found[name] = np.asarray(value, float)
    return found


# -- numpy ---------------------------------------------------------------------------------------------------------


def _face(
    plan: _Plan, thing: Any, name: str, action: Mapping[str, Space], observation: Mapping[str, Space] | None
) -> Face:
    """The functions wrapped as an object that holds the state, one attribute a leaf."""

    def generator_for(environment: Any, seed: int | None) -> Any:
        if seed is not None:
            environment.np_random = tapes.generator(seed)
            environment.seeded[0] = seed
        return environment.np_random

    def hold(environment: Any, state: Any) -> None:
        environment.template = (state,)
        for key, value in _exploded(state).items():
            setattr(environment.leaves, key, value)

    def held(environment: Any) -> Any:
        return _rebuilt(environment.template[0], vars(environment.leaves))

    def seen_in(parts: dict[str, Any], state: Any) -> dict[str, Any]:
        if "observation" not in parts:
            observe = getattr(thing, "observe", None) or getattr(thing, "observation", None)
            parts["observation"] = observe(state) if callable(observe) else np.asarray(state)
        seen = parts.pop("observation")
        flat = {f"observation.{k}": v for k, v in seen.items()} if isinstance(seen, Mapping) else {"observation": seen}
        return {**parts, **flat}

    def reset(environment: Any, seed: int | None) -> dict[str, Any]:
        source = generator_for(environment, seed)
        begun = plan.call(plan.reset_roles, thing.reset, key=source, seed=environment.seeded[0])
        state, seen = _split_reset(begun, environment.which(begun))
        hold(environment, state)
        return seen_in({} if seen is None else {"observation": seen}, state)

    def step(environment: Any, chosen: Any) -> dict[str, Any]:
        state = held(environment)
        result = plan.call(
            plan.step_roles,
            thing.step,
            key=environment.np_random,
            seed=environment.seeded[0],
            state=state,
            action=chosen,
        )
        parts = _parts_like(result, state)
        hold(environment, after := parts.pop("state"))
        return seen_in(parts, after)

    def which(begun: Any) -> int | None:
        if not (isinstance(begun, tuple) and not hasattr(begun, "_fields") and len(begun) == 2):
            return None
        return (
            1
            if isinstance(begun[0], np.ndarray) and not isinstance(begun[1], (np.ndarray, dict))
            else _by_trial(plan, thing, begun, action)
        )

    def make() -> Any:
        return _Holder(which)

    probe = make()
    outputs = reset(probe, 0)
    rng = np.random.default_rng(0)
    row = {k: sample(s, rng) for k, s in action.items()}
    outputs = step(probe, row["action"] if set(row) == {"action"} else row)
    seen = observation or {
        k: Space(
            "box", np.shape(v), str(np.asarray(v).dtype), np.full(np.shape(v), -np.inf), np.full(np.shape(v), np.inf)
        )
        for k, v in outputs.items()
        if k.startswith("observation")
    }

    return Face(
        name=name,
        kind="plain",
        make=make,
        reset=reset,
        stepper=lambda environment: lambda chosen: step(environment, chosen),
        outputs=transposed,
        action=action,
        observation=seen,
        seats=int(np.size(outputs[REWARD])),
        conventions={"auto_reset": "none", "done": "merged" if DONE in outputs else "separate"},
    )


class _Holder:
    """An object for a state that is passed around: its leaves as attributes, and a generator."""

    def __init__(self, which: Callable[[Any], int | None]):
        self.leaves = SimpleNamespace()
        self.np_random = tapes.generator(0)
        self.seeded = {0: 0}
        self.template: tuple[Any, ...] = ()
        self.which = which


def _by_trial(plan: _Plan, thing: Any, begun: Any, action: Mapping[str, Space]) -> int:
    rng = np.random.default_rng(0)
    row = {k: sample(s, rng) for k, s in action.items()}
    chosen = row["action"] if set(row) == {"action"} else row
    for index in (0, 1):
        try:
            result = plan.call(
                plan.step_roles, thing.step, key=tapes.generator(0), seed=0, state=begun[index], action=chosen
            )
            _parts_like(result, begun[index])
        except Exception:  # this one cannot be the state
            continue
        return index
    raise OpenError(f"{plan.name}: step accepts neither part of what reset returns")


def _parts_like(result: Any, state: Any) -> dict[str, Any]:
    named = result._asdict() if hasattr(result, "_asdict") else result
    if isinstance(named, Mapping) and "state" in named:
        return {NAMED[k]: v for k, v in named.items() if k in NAMED}
    fits = [
        i
        for i, part in enumerate(result[:2])
        if type(part) is type(state) and _exploded(part).keys() == _exploded(state).keys()
    ]
    if not fits:
        raise TypeError("step returns nothing with the structure of the state")
    return {"state": result[fits[0]], **_numbered([part for i, part in enumerate(result) if i != fits[0]])}


def _exploded(state: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested state by name; a lone array or number is called "state"."""
    if isinstance(state, Mapping):
        items = list(state.items())
    elif hasattr(state, "_fields"):
        items = list(state._asdict().items())
    elif dataclasses.is_dataclass(state):
        items = [(f.name, getattr(state, f.name)) for f in dataclasses.fields(state)]
    elif isinstance(state, tuple):
        items = [(str(i), v) for i, v in enumerate(state)]
    else:
        return {prefix.removesuffix("__") or "state": state}
    return {k: v for key, value in items for k, v in _exploded(value, f"{prefix}{key}__").items()}


def _rebuilt(template: Any, leaves: Mapping[str, Any], prefix: str = "") -> Any:
    if isinstance(template, Mapping):
        return type(template)({k: _rebuilt(v, leaves, f"{prefix}{k}__") for k, v in template.items()})
    if hasattr(template, "_fields"):
        return type(template)(**{k: _rebuilt(v, leaves, f"{prefix}{k}__") for k, v in template._asdict().items()})
    if dataclasses.is_dataclass(template) and not isinstance(template, type):
        return dataclasses.replace(
            template,
            **{
                f.name: _rebuilt(getattr(template, f.name), leaves, f"{prefix}{f.name}__")
                for f in dataclasses.fields(template)
            },
        )
    if isinstance(template, tuple):
        return tuple(_rebuilt(v, leaves, f"{prefix}{i}__") for i, v in enumerate(template))
    return leaves[prefix.removesuffix("__") or "state"]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
