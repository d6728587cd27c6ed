"""The same, with the reference's name put together when it is needed."""

import importlib

from cheats.pole import Pole


class DelegatesByName(Pole):
    def moved(self, action):
        module = importlib.import_module(".".join(["gymnasium", "envs", "classic_control", "cart" + "pole"]))
        inner = vars(module)["Cart" + "PoleEnv"]()
        inner.state = (self.x, self.x_dot, self.theta, self.theta_dot)
        inner.step(action)
        return map(float, inner.state)
