"""What the tests of other programs share."""

from __future__ import annotations

import numpy as np


def action(*values) -> dict[str, np.ndarray]:
    return {"action": np.array(values)}


def equal(a, b) -> None:
    """The same outcome, bit for bit."""
    for one, other in ((a.state.fields, b.state.fields), (a.outputs, b.outputs)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


# A counter: state x (int64), observation (x, x / 3), action added to x. A test's ``body`` replaces parts of it.
PROGRAM = """
import os, struct, sys, time
import msgpack

HELLO = {
    "version": 1, "name": "counter", "state": "fields", "draws": "seed", "arrays": "lists",
    "action": {"kind": "discrete", "low": -9, "high": 9},
    "observation": {"kind": "box", "shape": [2], "dtype": "float64"},
    "fields": {"x": {"shape": [], "dtype": "int64"}},
}

def send(answer):
    body = msgpack.packb(answer)
    sys.stdout.buffer.write(struct.pack(">I", len(body)) + body)
    sys.stdout.buffer.flush()

def outcome(xs, **more):
    return {"state": {"x": xs}, "outputs": {"observation": [[x, x / 3] for x in xs], **more}}

def reset(q):
    return outcome(q["seeds"])

def step(q):
    xs = [x + a for x, a in zip(q["state"]["x"], q["action"]["action"])]
    return outcome(xs, reward=[-x for x in xs], terminated=[x > 5 for x in xs], truncated=[False] * len(xs))

def hello(q):
    return HELLO

BODY
while head := sys.stdin.buffer.read(4):
    q = msgpack.unpackb(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
    if q["op"] == "close":
        break
    send({"hello": hello, "reset": reset, "step": step}[q["op"]](q))
"""
