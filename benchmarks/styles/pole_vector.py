"""Cart-pole balancing (CartPole-v1) on one state vector.

The equations of motion are kept in their matrix form

    M(theta) @ [x_acc, theta_acc] = generalised forces

so that the mass matrix and the right-hand side can be read off on their own.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

GRAVITY = 9.8
CART_MASS = 1.0
POLE_MASS = 0.1
TOTAL_MASS = CART_MASS + POLE_MASS
HALF_LENGTH = 0.5
POLE_MOMENT = POLE_MASS * HALF_LENGTH
POLE_INERTIA = 4.0 / 3.0 * POLE_MASS * HALF_LENGTH**2
PUSH = 10.0
DT = 0.02
HORIZON = 500
START_RANGE = 0.05

LIMITED = jnp.array([0, 2])
LIMITS = jnp.array([2.4, math.radians(12.0)], dtype=jnp.float32)
DIRECTIONS = jnp.array([-1.0, 1.0], dtype=jnp.float32)


class CartPoleState(NamedTuple):
    physics: jax.Array  # (4,): x, x_dot, theta, theta_dot
    t: jax.Array  # int32, steps taken in this episode


def _solve_2x2(matrix, rhs):
    """matrix^-1 @ rhs by the adjugate; cheaper than a LAPACK call."""
    (a, b), (c, d) = matrix
    adjugate = jnp.array([[d, -b], [-c, a]])
    return (adjugate * rhs).sum(axis=1) / (a * d - b * c)


def _accelerations(physics, force):
    theta, theta_dot = physics[2:]
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    coupling = POLE_MOMENT * cos
    mass_matrix = (
        (TOTAL_MASS, coupling),
        (coupling, POLE_INERTIA),
    )
    forces = jnp.stack(
        [
            force + POLE_MOMENT * theta_dot**2 * sin,
            POLE_MOMENT * GRAVITY * sin,
        ]
    )
    return _solve_2x2(mass_matrix, forces)


def _derivative(physics, force):
    velocities = physics[1::2]
    return jnp.stack([velocities, _accelerations(physics, force)], axis=1).ravel()


def _out_of_bounds(physics):
    return jnp.any(jnp.abs(physics[LIMITED]) > LIMITS)


def reset(key):
    physics = jax.random.uniform(key, (4,), dtype=jnp.float32, minval=-START_RANGE, maxval=START_RANGE)
    return physics, CartPoleState(physics, jnp.int32(0))


def step(key, state, action):
    del key  # deterministic
    force = PUSH * DIRECTIONS[action]
    physics = state.physics + DT * _derivative(state.physics, force)
    t = state.t + 1
    return (
        physics,
        CartPoleState(physics, t),
        jnp.float32(1.0),
        _out_of_bounds(physics),
        t >= HORIZON,
        {},
    )
