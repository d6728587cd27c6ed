"""Vectors, rotations and rigid-body quantities of the plane y = 0.

A rotation by an angle is about +y, which turns z towards x: R(angle) (x, z) = (cos x + sin z, -sin x + cos z). Turning
at one radian a second, the end of an arm r moves with ``r.turned`` = (r.z, -r.x).

All of these hold numbers or arrays of one batch shape, and are computed with elementwise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Number = Any  # a Python float, or an array of the batch's shape


class Vector(NamedTuple):
    """(x, z)"""

    x: Number
    z: Number

    def __add__(self, other: Vector) -> Vector:  # type: ignore[override]
        return Vector(self.x + other.x, self.z + other.z)

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.x - other.x, self.z - other.z)

    def times(self, factor: Number) -> Vector:
        return Vector(factor * self.x, factor * self.z)

    def dot(self, other: Vector) -> Number:
        return self.x * other.x + self.z * other.z

    @property
    def turned(self) -> Vector:
        return Vector(self.z, -self.x)


class Rotation(NamedTuple):
    """By an angle with this cosine and sine."""

    cos: Number
    sin: Number

    def __call__(self, vector: tuple[float, float]) -> Vector:
        x, z = vector
        return Vector(self.cos * x + self.sin * z, self.cos * z - self.sin * x)


class Twist(NamedTuple):
    """Motion of a body: its angular rate and that of its anchor, the origin of its joint. Velocity or acceleration."""

    turn: Number
    move: Vector

    def at(self, arm: Vector) -> Vector:
        """The rate of the point ``arm`` away from the anchor."""
        return self.move + arm.turned.times(self.turn)


class Wrench(NamedTuple):
    """A moment about a body's anchor (N m) and a force (N)."""

    moment: Number
    force: Vector

    def __add__(self, other: Wrench) -> Wrench:  # type: ignore[override]
        return Wrench(self.moment + other.moment, self.force + other.force)

    def __sub__(self, other: Wrench) -> Wrench:
        return Wrench(self.moment - other.moment, self.force - other.force)

    def from_(self, arm: Vector) -> Wrench:
        """The same wrench about the point that ``arm`` leads away from to get here."""
        return Wrench(self.moment + arm.turned.dot(self.force), self.force)


class Inertia(NamedTuple):
    """The symmetric map of a body's acceleration to the wrench it takes, about its anchor (Featherstone 2008, 2.13).

    In coordinates (angle, x, z) it is [[turn, mix.x, mix.z], [., xx, xz], [., ., zz]].
    """

    turn: Number
    mix: Vector
    xx: Number
    xz: Number
    zz: Number

    def __add__(self, other: Inertia) -> Inertia:  # type: ignore[override]
        return Inertia(
            self.turn + other.turn, self.mix + other.mix, self.xx + other.xx, self.xz + other.xz, self.zz + other.zz
        )

    def times(self, motion: Twist) -> Wrench:
        return Wrench(
            self.turn * motion.turn + self.mix.dot(motion.move), self.mix.times(motion.turn) + self._moved(motion.move)
        )

    def from_(self, arm: Vector) -> Inertia:
        """The same inertia about the point that ``arm`` leads away from to get here (the parallel axes)."""
        mix = self.mix + self._moved(arm.turned)
        return Inertia(self.turn + arm.turned.dot(self.mix + mix), mix, self.xx, self.xz, self.zz)

    def _moved(self, move: Vector) -> Vector:
        return Vector(self.xx * move.x + self.xz * move.z, self.xz * move.x + self.zz * move.z)


def at_point(arm: Vector, xx: Number, xz: Number, zz: Number) -> Inertia:
    """What resists accelerations of one point only, with the matrix [[xx, xz], [xz, zz]]: a point's mass, or a stiff
    contact."""
    return Inertia(0.0, Vector(0.0, 0.0), xx, xz, zz).from_(arm)
