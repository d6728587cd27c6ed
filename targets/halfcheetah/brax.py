"""The port with Brax's face: what ``brax.envs.training.wrap`` and its agents take. Brax itself is not needed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from targets.halfcheetah import environment
from targets.halfcheetah.model import HINGES, TIMESTEP


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Brax's ``State`` by the names of its fields. ``pipeline_state``: the environment's own; ``reward`` and ``done``:
    floats; ``metrics`` and ``info``: dictionaries of arrays, which wrappers add to in place."""

    pipeline_state: environment.State
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> State:
        return replace(self, **changes)


class HalfCheetahBrax:
    """One environment; ``vmap`` it, as Brax's wrappers do. Settings are those of ``environment.make``.

    It never ends: the time limit is the wrapper's ``episode_length``. Rewards and metrics are Gymnasium's numbers,
    under the names that Brax's own half cheetah has for them.
    """

    backend = "envequiv"

    def __init__(self, **settings: Any):
        self.env, self.params = environment.make(**settings)

    def reset(self, rng: jax.Array) -> State:
        obs, state = self.env.reset_env(rng, self.params)
        zero = jnp.zeros((), obs.dtype)
        return State(state, obs, zero, zero, dict.fromkeys(METRICS.values(), zero))

    def step(self, state: State, action: jax.Array) -> State:
        key = jax.random.PRNGKey(0)  # a step draws nothing
        obs, after, reward, _, info = self.env.step_env(key, state.pipeline_state, action, self.params)
        metrics = state.metrics | {theirs: info[ours].astype(obs.dtype) for ours, theirs in METRICS.items()}
        return state.replace(pipeline_state=after, obs=obs, reward=reward.astype(obs.dtype), metrics=metrics)

    @property
    def observation_size(self) -> int:
        return self.env.observation_space(self.params).shape[0]

    @property
    def action_size(self) -> int:
        return HINGES

    @property
    def dt(self) -> float:
        """Seconds of a step."""
        return TIMESTEP * self.params.frame_skip

    @property
    def unwrapped(self) -> HalfCheetahBrax:
        return self


# Gymnasium's name in info: Brax's in metrics.
METRICS = {
    "x_position": "x_position",
    "x_velocity": "x_velocity",
    "reward_forward": "reward_run",
    "reward_ctrl": "reward_ctrl",
}
