"""Frames of both sides in one scene, by MuJoCo's own renderer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

SIZE = (360, 480)  # pixels, height and width
PORT = (0.1, 0.3, 1.0, 0.6)  # the port is blue, and lets the reference be seen through it


class NoOpenGL(Exception):
    """The renderer finds nothing to draw with; in one line, with what to do."""


def choose_gl() -> None:
    """Without a screen, draw in memory, unless MUJOCO_GL says with what. MuJoCo looks once, when it is imported."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "osmesa")


def frames(ours: np.ndarray, theirs: np.ndarray) -> Iterator[np.ndarray]:
    """uint8 (height, width, 3) of each step of qpos (T, 9) of both sides. Raises NoOpenGL before the first."""
    renderer, model, mujoco = _renderer()
    here, there = mujoco.MjData(model), mujoco.MjData(model)
    moving = mujoco.mjtCatBit.mjCAT_DYNAMIC
    camera = mujoco.MjvCamera()
    camera.distance, camera.elevation, camera.azimuth = 2.8, -12, 90
    try:
        for mine, other in zip(ours, theirs, strict=True):
            for data, qpos in ((here, mine), (there, other)):
                data.qpos[:] = qpos
                mujoco.mj_forward(model, data)
            camera.lookat[:] = mine[0], 0, 0.5
            renderer.update_scene(here, camera)
            scene = renderer.scene
            first = scene.ngeom
            mujoco.mjv_addGeoms(model, there, mujoco.MjvOption(), mujoco.MjvPerturb(), moving, scene)
            for geom in scene.geoms[first : scene.ngeom]:
                geom.rgba[:] = PORT
            yield renderer.render().copy()
    finally:
        renderer.close()


def _renderer() -> tuple[Any, Any, Any]:
    """(renderer, model, the module)."""
    try:
        import gymnasium
        import mujoco

        environment: Any = gymnasium.make("HalfCheetah-v5").unwrapped
        return mujoco.Renderer(environment.model, *SIZE), environment.model, mujoco
    except Exception as error:  # the binding, the library and the driver each fail in a way of their own
        text = " ".join(str(error).split())[:80]
        raise NoOpenGL(f"MuJoCo finds no OpenGL ({text}): install libosmesa6, or set MUJOCO_GL") from error
