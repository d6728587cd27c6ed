"""What the bodies resist acceleration with: together with the armatures, the mass matrix."""

from __future__ import annotations

from targets.halfcheetah.model import BODIES, JOINTS
from targets.halfcheetah.plane import Inertia, Vector, at_point
from targets.halfcheetah.tree import Pose

ARMATURE = [joint.armature for joint in JOINTS]  # kg m^2, of each motor, added at its hinge


def inertias(pose: Pose) -> list[Inertia]:
    """Of each body about its anchor: its mass at its centre, and its inertia about that."""
    return [
        at_point(turn(body.centre), body.mass, 0.0, body.mass) + Inertia(body.inertia, Vector(0.0, 0.0), 0.0, 0.0, 0.0)
        for body, turn in zip(BODIES, pose.turn, strict=True)
    ]
