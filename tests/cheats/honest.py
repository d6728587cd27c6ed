"""An honest port: an environment in plain Python that uses Gymnasium for its base class and its spaces."""

from cheats.pole import EARTH, Pole


class Honest(Pole):
    gravity = EARTH
