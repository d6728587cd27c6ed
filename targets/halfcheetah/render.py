"""One trajectory of both sides, drawn over each other.

    python -m targets.halfcheetah.render cheetah.gif [--steps 100] [--seed 0] [--plane]

Both begin in the same state and run free under the same actions (slow waves). MuJoCo's renderer draws Gymnasium's
cheetah and over it the port's, in float32, blue and half transparent. ``--plane``, or where MuJoCo finds no OpenGL: a
drawing of the plane the cheetah lives in, by matplotlib, which says how far apart they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.protocol import State as Injected
from targets.halfcheetah import reference, scene
from targets.halfcheetah.environment import State, make
from targets.halfcheetah.model import HINGES, model_of
from targets.halfcheetah.tree import coordinates, pose

FPS = 20  # a step is a twentieth of a second
VIEW = (-1.3, 1.5, -0.15, 1.75)  # m, from the torso along x and from the ground up
SIDES = (("Gymnasium", "tab:blue", 13), ("port", "tab:orange", 6))  # name, colour, width of a line


def trajectories(steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """qpos of both sides, (steps + 1, 9) each."""
    backend = reference.backend()
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(steps)[:, None] * rng.uniform(0.3, 0.9, HINGES) + rng.uniform(0, 6, HINGES))
    state = backend.reset(np.array([seed])).state
    theirs = _float32(state)
    env, params = make()
    step = jax.jit(env.step_env)
    qpos = [state.fields["qpos"][0]], [np.asarray(theirs.qpos[0])]
    for action in waves.astype(np.float32)[:, None]:
        state = Injected(backend.step(state, {"action": action}, np.zeros(1, int)).state.fields)
        theirs = step(jax.random.PRNGKey(0), theirs, jnp.asarray(action), params)[1]
        qpos[0].append(state.fields["qpos"][0])
        qpos[1].append(np.asarray(theirs.qpos[0]))
    backend.close()
    return np.array(qpos[0]), np.array(qpos[1])


def capsules(qpos: np.ndarray) -> np.ndarray:
    """(T, 8, 2, 2): of each capsule, x and z of its two ends."""
    model = model_of("float32")
    placed = pose(model, coordinates(jnp.asarray(qpos.T, jnp.float32)))
    found = []
    for anchor, turn, sphere, pairs in zip(placed.anchor, placed.turn, model.spheres, (_torso, _links), strict=True):
        centre = turn(sphere.centre)
        x, z = (np.asarray(a + c) for a, c in ((anchor.x, centre.x), (anchor.z, centre.z)))
        found.append(pairs(np.stack([x + qpos[:, 0], z], -1)))
    return np.concatenate(found).swapaxes(0, 2).swapaxes(1, 2)


def film(path: Path, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Writes a GIF in real time, of frames by MuJoCo. Raises scene.NoOpenGL."""
    from PIL import Image

    first, *others = map(Image.fromarray, scene.frames(ours, theirs))
    first.save(path, save_all=True, append_images=others, duration=1000 // FPS, loop=0)


def draw(path: Path, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Writes a GIF in real time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import animation, pyplot
    from matplotlib.collections import LineCollection

    bodies = [capsules(ours), capsules(theirs)]
    figure, axes = pyplot.subplots(figsize=(6.4, 4.6), dpi=80, layout="constrained")
    axes.set(aspect="equal", ylabel="z, m", xlabel="x, m")
    axes.axhline(0, color="black", linewidth=1)
    lines = []
    for name, colour, width in SIDES:
        line = LineCollection([], colors=colour, linewidths=width, capstyle="round", label=name)
        axes.add_collection(line)
        lines.append(line)
    axes.legend(loc="upper left")

    def frame(t: int) -> list[Any]:
        for line, body in zip(lines, bodies, strict=True):
            line.set_segments(body[t])
        x = ours[t, 0]
        axes.set_xlim(x + VIEW[0], x + VIEW[1])
        axes.set_ylim(VIEW[2], VIEW[3])
        apart = np.abs(ours[t] - theirs[t]).max()
        axes.set_title(f"step {t}, farthest coordinate {apart:.1e} apart")
        return lines

    animation.FuncAnimation(figure, frame, frames=len(ours)).save(path, writer=animation.PillowWriter(fps=FPS))
    pyplot.close(figure)


def _float32(state: Injected) -> State:
    qpos, qvel = (jnp.asarray(state.fields[name], jnp.float32) for name in ("qpos", "qvel"))
    return State(qpos, qvel, jnp.asarray(state.fields["time"], jnp.int32))


def _torso(ends: np.ndarray) -> np.ndarray:
    """(4, T, 2) as (2 capsules, 2 ends, T, 2)."""
    return ends.reshape(2, 2, *ends.shape[1:])


def _links(ends: np.ndarray) -> np.ndarray:
    """(2 ends, 3, 2, T, 2) as (6 capsules, 2 ends, T, 2)."""
    return ends.reshape(2, HINGES, *ends.shape[3:]).swapaxes(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a .gif to write")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plane", action="store_true", help="a drawing by matplotlib, without MuJoCo's renderer")
    options = parser.parse_args()
    if options.path.suffix != ".gif" or options.steps < 1:
        parser.error("give a file that ends in .gif, and at least one step")
    scene.choose_gl()
    ours, theirs = trajectories(options.steps, options.seed)
    try:
        (draw if options.plane else film)(options.path, ours, theirs)
    except scene.NoOpenGL as error:
        print(f"{error}; drawn by matplotlib instead", file=sys.stderr)
        draw(options.path, ours, theirs)
    print(
        f"wrote {options.path}: {options.steps} steps, {np.abs(ours - theirs).max():.1e} apart at most", file=sys.stderr
    )


if __name__ == "__main__":
    main()
