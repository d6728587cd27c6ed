"""The rows that are one-sided: ends of the hinges' ranges, and ends of capsules that touch the ground.

A row asks that J qacc + offset >= 0, softly: where the residual r = J qacc + offset is negative, it pushes with the
force -hardness r, else not at all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from targets.halfcheetah.model import CONTACT, FRICTION, LIMIT, Body, Joint, Model, Parts, Sphere
from targets.halfcheetah.plane import Number, Rotation, Twist, Vector
from targets.halfcheetah.softness import drag_and_spring, hardness, offset
from targets.halfcheetah.tree import Pose


class Limit(NamedTuple):
    """Of each hinge, (3, 2, batch): J is ``side``, 1 at the lower end of its range and -1 at the upper."""

    side: Number
    offset: Number
    hardness: Number


class Contact(NamedTuple):
    """Of each sphere of a part, ``arm`` away from its body's anchor. Its pyramid of friction has four edges: normal +-
    FRICTION times a tangent along x, and the same along y. Nothing moves along y: those two rows are the normal, twice.

    ``normal``, ``along``: the offsets of the normal row, and what the edges along x add to it or take from it.
    ``hardness``: of each edge. All (4, batch) for the torso and (2, 3, 2, batch) for the links.
    """

    arm: Vector
    normal: Number
    along: Number
    hardness: Number


def limits(joints: Joint, angles: Number, rates: Number) -> Limit:
    """Ranges are wide enough that no hinge is at both ends of its own."""
    above, below = angles - joints.low, joints.high - angles
    side = jnp.where(above < below, jnp.ones_like(above), -1.0)
    depth = jnp.minimum(jnp.minimum(above, below), 0.0)
    return Limit(side, offset(LIMIT, depth, side * rates), hardness(LIMIT, depth, joints.weight))


def contacts(model: Model, pose: Pose, motion: Parts[Twist]) -> Parts[Contact]:
    return Parts(*map(_contacts, model.bodies, model.spheres, pose.turn, pose.anchor, motion))


def _contacts(body: Body, sphere: Sphere, turn: Rotation, anchor: Vector, motion: Twist) -> Contact:
    """A contact's point lies half way between the deepest point of the sphere and the ground."""
    centre = turn(sphere.centre)
    depth = jnp.minimum(anchor.z + centre.z - sphere.radius, 0.0)
    arm = Vector(centre.x, centre.z - sphere.radius - depth / 2)
    rate = motion.at(arm)
    drag, _ = drag_and_spring(CONTACT)
    # That of a pyramid's first edge, and 2 FRICTION^2 for what turns a cone's rows into a pyramid's.
    weight = body.weight * (1 + FRICTION**2) * 2 * FRICTION**2
    return Contact(arm, offset(CONTACT, depth, rate.z), FRICTION * drag * rate.x, hardness(CONTACT, depth, weight))
