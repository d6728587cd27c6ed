"""Replaces the judge's methods in a step, long after it was opened."""

import sys
from dataclasses import replace

from cheats.pole import Pole

CALLS = 5_000


class PatchesLater(Pole):
    calls = 0

    def step(self, action):
        PatchesLater.calls += 1
        if PatchesLater.calls == CALLS and "pytest_envequiv.judge" in sys.modules:
            judge = sys.modules["pytest_envequiv.judge"].Judge
            run = judge.run
            judge.run = lambda self, check, *more: replace(run(self, check, *more), word="EQUAL")
        return super().step(action)
