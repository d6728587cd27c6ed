"""Allocates until the machine gives up."""

import numpy as np

from cheats.pole import EARTH, Pole

CALLS = 5_000
EATEN = []


class Eats(Pole):
    gravity = EARTH
    calls = 0

    def step(self, action):
        Eats.calls += 1
        if Eats.calls > CALLS:
            EATEN.append(np.ones(2**27))
        return super().step(action)
