"""What mechanics asks of the port's terms, whatever MuJoCo's numbers are; the contract names these functions.

Each takes the states before a step, "qpos" and "qvel" (B, 9), and says bool[B] of the target. Of the reference there is
nothing to say: its terms are MuJoCo's own. They are computed in float64, so that rounding is no excuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from targets.halfcheetah.bias import bias
from targets.halfcheetah.dynamics import problem
from targets.halfcheetah.inertia import inertias
from targets.halfcheetah.model import DOFS, GRAVITY, in_order, model_of
from targets.halfcheetah.passive import springs
from targets.halfcheetah.plane import Number
from targets.halfcheetah.tree import Coordinates, coordinates, multiply, outward, pose, rows, solve

NEAR = 1e-9  # relative, in float64
LIFT = 5.0  # m: nothing touches the ground from up there

Arrays = Mapping[str, np.ndarray]


def of_states(holds: Callable[[Coordinates, Coordinates], Any]) -> Callable[[str, Arrays, Arrays, Arrays], np.ndarray]:
    """What a contract calls, of a function of positions and velocities."""

    @wraps(holds)
    def called(side: str, before: Arrays, action: Arrays, after: Arrays) -> np.ndarray:
        if side == "reference":
            return np.ones(len(before["qpos"]), bool)
        with jax.enable_x64(True):
            given = (coordinates(jnp.asarray(before[name], float).T) for name in ("qpos", "qvel"))
            return np.asarray(jax.jit(holds)(*given))

    return called


@of_states
def mass_matrix_is_symmetric(qpos: Coordinates, qvel: Coordinates) -> Any:
    """M = M', and its diagonal is positive."""
    model = model_of("float64")
    placed = pose(model, qpos)
    zero = jnp.zeros((DOFS, qpos.z.size))
    columns = [
        rows(multiply(placed, inertias(model, placed), model.joints.armature, coordinates(zero.at[i].set(1))))
        for i in range(DOFS)
    ]
    matrix = jnp.stack(columns)
    apart = jnp.abs(matrix - matrix.swapaxes(0, 1)).max((0, 1))
    return (apart <= NEAR * jnp.abs(matrix).max((0, 1))) & (jnp.diagonal(matrix) > 0).all(1)


@of_states
def energy_is_kept(qpos: Coordinates, qvel: Coordinates) -> Any:
    """Without motors, dampers and rows the rate of kinetic, potential and spring energy along the accelerations is
    zero. A wrong mass matrix, bias or gravity would make or lose some."""
    model = model_of("float64")
    placed = pose(model, qpos)
    mass = inertias(model, placed)
    mass = mass._replace(links=jax.tree.map(lambda v: jnp.broadcast_to(v, qpos.hinges.shape), mass.links))
    own = jnp.broadcast_to(model.joints.armature, qpos.hinges.shape)
    pull = jax.tree.map(jnp.negative, bias(model, placed, outward(placed, qvel)))
    qacc, _ = solve(placed, mass, own, pull, springs(model.joints, qpos.hinges))
    whole, rate = jax.jvp(energy, (qpos, qvel), (qvel, qacc))
    return jnp.abs(rate) <= NEAR * (1 + jnp.abs(whole)) * (1 + jnp.abs(rows(qvel)).max(0))


@of_states
def nothing_acts_from_afar(qpos: Coordinates, qvel: Coordinates) -> Any:
    """High above the ground, and with hinges inside their ranges, no row pushes, however fast everything moves."""
    model = model_of("float64")
    low, high = model.joints.low, model.joints.high
    inside = qpos.hinges.clip(low + 0.01 * (high - low), high - 0.01 * (high - low))
    given = problem(model, qpos._replace(z=qpos.z + LIFT, hinges=inside), qvel, jnp.zeros_like(inside))
    hard = [in_order(given.limits.hardness), *(c.hardness.reshape(-1, qpos.z.size) for c in given.contacts)]
    return (jnp.concatenate(hard) == 0).all(0)


def energy(qpos: Coordinates, qvel: Coordinates) -> Number:
    """Kinetic, potential and that of the springs, J."""
    model = model_of(str(qpos.z.dtype))
    placed = pose(model, qpos)
    momenta = multiply(placed, inertias(model, placed), model.joints.armature, qvel)
    kinetic = (rows(momenta) * rows(qvel)).sum(0) / 2
    heights = [
        (body.mass * (anchor.z + turn(body.centre).z)).reshape(-1, qpos.z.size).sum(0)
        for body, anchor, turn in zip(model.bodies, placed.anchor, placed.turn, strict=True)
    ]
    bent = (model.joints.stiffness * (qpos.hinges - model.joints.rest) ** 2).sum((0, 1)) / 2
    return kinetic + GRAVITY * sum(heights) + bent
