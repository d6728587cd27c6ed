"""Steps per second of HalfCheetah: Gymnasium, MuJoCo's C engine, MJX, and the port, in one run.

    python benchmarks/halfcheetah.py [--batches 256 1024 4096 16384] [--seconds 3] [--sides NAME ...] [--rounds 3]

One env step is five of MuJoCo's time steps, for everyone. Actions are uniform, drawn beforehand, new each step. Every
side first plays 40 steps to leave its resets. The best of the rounds counts, each of so many seconds. "port x2" is the
port's program on halves of the batch, in two threads. MJX is measured if mujoco-mjx is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from targets.halfcheetah import make

FRAMES, CONTROLS, WARM = 5, 6, 40
TABLES = 8  # batches of actions, used in turn


class Ready(NamedTuple):
    """``step(t)`` makes one step of the whole batch and returns when it is done; seconds it took to compile."""

    step: Callable[[int], Any]
    compiled: float = 0.0


def actions(batch: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (TABLES, batch, CONTROLS)).astype(np.float32)


def gymnasium_loop(batch: int) -> Ready:
    """One environment of Gymnasium's, one step of it for each row."""
    import gymnasium

    environment = gymnasium.make("HalfCheetah-v5", max_episode_steps=10**9)
    environment.reset(seed=0)
    table = actions(batch)

    def step(t: int) -> None:
        for action in table[t % TABLES]:
            environment.step(action)

    return Ready(step)


def mj_step_loop(batch: int) -> Ready:
    """mj_step(nstep=5) for each row, without an environment around it."""
    import mujoco

    model, data = mujoco_model()
    data = mujoco.MjData(model)
    table = actions(batch).astype(float)

    def step(t: int) -> None:
        for action in table[t % TABLES]:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, nstep=FRAMES)

    return Ready(step)


def mujoco_rollout(batch: int) -> Ready:
    """mujoco.rollout on all cores: one data structure a thread, five time steps a call."""
    import mujoco
    from mujoco import rollout

    model, _ = mujoco_model()
    threads = os.cpu_count() or 1
    pool = rollout.Rollout(nthread=threads)
    datas = [mujoco.MjData(model) for _ in range(threads)]
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.zeros((batch, mujoco.mj_stateSize(model, kind)))
    state[:, 1:] = 0.1 * np.random.default_rng(1).normal(size=state[:, 1:].shape)
    table = np.repeat(actions(batch).astype(float)[:, :, None], FRAMES, 2)
    kept = [state]

    def step(t: int) -> None:
        after, _ = pool.rollout(model, datas, kept[0], table[t % TABLES])
        kept[0] = np.ascontiguousarray(after[:, -1])

    return Ready(step)


def mjx_xml(batch: int) -> Ready:
    """MJX as the model file says: up to 100 solver iterations of up to 50 line searches."""
    return _mjx(batch, None)


def mjx_reduced(batch: int) -> Ready:
    """MJX as it is usually trained with: 1 iteration, 4 line searches. Another simulation, a little."""
    return _mjx(batch, (1, 4))


def _mjx(batch: int, iterations: tuple[int, int] | None) -> Ready:
    import copy

    from mujoco import mjx

    model = copy.copy(mujoco_model()[0])
    if iterations is not None:
        model.opt.iterations, model.opt.ls_iterations = iterations
    device = mjx.put_model(model)
    data = mjx.make_data(model)
    noise = 0.1 * np.random.default_rng(1).normal(size=(batch, model.nq))
    kept = [jax.vmap(lambda q: data.replace(qpos=q))(jnp.asarray(noise, jnp.float32))]

    def frames(data: Any, control: Any) -> Any:
        return jax.lax.fori_loop(0, FRAMES, lambda _, d: mjx.step(device, d), data.replace(ctrl=control))

    table = jnp.asarray(actions(batch))
    began = time.perf_counter()
    program = jax.jit(jax.vmap(frames)).lower(kept[0], table[0]).compile()
    compiled = time.perf_counter() - began

    def step(t: int) -> None:
        kept[0] = jax.block_until_ready(program(kept[0], table[t % TABLES]))

    return Ready(step, compiled)


def port(batch: int) -> Ready:
    """The port in float32: state, observation, reward."""
    env, params = make()
    key = jax.random.PRNGKey(0)
    kept = [jax.jit(env.reset_env, static_argnums=2)(key, params, (batch,))[1]]
    table = jnp.asarray(actions(batch))
    began = time.perf_counter()
    program = jax.jit(env.step_env).lower(key, kept[0], table[0], params).compile()
    compiled = time.perf_counter() - began

    def step(t: int) -> None:
        kept[0] = jax.block_until_ready(program(key, kept[0], table[t % TABLES], params))[1]

    return Ready(step, compiled)


def port_twice(batch: int) -> Ready:
    """The port on halves of the batch, in two threads."""
    halves = [port(batch // 2) for _ in range(2)]
    pool = ThreadPoolExecutor(2)

    def step(t: int) -> None:
        list(pool.map(lambda half: half.step(t), halves))

    return Ready(step, halves[0].compiled)


SIDES: dict[str, Callable[[int], Ready]] = {
    "Gymnasium, one process": gymnasium_loop,
    "mj_step loop": mj_step_loop,
    "mujoco.rollout": mujoco_rollout,
    "MJX, iterations of the XML": mjx_xml,
    "MJX, 1 iteration, 4 line searches": mjx_reduced,
    "port": port,
    "port x2": port_twice,
}
ONE_BY_ONE = ("Gymnasium, one process", "mj_step loop")  # a batch is nothing to them


def mujoco_model() -> tuple[Any, Any]:
    from targets.halfcheetah import proof

    return proof.mujoco_model()


def rate(ready: Ready, batch: int, seconds: float, rounds: int) -> tuple[float, float]:
    """(env steps a second, env steps a CPU second of this process) of the best round."""
    for t in range(WARM if batch <= 4096 else 10):
        ready.step(t)
    best, spent = 0.0, 0.0
    for _ in range(rounds):
        began, cpu, t = time.perf_counter(), time.process_time(), 0
        while t == 0 or time.perf_counter() - began < seconds:
            ready.step(t)
            t += 1
        best = max(best, t * batch / (time.perf_counter() - began))
        spent = max(spent, t * batch / (time.process_time() - cpu))
    return best, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f} at the start; JAX on {jax.default_backend()}\n")
    print("| side | batch | env steps/s | env steps per CPU second | physics steps/s | compile, s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in options.sides:
        for batch in options.batches[:1] if name in ONE_BY_ONE else options.batches:
            print(f"\r{name}, {batch}", end="\r", file=sys.stderr, flush=True)
            try:
                ready = SIDES[name](batch)
            except ImportError as error:
                print(f"| {name} | | not installed: {error} | | | |")
                break
            steps, per_cpu = rate(ready, batch, options.seconds, options.rounds)
            compiled = f"{ready.compiled:.1f}" if ready.compiled else ""
            print(
                f"| {name} | {'' if name in ONE_BY_ONE else f'{batch:,}'} | {steps:,.0f} | {per_cpu:,.0f} | "
                f"{FRAMES * steps:,.0f} | {compiled} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
