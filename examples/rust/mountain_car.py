"""Gymnasium's MountainCar-v0 with its dynamics in Rust: the port to be checked.

    pip install maturin && (cd examples/rust && maturin develop --release)
    pytest --envequiv ref=gymnasium:MountainCar-v0 target=examples.rust.mountain_car

State and draws are here, where a check can read and write them: what lies inside of a Rust object it could not reach.
"""

from __future__ import annotations

from typing import Any

import mountain_car_rs
import numpy as np

TIME_LIMIT = 200  # steps
num_actions = 3

State = dict[str, Any]


def reset(rng: np.random.Generator) -> State:
    """{"position", "velocity": float64, "clock": steps so far}."""
    return {"position": rng.uniform(-0.6, -0.4), "velocity": 0.0, "clock": 0}


def observe(state: State) -> np.ndarray:
    """(2,) float32: position, velocity."""
    return np.array([state["position"], state["velocity"]], np.float32)


def step(state: State, action: int) -> tuple[State, np.ndarray, float, bool, bool]:
    """(state, observation, reward, terminated, truncated)."""
    position, velocity, terminated = mountain_car_rs.step(state["position"], state["velocity"], int(action))
    new = {"position": position, "velocity": velocity, "clock": state["clock"] + 1}
    return new, observe(new), -1.0, terminated, new["clock"] >= TIME_LIMIT
