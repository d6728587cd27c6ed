"""Whether PPO learns what it should: five environments, several seeds, beside published results.

    python benchmarks/ppo_learning.py [--seeds N] [--steps N] [ENVIRONMENT ...]

Policies are trained on gymnax with the settings of L4 and evaluated on Gymnasium, 128 episodes of each seed, taking the
likeliest action. "published" is PPO in RL Baselines3 Zoo (github.com/DLR-RM/rl-baselines3-zoo, benchmark.md): one run
with settings tuned for each environment, and the environment steps it took. "solved" is Gymnasium's own threshold.
benchmarks/ppo_rejax.py has the same for another implementation.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from pytest_envequiv.learning import PPO, prepared, train

SETTINGS = PPO(lanes=64, steps=64, minibatches=16, rate=1e-3)
# environment -> (solved, published mean, its deviation over episodes, its steps)
PUBLISHED = {
    "CartPole-v1": (475.0, 500.0, 0.0, 100_000),
    "Pendulum-v1": (None, -172.2, 104.2, 100_000),
    "MountainCarContinuous-v0": (90.0, 88.3, 2.6, 20_000),
    "Acrobot-v1": (-100.0, -73.5, 18.2, 1_000_000),
    "MountainCar-v0": (-110.0, -110.4, 19.5, 1_000_000),
}


def measure(name: str, steps: int, seeds: int) -> tuple[np.ndarray, np.ndarray, float]:
    """float[seeds] mean and deviation of the returns, and seconds for each training once compiled."""
    ready = prepared(f"gymnax:{name}", SETTINGS)
    train(ready, steps=SETTINGS.batch)  # compile
    means, deviations, seconds = [], [], 0.0
    for seed in range(seeds):
        started = time.perf_counter()
        trained = train(ready, steps=steps, seed=seed)
        seconds += time.perf_counter() - started
        returns = trained.evaluate(f"gymnasium:{name}", 128, seed=1_000 + seed, greedy=True)
        means.append(returns.mean())
        deviations.append(returns.std())
    return np.array(means), np.array(deviations), seconds / seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of " + ", ".join(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300_000)
    options = parser.parse_args()
    print("| environment | steps | mean return by seed, sorted | deviation | s | solved | published | its steps |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for name in options.names or PUBLISHED:
        solved, mean, deviation, its_steps = PUBLISHED[name]
        means, deviations, seconds = measure(name, options.steps, options.seeds)
        by_seed = ", ".join(f"{m:.1f}" for m in sorted(means))
        print(
            f"| {name} | {options.steps:,} | {by_seed} | {deviations.mean():.1f} | {seconds:.1f} | "
            f"{'' if solved is None else f'{solved:g}'} | {mean} ± {deviation} | {its_steps:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
