"""The rows that are one-sided: ends of the hinges' ranges, and ends of capsules that touch the ground.

A row asks that J qacc + offset >= 0, softly: where the residual r = J qacc + offset is negative, it pushes with the
force -hardness r, else not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from targets.halfcheetah.model import BODIES, CONTACT, FRICTION, JOINTS, LIMIT, SPHERES
from targets.halfcheetah.plane import Number, Twist, Vector
from targets.halfcheetah.softness import hardness, pulled
from targets.halfcheetah.tree import Pose


class Limit(NamedTuple):
    """Of one hinge: J is ``side``, 1 at the lower end and -1 at the upper."""

    side: Number
    offset: Number
    hardness: Number


class Contact(NamedTuple):
    """Of one sphere, ``arm`` away from its body's anchor. Its pyramid of friction has four edges, normal +- FRICTION
    times a tangent along x, and the same along y. Nothing moves along y: those two rows are the normal, twice.

    ``normal`` and ``along``: the offsets of the normal row, and what the edges along x add to it or take from it.
    """

    arm: Vector
    normal: Number
    along: Number
    hardness: Number


def limits(qpos: Sequence[Number], qvel: Sequence[Number]) -> list[Limit]:
    """One for each hinge; its range is wide enough that it cannot be at both ends."""
    found = []
    for joint, angle, rate in zip(JOINTS, qpos[3:], qvel[3:], strict=True):
        above, below = angle - joint.range[0], joint.range[1] - angle
        side = jnp.where(above < below, 1.0, -1.0).astype(angle.dtype)
        depth = jnp.minimum(jnp.minimum(above, below), 0.0)
        found.append(Limit(side, pulled(LIMIT, depth, side * rate), hardness(LIMIT, depth, joint.weight)))
    return found


def contacts(pose: Pose, motion: Sequence[Twist]) -> list[Contact]:
    """One for each sphere. A contact's point lies half way between the deepest point of the sphere and the ground."""
    found = []
    for sphere in SPHERES:
        arm = pose.turn[sphere.body](sphere.centre)
        depth = jnp.minimum(pose.anchor[sphere.body].z + arm.z - sphere.radius, 0.0)
        arm = Vector(arm.x, arm.z - sphere.radius - depth / 2)
        rate = motion[sphere.body].at(arm)
        normal, along = pulled(CONTACT, depth, rate.z), FRICTION * pulled(CONTACT, jnp.zeros_like(depth), rate.x)
        found.append(Contact(arm, normal, along, hardness(CONTACT, depth, _weight(sphere.body))))
    return found


def _weight(body: int) -> float:
    """What MuJoCo regularises the rows of a pyramid with: that of its first edge, 1 + FRICTION^2 times the body's, and
    2 FRICTION^2 for turning an elliptic cone's rows into a pyramid's (documentation of impratio and cone)."""
    return BODIES[body].weight * (1 + FRICTION**2) * 2 * FRICTION**2
