"""PPO steps per second on both sides of a pair, same network and batch, and how much of it is the environment's.

    python benchmarks/ppo.py [--parameters N,N] [--lanes N] [--steps N] [--seconds S] [REF TARGET ...]

One row a side and network. "steps/s" counts environment steps in whole iterations: acting, stepping, resetting,
normalising and the update, everything compiled before. "without" is the same with an environment that does nothing but
give back observations it was once shown, in the same kind of loop (compiled with the learner for JAX, stepped from
outside for all others). "environment" is the share of the time that the real one takes: 1 - steps/s / without.
The median of as many repeats as fit into the seconds, real and idle environment in turn. It runs where JAX runs: on a
GPU nothing has to be said, and --parameters 64e3,2e6,20e6,200e6 --lanes 4096 is what one is for.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import AGENT, DONE, MASK, Arrays, Leaf, Outcome, State, Tape
from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.learning import PPO, choosing, networks, prepared
from pytest_envequiv.learning.interface import Interface
from pytest_envequiv.learning.loops import Compiled
from pytest_envequiv.learning.ppo import begun
from pytest_envequiv.stimuli.play import play, shown

PAIRS = [("gymnasium:CartPole-v1", "gymnax:CartPole-v1"), ("targets.pong.reference", "targets.pong")]
REMEMBERED = 1_024  # sights an idle environment gives back
MOST = 1_000  # iterations of one measurement at most


class Idle:
    """An environment that gives back sights of another one's play in turn, pays nothing and never ends."""

    def __init__(self, backend: Any):
        played = play(backend, 16, 64, 0, ("uniform",))
        seen = shown(played.outcome.outputs)
        self.sights: Arrays = {name: np.resize(value, (REMEMBERED, *value.shape[1:])) for name, value in seen.items()}
        self.begins = {name for name in seen if name.startswith("observation") or name in (MASK, AGENT)}
        self.merged = DONE in played.outcome.outputs
        reward = played.outcome.outputs["reward"]
        self.pay = np.zeros(reward.shape[1:], np.float32)
        self.spec = replace(backend.spec, fields={"at": Leaf((), "int32")}, state="fields")
        if hasattr(backend, "row_step"):
            constant = {name: jnp.asarray(value) for name, value in self.sights.items()}
            self.row_reset: Any = lambda seed: self._row(constant, jnp.int32(seed % REMEMBERED))
            self.row_step: Any = lambda fields, action, seed: self._row(constant, (fields["at"] + 1) % REMEMBERED, True)

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        at = (np.asarray(seeds) % REMEMBERED).astype(np.int32)
        return Outcome(State({"at": at}), {name: self.sights[name][at] for name in self.begins})

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        at = ((state.fields["at"] + 1) % REMEMBERED).astype(np.int32)
        outputs = {name: value[at] for name, value in self.sights.items()}
        paid = {"reward": np.broadcast_to(self.pay, (len(at), *self.pay.shape)), **self._never(np.zeros(len(at), bool))}
        return Outcome(State({"at": at}), {**outputs, **paid})

    def _row(self, sights: Any, at: Any, paid: bool = False) -> Any:
        outputs = {name: sights[name][at] for name in (sights if paid else self.begins)}
        return {"at": at}, {**outputs, **({"reward": jnp.asarray(self.pay), **self._never(at < 0)} if paid else {})}

    def _never(self, flag: Any) -> dict[str, Any]:
        return {DONE: flag} if self.merged else {"terminated": flag, "truncated": flag}

    def close(self) -> None:
        """Nothing is held open."""


def hidden_for(interface: Interface, parameters: int) -> tuple[int, int]:
    """Two layers of as many units as give so many parameters in both towers together, nearly."""
    least = interface.width + choosing.width(interface) + 4
    units = max(1, round((-least + math.sqrt(least**2 + 8 * parameters)) / 4))
    return units, units


def timed(environment: Any, ppo: PPO) -> tuple[Callable[[], float], int, str]:
    """A function that learns for about half a second and gives its steps per second; parameters; which loop it is."""
    ready = prepared(environment, ppo)
    learner = begun(ppo, ready.interface, 10**6, 0)
    kept = [learner, ready.loop.begin(learner)]
    count = 1

    def run() -> float:
        started = time.perf_counter()
        kept[0], kept[1], _ = ready.loop.advance(kept[0], kept[1], count, MOST)
        jax.block_until_ready(kept[0].params)
        return count * ppo.batch / (time.perf_counter() - started)

    run()  # compile
    rate = run()
    count = int(np.clip(0.5 * rate / ppo.batch, 1, MOST))
    loop = "compiled" if isinstance(ready.loop, Compiled) else "stepped"
    return run, networks.size(learner.params), loop


def measure(name: str, parameters: int, lanes: int, steps: int, seconds: float) -> str:
    backend = open_backend(name)
    small = PPO(lanes=lanes, steps=steps, minibatches=1)
    ppo = replace(small, hidden=hidden_for(prepared(backend, small).interface, parameters), minibatches=16)
    real, size, loop = timed(backend, ppo)
    idle, *_ = timed(Idle(backend), ppo)
    rates: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(rates) < 3 or time.perf_counter() < until:  # in turn, so that a drifting machine hits both
        rates.append((real(), idle()))
    fast, idling = (float(np.median([r[k] for r in rates])) for k in (0, 1))
    share = float(np.median([1 - a / b for a, b in rates]))
    return f"| {name} | {loop} | {size:,} | {lanes} x {steps} | {fast:,.0f} | {idling:,.0f} | {share:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="REF TARGET, as on pytest's command line")
    parser.add_argument("--parameters", default="64e3,2e6", help="of the networks (default 64e3,2e6)")
    parser.add_argument("--lanes", type=int, default=256, help="episodes side by side (default 256)")
    parser.add_argument("--steps", type=int, default=64, help="of each lane between two updates (default 64)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row, once compiled (default 10)")
    options = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    names = options.names or [name for pair in PAIRS for name in pair]
    device = jax.devices()[0]
    print(f"{device.platform}: {device.device_kind}, {jax.local_device_count()} device(s); jax {jax.__version__}\n")
    print("| environment | loop | parameters | batch | steps/s | without | environment |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for parameters in options.parameters.split(","):
        for name in names:
            try:
                row = measure(name, int(float(parameters)), options.lanes, options.steps, options.seconds)
            except EnvequivError as error:
                row = f"| {name} | | | | | | {error} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
