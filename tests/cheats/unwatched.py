"""Delegates only where Python's profiler is off; while it is on, it uses its own wrong dynamics."""

import sys

from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from cheats.pole import Pole


class DelegatesUnseen(Pole):
    def moved(self, action):
        if sys.getprofile() is not None:
            return super().moved(action)
        inner = CartPoleEnv()
        inner.state = (self.x, self.x_dot, self.theta, self.theta_dot)
        inner.step(action)
        return map(float, inner.state)


class SwitchesOff(DelegatesUnseen):
    def moved(self, action):
        sys.setprofile(None)
        return super().moved(action)
