"""One step of the port against one of MuJoCo, from many injected states.

    python -m targets.halfcheetah.proof --states 100000

The states are of six kinds (``KINDS``), a sixth of them each; half of the actions are bang-bang. Both sides begin from
the same numbers, which float32 can hold. In float64 the port has to be within 1e-9 in qpos and 1e-7 in qvel everywhere;
the command fails if it is not. Errors in float32 are reported, with and without contact.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from targets.halfcheetah.environment import simulate
from targets.halfcheetah.model import DOFS, HINGES, Joint, in_order, model_of
from targets.halfcheetah.tree import coordinates, pose

FRAMES = 5  # Gymnasium's frame_skip
ALLOWED = {"qpos": 1e-9, "qvel": 1e-7}
CHUNK = 2_000  # states at a time
QUANTILES = (0.5, 0.99, 0.999, 1.0)


class States(NamedTuple):
    """float64 (B, 9), (B, 9), float32 (B, 6), and the name of its kind (B,)."""

    qpos: np.ndarray
    qvel: np.ndarray
    action: np.ndarray
    kind: np.ndarray


class Reference(NamedTuple):
    """What MuJoCo made of them: qpos and qvel (B, 9), and of the five time steps the most constraint rows and Newton
    iterations, int (B,). ``warm``: how far another warm start moves qvel, float (B,)."""

    qpos: np.ndarray
    qvel: np.ndarray
    rows: np.ndarray
    iterations: np.ndarray
    warm: np.ndarray


def sample(count: int, rng: np.random.Generator) -> States:
    """``count`` states, all kinds in turn."""
    kind = np.array(list(KINDS))[np.arange(count) % len(KINDS)]
    qpos, qvel = np.zeros((count, DOFS)), np.zeros((count, DOFS))
    for name, make in KINDS.items():
        here = kind == name
        qpos[here], qvel[here] = make(int(here.sum()), rng)
    action = rng.uniform(-1, 1, (count, HINGES))
    action = np.where(rng.random((count, 1)) < 0.5, np.sign(action), action)
    return States(np.float32(qpos).astype(float), np.float32(qvel).astype(float), action.astype(np.float32), kind)


def _begun(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As episodes begin."""
    return rng.uniform(-0.1, 0.1, (count, DOFS)), 0.1 * rng.normal(size=(count, DOFS))


