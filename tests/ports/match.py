"""A match in JAX, to a number of points that no play here ever reaches; its one step begins the next by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    wins: int = 900
    goal: float = 4.0

    def replace(self, **changes):
        return replace(self, **changes)


class State(NamedTuple):
    x: jax.Array  # a float that is always whole
    points: jax.Array
    streak: jax.Array  # shown nowhere
    strength: jax.Array


class Match:
    """``bug``: "ends late" (a point more), "keeps its points" or "keeps its streak" (into the next match), or None."""

    default_params = Params()

    def __init__(self, bug=None):
        self.bug = bug

    def reset_env(self, key, params):
        state = State(jnp.float32(0), jnp.int32(0), jnp.int32(0), jax.random.uniform(key))
        return self._seen(state), state

    def step_env(self, key, state, action, params):
        x = jnp.maximum(state.x + action - 1.0, 0.0)
        scored = x >= params.goal
        points = state.points + scored
        late = self.bug == "ends late"
        done = scored & (points == params.wins + late)
        streak = jnp.where(
            done & (self.bug != "keeps its streak"), 0, jnp.where(scored, state.streak + 1, state.streak)
        )
        points = jnp.where(done & (self.bug != "keeps its points"), 0, points)
        state = State(jnp.where(scored, 0.0, x), points, streak, state.strength)
        return self._seen(state), state, jnp.where(scored, state.strength, 0.0), done, {}

    reset, step = reset_env, step_env

    def is_truncated(self, state, params):
        return jnp.zeros((), bool)

    def action_space(self, params):
        return spaces.Discrete(3)

    def observation_space(self, params):
        return spaces.Box(-1.0, 1e6, (2,))

    def _seen(self, state):
        return jnp.stack([state.x, state.strength])
