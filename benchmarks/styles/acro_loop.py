"""Acrobot-v1, "book" dynamics, with the Runge-Kutta stages as a scan."""

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import NamedTuple

import jax
from jax import lax, random
from jax import numpy as jnp


class Params(NamedTuple):
    m1: float = 1.0
    m2: float = 1.0
    l1: float = 1.0
    lc1: float = 0.5
    lc2: float = 0.5
    inertia1: float = 1.0
    inertia2: float = 1.0
    g: float = 9.8
    dt: float = 0.2
    max_omega1: float = 4 * pi
    max_omega2: float = 9 * pi
    torque: float = 1.0
    goal_height: float = 1.0
    init_scale: float = 0.1
    max_steps: int = 500


DEFAULT = Params()

# Classic RK4 tableau: where each stage is evaluated (in units of dt, along the
# previous slope), and what each slope counts for (in units of dt / 6).
RK4_OFFSETS = jnp.asarray([0.0, 0.5, 0.5, 1.0], jnp.float32)
RK4_WEIGHTS = jnp.asarray([1.0, 2.0, 2.0, 1.0], jnp.float32)


@jax.tree_util.register_dataclass
@dataclass
class AcrobotState:
    theta1: jax.Array
    theta2: jax.Array
    omega1: jax.Array
    omega2: jax.Array
    steps: jax.Array


def reset(key, params=DEFAULT):
    def draw(k):
        return random.uniform(k, (), jnp.float32, -params.init_scale, params.init_scale)

    k1, k2, k3, k4 = random.split(key, 4)
    state = AcrobotState(
        theta1=draw(k1),
        theta2=draw(k2),
        omega1=draw(k3),
        omega2=draw(k4),
        steps=jnp.zeros((), jnp.int32),
    )
    return observe(state), state


def step(key, state, action, params=DEFAULT):
    torque = params.torque * (jnp.asarray(action, jnp.float32) - 1.0)

    def advance(s):
        y = jnp.stack([s.theta1, s.theta2, s.omega1, s.omega2])
        th1, th2, w1, w2 = integrate(partial(slopes, params, torque), y, params.dt)
        return AcrobotState(
            theta1=wrap_angle(th1),
            theta2=wrap_angle(th2),
            omega1=jnp.clip(w1, -params.max_omega1, params.max_omega1),
            omega2=jnp.clip(w2, -params.max_omega2, params.max_omega2),
            steps=s.steps + 1,
        )

    def tip_height(s):
        return -jnp.cos(s.theta1) - jnp.cos(s.theta1 + s.theta2)

    new = advance(state)
    terminated = tip_height(new) > params.goal_height
    truncated = new.steps >= params.max_steps
    reward = jnp.where(terminated, 0.0, -1.0)
    return observe(new), new, reward, terminated, truncated, {}


def observe(s):
    def unit(angle):
        return [jnp.cos(angle), jnp.sin(angle)]

    return jnp.stack([*unit(s.theta1), *unit(s.theta2), s.omega1, s.omega2])


def wrap_angle(x):
    """Into [-pi, pi] with both ends left alone: an angle coming from above lands
    in (-pi, pi], one coming from below in [-pi, pi)."""
    turn = 2 * pi

    def from_above(a):
        return pi - jnp.mod(pi - a, turn)

    def from_below(a):
        return jnp.mod(a + pi, turn) - pi

    return jnp.where(x > pi, from_above(x), jnp.where(x < -pi, from_below(x), x))


def integrate(f, y, dt):
    """One RK4 step of length dt."""

    def stage(carry, tableau_row):
        slope, total = carry
        offset, weight = tableau_row
        slope = f(y + dt * offset * slope)
        return (slope, total + weight * slope), None

    nothing = jnp.zeros_like(y)
    (_, total), _ = lax.scan(stage, (nothing, nothing), (RK4_OFFSETS, RK4_WEIGHTS))
    return y + dt / 6 * total


def slopes(p, torque, y):
    th1, th2, w1, w2 = y
    c2, s2 = jnp.cos(th2), jnp.sin(th2)
    lever = p.m2 * p.l1 * p.lc2

    def inertias():
        elbow = p.m2 * p.lc2**2 + p.inertia2
        d2 = elbow + lever * c2
        d1 = p.m1 * p.lc1**2 + p.inertia1 + p.m2 * p.l1**2 + elbow + 2 * lever * c2
        return d1, d2, elbow

    def loads():
        # gravity: cos(a - pi/2) of the book is sin(a)
        phi2 = p.m2 * p.lc2 * p.g * jnp.sin(th1 + th2)
        shoulder = (p.m1 * p.lc1 + p.m2 * p.l1) * p.g * jnp.sin(th1)
        coriolis = lever * s2 * w2 * (w2 + 2 * w1)
        return shoulder - coriolis + phi2, phi2

    d1, d2, elbow = inertias()
    phi1, phi2 = loads()
    ratio = d2 / d1
    acc2 = (torque + ratio * phi1 - lever * w1**2 * s2 - phi2) / (elbow - ratio * d2)
    acc1 = -(d2 * acc2 + phi1) / d1
    return jnp.stack([w1, w2, acc1, acc2])
