"""Springs, dampers and motors: moments of the hinges' own angles, rates and controls. N m, (3, 2, batch)."""

from __future__ import annotations

import jax.numpy as jnp

from targets.halfcheetah.model import Joint
from targets.halfcheetah.plane import Number


def springs(joints: Joint, angles: Number) -> Number:
    return -joints.stiffness * (angles - joints.rest)


def dampers(joints: Joint, rates: Number) -> Number:
    return -joints.damping * rates


def motors(joints: Joint, controls: Number) -> Number:
    """Controls are clipped to their range."""
    return joints.gear * jnp.clip(controls, joints.least, joints.most)
