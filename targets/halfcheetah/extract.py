"""Reads every constant of the port from MuJoCo's compiled model of Gymnasium's HalfCheetah-v5.

    python -m targets.halfcheetah.extract          writes constants.json

Lengths in m, masses in kg, angles in rad, times in s. Vectors are (x, z): the model lives in the plane y = 0, and this
script refuses a model that does not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("constants.json")
ROOT = 3  # degrees of freedom of the torso: x, z, angle


def constants() -> dict[str, Any]:
    """What constants.json holds. Raises ValueError if the model has anything the port knows nothing of."""
    import gymnasium
    import mujoco

    environment = gymnasium.make("HalfCheetah-v5")
    model = environment.unwrapped.model  # type: ignore[attr-defined]
    _check(model, mujoco)
    spheres = [
        {
            "name": f"{model.geom(g).name}.{end}",
            "body": int(model.geom_bodyid[g]) - 1,
            "centre": _planar(model.geom_pos[g] + side * model.geom_size[g, 1] * _axis(mujoco, model.geom_quat[g])),
            "radius": float(model.geom_size[g, 0]),
        }
        for g in range(1, model.ngeom)
        for end, side in (("a", 1.0), ("b", -1.0))
    ]
    joints = range(ROOT, model.njnt)
    found = {
        "mujoco": mujoco.__version__,
        "timestep": model.opt.timestep,
        "gravity": -model.opt.gravity[2],
        "bodies": [
            {
                "name": model.body(b).name,
                "parent": int(model.body_parentid[b]) - 1,
                "offset": _planar(model.body_pos[b]),
                "mass": model.body_mass[b],
                "centre": _planar(model.body_ipos[b]),
                "inertia": float(_full_inertia(mujoco, model, b)[1, 1]),
                "weight": model.body_invweight0[b, 0],
            }
            for b in range(1, model.nbody)
        ],
        "joints": [
            {
                "name": model.joint(j).name,
                "armature": model.dof_armature[j],
                "damping": model.dof_damping[j],
                "stiffness": model.jnt_stiffness[j],
                "rest": model.qpos_spring[j],
                "range": list(model.jnt_range[j]),
                "weight": model.dof_invweight0[j],
                "gear": model.actuator_gear[j - ROOT, 0],
                "control": list(model.actuator_ctrlrange[j - ROOT]),
            }
            for j in joints
        ],
        "spheres": spheres,
        "friction": model.geom_friction[1, 0],
        "limit": {"solref": list(model.jnt_solref[ROOT]), "solimp": list(model.jnt_solimp[ROOT])},
        "contact": {"solref": list(model.geom_solref[1]), "solimp": list(model.geom_solimp[1])},
        "solver": {
            "iterations": model.opt.iterations,
            "tolerance": model.opt.tolerance,
            "scale": 1.0 / (model.stat.meaninertia * model.nv),
        },
    }
    environment.close()
    return found


def _check(model: Any, mujoco: Any) -> None:
    def alike(array: Any) -> bool:
        return bool((np.asarray(array) == array[0]).all())

    joint, geom = mujoco.mjtJoint, mujoco.mjtGeom
    kinds = [joint.mjJNT_SLIDE, joint.mjJNT_SLIDE, *[joint.mjJNT_HINGE] * (model.njnt - 2)]
    axes = [[1, 0, 0], [0, 0, 1], *[[0, 1, 0]] * (model.njnt - 2)]
    shapes = [geom.mjGEOM_PLANE, *[geom.mjGEOM_CAPSULE] * (model.ngeom - 1)]
    wanted = {
        "two slides and hinges": list(model.jnt_type) == kinds,
        "x, z and hinges about y": np.array_equal(model.jnt_axis, axes),
        "joints at their bodies' origins": not model.jnt_pos.any(),
        "a free torso": not (model.dof_armature[:ROOT].any() or model.dof_damping[:ROOT].any()),
        "no springs at the torso": not model.jnt_stiffness[:ROOT].any(),
        "no rotated bodies": np.array_equal(model.body_quat[:, 0], np.ones(model.nbody)),
        "one joint a body": list(model.dof_bodyid) == [1, 1, 1, *range(2, model.nbody)],
        "nothing off the plane": not any(p[:, 1].any() for p in (model.body_pos, model.body_ipos, model.geom_pos)),
        "capsules over a plane": list(model.geom_type) == shapes,
        "capsules that meet the plane only": not (model.geom_contype[1:, None] & model.geom_conaffinity[1:]).any(),
        "one kind of contact": all(map(alike, (model.geom_friction, model.geom_solref, model.geom_solimp))),
        "one kind of limit": alike(model.jnt_solref[ROOT:]) and alike(model.jnt_solimp[ROOT:]),
        "no margins": not (model.geom_margin.any() or model.geom_gap.any() or model.jnt_margin.any()),
        "three contact dimensions": (model.geom_condim == 3).all(),
        "pyramids": model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL and model.opt.impratio == 1,
        "Euler": model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER and not model.opt.disableflags,
        "Newton": model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON and not model.opt.noslip_iterations,
        "no air, no dry friction": not (model.opt.density or model.opt.viscosity or model.dof_frictionloss.any()),
        "a motor a hinge": list(model.actuator_trnid[:, 0]) == list(range(ROOT, model.njnt)),
        "motors without dynamics": not (model.actuator_dyntype.any() or model.actuator_biastype.any()),
        "linear springs and dampers": not (model.jnt_stiffnesspoly.any() or model.dof_dampingpoly.any()),
        "a start at zero": not model.qpos0.any(),
        "gravity down": not model.opt.gravity[:2].any(),
    }  # fmt: skip
    broken = [what for what, holds in wanted.items() if not holds]
    if broken:
        raise ValueError(f"the port is of another model than this one: it needs {', '.join(broken)}")


def _planar(vector: Any) -> list[float]:
    return [float(vector[0]), float(vector[2])]


def _matrix(mujoco: Any, quaternion: np.ndarray) -> np.ndarray:
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quaternion)
    return flat.reshape(3, 3)


def _axis(mujoco: Any, quaternion: np.ndarray) -> np.ndarray:
    """A capsule lies along its own z."""
    return _matrix(mujoco, quaternion)[:, 2]


def _full_inertia(mujoco: Any, model: Any, body: int) -> np.ndarray:
    """(3, 3), kg m^2, about the centre of mass in the body's axes; the model keeps it along principal axes."""
    turned = _matrix(mujoco, model.body_iquat[body])
    return turned @ np.diag(model.body_inertia[body]) @ turned.T


if __name__ == "__main__":
    FILE.write_text(json.dumps(constants(), indent=1, default=float) + "\n")
    print(f"wrote {FILE}")
