"""The accelerations under one-sided rows: Newton's method with a line search.

MuJoCo's constrained acceleration is the minimum over a of

    1/2 (a - a_smooth)' M (a - a_smooth) + 1/2 sum over rows of hardness min(J a + offset, 0)^2

which is strictly convex and a quadratic as long as no row changes sides (documentation, "Computation", "Primal
problem"). So a Newton step that leaves every row on its side ends at the minimum itself, and nothing of where the
search began remains. The matrix of a Newton step is M with the pushing rows added to it. A row touches one hinge, or
one point of a body; what it adds is the hinge's own inertia, or an inertia of that body. The tree's ``solve`` serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from targets.halfcheetah.constraints import Contact, Limit
from targets.halfcheetah.inertia import ARMATURE
from targets.halfcheetah.model import BODIES, FRICTION, SPHERES
from targets.halfcheetah.plane import Inertia, Number, Vector, Wrench, at_point
from targets.halfcheetah.tree import Pose, inward, outward, solve

ITERATIONS = 20  # Newton steps at most; it takes 2 to 5
SEARCHES = 4  # steps of a line search


class Problem(NamedTuple):
    """One of MuJoCo's steps: ``forces`` are the nine that do not depend on accelerations."""

    pose: Pose
    inertias: list[Inertia]
    forces: list[Number]
    limits: list[Limit]
    contacts: list[Contact]


class Residuals(NamedTuple):
    """Of every row: each limit's; each contact's normal, and what its edges along x add to it or take from it."""

    limits: list[Number]
    normal: list[Number]
    along: list[Number]


def accelerations(problem: Problem, start: Sequence[Number]) -> list[Number]:
    """The nine accelerations at the minimum; ``start`` only decides how long it takes."""

    def unfinished(carry: tuple[jax.Array, jax.Array, list[Number]]) -> jax.Array:
        count, done, _ = carry
        return (count < ITERATIONS) & ~jnp.all(done)

    def step(carry: tuple[jax.Array, jax.Array, list[Number]]) -> tuple[jax.Array, jax.Array, list[Number]]:
        count, done, before = carry
        after, settled = _newton(problem, before)
        # A row of the batch that is done stays as it is, however long the others take.
        kept = [jnp.where(done, old, new) for old, new in zip(before, after, strict=True)]
        return count + 1, done | settled, kept

    begun = (jnp.int32(0), jnp.zeros(jnp.shape(start[0]), bool), list(start))
    return jax.lax.while_loop(unfinished, step, begun)[2]


def residuals(problem: Problem, accelerations: Sequence[Number]) -> Residuals:
    motion = outward(problem.pose, accelerations)
    points = [motion[sphere.body].at(contact.arm) for sphere, contact in zip(SPHERES, problem.contacts, strict=True)]
    return Residuals(
        [row.side * rate + row.offset for row, rate in zip(problem.limits, accelerations[3:], strict=True)],
        [point.z + row.normal for row, point in zip(problem.contacts, points, strict=True)],
        [FRICTION * point.x + row.along for row, point in zip(problem.contacts, points, strict=True)],
    )


def pushes(problem: Problem, residuals: Residuals) -> list[Number]:
    """The nine forces of the rows that push at these residuals: MuJoCo's qfrc_constraint."""
    return _forces(problem, residuals, residuals)


def _newton(problem: Problem, before: Sequence[Number]) -> tuple[list[Number], jax.Array]:
    """One step, and bool: whether it ended at the minimum."""
    now = residuals(problem, before)
    zero = Residuals(
        [row.offset for row in problem.limits],
        [row.normal for row in problem.contacts],
        [row.along for row in problem.contacts],
    )
    forces = [f + p for f, p in zip(problem.forces, _forces(problem, now, zero), strict=True)]
    stiffened = list(problem.inertias)
    for sphere, row, n, t in zip(SPHERES, problem.contacts, now.normal, now.along, strict=True):
        plus, minus, level = (jnp.where(r < 0, row.hardness, 0.0) for r in (n + t, n - t, n))
        xx, xz, zz = FRICTION**2 * (plus + minus), FRICTION * (plus - minus), plus + minus + 2 * level
        stiffened[sphere.body] += at_point(row.arm, xx, xz, zz)
    hinges = [
        own + jnp.where(r < 0, row.hardness, 0.0)
        for own, row, r in zip(ARMATURE, problem.limits, now.limits, strict=True)
    ]
    full = solve(problem.pose, stiffened, hinges, forces)
    there = residuals(problem, full)
    settled = _all_alike(now, there, problem)
    length = _line_search(problem, before, full, now, there)
    length = jnp.where(settled, 1.0, length)
    return [a + length * (b - a) for a, b in zip(before, full, strict=True)], settled


