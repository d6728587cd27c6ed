"""MuJoCo's step of this model: forces, constrained accelerations, and semi-implicit Euler with implicit damping."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from targets.halfcheetah.bias import bias
from targets.halfcheetah.constraints import contacts, limits
from targets.halfcheetah.inertia import inertias
from targets.halfcheetah.model import TIMESTEP, Model
from targets.halfcheetah.passive import dampers, motors, springs
from targets.halfcheetah.plane import Number
from targets.halfcheetah.solver import Problem, accelerations, forces
from targets.halfcheetah.tree import Coordinates, outward, pose, solve


def problem(model: Model, qpos: Coordinates, qvel: Coordinates, controls: Number) -> Problem:
    """All that decides the accelerations in this state under these controls."""
    placed = pose(model, qpos)
    motion = outward(placed, qvel)
    held = bias(model, placed, motion)
    joints = model.joints
    hinges = springs(joints, qpos.hinges) + dampers(joints, qvel.hinges) + motors(joints, controls)
    mass = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, placed.arm.x.shape), inertias(model, placed).links)
    return Problem(
        placed,
        inertias(model, placed)._replace(links=mass),
        jnp.broadcast_to(joints.armature, hinges.shape),
        jax.tree.map(jnp.negative, held),
        hinges,
        limits(joints, qpos.hinges, qvel.hinges),
        contacts(model, placed, motion),
    )


def advance(
    model: Model, qpos: Coordinates, qvel: Coordinates, controls: Number, guess: Coordinates
) -> tuple[Coordinates, Coordinates, Coordinates]:
    """One time step: (qpos, qvel, constrained accelerations). ``guess``: where to begin the search for the latter.

    The dampers act at the end of the step: (M + h damping) qacc = all forces, with the constraints' as they came out
    without that (MuJoCo's mj_Euler; documentation, "Numerical integration", "implicit damping").
    """
    given = problem(model, qpos, qvel, controls)
    found = accelerations(given, guess)
    wrenches, hinges = forces(given, found)
    damped = given.own + TIMESTEP * model.joints.damping
    qacc, _ = solve(given.pose, given.inertias, damped, wrenches, hinges)
    qvel = jax.tree.map(lambda rate, change: rate + TIMESTEP * change, qvel, qacc)
    return jax.tree.map(lambda place, rate: place + TIMESTEP * rate, qpos, qvel), qvel, found.point.qacc
