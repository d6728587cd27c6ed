"""Passing motion and forces along the legs: everything that depends on how the cheetah hangs together.

The algorithms are Featherstone's (Rigid Body Dynamics Algorithms, Springer 2008), written for the plane and about each
body's own anchor, the origin of its joint, where rounding is least.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from targets.halfcheetah.model import Model, Parts, in_legs, in_order
from targets.halfcheetah.plane import Inertia, Number, Rotation, Twist, Vector, Wrench

LEVELS = 3  # thighs, shins, feet


class Coordinates(NamedTuple):
    """One number for each degree of freedom: positions, rates, accelerations or forces. The torso's x, z and angle are
    of the batch's shape, the hinges (3, 2, batch)."""

    x: Number
    z: Number
    angle: Number
    hinges: Number


def coordinates(rows: jax.Array) -> Coordinates:
    """From MuJoCo's order, (9, batch)."""
    return Coordinates(rows[0], rows[1], rows[2], in_legs(rows[3:]))


def rows(found: Coordinates) -> jax.Array:
    """The other way."""
    return jnp.concatenate([jnp.stack(found[:3]), in_order(found.hinges)])


class Pose(NamedTuple):
    """How bodies are turned; ``anchor``: where their anchors are from the point of the ground below the torso's;
    ``arm``: of each link, from its parent's anchor to its own. In the world's axes, m."""

    turn: Parts[Rotation]
    anchor: Parts[Vector]
    arm: Vector


def pose(model: Model, qpos: Coordinates) -> Pose:
    """Where positions put the bodies, but for the torso's x, on which nothing depends."""
    angle = summed(qpos.angle, qpos.hinges)
    turn = Parts(Rotation(jnp.cos(qpos.angle), jnp.sin(qpos.angle)), Rotation(jnp.cos(angle), jnp.sin(angle)))
    arm = Rotation(parents(turn.torso.cos, turn.links.cos), parents(turn.torso.sin, turn.links.sin))(
        model.bodies.links.offset
    )
    x, z = model.bodies.torso.offset
    torso = Vector(jnp.full_like(qpos.z, x), qpos.z + z)
    return Pose(turn, Parts(torso, Vector(summed(torso.x, arm.x), summed(torso.z, arm.z))), arm)


def outward(pose: Pose, rates: Coordinates) -> Parts[Twist]:
    """The motion of each body at these rates; of accelerations, what velocities add is left out (see bias.py)."""
    turn = summed(rates.angle, rates.hinges)
    swing = pose.arm.turned.times(parents(rates.angle, turn))
    move = Vector(summed(rates.x, swing.x), summed(rates.z, swing.z))
    return Parts(Twist(rates.angle, Vector(rates.x, rates.z)), Twist(turn, move))


def inward(pose: Pose, wrenches: Parts[Wrench]) -> Coordinates:
    """The forces that hold a wrench on each body in balance: the transpose of ``outward``."""
    links = wrenches.links
    force = Vector(gathered(links.force.x), gathered(links.force.z))
    carried = pose.arm.turned.dot(force)  # what a link's force, and all beyond it, is as a moment at its parent
    passed = jnp.concatenate([carried[1:], jnp.zeros_like(carried[:1])])
    moment = gathered(links.moment + passed)
    torso = wrenches.torso
    return Coordinates(
        torso.force.x + force.x[0].sum(0),
        torso.force.z + force.z[0].sum(0),
        torso.moment + (moment[0] + carried[0]).sum(0),
        moment,
    )


def multiply(pose: Pose, inertias: Parts[Inertia], own: Number, rates: Coordinates) -> Coordinates:
    """The forces that accelerations take without velocities: the mass matrix, ``own`` being the inertia that each hinge
    has besides that of the bodies, times ``rates`` (RNEA, table 5.1)."""
    motion = outward(pose, rates)
    wrenches = Parts(inertias.torso.times(motion.torso), inertias.links.times(motion.links))
    forces = inward(pose, wrenches)
    return forces._replace(hinges=forces.hinges + own * rates.hinges)


