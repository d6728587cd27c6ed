# Pendulum-v1
from collections import namedtuple
from math import pi

import jax.numpy as np
from jax import lax, random

Swing = namedtuple("Swing", "angle rate clock")


def clamp(x, limit):
    return lax.clamp(-limit, x, limit)


def wrap(angle):
    return np.arctan2(np.sin(angle), np.cos(angle))


def accelerate(angle, rate, torque, *, g=10.0, m=1.0, l=1.0):  # noqa: E741
    return 3 * g / (2 * l) * np.sin(angle) + 3 / (m * l**2) * torque


def advance(s, torque, *, dt=0.05, max_rate=8.0):
    rate = clamp(s.rate + dt * accelerate(*s[:2], torque), max_rate)
    return Swing(s.angle + dt * rate, rate, s.clock + 1)


def cost(s, torque, *, w_rate=0.1, w_torque=1e-3):
    return wrap(s.angle) ** 2 + w_rate * s.rate**2 + w_torque * torque**2


def observe(s):
    return np.stack([np.cos(s.angle), np.sin(s.angle), s.rate])


def reset(key, *, spread=(pi, 1.0)):
    angle, rate = random.uniform(key, (2,), minval=-1.0) * np.array(spread)
    s = Swing(angle, rate, np.int32(0))
    return observe(s), s


def step(key, s, action, *, max_torque=2.0, limit=200):
    u = clamp(np.ravel(action)[0].astype(np.float32), max_torque)
    n = advance(s, u)
    return observe(n), n, -cost(s, u), np.bool_(False), n.clock >= limit, {}
