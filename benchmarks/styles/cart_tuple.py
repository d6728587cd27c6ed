"""CartPole-v1 as pure JAX functions.

The cart-pole of Barto, Sutton and Anderson, one row at a time: batch it with
``jax.vmap`` and compile it with ``jax.jit``.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Params:
    gravity: float = 9.8
    mass_cart: float = 1.0
    mass_pole: float = 0.1
    half_length: float = 0.5
    force_mag: float = 10.0
    tau: float = 0.02
    x_threshold: float = 2.4
    theta_threshold: float = 12 * 2 * math.pi / 360
    init_bound: float = 0.05
    max_steps: int = 500

    @property
    def total_mass(self) -> float:
        return self.mass_cart + self.mass_pole

    @property
    def polemass_length(self) -> float:
        return self.mass_pole * self.half_length


class State(NamedTuple):
    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    steps: jax.Array


DEFAULT = Params()

_high = np.array(
    [DEFAULT.x_threshold * 2, np.inf, DEFAULT.theta_threshold * 2, np.inf],
    dtype=np.float32,
)
observation_space = spaces.Box(-_high, _high, dtype=np.float32)
action_space = spaces.Discrete(2)


def observe(state: State) -> jax.Array:
    return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])


def forces(action, p: Params = DEFAULT):
    """Push to the right for action 1, to the left otherwise."""
    return jnp.where(action == 1, p.force_mag, -p.force_mag).astype(jnp.float32)


def accelerations(state: State, force, p: Params = DEFAULT):
    """Linear and angular acceleration under ``force``."""
    sin, cos = jnp.sin(state.theta), jnp.cos(state.theta)
    temp = (force + p.polemass_length * jnp.square(state.theta_dot) * sin) / p.total_mass
    theta_acc = (p.gravity * sin - cos * temp) / (
        p.half_length * (4.0 / 3.0 - p.mass_pole * jnp.square(cos) / p.total_mass)
    )
    x_acc = temp - p.polemass_length * theta_acc * cos / p.total_mass
    return x_acc, theta_acc


def integrate(state: State, x_acc, theta_acc, p: Params = DEFAULT) -> State:
    """One explicit Euler step; positions move with the old velocities."""
    return State(
        x=state.x + p.tau * state.x_dot,
        x_dot=state.x_dot + p.tau * x_acc,
        theta=state.theta + p.tau * state.theta_dot,
        theta_dot=state.theta_dot + p.tau * theta_acc,
        steps=state.steps + 1,
    )


def out_of_bounds(state: State, p: Params = DEFAULT):
    return (jnp.abs(state.x) > p.x_threshold) | (jnp.abs(state.theta) > p.theta_threshold)


def reset(key):
    p = DEFAULT
    x, x_dot, theta, theta_dot = jax.random.uniform(key, (4,), jnp.float32, minval=-p.init_bound, maxval=p.init_bound)
    state = State(x, x_dot, theta, theta_dot, jnp.zeros((), jnp.int32))
    return observe(state), state


def step(key, state: State, action):
    del key
    p = DEFAULT
    force = forces(action, p)
    x_acc, theta_acc = accelerations(state, force, p)
    state = integrate(state, x_acc, theta_acc, p)
    terminated = out_of_bounds(state, p)
    truncated = state.steps >= p.max_steps
    reward = jnp.ones((), jnp.float32)
    return observe(state), state, reward, terminated, truncated, {}
