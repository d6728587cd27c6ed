"""MuJoCo's step of this model: forces, constrained accelerations, and semi-implicit Euler with implicit damping."""

from __future__ import annotations

from collections.abc import Sequence

from targets.halfcheetah.bias import bias
from targets.halfcheetah.constraints import contacts, limits
from targets.halfcheetah.inertia import ARMATURE, inertias
from targets.halfcheetah.model import TIMESTEP
from targets.halfcheetah.passive import DAMPING, dampers, motors, springs
from targets.halfcheetah.plane import Number
from targets.halfcheetah.solver import Problem, accelerations, pushes, residuals
from targets.halfcheetah.tree import outward, pose, solve


def problem(qpos: Sequence[Number], qvel: Sequence[Number], controls: Sequence[Number]) -> Problem:
    """All that decides the accelerations in this state under these controls."""
    placed = pose(qpos)
    motion = outward(placed, qvel)
    forces = [-force for force in bias(placed, motion)]
    for hinges in (springs(qpos), dampers(qvel), motors(controls)):
        forces[3:] = [f + own for f, own in zip(forces[3:], hinges, strict=True)]
    return Problem(placed, inertias(placed), forces, limits(qpos, qvel), contacts(placed, motion))


def advance(
    qpos: Sequence[Number], qvel: Sequence[Number], controls: Sequence[Number], guess: Sequence[Number]
) -> tuple[list[Number], list[Number], list[Number]]:
    """One time step: (qpos, qvel, qacc), nine each. ``guess``: accelerations to begin the search with.

    The dampers act at the end of the step: (M + h damping) qacc = all forces, with the constraints' as they came out
    without that (MuJoCo's mj_Euler; documentation, "Numerical integration", "implicit damping").
    """
    given = problem(qpos, qvel, controls)
    found = accelerations(given, guess)
    constrained = pushes(given, residuals(given, found))
    forces = [f + p for f, p in zip(given.forces, constrained, strict=True)]
    damped = [own + TIMESTEP * damping for own, damping in zip(ARMATURE, DAMPING, strict=True)]
    qacc = solve(given.pose, given.inertias, damped, forces)
    qvel = [rate + TIMESTEP * change for rate, change in zip(qvel, qacc, strict=True)]
    return [place + TIMESTEP * rate for place, rate in zip(qpos, qvel, strict=True)], qvel, found
