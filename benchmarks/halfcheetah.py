"""Steps per second of HalfCheetah: Gymnasium, MuJoCo's C engine, MJX, and the port, in one run.

    python benchmarks/halfcheetah.py [--batches 256 1024 4096 16384] [--seconds 3] [--sides NAME ...] [--rounds 3]
                                     [--patience 120]

One env step is 0.05 s, five of MuJoCo's time steps, for everyone. Actions are uniform, drawn beforehand, new each
step. Every row is a process of its own, which first plays 40 steps to leave its resets. The best of the rounds counts,
each of so many seconds. A batch that would take a side longer than --patience seconds, by its rate at the batch before,
is named and left out. "port x2" is the port's program on halves of the batch, in two threads. The peers are measured
if they are installed: pip install -e '.[peers]'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from targets.halfcheetah import make

FRAMES, CONTROLS, WARM = 5, 6, 40
COMPILING = 300  # seconds that a row's process may take beside its patience
TABLES = 8  # batches of actions, used in turn
KERNELS = tempfile.TemporaryDirectory()  # Warp's, empty, so that what compiling takes is seen


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


def mujoco_warp(batch: int) -> Ready:
    """MuJoCo Warp, on the GPU if Warp finds one (its steps recorded as one graph), else on one CPU core."""
    import mujoco
    import warp

    warp.config.kernel_cache_dir = KERNELS.name
    import mujoco_warp as mjw

    model, data = mujoco_model()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with contextlib.redirect_stdout(sys.stderr):
        device, many = mjw.put_model(model), mjw.put_data(model, data, nworld=batch)
    many.qpos.assign((data.qpos + 0.1 * np.random.default_rng(1).normal(size=(batch, model.nq))).astype(np.float32))
    table = [warp.array(rows, dtype=float) for rows in actions(batch)]

    def frames() -> None:
        for _ in range(FRAMES):
            mjw.step(device, many)

    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        frames()  # each kernel is compiled where it is first met, and tells so
    graph = None
    if warp.get_device().is_cuda:
        with warp.ScopedCapture() as capture:
            frames()
        graph = capture.graph
    warp.synchronize()
    compiled = time.perf_counter() - began

    def step(t: int) -> None:
        warp.copy(many.ctrl, table[t % TABLES])
        warp.capture_launch(graph) if graph is not None else frames()
        warp.synchronize()

    return Ready(step, compiled)


def brax(backend: str) -> Callable[[int], Ready]:
    """Brax's own half_cheetah: its model file, its rewards; "positional" and "spring" are other physics and another
    motor strength, with 16 smaller time steps; "generalized" has its own solver; "mjx" is MJX with that model."""

    def ready(batch: int) -> Ready:
        from brax import envs

        env = envs.get_environment("halfcheetah", backend=backend)
        kept = [jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(0), batch))]
        table = jnp.asarray(actions(batch))
        began = time.perf_counter()
        program = jax.jit(jax.vmap(env.step)).lower(kept[0], table[0]).compile()
        compiled = time.perf_counter() - began

        def step(t: int) -> None:
            kept[0] = jax.block_until_ready(program(kept[0], table[t % TABLES]))

        return Ready(step, compiled)

    return ready


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
    "MuJoCo Warp": mujoco_warp,
    **{f"Brax, {backend}": brax(backend) for backend in ("generalized", "positional", "spring", "mjx")},
}
ONE_BY_ONE = ("Gymnasium, one process", "mj_step loop")  # a batch is nothing to them


def mujoco_model() -> tuple[Any, Any]:
    from targets.halfcheetah import proof

    return proof.mujoco_model()


def rate(ready: Ready, batch: int, seconds: float, rounds: int) -> tuple[float, float]:
    """(env steps a second, env steps a CPU second of this process) of the best round."""
    for t in range(WARM):
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


def measured(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row, in a process of its own: {"rates": [steps/s, steps per CPU s], "compiled": s} or {"failed": reason}."""
    command = [sys.executable, __file__, "--row", name, "--batches", str(batch)]
    command += ["--seconds", str(options.seconds), "--rounds", str(options.rounds)]
    limit = COMPILING + 2 * options.patience
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end in {limit:.0f} s"}
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 else {"failed": (done.stderr.splitlines() or ["died"])[-1]}


def row(name: str, batch: int, seconds: float, rounds: int) -> dict[str, Any]:
    try:
        ready = SIDES[name](batch)
    except ImportError as error:
        return {"failed": f"not installed: {error}"}
    return {"rates": rate(ready, batch, seconds, rounds), "compiled": ready.compiled}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for one row, compilation apart")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(row(options.row, options.batches[0], options.seconds, options.rounds)))
        return
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f} at the start; JAX on {jax.default_backend()}\n")
    print("| side | batch | env steps/s | env steps per CPU second | compile, s |")
    print("|---|---:|---:|---:|---:|")
    for name in options.sides:
        steps = float("inf")
        for batch in options.batches[:1] if name in ONE_BY_ONE else options.batches:
            written = "" if name in ONE_BY_ONE else f"{batch:,}"
            if (needed := (WARM + options.rounds) * batch / steps) > options.patience:
                print(f"| {name} | {written} | would take {needed:,.0f} s | | |", flush=True)
                continue
            print(f"{name}, {written}", file=sys.stderr, flush=True)
            found = measured(name, batch, options)
            if "failed" in found:
                print(f"| {name} | {written} | {found['failed']} | | |", flush=True)
                continue
            steps, per_cpu = found["rates"]
            compiled = f"{found['compiled']:.1f}" if found["compiled"] else ""
            print(f"| {name} | {written} | {steps:,.0f} | {per_cpu:,.0f} | {compiled} |", flush=True)


if __name__ == "__main__":
    main()
