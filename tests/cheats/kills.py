"""Kills the process that would report it."""

import os
import signal

from cheats.pole import Pole


class Kills(Pole):
    def step(self, action):
        os.kill(os.getppid(), signal.SIGKILL)
        return super().step(action)
