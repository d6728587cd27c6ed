"""The port as a ``gymnasium.vector.VectorEnv``: numpy in, numpy out, a batch of environments in one compiled step."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from targets.halfcheetah.environment import make


class HalfCheetahVector(VectorEnv):
    """``num_envs`` environments; settings are those of ``make``. An episode that ends begins anew in the same step.

    What was seen last of it is in ``info["final_obs"]``, for those that ``info["_final_obs"]`` marks.
    """

    def __init__(self, num_envs: int, **settings: Any):
        self.env, self.params = make(**settings)
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        space = self.env.observation_space(self.params)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, space.shape, np.dtype(space.dtype))
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, self.env.action_space(self.params).shape, np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._key = jax.random.PRNGKey(0)
        self._reset = jax.jit(partial(self.env.reset_env, params=self.params, shape=(num_envs,)))
        self._step = jax.jit(partial(self.env.step, params=self.params))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observations (num_envs, n). Without a seed the random stream goes on."""
        if seed is not None:
            self._key = jax.random.PRNGKey(seed)
        observation, self._state = self._reset(self._next())
        return np.asarray(observation), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """``actions``: (num_envs, 6). Returns observations, rewards, terminations, truncations and infos."""
        seen, self._state, reward, terminated, truncated, info = self._step(
            self._next(), self._state, jnp.asarray(actions, jnp.float32)
        )
        told = {name: np.asarray(value) for name, value in info.items()}
        last, ended = told.pop("final_observation"), np.asarray(truncated | terminated)
        told |= {"final_obs": last, "_final_obs": ended} if ended.any() else {}
        return np.asarray(seen), np.asarray(reward), np.asarray(terminated), np.asarray(truncated), told

    def _next(self) -> jax.Array:
        self._key, used = jax.random.split(self._key)
        return used
