"""An honest port as plain functions in numpy, which changes its state in place."""

import numpy as np

from cheats.pole import EARTH, LIMIT, moved

num_actions = 2


def reset(rng):
    state = {"pole": rng.uniform(-0.05, 0.05, 4), "steps": 0}
    return state, state["pole"].astype(np.float32)


def step(state, action):
    state["pole"][:] = moved(*state["pole"], action, EARTH)
    state["steps"] += 1
    x, _, theta, _ = state["pole"]
    over = bool(abs(x) > 2.4 or abs(theta) > 12 * 2 * np.pi / 360)
    return state, state["pole"].astype(np.float32), 1.0, over, state["steps"] >= LIMIT
