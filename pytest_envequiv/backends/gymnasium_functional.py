"""Gymnasium's functional environments (``FuncEnv``), such as ``phys2d/CartPole-v1``, as two pure JAX functions.

Their Gymnasium face compiles anew for every object; here one compiled function steps a whole batch.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import jax.numpy as jnp

from pytest_envequiv.backends.declared import named_leaves, named_spaces, numeric_constants
from pytest_envequiv.backends.functional import Functional, JaxBackend
from pytest_envequiv.backends.protocol import REWARD, TERMINATED, TRUNCATED, Backend

PASSING = {"OrderEnforcing", "PassiveEnvChecker", "TimeLimit"}  # wrappers whose behaviour is reproduced here


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes a FuncEnv, or a class of them, or an environment around one that has no other wrappers than usual."""
    from gymnasium.experimental.functional import FuncEnv

    if isinstance(thing, type):
        return _backend(thing(**options), None, name) if issubclass(thing, FuncEnv) else None
    if isinstance(thing, FuncEnv):
        return _backend(thing, None, name)
    limit: int | None = None
    inner, innermost = thing, getattr(thing, "unwrapped", thing)
    while inner is not innermost:
        if type(inner).__name__ not in PASSING:
            return None
        limit = getattr(inner, "_max_episode_steps", limit)
        inner = inner.env
    bases = {base.__name__ for base in type(inner).__mro__}
    return _backend(inner.func_env, limit, name) if "FunctionalJaxEnv" in bases else None


def _backend(environment: Any, limit: int | None, name: str) -> Backend:
    """The functions as ``FunctionalJaxEnv`` calls them: one key for all. The clock of the limit is state."""

    def call(function: Any, *given: Any) -> Any:
        return function(*given[: len(inspect.signature(function).parameters)])

    def seen(state: Any, key: Any) -> dict[str, Any]:
        return named_leaves(call(environment.observation, state, key), "observation")

    def reset(key: Any) -> Any:
        state = environment.initial(key)
        clock = {} if limit is None else {"elapsed_steps": jnp.int32(0)}
        return {"state": state, **clock}, seen(state, key)

    def step(key: Any, state: Any, action: Any) -> Any:
        before = state["state"]
        after = environment.transition(before, action["action"], key)
        elapsed = {k: v + 1 for k, v in state.items() if k == "elapsed_steps"}
        outputs = {
            **seen(after, key),
            REWARD: jnp.asarray(call(environment.reward, before, action["action"], after, key)),
            TERMINATED: jnp.asarray(call(environment.terminal, after, key)) != 0,
            TRUNCATED: jnp.asarray(False if limit is None else elapsed["elapsed_steps"] >= limit),
        }
        return {"state": after, **elapsed}, outputs

    return JaxBackend(
        Functional(
            name=name,
            kind="gymnasium",
            reset=reset,
            step=step,
            action=named_spaces("action", environment.action_space),
            observation=named_spaces("observation", environment.observation_space),
            time_limit=limit,
            constants=numeric_constants(getattr(environment, "default_params", None)),
            prefix="state.",
            conventions={"auto_reset": "none", "done": "separate"},
            versions={"gymnasium": version("gymnasium")},
        )
    )
