"""Springs, dampers and motors: forces of a hinge's own angle, rate and control."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from targets.halfcheetah.model import JOINTS
from targets.halfcheetah.plane import Number

DAMPING = [joint.damping for joint in JOINTS]  # N m s


def springs(qpos: Sequence[Number]) -> list[Number]:
    """Moment of each hinge's spring, N m (6)."""
    return [-joint.stiffness * (angle - joint.rest) for joint, angle in zip(JOINTS, qpos[3:], strict=True)]


def dampers(qvel: Sequence[Number]) -> list[Number]:
    """Moment of each hinge's damper at the rates there are, N m (6)."""
    return [-damping * rate for damping, rate in zip(DAMPING, qvel[3:], strict=True)]


def motors(controls: Sequence[Number]) -> list[Number]:
    """Moment of each motor, N m (6); controls are clipped to their range."""
    return [joint.gear * jnp.clip(control, *joint.control) for joint, control in zip(JOINTS, controls, strict=True)]