def solve(
    pose: Pose, inertias: Parts[Inertia], own: Number, wrenches: Parts[Wrench], hinges: Number
) -> tuple[Coordinates, Parts[Twist]]:
    """The accelerations, and those of the bodies, under ``wrenches`` on the bodies and moments at the ``hinges``: the
    inverse of ``multiply``, the mass matrix never being formed (ABA, table 7.1, with the hinges' own inertia).

    Inward: what a body and all beyond it resist with at its anchor, the hinge yielding. Outward: how much it yields.
    """

    def resist(beyond: tuple[Inertia, Wrench], link: tuple[Inertia, Wrench, Vector, Number, Number]) -> tuple[Any, Any]:
        inertia, wrench, arm, own, moment = link
        i, w = inertia + beyond[0], wrench + beyond[1]
        yields = 1.0 / (i.turn + own)
        left = own * yields  # of the resistance to turning, when the hinge gives way
        xx, xz, zz = i.mix.x * i.mix.x, i.mix.x * i.mix.z, i.mix.z * i.mix.z
        across = Inertia(i.turn * left, i.mix.times(left), i.xx - xx * yields, i.xz - xz * yields, i.zz - zz * yields)
        driven = (moment + w.moment) * yields
        passed = Wrench(w.moment - i.turn * driven, w.force - i.mix.times(driven))
        return (across.from_(arm), passed.from_(arm)), (yields, driven, i.turn * yields, i.mix.times(yields))

    def give(parent: Twist, link: tuple[Number, Number, Vector, Vector]) -> tuple[Any, Any]:
        driven, turn, mix, arm = link
        here = parent.at(arm)
        rate = driven - turn * parent.turn - mix.dot(here)
        moved = Twist(parent.turn + rate, here)
        return moved, (rate, moved)

    nothing = jax.tree.map(lambda leaf: jnp.zeros_like(pose.arm.x[0]), (inertias.links, wrenches.links))
    beyond, (_, driven, turn, mix) = jax.lax.scan(
        resist, nothing, (inertias.links, wrenches.links, pose.arm, own, hinges), reverse=True
    )
    legs, pull = jax.tree.map(lambda leaf: leaf.sum(0), beyond)  # both legs hang on the torso
    torso = _torso(inertias.torso + legs, wrenches.torso + pull)
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, driven.shape[1:]), torso)
    _, (rates, motion) = jax.lax.scan(give, start, (driven, turn, mix, pose.arm))
    return Coordinates(torso.move.x, torso.move.z, torso.turn, rates), Parts(torso, motion)


def _torso(i: Inertia, wrench: Wrench) -> Twist:
    """A symmetric 3 x 3 system by LDL', the angle last."""
    x = 1.0 / i.xx
    xz, xa = i.xz * x, i.mix.x * x
    z = 1.0 / (i.zz - xz * i.xz)
    mixed = i.mix.z - xa * i.xz
    za = mixed * z
    force = wrench.force.z - xz * wrench.force.x
    moment = wrench.moment - xa * wrench.force.x - za * force
    angle = moment / (i.turn - xa * i.mix.x - za * mixed)
    up = force * z - za * angle
    return Twist(angle, Vector(wrench.force.x * x - xz * up - xa * angle, up))


def parents(torso: Number, links: Number) -> Number:
    """(3, 2, batch): of each link's parent."""
    return jnp.concatenate([jnp.broadcast_to(torso, links[:1].shape), links[:-1]])


def summed(torso: Number, links: Number) -> Number:
    """(3, 2, batch): the torso's number and those of the links on the way, added up outwards."""
    total, found = torso, []
    for level in range(LEVELS):
        total = total + links[level]
        found.append(total)
    return jnp.stack(found)


def gathered(links: Number) -> Number:
    """(3, 2, batch): of each link and all beyond it, added up."""
    total, found = 0.0, []
    for level in reversed(range(LEVELS)):
        total = total + links[level]
        found.append(total)
    return jnp.stack(found[::-1])