def _forces(problem: Problem, sides: Residuals, residuals: Residuals) -> list[Number]:
    """The nine forces -J' hardness residual of the rows that push at ``sides``."""
    wrenches = [Wrench(0.0, Vector(0.0, 0.0)) for _ in BODIES]
    for sphere, row, n, t, n0, t0 in zip(
        SPHERES, problem.contacts, residuals.normal, residuals.along, sides.normal, sides.along, strict=True
    ):
        plus, minus, level = (
            jnp.where(side < 0, row.hardness, 0.0) * r for side, r in ((n0 + t0, n + t), (n0 - t0, n - t), (n0, n))
        )
        force = Vector(-FRICTION * (plus - minus), -(plus + minus + 2 * level))
        wrenches[sphere.body] += Wrench(0.0, force).from_(row.arm)
    hinges = [
        jnp.where(side < 0, -row.hardness * row.side * r, 0.0)
        for row, side, r in zip(problem.limits, sides.limits, residuals.limits, strict=True)
    ]
    forces = inward(problem.pose, wrenches)
    return [*forces[:3], *(f + own for f, own in zip(forces[3:], hinges, strict=True))]


def _rows(problem: Problem, residuals: Residuals) -> list[tuple[Number, Number]]:
    """(hardness, residual) of every row."""
    found = [(row.hardness, r) for row, r in zip(problem.limits, residuals.limits, strict=True)]
    for row, n, t in zip(problem.contacts, residuals.normal, residuals.along, strict=True):
        found += [(row.hardness, n + t), (row.hardness, n - t), (2 * row.hardness, n)]
    return found


def _all_alike(now: Residuals, there: Residuals, problem: Problem) -> jax.Array:
    """Whether every row is on the same side at both; a row without hardness has no sides."""
    alike = [
        (hardness == 0) | ((a < 0) == (b < 0))
        for (hardness, a), (_, b) in zip(_rows(problem, now), _rows(problem, there), strict=True)
    ]
    every = alike[0]
    for one in alike[1:]:
        every = every & one
    return every


def _line_search(
    problem: Problem, before: Sequence[Number], full: Sequence[Number], now: Residuals, there: Residuals
) -> Number:
    """How far to go from ``before`` (0) to ``full`` (1) and beyond: where the cost is least along that line.

    The cost's slope along it is piecewise linear and rises, and its zero is where the steps of Newton's method go,
    kept between a place where the slope was negative and one where it was positive.
    """
    rows = [
        (hardness, a, b - a) for (hardness, a), (_, b) in zip(_rows(problem, now), _rows(problem, there), strict=True)
    ]
    change = [b - a for a, b in zip(before, full, strict=True)]
    smooth = _quadratic(problem, change)
    # The Newton step ends where the slope of the quadratic with the rows of ``before`` is zero.
    begin = -smooth - sum(jnp.where(a < 0, hardness * d * (a + d), 0.0) for hardness, a, d in rows)
    length = jnp.ones_like(smooth)
    low, high = jnp.zeros_like(smooth), jnp.full_like(smooth, jnp.inf)
    for _ in range(SEARCHES):
        slope, bend = begin + length * smooth, smooth
        for hardness, a, d in rows:
            r = a + length * d
            slope += jnp.where(r < 0, hardness * d * r, 0.0)
            bend += jnp.where(r < 0, hardness * d * d, 0.0)
        low, high = jnp.where(slope < 0, length, low), jnp.where(slope < 0, high, length)
        length = length - slope / jnp.where(bend > 0, bend, 1.0)
        length = jnp.where(
            (length < low) | (length > high), (low + jnp.where(high < jnp.inf, high, 2 * low)) / 2, length
        )
    return length


def _quadratic(problem: Problem, change: Sequence[Number]) -> Number:
    """change' M change"""
    motion = outward(problem.pose, change)
    total = sum(own * rate * rate for own, rate in zip(ARMATURE, change[3:], strict=True))
    for inertia, twist in zip(problem.inertias, motion, strict=True):
        wrench = inertia.times(twist)
        total += wrench.moment * twist.turn + wrench.force.dot(twist.move)
    return total
