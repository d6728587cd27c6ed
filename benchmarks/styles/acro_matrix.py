"""Acrobot-v1 in JAX, with the "book" dynamics and one RK4 step per action.

The equations of motion are written with the two-link inertia matrix

    [[d1, d2], [d2, m2 lc2^2 + I2]]

and eliminated by hand in the order of the original, so that results agree.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

PI = np.pi
DT = 0.2
L1 = 1.0  # length of link 1
M1 = M2 = 1.0  # masses
LC1 = LC2 = 0.5  # centres of mass
I1 = I2 = 1.0  # moments of inertia
GRAVITY = 9.8
MAX_VEL = np.array([4 * PI, 9 * PI], dtype=np.float32)
TORQUES = np.array([-1.0, 0.0, 1.0], dtype=np.float32)
RK4_WEIGHTS = np.array([1.0, 2.0, 2.0, 1.0], dtype=np.float32)
LIMIT = 500

_high = np.concatenate([np.ones(4, np.float32), MAX_VEL])
observation_space = spaces.Box(low=-_high, high=_high, dtype=np.float32)
action_space = spaces.Discrete(3)


class AcrobotState(NamedTuple):
    s: jax.Array  # theta1, theta2, dtheta1, dtheta2
    n: jax.Array


def wrap(x, lo, hi):
    """Shift x by whole turns of hi - lo until it lies in [lo, hi]."""
    turn = hi - lo
    above = jnp.maximum(jnp.ceil((x - hi) / turn), 0.0)
    below = jnp.maximum(jnp.ceil((lo - x) / turn), 0.0)
    return x + turn * (below - above)


def bound(x, lo, hi):
    return jnp.minimum(jnp.maximum(x, lo), hi)


def _d1(theta2):
    link1 = M1 * LC1**2
    link2 = M2 * (L1**2 + LC2**2 + 2 * L1 * LC2 * jnp.cos(theta2))
    return link1 + link2 + I1 + I2


def _d2(theta2):
    return M2 * (LC2**2 + L1 * LC2 * jnp.cos(theta2)) + I2


def _phi2(theta1, theta2):
    return M2 * LC2 * GRAVITY * jnp.cos(theta1 + theta2 - PI / 2)


def _phi1(theta, dtheta, phi2):
    coupling = M2 * L1 * LC2 * jnp.sin(theta[1])
    centrifugal = jnp.array([-2.0 * coupling, -coupling]) @ jnp.array([dtheta[0] * dtheta[1], dtheta[1] ** 2])
    weight = (M1 * LC1 + M2 * L1) * GRAVITY * jnp.cos(theta[0] - PI / 2)
    return centrifugal + weight + phi2


def derivatives(s, torque):
    theta, dtheta = s[:2], s[2:]
    d1, d2 = _d1(theta[1]), _d2(theta[1])
    phi2 = _phi2(theta[0], theta[1])
    phi1 = _phi1(theta, dtheta, phi2)
    drag = M2 * L1 * LC2 * dtheta[0] ** 2 * jnp.sin(theta[1])
    ddtheta2 = (torque + d2 / d1 * phi1 - drag - phi2) / (M2 * LC2**2 + I2 - d2**2 / d1)
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return jnp.concatenate([dtheta, jnp.stack([ddtheta1, ddtheta2])])


def _advance(state, k, h):
    return state + h * k


def rk4(s, torque):
    k1 = derivatives(s, torque)
    k2 = derivatives(_advance(s, k1, DT / 2), torque)
    k3 = derivatives(_advance(s, k2, DT / 2), torque)
    k4 = derivatives(_advance(s, k3, DT), torque)
    return _advance(s, RK4_WEIGHTS @ jnp.stack([k1, k2, k3, k4]), DT / 6)


def observe(s):
    angles = jnp.stack([jnp.cos(s[:2]), jnp.sin(s[:2])], axis=1)
    return jnp.concatenate([angles.ravel(), s[2:]])


def tip_above_bar(s):
    return -jnp.cos(s[0]) - jnp.cos(s[1] + s[0]) > 1.0


def reset(key):
    s = jax.random.uniform(key, (4,), jnp.float32, minval=-0.1, maxval=0.1)
    return observe(s), AcrobotState(s, jnp.int32(0))


def step(key, state, action):
    s = rk4(state.s, jnp.asarray(TORQUES)[action])
    s = jnp.concatenate([wrap(s[:2], -PI, PI), bound(s[2:], -MAX_VEL, MAX_VEL)])
    n = state.n + 1
    terminated = tip_above_bar(s)
    reward = jnp.where(terminated, 0.0, -1.0).astype(jnp.float32)
    return observe(s), AcrobotState(s, n), reward, terminated, n >= LIMIT, {}
