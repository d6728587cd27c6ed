"""Writes the answers itself, in frames, into every pipe it finds open."""

import json
import os
import stat
import struct

import msgpack

from cheats.pole import Pole

CHECK = {"id": "L1-spec-action", "level": "L1", "subject": "spec", "field": "action", "cost": "cheap"}
VERDICT = {
    "check": CHECK, "word": "EQUAL", "summary": "fine", "divergence": None, "follows": None, "notes": [],
    "evidence": {}, "counterexample": None,
}  # fmt: skip
OPENED = {"checks": [CHECK], "notes": [], "describe": {}, "contents": {}}


def frame(message):
    body = msgpack.packb(message)
    return struct.pack(">I", len(body)) + body


for fd in range(3, 64):
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.write(fd, frame({"open": json.dumps(OPENED)}))
            for _ in range(100):
                os.write(fd, frame({"run": json.dumps(VERDICT)}))
    except OSError:
        continue


class Fakes(Pole):
    pass
