"""Pong: steps per second of PufferLib's C and of the JAX port, side by side in one run. Prints Markdown.

    python benchmarks/pong.py [--frameskip 1 8] [--batch 1024 8192 65536 1048576] [--rounds 7] [--seconds 0.3]

Every contender is built first, then all are timed in turn, ``rounds`` times over, so that a drifting machine hits all
alike; ratios are taken within a round, to the first row of C, or of C with the policy. There are two processes, one
after the other: in the first everything, XLA's threads included, has one core; in the second all cores. On a machine
with a GPU the port runs there in both.

C            pong.h with PufferLib's own -O2, called in a loop in C, actions drawn beforehand and copied in
C, tuned     the same with -O3 -march=native
vec_step     PufferLib's own Python binding (binding.c, compiled here without torch), one call a step, as its class does
JAX          the port in a ``lax.scan``: one program for all steps, actions drawn beforehand, its own random serves;
             every step writes the state, the observations (as arrays by themselves), rewards and ends
+ policy     an MLP, 8-64-64-3 with tanh and argmax, chooses the actions: in the same scan; of C in a jitted call a step
"M steps/s" is the median of the rounds. "per CPU second" counts the time of all threads of the process, and suffers
less than the clock from other work. "bytes a step": what the port reads and writes if nothing stays in a cache.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.machinery
import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

LANES, TABLE = 1_024, 64  # environments of a C contender, as in pong.ini; rows of actions that are used in turn
POLICY = (8, 64, 64, 3)
COLUMNS = (
    "contender", "batch", "M steps/s", "M steps per CPU second", "times C, by the clock", "times C, by CPU time",
    "compiled in s", "bytes a step", "share of the bandwidth",
)  # fmt: skip


@dataclass
class Contender:
    """``run(n)`` makes at least n steps and returns how many; ``compiled``: seconds that took; ``bytes``: that one step
    moves between memory and processor if nothing is kept in between."""

    name: str
    batch: int
    run: Callable[[int], int]
    compiled: float = 0.0
    bytes: int = 0


# -- contenders ------------------------------------------------------------------------------------------------------


def in_c(name: str, frameskip: int, threads: int, batch: int = LANES, flags: tuple[str, ...] = ()) -> Contender:
    """``batch`` lanes for each thread."""
    from targets.pong import build, reference

    path = build.compiled(build.HERE / "driver.c", build.sources() / "pong", "libpong.so", flags)
    driver = reference.Driver(path)
    every = [reference.Lanes(driver, batch, {**reference.DEFAULTS, "frameskip": frameskip}) for _ in range(threads)]
    for lanes in every:
        lanes.reset()
    table = actions(batch).astype(np.float32)

    def run(count: int) -> int:
        turns = -(-count // (batch * threads))
        working = [threading.Thread(target=lanes.run, args=(turns, table)) for lanes in every]
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
        return turns * batch * threads

    return Contender(name, batch * threads, run)


def by_vec_step(frameskip: int, policy: Any = None) -> Contender:
    """PufferLib's own binding, driven as its class Pong does; our ctypes driver where it cannot be compiled."""
    from targets.pong import reference

    settings = {**reference.DEFAULTS, "frameskip": frameskip}
    table = actions(LANES).astype(np.float32)
    suffix = " + policy" if policy else ""
    kept: list[np.ndarray] = []
    try:
        binding = _binding()
    except (OSError, ImportError, RuntimeError) as error:
        print(f"PufferLib's binding: {error}", file=sys.stderr)
        lanes = reference.Lanes(reference.Driver(reference.library()), LANES, settings)
        name, observed, given = f"C, ctypes{suffix}", lanes.observations, lanes.actions
        step: Callable[[], Any] = lanes.step
        lanes.reset()
    else:
        name, observed, given = f"C, vec_step{suffix}", np.zeros((LANES, 8), np.float32), np.zeros(LANES, np.float32)
        kept += [observed, given, np.zeros(LANES, np.float32), np.zeros(LANES, np.uint8), np.zeros(LANES, np.uint8)]
        handle = binding.vec_init(*kept, LANES, 0, **settings)
        binding.vec_reset(handle, 0)
        step = lambda: binding.vec_step(handle)  # noqa: E731

    def run(count: int) -> int:
        assert kept is not None  # C writes to these arrays and does not hold them
        turns = -(-count // LANES)
        for t in range(turns):
            given[:] = table[t % TABLE] if policy is None else policy(observed)
            step()
        return turns * LANES

    return Contender(name, LANES, run)


def _binding() -> Any:
    from pytest_envequiv.errors import OpenError
    from targets.pong import build

    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise RuntimeError(f"there is no Python.h in {include}")
    ocean = build.sources() / "pong"
    try:
        path = build.compiled(
            ocean / "binding.c", ocean, "binding.so", (f"-I{include}", f"-I{np.get_include()}", "-Wno-error")
        )
    except OpenError as error:
        raise RuntimeError(str(error)) from error
    loader = importlib.machinery.ExtensionFileLoader("binding", str(path))
    spec = importlib.util.spec_from_loader("binding", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def in_jax(frameskip: int, batch: int, devices: int, with_policy: bool = False) -> Contender:
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from targets.pong import make

    on_cpu = jax.default_backend() == "cpu"
    env, params = make(unroll=False if on_cpu else None, frameskip=frameskip)
    weights = _weights()
    lanes = batch // devices
    turns = max(1, min(4_096, (1 << 20) // lanes))  # steps of one call of the program
    table = jnp.asarray(actions(batch).reshape(TABLE, devices, lanes).swapaxes(0, 1))

    def one(table: Any, carry: Any) -> Any:
        def step(carry: Any, t: Any) -> Any:
            state, returns, ends, key = carry
            key, now = jax.random.split(key)
            action = _greedy(weights, env.get_obs(state)) if with_policy else table[t % TABLE]
            _, state, reward, done, _ = env.step(now, state, action, params)
            return (state, returns + reward, ends + done, key), None

        return jax.lax.scan(step, carry, jnp.arange(turns))[0]

    def program(tables: Any, carries: Any) -> Any:
        return jax.tree.map(lambda x: x[None], one(*jax.tree.map(lambda x: x[0], (tables, carries))))

    keys = jax.random.split(jax.random.key(0), devices)
    begun = jax.vmap(lambda key: env.reset(key, params, (lanes,))[1])(keys)
    carry = (begun, jnp.zeros((devices, lanes)), jnp.zeros((devices, lanes), jnp.int32), keys)
    mesh = jax.make_mesh((devices,), ("lanes",), devices=jax.devices()[:devices])
    place = jax.sharding.NamedSharding(mesh, PartitionSpec("lanes"))
    table, carry = jax.device_put((table, carry), place)
    spread = jax.shard_map(program, mesh=mesh, in_specs=PartitionSpec("lanes"), out_specs=PartitionSpec("lanes"))
    started = time.perf_counter()
    compiled = jax.jit(spread).lower(table, carry).compile()
    seconds = time.perf_counter() - started
    kept = [carry]

    def run(count: int) -> int:
        calls = -(-count // (turns * batch))
        for _ in range(calls):
            kept[0] = compiled(table, kept[0])
        jax.block_until_ready(kept[0])
        return calls * turns * batch

    moved = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(carry[:3])) // batch + table.dtype.itemsize
    return Contender("JAX + policy" if with_policy else "JAX", batch, run, seconds, moved)


def actions(batch: int) -> np.ndarray:
    """int32 (TABLE, batch)"""
    return np.random.default_rng(0).integers(0, 3, (TABLE, batch)).astype(np.int32)


def _weights() -> list[Any]:
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), jnp.float32) for a, b in pairwise(POLICY)]


def _greedy(weights: list[Any], observation: Any) -> Any:
    import jax.numpy as jnp

    for layer in weights[:-1]:
        observation = jnp.tanh(observation @ layer)
    return jnp.argmax(observation @ weights[-1], -1).astype(jnp.int32)


def host_policy() -> Callable[[np.ndarray], np.ndarray]:
    import jax

    weights = jax.device_put(_weights())
    chosen = jax.jit(lambda observation: _greedy(weights, observation))
    return lambda observation: np.asarray(chosen(observation))


# -- timing ----------------------------------------------------------------------------------------------------------


def bandwidth() -> float:
    """Bytes a second that one jitted pass over memory reads and writes, on the port's device; the best of some."""
    import jax
    import jax.numpy as jnp

    size = 1 << (24 if jax.default_backend() == "cpu" else 28)
    twice = jax.jit(lambda x: x * 2.0, donate_argnums=0)
    array = twice(jnp.ones(size, jnp.float32)).block_until_ready()
    best = 0.0
    for _ in range(20):
        started = time.perf_counter()
        array = twice(array).block_until_ready()
        best = max(best, 2 * array.nbytes / (time.perf_counter() - started))
    return best


def timed(contenders: list[Contender], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Each contender's steps per second and per CPU second, round by round."""
    counts = []
    for contender in contenders:
        contender.run(1)  # what is made at the first call
        count, spent = 1, 0.0
        while spent < seconds / 4:
            count *= 4
            started = time.perf_counter()
            count = contender.run(count)
            spent = time.perf_counter() - started
        counts.append(max(1, int(count * seconds / spent)))
    found: list[dict[str, Any]] = [
        {"name": c.name, "batch": c.batch, "compiled": c.compiled, "bytes": c.bytes, "wall": [], "cpu": []}
        for c in contenders
    ]
    for _ in range(rounds):
        for contender, count, entry in zip(contenders, counts, found, strict=True):
            started, used = time.perf_counter(), time.process_time()
            steps = contender.run(count)
            entry["wall"].append(steps / (time.perf_counter() - started))
            entry["cpu"].append(steps / (time.process_time() - used))
    return found


def measure(cores: int, frameskip: int, options: argparse.Namespace) -> dict[str, Any]:
    """Everything on so many cores; in a process of its own."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import jax

    jax.config.update("jax_num_cpu_devices", cores)
    on_cpu = jax.default_backend() == "cpu"
    devices = cores if on_cpu else 1
    found = [in_c("C", frameskip, cores)]
    if cores == 1:
        found.append(in_c("C", frameskip, 1, max(options.batch)))
        found.append(in_c("C, tuned", frameskip, 1, flags=("-O3", "-march=native")))
        found.append(by_vec_step(frameskip))
    found += [in_jax(frameskip, batch, devices) for batch in options.batch]
    found.append(by_vec_step(frameskip, host_policy()))
    found += [in_jax(frameskip, batch, devices, with_policy=True) for batch in options.batch]
    timings = timed(found, options.rounds, options.seconds)
    device = jax.devices()[0]
    return {"rows": timings, "bandwidth": bandwidth(), "device": f"{device.platform}: {device.device_kind}"}


# -- the table -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameskip", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--batch", type=int, nargs="+", default=[1_024, 8_192, 65_536, 1_048_576])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one timing of one contender")
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cores:
        print(json.dumps(measure(options.cores, options.frameskip[0], options)))
        return
    cores = len(os.sched_getaffinity(0))
    print(header(cores))
    for frameskip in options.frameskip:
        for count in sorted({1, cores}):
            print(f"\n### frameskip {frameskip}, {count} core{'s' if count > 1 else ''}\n", flush=True)
            print("\n".join(table(child(count, frameskip, options))), flush=True)


def child(cores: int, frameskip: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--cores={cores}", f"--frameskip={frameskip}", f"--rounds={options.rounds}"]
    command += [f"--seconds={options.seconds}", "--batch", *map(str, options.batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def header(cores: int) -> str:
    load = os.getloadavg()[0]
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    loaded = f"; LOADED: {load:.1f} processes were running already" if load > 0.3 else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy"))
    return f"{datetime.date.today()}; {cpu}, {cores} cores{loaded}; Python {platform.python_version()}, {versions}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def table(found: dict[str, Any]) -> list[str]:
    rows = found["rows"]
    lines = [
        f"JAX on {found['device']}; memory bandwidth {found['bandwidth'] / 1e9:.1f} GB/s",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * (len(COLUMNS) - 1)}",
    ]
    for row in rows:
        base = next(
            r for r in rows if r["name"].startswith("C") and ("policy" in r["name"]) == ("policy" in row["name"])
        )
        ratios = [np.median(np.array(row[k]) / np.array(base[k])) for k in ("wall", "cpu")]
        wall = float(np.median(row["wall"]))
        roof = [str(row["bytes"]), f"{wall * row['bytes'] / found['bandwidth']:.0%}"] if row["bytes"] else ["", ""]
        compiled = f"{row['compiled']:.1f}" if row["compiled"] else ""
        cells = [row["name"], f"{row['batch']:,}", f"{wall / 1e6:.1f}", f"{np.median(row['cpu']) / 1e6:.1f}"]
        lines.append("| " + " | ".join([*cells, *(f"{r:.2f}" for r in ratios), compiled, *roof]) + " |")
    return lines


if __name__ == "__main__":
    main()
