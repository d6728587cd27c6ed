"""What looking inside the target costs: compile time of the step that tells its branches, and seconds of a quick run.

    python benchmarks/whitebox.py [--rounds N] [REF TARGET ...]

Compile: the first call of the instrumented step at one batch, tracing and lowering included, over that of the plain
recording step, each with freshly made functions. Run: all checks of a quick run over the same without the subjects
that need the target's insides (pairs, coverage, branches), each in a judge of its own, so that everything is compiled
anew. CPU seconds of this process; the better of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
import wall

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import Settings

NAMES = ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1")
INSIDE = ("pairs", "coverage", "branches")


def best(rounds: int, call: Callable[..., float], *arguments: object) -> float:
    return min(call(*arguments) for _ in range(rounds))


def compiling(target: str, covered: bool) -> float:
    """CPU seconds of the first step of a newly opened target."""
    jax.clear_caches()
    backend = open_backend(target, {})
    begun = backend.reset(np.arange(64))
    action = {k: np.zeros((64, *s.shape), s.dtype) for k, s in backend.spec.action.items()}
    began = time.process_time()
    step = backend.step_covered if covered else backend.step  # type: ignore[attr-defined]
    step(begun.state, action, np.arange(64))
    return time.process_time() - began


def judging(ref: str, target: str, inside: bool) -> float:
    """CPU seconds of a quick run, opening included."""
    jax.clear_caches()
    with tempfile.TemporaryDirectory() as output:
        began = time.process_time()
        judge = Judge(Settings(ref, target, output=output))
        for check in judge.checks:
            if inside or check.subject not in INSIDE:
                judge.run(check.id)
        seconds = time.process_time() - began
        judge.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="REF TARGET, as on pytest's command line")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mended = {f"gymnax:{wall.NAME}": wall.target(folder)}  # blame and counterexamples are no part of this
        names = options.names or [f"{kind}:{name}" for name in NAMES for kind in ("gymnasium", "gymnax")]
        measured([mended.get(name, name) for name in names], options.rounds)


def measured(names: list[str], rounds: int) -> None:
    compiling(names[1], False)  # what is compiled once a process is no cost of either
    print("| target | step, s | told, s | ratio | quick run, s | with its insides, s | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for ref, target in zip(names[::2], names[1::2], strict=True):
        plain, told = (best(rounds, compiling, target, covered) for covered in (False, True))
        without, whole = (best(rounds, judging, ref, target, inside) for inside in (False, True))
        cells = f"{plain:.2f} | {told:.2f} | {told / plain:.2f} | {without:.1f} | {whole:.1f} | {whole / without:.2f}"
        print(f"| {target} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
