"""A small reference and its port, as texts: what the search for edits is tried on."""

from __future__ import annotations

REFERENCE = """
import gymnasium
import numpy as np
from gymnasium import spaces

class Car(gymnasium.Env):
    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(-2, 2, (2,), np.float32)

    def __init__(self):
        self.max_speed = 0.07
        self.goal = 0.3
        self.force = 0.004

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.velocity = float(self.np_random.uniform(-0.6, -0.4)), 0.0
        return self.seen(), {}

    def step(self, action):
        velocity = self.velocity + (action - 1) * self.force - 0.0025 * np.cos(3 * self.position)
        velocity = np.clip(velocity, -self.max_speed, self.max_speed)
        position = np.clip(self.position + velocity, -1.2, 0.6)
        self.position, self.velocity = float(position), float(velocity)
        terminated = bool(position >= self.goal)
        return self.seen(), -1.0, terminated, False, {}

    def seen(self):
        return np.array([self.position, self.velocity], np.float32)
"""

PORT = """
from typing import NamedTuple

import jax
import jax.numpy as jnp


class State(NamedTuple):
    position: jax.Array
    velocity: jax.Array


def seen(state: State):
    return jnp.array([state.position, state.velocity])


def reset(key):
    state = State(jax.random.uniform(key, (), minval=-0.6, maxval=-0.4), jnp.float32(0.0))
    return seen(state), state


def step(key, state: State, action):
    velocity = state.velocity + (action - 1) * 0.004 - 0.0025 * jnp.cos(3 * state.position)
    velocity = jnp.clip(velocity, -0.07, 0.07)
    position = jnp.clip(state.position + velocity, -1.2, 0.6)
    terminated = position >= 0.3
    state = State(position, velocity)
    return seen(state), state, -1.0, terminated, {}
"""


def line_of(text: str) -> int:
    """The line of the port on which a text stands, from 1."""
    return PORT[: PORT.index(text)].count("\n") + 1
