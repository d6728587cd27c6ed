"""A class of its own that inherits the reference's dynamics."""

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv


class Inherits(CartPoleEnv):
    pass


def make():
    return gymnasium.wrappers.TimeLimit(Inherits(), 500)
