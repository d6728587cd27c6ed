"""What gravity and the motion there is already ask for: MuJoCo's qfrc_bias, by recursive Newton and Euler."""

from __future__ import annotations

import jax.numpy as jnp

from targets.halfcheetah.model import GRAVITY, Body, Model, Parts
from targets.halfcheetah.plane import Rotation, Twist, Vector, Wrench
from targets.halfcheetah.tree import Pose, parents, summed


def bias(model: Model, pose: Pose, motion: Parts[Twist]) -> Parts[Wrench]:
    """The wrench on each body that keeps all accelerations at zero while they move with ``motion``.

    With no joint accelerating, bodies turn at constant rates in the plane, so that the end of an arm r accelerates by
    -rate^2 r. Gravity is a torso that accelerates upwards (Featherstone 2008, 5.3).
    """
    rate = parents(motion.torso.turn, motion.links.turn)
    swing = pose.arm.times(-rate * rate)
    nothing = jnp.zeros_like(motion.torso.turn)
    torso = Vector(nothing, nothing + GRAVITY)
    links = Vector(summed(torso.x, swing.x), summed(torso.z, swing.z))
    return Parts(*map(_wrench, model.bodies, pose.turn, motion, (torso, links)))


def _wrench(body: Body, turn: Rotation, motion: Twist, anchor: Vector) -> Wrench:
    centre = turn(body.centre)
    force = (anchor - centre.times(motion.turn * motion.turn)).times(body.mass)
    return Wrench(jnp.zeros_like(motion.turn), force).from_(centre)
