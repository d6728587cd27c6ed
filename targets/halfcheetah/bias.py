"""What gravity and the motion there is already ask for: MuJoCo's qfrc_bias, by recursive Newton and Euler."""

from __future__ import annotations

from collections.abc import Sequence

from targets.halfcheetah.model import BODIES, GRAVITY
from targets.halfcheetah.plane import Number, Twist, Vector, Wrench
from targets.halfcheetah.tree import HINGED, Pose, inward


def bias(pose: Pose, motion: Sequence[Twist]) -> list[Number]:
    """The nine forces that keep all accelerations at zero while the bodies move with ``motion`` (N, N m).

    With no joint accelerating, bodies turn at constant rates in the plane, so that the end of an arm r accelerates by
    -rate^2 r. Gravity is a torso that accelerates upwards (Featherstone 2008, 5.3).
    """
    pull = [Vector(0.0, GRAVITY)]
    for b in HINGED:
        parent = BODIES[b].parent
        pull.append(pull[parent] - pose.arm[b].times(motion[parent].turn * motion[parent].turn))
    wrenches = []
    for body, turn, rate, anchor in zip(BODIES, pose.turn, motion, pull, strict=True):
        centre = turn(body.centre)
        force = (anchor - centre.times(rate.turn * rate.turn)).times(body.mass)
        wrenches.append(Wrench(0.0, force).from_(centre))
    return inward(pose, wrenches)
