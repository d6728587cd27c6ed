"""Changes the reference until both are the same: its gravity, and its step."""

from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from cheats.pole import MARS, Pole

begin = CartPoleEnv.__init__


def heavier(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    self.gravity = MARS


stepped = CartPoleEnv.step


def step(self, action):
    self.gravity = MARS
    return stepped(self, action)


CartPoleEnv.__init__ = heavier
CartPoleEnv.step = step


class Patches(Pole):
    pass
