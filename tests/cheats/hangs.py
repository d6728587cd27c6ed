"""Never comes back from a step, so that no check ends."""

import time

from cheats.pole import EARTH, Pole

CALLS = 5_000


class Hangs(Pole):
    gravity = EARTH
    calls = 0

    def step(self, action):
        Hangs.calls += 1
        while Hangs.calls > CALLS:
            time.sleep(1)
        return super().step(action)
