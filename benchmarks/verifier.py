"""What judging costs: transitions compared per second, beside the reference's own raw steps per second, in one run.

    python benchmarks/verifier.py [--steps N] [REF TARGET ...]

raw       one environment stepped in a plain loop with actions drawn beforehand, reset when an episode ends: the
          fastest honest way to drive an unmodified Python environment in one process
judged    the same reference played by the judge, each transition given to the target and every field compared
          (L3 resync): playing, reading the state, the target's step, and the comparison are included
injected  states near boundaries: the reference is moved into each of them first (L2 boundary), once to step into
          it and once for the comparison
All three are measured after compilation; "first" is the time until the first verdict on a step, imports of the
target's libraries, tracing and XLA compilation included.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np

from pytest_envequiv.bench import Bench
from pytest_envequiv.contract import Contract
from pytest_envequiv.pair import Pair
from pytest_envequiv.stimuli.policies import uniform
from pytest_envequiv.verdict import Settings

PAIRS = [
    (f"gymnasium:{name}", f"gymnax:{name}")
    for name in ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1")
] + [("pettingzoo:classic.connect_four_v3", "pgx:connect_four")]


def raw_rate(pair: Pair, steps: int) -> float:
    """Steps per second of the reference's own object in a plain loop."""
    face: Any = pair.ref.backend.face  # type: ignore[attr-defined]
    environment, rng = face.make(), np.random.default_rng(0)
    space = pair.ref.spec.action["action"]
    column = uniform(space, steps, rng)
    actions = column.tolist() if space.kind == "discrete" else list(column)
    if pair.ref.spec.kind == "pettingzoo":
        return _raw_turns(environment, steps, rng)
    environment.reset(seed=0)
    step, reset = environment.step, environment.reset
    started = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = step(action)
        if terminated or truncated:
            reset()
    return steps / (time.perf_counter() - started)


def _raw_turns(environment: Any, steps: int, rng: np.random.Generator) -> float:
    """A turn-based game: observe, pick a legal action, step."""
    steps = min(steps, 4_000)
    noise = rng.random(steps)
    environment.reset(seed=0)
    started = time.perf_counter()
    for u in noise:
        seen, _, terminated, truncated, _ = environment.last()
        if terminated or truncated:
            environment.reset()
            continue
        legal = np.flatnonzero(seen["action_mask"])
        environment.step(int(legal[int(u * len(legal))]))
    return steps / (time.perf_counter() - started)


def timed(pair: Pair, source: str, seed: int, sizes: dict[str, int]) -> tuple[int, float]:
    """(transitions, seconds) of one source with a bench of its own, everything compiled before."""
    pair.settings = replace(pair.settings, seed=seed)
    bench = Bench(pair)
    bench.sizes = replace(bench.sizes, **sizes)
    started = time.perf_counter()
    if source == "boundary":
        bench.played  # noqa: B018  the states that are moved are not part of what is timed
        started = time.perf_counter()
    step = bench.step(source)
    return (0 if step is None else len(step.rows)), time.perf_counter() - started


def measure(ref: str, target: str, steps: int) -> dict[str, float]:
    started = time.perf_counter()
    pair = Pair(Settings(ref, target), Contract())
    timed(pair, "play", 0, {})
    first = time.perf_counter() - started
    sizes = {"most": steps, "episodes": 64, "play": steps // 2, "boundary": 4_096}
    timed(pair, "resync", 0, sizes)
    raw, judged, injected = [], [], []
    for repeat in range(3):  # side by side, so that a drifting machine hits both
        raw.append(raw_rate(pair, steps))
        count, seconds = timed(pair, "resync", 1 + repeat, sizes)
        judged.append(count / seconds)
        count, seconds = timed(pair, "boundary", 1 + repeat, sizes)
        injected.append(count / seconds if count else float("nan"))
    return {
        "raw": float(np.median(raw)),
        "judged": float(np.median(judged)),
        "ratio": float(np.median(np.array(judged) / np.array(raw))),
        "injected": float(np.median(injected)),
        "first": first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="REF TARGET, as on pytest's command line")
    parser.add_argument("--steps", type=int, default=40_000)
    options = parser.parse_args()
    names = options.names
    pairs = list(zip(names[::2], names[1::2], strict=True)) if names else PAIRS
    print(f"{'reference':36} {'raw/s':>10} {'judged/s':>10} {'judged/raw':>10} {'injected/s':>10} {'first s':>8}")
    for ref, target in pairs:
        found = measure(ref, target, options.steps)
        print(
            f"{ref:36} {found['raw']:10,.0f} {found['judged']:10,.0f} {found['ratio']:10.2f} "
            f"{found['injected']:10,.0f} {found['first']:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
