"""Ends the process with code 0 in a step, when it has been opened and found to be fine."""

import os

from cheats.pole import EARTH, Pole

CALLS = 5_000


class ExitsLater(Pole):
    gravity = EARTH
    calls = 0

    def step(self, action):
        ExitsLater.calls += 1
        if ExitsLater.calls > CALLS:
            os._exit(0)
        return super().step(action)
