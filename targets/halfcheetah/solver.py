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
from targets.halfcheetah.model import FRICTION, SCALE, TOLERANCE, Parts
from targets.halfcheetah.plane import Inertia, Number, Twist, Vector, Wrench, at_point
from targets.halfcheetah.tree import Coordinates, Pose, outward, solve

ITERATIONS = 20  # Newton steps at most; it takes 2 to 5
SEARCHES = 4  # steps of a line search


class Problem(NamedTuple):
    """What decides the accelerations: ``own`` inertia of the hinges, ``wrenches`` on the bodies and moments at the
    ``hinges`` that do not depend on accelerations, and the rows that do."""

    pose: Pose
    inertias: Parts[Inertia]
    own: Number
    wrenches: Parts[Wrench]
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
    motion: Parts[Twist]


class Found(NamedTuple):
    """Where the search ended. ``left``: how far that is from the end of the Newton step that was not worth taking."""

    point: Point
    left: Coordinates


class Line(NamedTuple):
    """A Newton step: of every row its hardness, its residual at the start, and how that changes, (54, batch); and
    change' M change, (batch)."""

    hardness: jax.Array
    start: jax.Array
    change: jax.Array
    smooth: jax.Array

    @property
    def decrement(self) -> jax.Array:
        """change' H change, H being M with the rows that push at the start: twice what the step promises to gain."""
        return self.smooth + jnp.where(self.start < 0, self.hardness * self.change**2, 0.0).sum(0)


def accelerations(problem: Problem, guess: Coordinates) -> Found:
    """The minimum, or as near to it as MuJoCo goes: its search begins at ``guess`` or at what the accelerations would
    be without rows, whichever costs less, and ends where a Newton step promises to gain less than its tolerance."""
    start, rowless = _start(problem, Point(guess, outward(problem.pose, guess)))

    def unfinished(carry: tuple[jax.Array, jax.Array, Found]) -> jax.Array:
        count, done, _ = carry
        return (count < ITERATIONS) & ~jnp.all(done)

    def step(carry: tuple[jax.Array, jax.Array, Found]) -> tuple[jax.Array, jax.Array, Found]:
        count, done, before = carry
        after, ended = _newton(problem, before.point, done)
        # A row of the batch that is done stays as it is, however long the others take.
        kept = jax.tree.map(lambda old, new: jnp.where(done, old, new), before, after)
        return count + 1, done | ended, kept

    begin = Found(start, jax.tree.map(jnp.zeros_like, start.qacc))
    return jax.lax.while_loop(unfinished, step, (jnp.int32(0), rowless, begin))[2]


def forces(problem: Problem, found: Found) -> tuple[Parts[Wrench], Number]:
    """All forces together, the rows' included, where the search ended: (wrenches on bodies, moments at hinges).

    That is M a - H left, H being M with the rows that push, since H left is the slope of the cost there. To ask each
    row for its force would multiply what rounding left of J a + offset, where large numbers cancel, by its hardness.
    """
    stiff, own = _stiffened(problem, residuals(problem, found.point))
    slope = map(Inertia.times, stiff, outward(problem.pose, found.left))
    wrenches = map(Inertia.times, problem.inertias, found.point.motion)
    hinges = problem.own * found.point.qacc.hinges - own * found.left.hinges
    return Parts(*(w - s for w, s in zip(wrenches, slope, strict=True))), hinges


def residuals(problem: Problem, point: Point) -> Residuals:
    """Of each row at these accelerations."""

    def edges(contact: Contact, motion: Twist) -> Edges:
        move = motion.at(contact.arm)
        return _edges(move.z + contact.normal, FRICTION * move.x + contact.along)

    row = problem.limits
    return Residuals(row.side * point.qacc.hinges + row.offset, Parts(*map(edges, problem.contacts, point.motion)))


def pushes(problem: Problem, sides: Residuals, residuals: Residuals) -> tuple[Parts[Wrench], Number]:
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


def _start(problem: Problem, guess: Point) -> tuple[Point, jax.Array]:
    """(where the search begins, bool (batch): whether there are no rows, so that it ends there)."""
    free = Point(*solve(problem.pose, problem.inertias, problem.own, problem.wrenches, problem.hinges))
    hardness, r_free = _listed(problem, residuals(problem, free))
    _, r_guess = _listed(problem, residuals(problem, guess))
    apart = jax.tree.map(lambda a, b: a - b, guess, free)
    cost_free, cost_guess = ((hardness * jnp.minimum(r, 0) ** 2).sum(0) for r in (r_free, r_guess))
    better = cost_guess + _quadratic(problem, apart) <= cost_free
    rowless = (hardness == 0).all(0)
    return jax.tree.map(lambda a, b: jnp.where(better & ~rowless, a, b), guess, free), rowless


