"""How MuJoCo's constraints give way (its documentation: "Computation", "Constraint model"; "Modeling", "Solver
parameters").

A row that penetrates by -depth at a rate asks for the acceleration -drag rate - spring impedance depth, and a force on
it meets the regularisation (1 - impedance) / impedance times the row's weight. Deeper is harder: the impedance rises
from solimp's first number to its second over the width of the third.
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


def drag_and_spring(softness: Softness) -> tuple[float, float]:
    """(1/s, 1/s^2) of a time constant, which is at least two steps, and a damping ratio."""
    (time, ratio), high = softness.solref, min(softness.solimp[1], MOST)
    time = max(time, 2 * TIMESTEP)
    return 2 / (high * time), 1 / (high * time * ratio) ** 2


def offset(softness: Softness, depth: Number, rate: Number) -> Number:
    """Minus the acceleration that is asked for (MuJoCo's aref)."""
    drag, spring = drag_and_spring(softness)
    return drag * rate + spring * impedance(softness, depth) * depth


def hardness(softness: Softness, depth: Number, weight: Number) -> Number:
    """The force on the row for each unit of acceleration that is missing (MuJoCo's efc_D); 0 if it is not there."""
    i = impedance(softness, depth)
    return jnp.where(depth < 0, i / ((1.0 - i) * weight), 0.0)