def _airborne(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Off the ground, turned anyhow, hinges inside their ranges."""
    qpos, qvel = _posed(count, rng, 0.9)
    return _lifted(qpos, rng.uniform(0.05, 2.0, count)), qvel


def _touching(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Upright, the lowest point within a centimetre of the ground, on either side."""
    qpos, qvel = _posed(count, rng, 0.9)
    qpos[:, 2] = rng.normal(0, 0.3, count)
    return _lifted(qpos, rng.uniform(-0.01, 0.01, count)), qvel


def _deep(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Up to 30 cm in the ground."""
    qpos, qvel = _posed(count, rng, 0.9)
    qpos[:, 2] = rng.normal(0, 0.5, count)
    return _lifted(qpos, rng.uniform(-0.3, 0.0, count)), qvel


def _flipped(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """On its back, up to three turns round, in touch with the ground."""
    qpos, qvel = _posed(count, rng, 0.9)
    qpos[:, 2] = np.pi + rng.normal(0, 0.5, count) + 2 * np.pi * rng.integers(-3, 3, count)
    return _lifted(qpos, rng.uniform(-0.05, 0.01, count)), qvel


def _limited(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hinges at the ends of their ranges and beyond, near the ground."""
    qpos, qvel = _posed(count, rng, 1.2)
    return _lifted(qpos, rng.uniform(-0.05, 0.05, count)), qvel


KINDS: dict[str, Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "begun": _begun, "airborne": _airborne, "touching": _touching, "deep": _deep, "flipped": _flipped,
    "limited": _limited,
}  # fmt: skip


def _posed(count: int, rng: np.random.Generator, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Anywhere along x, turned anyhow, hinges anywhere in this share of their ranges, fast."""
    joints: Joint = model_of("float64").joints
    low, high = (in_order(end)[:, 0] for end in (joints.low, joints.high))
    middle, half = (low + high) / 2, (high - low) / 2
    qpos = np.concatenate(
        [
            rng.uniform(-10, 10, (count, 1)),
            np.zeros((count, 1)),
            rng.uniform(-7, 7, (count, 1)),
            middle + share * half * rng.uniform(-1, 1, (count, HINGES)),
        ],
        1,
    )
    return qpos, rng.normal(size=(count, DOFS)) * np.array([3.0, 2.0, 4.0, *[8.0] * HINGES])


def _lifted(qpos: np.ndarray, height: np.ndarray) -> np.ndarray:
    """With the lowest point of the body at this height."""
    model = model_of("float64")
    with jax.enable_x64(True):
        placed = pose(model, coordinates(jnp.asarray(qpos.T)))
        lowest = [
            (anchor.z + turn(sphere.centre).z - sphere.radius).reshape(-1, len(qpos)).min(0)
            for anchor, turn, sphere in zip(placed.anchor, placed.turn, model.spheres, strict=True)
        ]
    lifted = qpos.copy()
    lifted[:, 1] += height - np.minimum(*map(np.asarray, lowest))
    return lifted


def reference(states: States, warm: bool = True) -> Reference:
    """MuJoCo's own steps, one state after another; without ``warm`` that is not tried."""
    import mujoco

    model, data = mujoco_model()
    count = len(states.qpos)
    qpos, qvel = np.zeros((count, DOFS)), np.zeros((count, DOFS))
    rows, iterations, moved = np.zeros(count, int), np.zeros(count, int), np.zeros(count)
    for i in range(count):
        data.qpos[:], data.qvel[:], data.ctrl[:] = states.qpos[i], states.qvel[i], states.action[i]
        data.qacc_warmstart[:] = 0
        for frame in range(FRAMES):
            mujoco.mj_step(model, data)
            if frame == 0:
                found = data.qacc_warmstart.copy()
            rows[i] = max(rows[i], data.nefc)
            iterations[i] = max(iterations[i], data.solver_niter[0])
        qpos[i], qvel[i] = data.qpos, data.qvel
        if warm:
            data.qpos[:], data.qvel[:] = states.qpos[i], states.qvel[i]
            data.qacc_warmstart[:] = found * (1 + 0.1 * np.sin(np.arange(DOFS) + i))  # good enough to be used
            mujoco.mj_step(model, data, nstep=FRAMES)
            moved[i] = np.abs(data.qvel - qvel[i]).max()
    return Reference(qpos, qvel, rows, iterations, moved)


@cache
def mujoco_model() -> tuple[Any, Any]:
    """MuJoCo's model and data, as Gymnasium makes them."""
    import gymnasium

    environment: Any = gymnasium.make("HalfCheetah-v5").unwrapped
    return environment.model, environment.data


def port(states: States, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The port's (qpos, qvel)."""
    with jax.enable_x64(dtype == "float64"):
        given = (jnp.asarray(v, dtype) for v in (states.qpos, states.qvel, states.action))
        after = _simulate(*given, FRAMES)
        return np.asarray(after[0], float), np.asarray(after[1], float)


_simulate = jax.jit(simulate, static_argnums=3)


class Errors(NamedTuple):
    """Of each state: what it was, and the largest error of each field and dtype, (B,)."""

    kind: np.ndarray
    rows: np.ndarray
    iterations: np.ndarray
    warm: np.ndarray
    error: dict[tuple[str, str], np.ndarray]


def measure(count: int, seed: int = 0, warm: bool = True) -> Iterator[tuple[States, Errors]]:
    """Chunks of states with their errors, until there are ``count``."""
    rng = np.random.default_rng(seed)
    for begin in range(0, count, CHUNK):
        states = sample(CHUNK, rng)  # always as many, so that the port is compiled once
        used = min(CHUNK, count - begin)
        theirs = reference(States(*(v[:used] for v in states)), warm)
        error = {}
        for dtype in ("float64", "float32"):
            for name, ours in zip(("qpos", "qvel"), port(states, dtype), strict=True):
                # NaN would compare as small
                error[name, dtype] = np.nan_to_num(np.abs(ours[:used] - getattr(theirs, name)).max(1), nan=np.inf)
        yield states, Errors(states.kind[:used], theirs.rows, theirs.iterations, theirs.warm, error)


def report(errors: Errors) -> tuple[str, bool]:
    """(a Markdown text, whether float64 is where it has to be)."""
    lines = ["| dtype | states | field | number | " + " | ".join(_named(q) for q in QUANTILES) + " |"]
    lines.append("|---|---|---|---|" + "---|" * len(QUANTILES))
    regimes = {"without rows": errors.rows == 0, "with rows": errors.rows > 0}
    regimes |= {f"of these, {name}": (errors.kind == name) & (errors.rows > 0) for name in KINDS}
    for dtype in ("float64", "float32"):
        for regime, here in regimes.items():
            for name in ALLOWED:
                values = errors.error[name, dtype][here]
                if len(values):
                    told = " | ".join(f"{np.quantile(values, q):.1e}" for q in QUANTILES)
                    lines.append(f"| {dtype} | {regime} | {name} | {len(values):,} | {told} |")
    worst = {name: float(errors.error[name, "float64"].max()) for name in ALLOWED}
    right = all(worst[name] <= bound for name, bound in ALLOWED.items())
    lines += [
        "",
        f"{len(errors.rows):,} states; at most {errors.rows.max()} constraint rows and {errors.iterations.max()} of "
        "MuJoCo's Newton iterations in a time step.",
        f"warm start: another one moves MuJoCo's own qvel by at most {errors.warm.max():.1e}.",
        f"float64: qpos within {worst['qpos']:.1e} (allowed {ALLOWED['qpos']:.0e}), qvel within {worst['qvel']:.1e} "
        f"(allowed {ALLOWED['qvel']:.0e}): {'as it has to be' if right else 'NOT as it has to be'}",
    ]
    return "\n".join(lines), right


def joined(parts: list[Errors]) -> Errors:
    error = {key: np.concatenate([part.error[key] for part in parts]) for key in parts[0].error}
    kind, rows, iterations, warm = (np.concatenate([part[i] for part in parts]) for i in range(4))
    return Errors(kind, rows, iterations, warm, error)


def _named(quantile: float) -> str:
    return {0.5: "median", 1.0: "max"}.get(quantile, f"{quantile:.1%}")


def main(arguments: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.states < 1:
        parser.error("--states: give a whole number from 1 on")
    parts = []
    for _, errors in measure(options.states, options.seed):
        parts.append(errors)
        made = sum(len(part.rows) for part in parts)
        print(f"\r{made:,} of {options.states:,} states", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    text, right = report(joined(parts))
    print(text)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
