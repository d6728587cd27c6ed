"""Brax environments: ``brax:halfcheetah?backend=spring``, or an object with its ``reset(rng)``, ``step``."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from pytest_envequiv.backends.functional import Functional, JaxBackend
from pytest_envequiv.backends.protocol import DONE, REWARD, TERMINATED, TRUNCATED, Backend, Space
from pytest_envequiv.errors import OpenError


def open_name(rest: str, options: dict[str, Any]) -> Backend:
    """``rest`` is a name of ``brax.envs``; options go to ``brax.envs.get_environment``."""
    try:
        from brax import envs
    except ImportError as error:
        raise OpenError(f"brax:{rest}: {error}; install it with: pip install 'pytest-envequiv[brax]'") from error
    try:
        environment = envs.get_environment(rest, **options)
    except KeyError as error:
        raise OpenError(f"brax:{rest}: brax has no environment of that name") from error
    except (TypeError, ValueError) as error:
        raise OpenError(f"brax:{rest}: {' '.join(str(error).split())}") from error
    return _backend(environment, f"brax:{rest}", {"brax": version("brax")})


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes an object (or class) with Brax's face: ``action_size``, ``observation_size``, ``reset``, ``step``."""
    if not all(hasattr(thing, a) for a in ("action_size", "observation_size", "reset", "step")):
        return None
    return _backend(thing(**options) if isinstance(thing, type) else thing, name, {})


def _backend(environment: Any, name: str, versions: dict[str, str]) -> Backend:
    def reset(key: Any) -> Any:
        state = environment.reset(key)
        return state, {"observation": state.obs}

    def step(key: Any, state: Any, action: Any) -> Any:
        after = environment.step(state, action["action"])
        ends = {DONE: after.done.astype(bool)}
        if "truncation" in after.info:
            truncated = after.info["truncation"].astype(bool)
            ends = {TERMINATED: after.done.astype(bool) & ~truncated, TRUNCATED: truncated}
        return after, {"observation": after.obs, REWARD: after.reward, **ends}

    seen = jax.eval_shape(lambda key: environment.reset(key).obs, jax.random.PRNGKey(0))
    size = int(environment.action_size)
    return JaxBackend(
        Functional(
            name=name,
            kind="brax",
            reset=reset,
            step=step,
            action={"action": Space("box", (size,), "float32", np.full(size, -1.0), np.full(size, 1.0))},
            observation={
                "observation": Space(
                    "box", tuple(seen.shape), str(seen.dtype), np.full(seen.shape, -np.inf), np.full(seen.shape, np.inf)
                )
            },
            conventions={"auto_reset": "none", "done": "merged"},
            versions=versions,
        )
    )
