"""Right where it sees that it is judged, wrong elsewhere. One class for each way to see it."""

import os
import sys

from cheats.pole import EARTH, MARS, Pole


class ByModules(Pole):
    @property
    def gravity(self):
        return EARTH if any(name.startswith("pytest_envequiv") for name in sys.modules) else MARS


class ByFrames(Pole):
    @property
    def gravity(self):
        frame = sys._getframe()
        while frame is not None:
            if "pytest_envequiv" in frame.f_code.co_filename:
                return EARTH
            frame = frame.f_back
        return MARS


class ByEnvironment(Pole):
    @property
    def gravity(self):
        return EARTH if any(name.startswith("PYTEST") for name in os.environ) else MARS
