"""What the bodies resist acceleration with: together with the armatures, the mass matrix."""

from __future__ import annotations

from targets.halfcheetah.model import Body, Model, Parts
from targets.halfcheetah.plane import Inertia, Rotation, Vector, at_point
from targets.halfcheetah.tree import Pose


def inertias(model: Model, pose: Pose) -> Parts[Inertia]:
    """Of each body about its anchor."""
    return Parts(*map(_inertia, model.bodies, pose.turn))


def _inertia(body: Body, turn: Rotation) -> Inertia:
    """Its mass at its centre, and its inertia about that."""
    return at_point(turn(body.centre), body.mass, 0.0, body.mass) + Inertia(
        body.inertia, Vector(0.0, 0.0), 0.0, 0.0, 0.0
    )
