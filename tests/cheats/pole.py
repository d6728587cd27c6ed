"""CartPole-v1 in plain Python: the port all cheats begin with. It is right only for a gravity of 9.8."""

import math

import gymnasium
import numpy as np

TOP = np.array([4.8, np.inf, 0.41887903, np.inf], np.float32)
LIMIT = 500
EARTH, MARS = 9.8, 3.7


def moved(x, x_dot, theta, theta_dot, action, gravity):
    """The next x, x_dot, theta, theta_dot."""
    force = 10.0 if action == 1 else -10.0
    cos, sin = math.cos(theta), math.sin(theta)
    temp = (force + 0.05 * theta_dot**2 * sin) / 1.1
    angular = (gravity * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    linear = temp - 0.05 * angular * cos / 1.1
    return x + 0.02 * x_dot, x_dot + 0.02 * linear, theta + 0.02 * theta_dot, theta_dot + 0.02 * angular


class Pole(gymnasium.Env):
    """``gravity`` may be a property that says one thing here and another there."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-TOP, TOP, (4,), np.float32)
    gravity = MARS

    def __init__(self):
        self.x = self.x_dot = self.theta = self.theta_dot = 0.0
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.x_dot, self.theta, self.theta_dot = self.np_random.uniform(-0.05, 0.05, (4,)).tolist()
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.x, self.x_dot, self.theta, self.theta_dot = self.moved(action)
        self.steps += 1
        over = abs(self.x) > 2.4 or abs(self.theta) > 12 * 2 * math.pi / 360
        return self.seen(), 1.0, over, self.steps >= LIMIT, {}

    def moved(self, action):
        return moved(self.x, self.x_dot, self.theta, self.theta_dot, action, self.gravity)

    def seen(self):
        return np.array([self.x, self.x_dot, self.theta, self.theta_dot], np.float32)
