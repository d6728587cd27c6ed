"""A probe falls to the ground; the pilot has a little fuel to brake with. In the style of Gymnasium, with numpy."""

import gymnasium
import numpy as np

LIMIT, GRAVITY, THRUST = 60, 0.1, 0.25


class Probe(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)  # fall, brake
    observation_space = gymnasium.spaces.Box(-100.0, 100.0, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.height, self.speed = self.np_random.uniform(8.0, 12.0), 0.0
        self.fuel = self.steps = 0
        self.fuel = int(self.np_random.integers(5, 15))
        return self._observation(), {}

    def step(self, action):
        braking = action == 1 and self.fuel > 0
        self.fuel -= int(braking)
        self.steps += 1
        self.speed += THRUST * braking - GRAVITY
        self.height = max(self.height + self.speed, 0.0)
        terminated = self.height <= 0.0
        reward = -abs(self.speed) if terminated else -0.01 * braking
        return self._observation(), reward, terminated, self.steps >= LIMIT, {}

    def _observation(self):
        return np.array([self.height, self.speed, self.fuel], np.float32)
