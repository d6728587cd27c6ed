"""gymnax environments, and ports written against its interface. ``gymnax:CartPole-v1``, or an Environment object.

The step that is compared is ``step_env`` (the dynamics) with the time limit of ``is_truncated``; the
auto-resetting ``step`` is checked against it in a test of its own. An environment whose ``step`` is its ``step_env``
has one step only, which begins a new episode by itself.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

from pytest_envequiv.backends.declared import named_leaves, named_spaces, numeric_constants
from pytest_envequiv.backends.functional import Functional, JaxBackend
from pytest_envequiv.backends.protocol import DONE, REWARD, TERMINATED, TRUNCATED, Backend
from pytest_envequiv.errors import OpenError


def open_name(rest: str, options: dict[str, Any]) -> Backend:
    """``rest`` is an id of gymnax's registry; options override fields of its parameters."""
    try:
        import gymnax
    except ImportError as error:
        raise OpenError(f"gymnax:{rest}: {error}; install it with: pip install 'pytest-envequiv[gymnax]'") from error
    if rest not in gymnax.registered_envs:
        from difflib import get_close_matches

        near = get_close_matches(rest, gymnax.registered_envs, 1)
        raise OpenError(
            f"gymnax:{rest}: gymnax {version('gymnax')} has no environment of that id"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    environment, params = gymnax.make(rest)
    return _backend(environment, params, f"gymnax:{rest}", options, {"gymnax": version("gymnax")})


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes an Environment-like object (``step_env``, ``reset_env``, ``default_params``), a class of them, or an object
    with its parameters, as ``gymnax.make`` returns."""
    params = None
    if isinstance(thing, tuple) and len(thing) == 2:
        thing, params = thing
    if not all(hasattr(thing, a) for a in ("step_env", "reset_env", "default_params")):
        return None
    environment = thing
    if isinstance(thing, type):
        known = inspect.signature(thing).parameters
        environment = thing(**{key: value for key, value in options.items() if key in known})
        options = {key: value for key, value in options.items() if key not in known}
    return _backend(environment, environment.default_params if params is None else params, name, options, {})


def _backend(environment: Any, params: Any, name: str, options: dict[str, Any], versions: dict[str, str]) -> Backend:
    if options:
        unknown = [key for key in options if not hasattr(params, key)]
        if unknown:
            raise OpenError(f"{name}: no parameter {unknown[0]!r}; it has {', '.join(numeric_constants(params))}")
        params = params.replace(**options)
    separate = hasattr(environment, "is_truncated")
    alone = getattr(environment, "step", None) == environment.step_env  # methods are made anew at each look, and equal

    def outputs(observation: Any, reward: Any, done: Any, state: Any, params: Any) -> dict[str, Any]:
        ends = {TERMINATED: done, TRUNCATED: environment.is_truncated(state, params)} if separate else {DONE: done}
        return {**named_leaves(observation, "observation"), REWARD: reward, **ends}

    def reset(key: Any, params: Any = params) -> Any:
        observation, state = environment.reset_env(key, params)
        return state, named_leaves(observation, "observation")

    def step(key: Any, state: Any, action: Any, params: Any = params) -> Any:
        observation, state, reward, done, _ = environment.step_env(key, state, _action(action), params)
        return state, outputs(observation, reward, done, state, params)

    def auto(key: Any, state: Any, action: Any, params: Any = params) -> Any:
        returned = environment.step(key, state, _action(action), params)
        observation, state, reward, *ends, info = returned
        flags = dict(zip((TERMINATED, TRUNCATED), ends, strict=True)) if len(ends) == 2 else {DONE: ends[0]}
        final = info.get("final_observation") if isinstance(info, dict) else None
        kept = {} if final is None else {f"final_{k}": v for k, v in named_leaves(final, "observation").items()}
        return state, {**named_leaves(observation, "observation"), REWARD: reward, **flags, **kept}

    return JaxBackend(
        Functional(
            name=name,
            kind="gymnax",
            reset=reset,
            step=step,
            auto=None if alone else auto,
            params=params,
            action=named_spaces("action", environment.action_space(params)),
            observation=named_spaces("observation", environment.observation_space(params)),
            time_limit=_limit(params),
            constants=numeric_constants(params),
            conventions={
                "auto_reset": "same-step",
                "done": "separate" if separate else "merged",
                **({"step": "auto-reset"} if alone else {}),
            },
            versions=versions,
        )
    )


def _limit(params: Any) -> int | None:
    limit = getattr(params, "max_steps_in_episode", None)
    return None if limit is None else int(limit)


def _action(action: dict[str, Any]) -> Any:
    return action["action"] if set(action) == {"action"} else {k.split(".", 1)[1]: v for k, v in action.items()}
