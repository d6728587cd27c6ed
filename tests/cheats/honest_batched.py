"""An honest backend of its own, that steps a whole batch at once."""

from cheats.equals_everything import Batched
from cheats.pole import EARTH


class Honest(Batched):
    gravity = EARTH


backend = Honest()
