"""The same in JAX, as plain functions: ``functions(moved)`` are a port that moves as it is told."""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp

from cheats.pole import EARTH, LIMIT, MARS, TOP

ACTION = gymnasium.spaces.Discrete(2)
OBSERVATION = gymnasium.spaces.Box(-TOP, TOP, (4,))


class State(NamedTuple):
    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    steps: jax.Array


def moved(state, action, gravity):
    force = jnp.where(action == 1, 10.0, -10.0)
    cos, sin = jnp.cos(state.theta), jnp.sin(state.theta)
    temp = (force + 0.05 * state.theta_dot**2 * sin) / 1.1
    angular = (gravity * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    linear = temp - 0.05 * angular * cos / 1.1
    now, rates = jnp.stack(state[:4]), jnp.stack([state.x_dot, linear, state.theta_dot, angular])
    return now + 0.02 * rates


def functions(move):
    """(reset, step) of a port; ``move(state, action)`` gives the next four numbers."""

    def reset(key):
        first = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return State(*first, jnp.int32(0)), first

    def step(state, action):
        after = move(state, action)
        steps = state.steps + 1
        over = (jnp.abs(after[0]) > 2.4) | (jnp.abs(after[2]) > 12 * 2 * jnp.pi / 360)
        return State(*after, steps), after, jnp.float32(1.0), over, steps >= LIMIT

    return reset, step


def by_gravity(gravity):
    return functions(lambda state, action: moved(state, action, gravity))


__all__ = ["ACTION", "EARTH", "MARS", "OBSERVATION", "by_gravity", "functions", "moved"]
