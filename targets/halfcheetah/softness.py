"""How MuJoCo's constraints give way (its documentation, "Computation", "Constraint model" and "Parameters").

A row that penetrates by ``-depth`` at a rate pulls back with the acceleration -drag rate - spring impedance depth, and a
force on it meets the regularisation R = (1 - impedance) / impedance times the row's weight. Deeper is harder: the
impedance rises from solimp's first number to its second over the width of the third.
"""

from __future__ import annotations

import jax.numpy as jnp

from targets.halfcheetah.model import TIMESTEP, Softness
from targets.halfcheetah.plane import Number

LEAST, MOST = 1e-4, 0.9999  # mjMINIMP, mjMAXIMP: what impedances are clipped to


def impedance(softness: Softness, depth: Number) -> Number:
    """Between 0 and 1, of a penetration ``depth`` <= 0 (m or rad)."""
    low, high, width, middle, power = softness.solimp
    low, high = (min(max(value, LEAST), MOST) for value in (low, high))
    x = jnp.minimum(-depth / width, 1.0)
    p = int(power)
    rising = x**p / middle ** (p - 1)
    ending = 1.0 - (1.0 - x) ** p / (1.0 - middle) ** (p - 1)
    return low + (high - low) * jnp.where(x <= middle, rising, ending)


def stiffness(softness: Softness) -> tuple[float, float]:
    """(drag 1/s, spring 1/s^2) of a time constant and a damping ratio; the time constant is at least two steps."""
    (time, ratio), high = softness.solref, min(softness.solimp[1], MOST)
    time = max(time, 2 * TIMESTEP)
    return 2 / (high * time), 1 / (high * time * ratio) ** 2


def pulled(softness: Softness, depth: Number, rate: Number) -> Number:
    """-aref: what is asked of the row's acceleration is to be at least minus this."""
    drag, spring = stiffness(softness)
    return drag * rate + spring * impedance(softness, depth) * depth


def hardness(softness: Softness, depth: Number, weight: float) -> Number:
    """1/R: the force on the row for each unit of acceleration that is missing. 0 where nothing penetrates."""
    i = impedance(softness, depth)
    return jnp.where(depth < 0, i / ((1.0 - i) * weight), 0.0)
