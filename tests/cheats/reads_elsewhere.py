"""Keeps answers in a file that is none of its own, and reads it when it is asked."""

import os
import tempfile

from cheats.pole import EARTH, Pole

PLACE = os.path.join(tempfile.gettempdir(), "of".join(["table", "answers"]))
with open(PLACE, "w") as file:
    file.write(str(EARTH))


class Reads(Pole):
    @property
    def gravity(self):
        with open(PLACE) as file:
            return float(file.read())
