"""An environment that shows the same array in every step: what an agent has kept changes under its hands."""

import numpy as np

from cheats.pole import EARTH, Pole


class Reuses(Pole):
    gravity = EARTH

    def __init__(self):
        super().__init__()
        self.buffer = np.zeros(4, np.float32)

    def seen(self):
        self.buffer[:] = super().seen()
        return self.buffer
