"""Environments of no library: functions ``reset`` and ``step`` in JAX or numpy, or an object that keeps its state.

    reset(key) -> state                              or (state, observation), or (observation, state)
    step(state, action) -> ...                       or (state, action, key), or (key, state, action[, params])
    reset([seed]) -> observation                     and step(action) -> observation, reward, done[, info] of an object

What is what is read from names and values (``signatures.py``). ``observe(state)`` supplies a missing observation;
``action_space`` and ``observation_space`` (or ``num_actions``) may be given, else the reference's are used. JAX code
is traced and batched (``jax_module.py``); other code is called row by row (``numpy_module.py``).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from pytest_envequiv.backends.declared import is_number, named_spaces
from pytest_envequiv.backends.functional import JaxBackend
from pytest_envequiv.backends.jax_module import functional
from pytest_envequiv.backends.lanes import sample
from pytest_envequiv.backends.numpy_module import functions_face, object_face
from pytest_envequiv.backends.objects import ObjectBackend
from pytest_envequiv.backends.protocol import MASK, Backend, Space, Spec
from pytest_envequiv.backends.signatures import (
    ACTION,
    KEY,
    OBSERVERS,
    PARAMS,
    STATE,
    Call,
    Port,
    call_of,
    line,
    params_of,
    unmasked,
)
from pytest_envequiv.errors import OpenError

RESETS, STEPS = ("reset_env", "reset", "init", "initial_state", "initial"), ("step_env", "step")
LIMITS = ("max_steps_in_episode", "max_episode_steps", "max_steps", "episode_length", "time_limit")
COUNTS = ("num_actions", "n_actions", "action_count")
WATCHED = 600  # steps in which some episodes are hoped to end
JAX = ("jax", "flax", "chex", "equinox", "distrax")


def claim(thing: Any, name: str, options: dict[str, Any], like: Spec | None = None) -> Backend | None:
    """Takes anything with a callable ``reset`` and ``step``. ``like`` supplies spaces that are not declared."""
    make: Callable[[], Any] | None = None
    if isinstance(thing, type):
        make, options = _maker(thing, options), {}
        thing = make()
    reset, step = _first(thing, RESETS), _first(thing, STEPS)
    if reset is None or step is None:
        return None
    stepping = call_of(step, (STATE, ACTION, KEY))
    missing = [role for role in (STATE, ACTION) if not stepping.takes(role)]
    alone = len(stepping.roles) == 1 and not isinstance(thing, ModuleType)  # step(action): the state is in the object
    if missing and not alone:
        raise OpenError(
            f"{name}: step{inspect.signature(step)} has no parameter for the {missing[0]}; "
            "expected step(state, action), step(state, action, key) or step(key, state, action)"
        )
    observe, params = None if alone else _observer(thing), params_of(thing, options, name)
    action, observation = _spaces(thing, params, name, like)
    port = Port(
        name=name,
        reset=call_of(reset, (KEY, PARAMS)),
        step=stepping,
        observe=observe,
        params=params,
        action=action,
        observation=observation and {n: space for n, space in unmasked(observation).items() if n != MASK},
        time_limit=_limit(thing, params),
        constants=_constants(thing),
    )
    if alone:
        return _watched(ObjectBackend(object_face(thing, make, port)))
    return _opened(port, _uses_jax(step))


def _opened(port: Port, in_jax: bool) -> Backend:
    traced: Callable[[], JaxBackend | ObjectBackend] = lambda: JaxBackend(functional(port))  # noqa: E731
    called, keyed = (lambda keys=keys: ObjectBackend(functions_face(port, keys)) for keys in (False, True))
    errors: dict[Any, str] = {}
    for attempt in (traced, keyed, called) if in_jax else (called, traced, keyed):
        try:
            backend = _watched(attempt())
            if in_jax and attempt is not traced:
                untraced = f"{port.name}: JAX cannot trace its step, which is called row by row instead: slow, no blame"
                notes = (*backend.spec.notes, f"{untraced}, no branches ({errors[traced]})")
                backend.spec = dataclasses.replace(backend.spec, notes=notes)
            return backend
        except OpenError:
            raise
        except Exception as error:  # whatever the port raises when it is not run as it was meant to be
            errors[attempt] = line(error)
            if attempt is traced and in_jax and not _calling.get():
                raise OpenError(f"{port.name}: JAX cannot trace its step ({errors[attempt]})") from error
    raise OpenError(
        f"{port.name}: step can neither be traced by JAX ({errors[traced]}) nor called row by row "
        f"({errors[keyed if in_jax else called]})"
    )


_playing = ContextVar("playing", default=True)
_calling = ContextVar("calling", default=True)


@contextmanager
def only_traced() -> Iterator[None]:
    """Inside the block JAX code is traced or refused, and not called row by row, which may take minutes to open."""
    token = _calling.set(False)
    try:
        yield
    finally:
        _calling.reset(token)


@contextmanager
def unplayed() -> Iterator[None]:
    """Inside the block nothing is played when it is opened, and so nothing is compiled: for someone who opens many
    variants of a target of which it is known that its step does not begin episodes by itself."""
    token = _playing.set(False)
    try:
        yield
    finally:
        _playing.reset(token)


def _watched(backend: JaxBackend | ObjectBackend) -> Backend:
    """The backend, which says so if its step begins a new episode by itself where one ends."""
    if _playing.get() and _begins_anew(backend):
        style = {"auto_reset": "same-step", "step": "auto-reset"}
        backend.spec = dataclasses.replace(backend.spec, conventions={**backend.spec.conventions, **style})
    return backend


def _begins_anew(backend: JaxBackend | ObjectBackend) -> bool:
    """Whether every state that an end leaves behind is one a reset could give, and states on the way are not."""
    count, rng = 64, np.random.default_rng(0)
    state = backend.reset(np.arange(count)).state
    numbers = {name: value.astype(float) for name, value in state.fields.items()}
    slack = {name: 0.5 * (value.max(0) - value.min(0)) for name, value in numbers.items()}
    bounds = {name: (value.min(0) - slack[name], value.max(0) + slack[name]) for name, value in numbers.items()}
    ends, moved = 0, False
    for tick in range(min(backend.spec.time_limit or WATCHED, WATCHED)):
        action = {
            name: np.stack([sample(s, rng) for _ in range(len(state))]) for name, s in backend.spec.action.items()
        }
        outcome = backend.step(state, action, np.arange(len(state)) + 1000 * tick)
        fresh, over = np.ones(len(state), bool), outcome.done
        for name, (low, high) in bounds.items():
            value = outcome.state.fields[name]
            fresh &= ((value >= low) & (value <= high)).reshape(len(value), -1).all(1)
        if (over & ~fresh).any():
            return False
        ends, moved = ends + int(over.sum()), moved or bool((~over & ~fresh).any())
        if over.all() or (moved and ends >= 8):
            break
        state = outcome.state.take(np.flatnonzero(~over))
    return moved and ends >= 8


def _maker(kind: type, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: kind(**options)


def _first(thing: Any, names: tuple[str, ...]) -> Callable[..., Any] | None:
    found = (getattr(thing, name, None) for name in names)
    return next((value for value in found if callable(value) and not isinstance(value, type)), None)


def _observer(thing: Any) -> Call | None:
    """The function from a state to what is seen of it: of a usual name, or the only one whose name says so."""
    usual = _first(thing, OBSERVERS)
    if usual is not None:
        return call_of(usual, (STATE, PARAMS, KEY))
    told = [getattr(thing, name, None) for name in dir(thing) if "obs" in name.lower() and "space" not in name.lower()]
    calls = [call_of(f, (STATE,)) for f in told if f is not None and (inspect.isroutine(f) or hasattr(f, "lower"))]
    fitting = [call for call in calls if call.takes(STATE) and {role for role, _, _ in call.roles} <= {STATE, PARAMS}]
    return fitting[0] if len(fitting) == 1 else None


def _uses_jax(function: Callable[..., Any]) -> bool:
    """Whether the module the function was written in imports JAX or something made for it."""
    plain = inspect.unwrap(function)
    values = list(getattr(plain, "__globals__", {}).values())
    names = [
        getattr(v, "__name__", "") if isinstance(v, ModuleType) else getattr(v, "__module__", "") or "" for v in values
    ]
    return any(str(name).split(".")[0] in JAX for name in [*names, type(function).__module__])


def _spaces(
    thing: Any, params: Any, name: str, like: Spec | None
) -> tuple[Mapping[str, Space], Mapping[str, Space] | None]:
    def declared(attribute: str) -> Any:
        value = getattr(thing, attribute, None)
        if not callable(value) or hasattr(value, "shape") or hasattr(value, "n"):
            return value
        return value() if not inspect.signature(value).parameters else value(params)

    def spaces(root: str) -> Mapping[str, Space] | None:
        space = declared(f"{root}_space") if hasattr(thing, f"{root}_space") else declared(f"{root}_spec")
        if space is None:
            return None
        try:
            return named_spaces(root, space)
        except TypeError as error:
            if root == "observation" and not isinstance(space, bool | float | str):
                return None  # what is shown has a shape, whatever is declared
            if root == "action" and like is not None:
                return like.action
            raise OpenError(f"{name}: its {root}_space is {space!r}: {error}") from error

    action = spaces("action")
    count = next((n for n in map(declared, COUNTS) if isinstance(n, (int, np.integer))), None)
    if action is None and count is not None:
        action = {"action": Space("discrete", (), "int32", np.array(0), np.array(int(count) - 1))}
    if action is None and like is not None:
        action = like.action
    if action is None:
        raise OpenError(
            f"{name}: declares no action_space and no num_actions, and there is no reference to take it from"
        )
    return action, spaces("observation")


def _limit(thing: Any, params: Any) -> int | None:
    values = [
        getattr(owner, name, None) for owner in (params, thing) for word in LIMITS for name in (word, word.upper())
    ]
    return next((int(v) for v in values if isinstance(v, (int, np.integer)) and not isinstance(v, bool)), None)


def _constants(thing: Any) -> dict[str, np.ndarray]:
    """Public numbers of the module or object."""
    return {
        name: np.asarray(value, float)
        for name, value in getattr(thing, "__dict__", {}).items()
        if not name.startswith("_") and is_number(value)
    }