def _newton(problem: Problem, before: Point, done: jax.Array) -> tuple[Found, jax.Array]:
    """(where one step leads, whether the search ends there). Those that are done need not be looked at."""
    now = residuals(problem, before)
    offsets = Residuals(problem.limits.offset, Parts(*(_edges(row.normal, row.along) for row in problem.contacts)))
    wrenches, hinges = pushes(problem, now, offsets)
    stiff, own = _stiffened(problem, now)
    full = Point(
        *solve(
            problem.pose,
            stiff,
            own,
            Parts(*(a + b for a, b in zip(problem.wrenches, wrenches, strict=True))),
            problem.hinges + hinges,
        )
    )
    (hardness, r), (_, r_full) = _listed(problem, now), _listed(problem, residuals(problem, full))
    change = jax.tree.map(lambda a, b: b - a, before, full)
    line = Line(hardness, r, r_full - r, _quadratic(problem, change))
    settled = ((hardness == 0) | ((r < 0) == (r_full < 0))).all(0)
    near = line.decrement * (SCALE / 2) < TOLERANCE
    one = jnp.ones_like(line.smooth)
    length = jax.lax.cond(jnp.all(settled | near | done), lambda: one, lambda: _line_search(line))
    length = jnp.where(near, 0.0, jnp.where(settled, 1.0, length))
    after = jax.tree.map(lambda a, b: jnp.where(settled & ~near, b, a + length * (b - a)), before, full)
    left = jax.tree.map(lambda c: jnp.where(near, -c, 0.0), change.qacc)
    return Found(after, left), settled | near


def _stiffened(problem: Problem, residuals: Residuals) -> tuple[Parts[Inertia], Number]:
    """M with the rows that push at these residuals: (inertias of bodies, of the hinges themselves)."""
    stiff = map(_stiffness, problem.contacts, residuals.contacts)
    own = problem.own + jnp.where(residuals.limits < 0, problem.limits.hardness, 0.0)
    return Parts(*(a + b for a, b in zip(problem.inertias, stiff, strict=True))), own


def _stiffness(contact: Contact, residuals: Edges) -> Inertia:
    """What the edges that push add to their body."""
    plus, minus, level = (jnp.where(r < 0, contact.hardness, 0.0) for r in residuals)
    xx, xz, zz = FRICTION**2 * (plus + minus), FRICTION * (plus - minus), plus + minus + 2 * level
    return jax.tree.map(lambda leaf: leaf.sum(0), at_point(contact.arm, xx, xz, zz))


def _line_search(line: Line) -> jax.Array:
    """How far to go: 0 is where the Newton step begins, 1 where it ends.

    The slope of the cost along it is piecewise linear and rises. Newton's method finds its zero, kept between a place
    where the slope was negative and one where it was positive.
    """
    # The Newton step ends where the slope of the quadratic with the rows that push at its beginning is zero.
    pushed = jnp.where(line.start < 0, line.hardness * line.change, 0.0)
    begin = -line.smooth - (pushed * (line.start + line.change)).sum(0)

    def step(_: int, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        length, low, high = carry
        r = line.start + length * line.change
        pushing = jnp.where(r < 0, line.hardness * line.change, 0.0)
        slope = begin + length * line.smooth + (pushing * r).sum(0)
        bend = line.smooth + (pushing * line.change).sum(0)
        low, high = jnp.where(slope < 0, length, low), jnp.where(slope < 0, high, length)
        length = length - slope / jnp.where(bend > 0, bend, 1.0)
        middle = (low + jnp.where(high < jnp.inf, high, 2 * low)) / 2
        return jnp.where((length < low) | (length > high), middle, length), low, high

    one = jnp.ones_like(line.smooth)
    return jax.lax.fori_loop(0, SEARCHES, step, (one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf)))[0]


def _listed(problem: Problem, residuals: Residuals) -> tuple[jax.Array, jax.Array]:
    """(hardness, residual) of every row, (54, batch); the two rows of a level edge are one of twice the hardness."""
    hardness, values = [problem.limits.hardness], [residuals.limits]
    for contact, edges in zip(problem.contacts, residuals.contacts, strict=True):
        hardness += [contact.hardness, contact.hardness, 2 * contact.hardness]
        values += edges
    rows = [jnp.concatenate([v.reshape(-1, v.shape[-1]) for v in each]) for each in (hardness, values)]
    return rows[0], rows[1]


def _quadratic(problem: Problem, change: Point) -> jax.Array:
    """change' M change"""

    def energy(inertia: Inertia, motion: Twist) -> Number:
        wrench = inertia.times(motion)
        return wrench.moment * motion.turn + wrench.force.dot(motion.move)

    torso, links = map(energy, problem.inertias, change.motion)
    return torso + (links + problem.own * change.qacc.hinges**2).sum((0, 1))


def _edges(normal: Number, along: Number) -> Edges:
    return Edges(normal + along, normal - along, normal)
