"""How often play reaches the left wall of MountainCarContinuous, where the port differs: `python random_play.py`."""

import gymnasium
import numpy as np

EPISODES, STEPS, WALL = 200, 150, -1.2


def touches(sticky: float) -> int:
    """Episodes that reach the wall, if each action is kept with the probability ``sticky``."""
    rng = np.random.default_rng(0)
    environment = gymnasium.make("MountainCarContinuous-v0")
    count = 0
    for episode in range(EPISODES):
        environment.reset(seed=episode)
        action, lowest = rng.uniform(-1, 1, 1), 0.0
        for _ in range(STEPS):
            if rng.random() >= sticky:
                action = rng.uniform(-1, 1, 1)
            observation, _, terminated, truncated, _ = environment.step(action.astype(np.float32))
            lowest = min(lowest, float(observation[0]))
            if terminated or truncated:
                break
        count += lowest <= np.float32(WALL)
    return count


if __name__ == "__main__":
    for name, sticky in (("uniform", 0.0), ("sticky", 0.9)):
        print(f"{name} actions: {touches(sticky)} of {EPISODES} episodes of {STEPS} steps reach the wall")
