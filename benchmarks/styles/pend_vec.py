"""Pendulum-v1 in JAX: swing a torque-limited pendulum up and hold it there."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

MAX_SPEED = 8.0
MAX_TORQUE = 2.0
DT = 0.05
G = 10.0
M = 1.0
L = 1.0
EPISODE_STEPS = 200

# Largest starting angle and angular velocity
INIT_HIGH = np.array([np.pi, 1.0], dtype=np.float32)

# Weights of squared angle, squared angular velocity and squared torque
COST_WEIGHTS = np.array([1.0, 0.1, 0.001], dtype=np.float32)

_bound = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
observation_space = spaces.Box(-_bound, _bound, dtype=np.float32)
action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, shape=(1,), dtype=np.float32)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["theta", "theta_dot", "count"],
    meta_fields=[],
)
@dataclass(frozen=True)
class PendulumState:
    theta: jax.Array
    theta_dot: jax.Array
    count: jax.Array


def angle_normalise(angle):
    """Map an angle to [-pi, pi)."""
    return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi


def reward_fn(theta, theta_dot, torque):
    terms = jnp.array([angle_normalise(theta), theta_dot, torque])
    return -jnp.sum(COST_WEIGHTS * terms**2)


def swing(theta, theta_dot, torque):
    """Semi-implicit Euler: the angle moves with the new, clipped velocity."""
    gravity_acc = 3 * G / (2 * L) * jnp.sin(theta)
    torque_acc = 3.0 / (M * L**2) * torque
    theta_dot = theta_dot + (gravity_acc + torque_acc) * DT
    theta_dot = jnp.clip(theta_dot, -MAX_SPEED, MAX_SPEED)
    return theta + theta_dot * DT, theta_dot


def get_obs(state):
    return jnp.array([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])


def reset(key):
    theta, theta_dot = jax.random.uniform(key, (2,), jnp.float32, minval=-INIT_HIGH, maxval=INIT_HIGH)
    state = PendulumState(theta, theta_dot, jnp.zeros((), jnp.int32))
    return get_obs(state), state


def step(key, state, action):
    torque = jnp.clip(action, -MAX_TORQUE, MAX_TORQUE)[0].astype(jnp.float32)
    reward = reward_fn(state.theta, state.theta_dot, torque)
    theta, theta_dot = swing(state.theta, state.theta_dot, torque)
    state = PendulumState(theta, theta_dot, state.count + 1)
    terminated = jnp.zeros((), jnp.bool_)
    truncated = state.count >= EPISODE_STEPS
    return get_obs(state), state, reward, terminated, truncated, {}
