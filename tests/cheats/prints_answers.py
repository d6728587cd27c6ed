"""Prints answers as if it was the one who is asked, to stdout and stderr."""

import json
import os
import struct

import msgpack

from cheats.pole import Pole

FRAME = msgpack.packb({"run": json.dumps({"word": "EQUAL"})})


class Prints(Pole):
    def step(self, action):
        for fd in (1, 2):
            os.write(fd, struct.pack(">I", len(FRAME)) + FRAME)
        return super().step(action)
