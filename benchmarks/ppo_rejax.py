"""Rejax's PPO with the settings of benchmarks/ppo_learning.py, for a cross-check; it imports nothing from here.

Rejax 0.1.3 only works with gymnax 0.0.9, so it needs an environment of its own:

    python -m venv rejax && rejax/bin/pip install rejax==0.1.3 gymnax==0.0.9 six
    rejax/bin/python benchmarks/ppo_rejax.py [--seeds N] [--steps N] [ENVIRONMENT ...]

Returns are Rejax's own evaluation after the last step: 128 episodes on gymnax, with drawn actions.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np
from rejax import PPO

SETTINGS = {
    "num_envs": 64,
    "num_steps": 64,
    "num_epochs": 4,
    "num_minibatches": 16,
    "learning_rate": 1e-3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "normalize_observations": True,
    "normalize_rewards": True,
}
NAMES = ("CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Acrobot-v1", "MountainCar-v0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of " + ", ".join(NAMES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300_000)
    options = parser.parse_args()
    print("| environment | steps | mean return by seed, sorted | s |")
    print("|---|---:|---|---:|")
    for name in options.names or NAMES:
        method = PPO.create(env=name, total_timesteps=options.steps, eval_freq=options.steps, **SETTINGS)
        run = jax.jit(method.train).lower(jax.random.PRNGKey(0)).compile()
        means, seconds = [], 0.0
        for seed in range(options.seeds):
            started = time.perf_counter()
            _, (_, returns) = jax.block_until_ready(run(jax.random.PRNGKey(seed)))
            seconds += time.perf_counter() - started
            means.append(float(np.asarray(returns)[-1].mean()))
        by_seed = ", ".join(f"{m:.1f}" for m in sorted(means))
        print(f"| {name} | {options.steps:,} | {by_seed} | {seconds / options.seeds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
