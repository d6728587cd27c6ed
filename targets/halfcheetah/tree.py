"""Passing motion and forces along the tree of bodies: everything that depends on how the cheetah hangs together.

Rates and forces of the nine degrees of freedom are lists of nine: the torso's x, z and angle, then the six hinges.
All algorithms are Featherstone's (Rigid Body Dynamics Algorithms, Springer 2008), written for the plane and about each
body's own anchor, which is where rounding is least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from targets.halfcheetah.model import BODIES
from targets.halfcheetah.plane import Inertia, Number, Rotation, Twist, Vector, Wrench

HINGED = range(1, len(BODIES))  # bodies that hang on a hinge, parents before children


class Pose(NamedTuple):
    """Of each body: how it is turned; where its anchor is, from its parent's anchor (``arm``, the torso's is unused) and
    from the point of the ground below the torso's anchor (``anchor``). In the world's axes, m."""

    turn: list[Rotation]
    arm: list[Vector]
    anchor: list[Vector]


def pose(qpos: Sequence[Number]) -> Pose:
    """Where nine positions put the bodies, but for the torso's x, on which nothing depends."""
    angle = [qpos[2]]
    turn = [Rotation(jnp.cos(qpos[2]), jnp.sin(qpos[2]))]
    arm = [Vector(0.0, 0.0)]
    anchor = [Vector(BODIES[0].offset[0], qpos[1] + BODIES[0].offset[1])]
    for b in HINGED:
        parent = BODIES[b].parent
        angle.append(angle[parent] + qpos[b + 2])
        turn.append(Rotation(jnp.cos(angle[b]), jnp.sin(angle[b])))
        arm.append(turn[parent](BODIES[b].offset))
        anchor.append(anchor[parent] + arm[b])
    return Pose(turn, arm, anchor)


def outward(pose: Pose, rates: Sequence[Number]) -> list[Twist]:
    """The motion of each body at nine rates; of accelerations, what velocities add is left out (see bias.py)."""
    motion = [Twist(rates[2], Vector(rates[0], rates[1]))]
    for b in HINGED:
        carried = motion[BODIES[b].parent]
        motion.append(Twist(carried.turn + rates[b + 2], carried.at(pose.arm[b])))
    return motion


def inward(pose: Pose, wrenches: Sequence[Wrench]) -> list[Number]:
    """The nine forces that hold a wrench on each body in balance: the transpose of ``outward``."""
    total = list(wrenches)
    for b in reversed(HINGED):
        total[BODIES[b].parent] += total[b].from_(pose.arm[b])
    return [total[0].force.x, total[0].force.z, total[0].moment, *(total[b].moment for b in HINGED)]


def multiply(
    pose: Pose, inertias: Sequence[Inertia], diagonal: Sequence[Number], rates: Sequence[Number]
) -> list[Number]:
    """(M + diagonal) rates, where M is the mass matrix of ``inertias`` and ``diagonal`` has the six hinges' own
    inertia. The nine forces that accelerations take (RNEA, table 5.1, without velocities)."""
    wrenches = [inertia.times(motion) for inertia, motion in zip(inertias, outward(pose, rates), strict=True)]
    forces = inward(pose, wrenches)
    return [*forces[:3], *(f + d * rate for f, d, rate in zip(forces[3:], diagonal, rates[3:], strict=True))]


def solve(
    pose: Pose, inertias: Sequence[Inertia], diagonal: Sequence[Number], forces: Sequence[Number]
) -> list[Number]:
    """The rates with (M + diagonal) rates = forces, M never being formed (ABA, table 7.1, with armatures).

    Inward: what a body and all beyond it resist with at its anchor, the hinge yielding. Outward: how much it yields.
    """
    articulated = list(inertias)
    held = [Wrench(0.0, Vector(0.0, 0.0)) for _ in BODIES]
    stiff: dict[int, Number] = {}
    for b in reversed(HINGED):
        own, i = diagonal[b - 1], articulated[b]
        stiff[b] = 1.0 / (i.turn + own)
        yielding = own * stiff[b]  # what is left of a resistance when the hinge gives way
        xx, xz, zz = i.mix.x * i.mix.x, i.mix.x * i.mix.z, i.mix.z * i.mix.z
        across = Inertia(
            i.turn * yielding, i.mix.times(yielding), i.xx - xx * stiff[b], i.xz - xz * stiff[b], i.zz - zz * stiff[b]
        )
        driven = (forces[b + 2] - held[b].moment) * stiff[b]
        passed = held[b] + Wrench(i.turn * driven, i.mix.times(driven))
        parent = BODIES[b].parent
        articulated[parent] += across.from_(pose.arm[b])
        held[parent] += passed.from_(pose.arm[b])
    rates = _torso(articulated[0], held[0], forces)
    motion = [Twist(rates[2], Vector(rates[0], rates[1]))]
    for b in HINGED:
        carried = motion[BODIES[b].parent]
        here = Twist(carried.turn, carried.at(pose.arm[b]))
        i = articulated[b]
        rate = (forces[b + 2] - held[b].moment - i.turn * here.turn - i.mix.dot(here.move)) * stiff[b]
        rates.append(rate)
        motion.append(Twist(here.turn + rate, here.move))
    return rates


def _torso(i: Inertia, held: Wrench, forces: Sequence[Number]) -> list[Number]:
    """The torso's three rates: a symmetric 3 x 3 system, the angle eliminated last."""
    fx, fz, moment = forces[0] - held.force.x, forces[1] - held.force.z, forces[2] - held.moment
    # LDL^T in the order x, z, angle
    x = 1.0 / i.xx
    lz, la = i.xz * x, i.mix.x * x
    z = 1.0 / (i.zz - lz * i.xz)
    cross = i.mix.z - la * i.xz
    lza = cross * z
    a = 1.0 / (i.turn - la * i.mix.x - lza * cross)
    fz = fz - lz * fx
    moment = moment - la * fx - lza * fz
    angle = moment * a
    rz = fz * z - lza * angle
    return [fx * x - lz * rz - la * angle, rz, angle]
