"""The accelerations under one-sided rows: Newton's method with a line search.

MuJoCo's constrained acceleration is the minimum over a of

    1/2 (a - a_smooth)' M (a - a_smooth) + 1/2 sum over rows of hardness min(J a + offset, 0)^2

which is strictly convex, and a quadratic as long as no row changes sides (documentation, "Computation", "Primal
problem"). So a Newton step that leaves every row on its side ends at the minimum itself, and nothing of where the
search began remains. The matrix of a Newton step is M with the pushing rows added to it. A row touches one hinge, or
one point of a body; what it adds is the hinge's own inertia, or an inertia of that body. The tree's ``solve`` serves.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from targets.halfcheetah.constraints import Contact, Limit
from targets.halfcheetah.model import FRICTION, Parts
from targets.halfcheetah.plane import Inertia, Number, Twist, Vector, Wrench, at_point
from targets.halfcheetah.tree import Bodies, Coordinates, Pose, solve

ITERATIONS = 20  # Newton steps at most; it takes 2 to 5
SEARCHES = 4  # steps of a line search


class Problem(NamedTuple):
    """What decides the accelerations: ``own`` inertia of the hinges, ``wrenches`` on the bodies and moments at the
    ``hinges`` that do not depend on accelerations, and the rows that do."""

    pose: Pose
    inertias: Bodies[Inertia]
    own: Number
    wrenches: Bodies[Wrench]
    hinges: Number
    limits: Limit
    contacts: Parts[Contact]


class Edges(NamedTuple):
    """One number for each row of some contacts: the edges along +x and -x, and the two along y, which are one."""

    plus: Number
    minus: Number
    level: Number


class Residuals(NamedTuple):
    limits: Number
    contacts: Parts[Edges]


class Point(NamedTuple):
    """Accelerations that are tried: of the degrees of freedom, and of the bodies."""

    qacc: Coordinates
    motion: Bodies[Twist]


def accelerations(problem: Problem, guess: Point) -> Point:
    """The minimum; ``guess`` only decides how long it takes."""

    def unfinished(carry: tuple[jax.Array, jax.Array, Point]) -> jax.Array:
        count, done, _ = carry
        return (count < ITERATIONS) & ~jnp.all(done)

    def step(carry: tuple[jax.Array, jax.Array, Point]) -> tuple[jax.Array, jax.Array, Point]:
        count, done, before = carry
        full, settled, length = _newton(problem, before, done)
        # A row of the batch that is done stays as it is, however long the others take.
        length = jnp.where(done, 0.0, length)
        after = jax.tree.map(lambda old, new: jnp.where(settled & ~done, new, old + length * (new - old)), before, full)
        return count + 1, done | settled, after

    begun = (jnp.int32(0), jnp.zeros(guess.qacc.x.shape, bool), guess)
    return jax.lax.while_loop(unfinished, step, begun)[2]


def residuals(problem: Problem, point: Point) -> Residuals:
    """Of each row at these accelerations."""

    def edges(contact: Contact, motion: Twist) -> Edges:
        move = motion.at(contact.arm)
        return _edges(move.z + contact.normal, FRICTION * move.x + contact.along)

    row = problem.limits
    return Residuals(row.side * point.qacc.hinges + row.offset, Parts(*map(edges, problem.contacts, point.motion)))


def pushes(problem: Problem, sides: Residuals, residuals: Residuals) -> tuple[Bodies[Wrench], Number]:
    """What the rows that push at ``sides`` push with at ``residuals``: (wrenches on bodies, moments at hinges)."""

    def wrench(contact: Contact, sides: Edges, r: Edges) -> Wrench:
        plus, minus, level = (
            jnp.where(side < 0, contact.hardness * value, 0.0) for side, value in zip(sides, r, strict=True)
        )
        force = Vector(-FRICTION * (plus - minus), -(plus + minus + 2 * level))
        pushed = Wrench(jnp.zeros_like(plus), force).from_(contact.arm)
        return jax.tree.map(lambda leaf: leaf.sum(0), pushed)

    row = problem.limits
    hinges = jnp.where(sides.limits < 0, -row.hardness * row.side * residuals.limits, 0.0)
    return Parts(*map(wrench, problem.contacts, sides.contacts, residuals.contacts)), hinges


def _newton(problem: Problem, before: Point, done: jax.Array) -> tuple[Point, jax.Array, jax.Array]:
    """(where a Newton step goes, whether that is the minimum, how far to go there instead)."""
    now = residuals(problem, before)
    offsets = Residuals(problem.limits.offset, Parts(*(_edges(row.normal, row.along) for row in problem.contacts)))
    wrenches, hinges = pushes(problem, now, offsets)
    stiff = Parts(*map(_stiffness, problem.contacts, now.contacts))
    own = problem.own + jnp.where(now.limits < 0, problem.limits.hardness, 0.0)
    full = Point(
        *solve(
            problem.pose,
            Parts(*(a + b for a, b in zip(problem.inertias, stiff, strict=True))),
            own,
            Parts(*(a + b for a, b in zip(problem.wrenches, wrenches, strict=True))),
            problem.hinges + hinges,
        )
    )
    there = residuals(problem, full)
    settled = _alike(problem, now, there)
    length = jax.lax.cond(
        jnp.all(settled | done),
        lambda: jnp.ones_like(before.qacc.x),
        lambda: _line_search(problem, before, full, now, there),
    )
    return full, settled, length


def _stiffness(contact: Contact, residuals: Edges) -> Inertia:
    """What the edges that push add to their body."""
    plus, minus, level = (jnp.where(r < 0, contact.hardness, 0.0) for r in residuals)
    xx, xz, zz = FRICTION**2 * (plus + minus), FRICTION * (plus - minus), plus + minus + 2 * level
    return jax.tree.map(lambda leaf: leaf.sum(0), at_point(contact.arm, xx, xz, zz))


def _alike(problem: Problem, now: Residuals, there: Residuals) -> jax.Array:
    """bool (batch): whether every row is on the same side at both. A row that is not there has no sides."""

    def same(hardness: Number, a: Number, b: Number) -> jax.Array:
        every = (hardness == 0) | ((a < 0) == (b < 0))
        return every.all(tuple(range(every.ndim - 1)))

    found = same(problem.limits.hardness, now.limits, there.limits)
    for row, here, then in zip(problem.contacts, now.contacts, there.contacts, strict=True):
        for a, b in zip(here, then, strict=True):
            found &= same(row.hardness, a, b)
    return found


def _line_search(problem: Problem, before: Point, full: Point, now: Residuals, there: Residuals) -> jax.Array:
    """How far to go from ``before`` (0) to ``full`` (1) and beyond: where the cost is least along that line.

    The slope of the cost along it is piecewise linear and rises. Newton's method finds its zero, kept between a place
    where the slope was negative and one where it was positive.
    """
    weights = [problem.limits.hardness]
    here, then = [now.limits], [there.limits]
    for row, a, b in zip(problem.contacts, now.contacts, there.contacts, strict=True):
        weights += [row.hardness, row.hardness, 2 * row.hardness]
        here += a
        then += b
    weight, start, end = (jnp.concatenate([v.reshape(-1, v.shape[-1]) for v in each]) for each in (weights, here, then))
    change = end - start
    smooth = _quadratic(problem, jax.tree.map(lambda a, b: b - a, before, full))
    # The Newton step ends where the slope of the quadratic with the rows of ``before`` is zero.
    begin = -smooth - jnp.where(start < 0, weight * change * end, 0.0).sum(0)

    def step(_: int, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        length, low, high = carry
        r = start + length * change
        pushing = jnp.where(r < 0, weight * change, 0.0)
        slope, bend = begin + length * smooth + (pushing * r).sum(0), smooth + (pushing * change).sum(0)
        low, high = jnp.where(slope < 0, length, low), jnp.where(slope < 0, high, length)
        length = length - slope / jnp.where(bend > 0, bend, 1.0)
        middle = (low + jnp.where(high < jnp.inf, high, 2 * low)) / 2
        return jnp.where((length < low) | (length > high), middle, length), low, high

    one = jnp.ones_like(smooth)
    return jax.lax.fori_loop(0, SEARCHES, step, (one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf)))[0]


def _quadratic(problem: Problem, change: Point) -> jax.Array:
    """change' M change"""

    def energy(inertia: Inertia, motion: Twist) -> Number:
        wrench = inertia.times(motion)
        return wrench.moment * motion.turn + wrench.force.dot(motion.move)

    torso, links = map(energy, problem.inertias, change.motion)
    return torso + (links + problem.own * change.qacc.hinges**2).sum((0, 1))


def _edges(normal: Number, along: Number) -> Edges:
    return Edges(normal + along, normal - along, normal)
