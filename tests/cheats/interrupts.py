"""Raises in a step what is usually let through: Ctrl-C."""

from cheats.pole import EARTH, Pole

CALLS = 5_000


class Interrupts(Pole):
    gravity = EARTH
    calls = 0

    def step(self, action):
        Interrupts.calls += 1
        if Interrupts.calls > CALLS:
            raise KeyboardInterrupt
        return super().step(action)
