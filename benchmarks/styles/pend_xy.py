"""Pendulum-v1, functional, with a dict state {"theta", "omega", "t"}."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

G = 10.0
MASS = 1.0
LENGTH = 1.0
DT = 0.05
MAX_SPEED = 8.0
MAX_TORQUE = 2.0
HORIZON = 200

# Half-widths of the initial (theta, omega) distribution.
INIT_SPREAD = np.array([np.pi, 1.0], dtype=np.float32)

# Weights of angle^2, speed^2 and torque^2 in the cost.
COST_WEIGHTS = np.array([1.0, 0.1, 0.001], dtype=np.float32)

_OBS_HIGH = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, shape=(1,), dtype=np.float32)
observation_space = spaces.Box(-_OBS_HIGH, _OBS_HIGH, dtype=np.float32)


def wrap_angle(sin_theta, cos_theta):
    """Signed angle from upright, in [-pi, pi]."""
    return jnp.arctan2(sin_theta, cos_theta)


def gravity_term(sin_theta, g, length):
    """Angular acceleration of a uniform rod due to gravity."""
    return 3.0 * g / (2.0 * length) * sin_theta


def torque_term(torque, mass, length):
    """Angular acceleration of a uniform rod due to the motor."""
    return 3.0 / (mass * length**2) * torque


def angular_acceleration(sin_theta, torque, *, g=G, mass=MASS, length=LENGTH):
    return gravity_term(sin_theta, g, length) + torque_term(torque, mass, length)


def semi_implicit_euler(theta, omega, alpha, dt, max_speed):
    omega = jnp.clip(omega + alpha * dt, -max_speed, max_speed)
    return theta + omega * dt, omega


def swing_cost(angle, omega, torque, weights):
    terms = jnp.square(jnp.stack([angle, omega, torque]))
    return jnp.einsum("i,i->", weights, terms, precision=jax.lax.Precision.HIGHEST)


def observe(state):
    theta = state["theta"]
    return jnp.stack([jnp.cos(theta), jnp.sin(theta), state["omega"]])


@jax.jit
def reset(key):
    theta, omega = INIT_SPREAD * jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    state = {"theta": theta, "omega": omega, "t": jnp.array(0, jnp.int32)}
    return observe(state), state


@partial(jax.jit, static_argnames=("horizon",))
def step(key, state, action, horizon=HORIZON):
    del key
    theta, omega = state["theta"], state["omega"]
    torque = jnp.clip(jnp.asarray(action, jnp.float32), -MAX_TORQUE, MAX_TORQUE).squeeze(-1)
    sin_theta, cos_theta = jnp.sin(theta), jnp.cos(theta)

    # The cost is charged on the state that the torque is applied in.
    cost = swing_cost(wrap_angle(sin_theta, cos_theta), omega, torque, COST_WEIGHTS)

    alpha = angular_acceleration(sin_theta, torque)
    theta, omega = semi_implicit_euler(theta, omega, alpha, DT, MAX_SPEED)
    state = {"theta": theta, "omega": omega, "t": state["t"] + 1}

    terminated = jnp.array(False)
    truncated = state["t"] >= horizon
    return observe(state), state, -cost, terminated, truncated, {}
