"""The bugs of the ports, one for each entry of the taxonomy, and the checks that must find each.

T time and termination, A auto-reset, R reward, D dynamics, O observation, X action, S stochastic, N numeric,
B batch and jit, C configuration, H hidden state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bug:
    """``roots``: ids of checks that must say DIFFERENT and be roots. ``follows``: id -> the root it must name.
    ``levels``: those at which anything differs, and no others."""

    kind: str
    port: str
    name: str
    roots: tuple[str, ...]
    levels: str = "23"
    follows: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}-{self.port}-{self.name}".replace(" ", "_").replace("'", "")


def everywhere(name: str, *sources: str) -> tuple[str, ...]:
    """The field is the root wherever steps are compared."""
    return tuple(f"{s}-{name}" for s in sources or ("L2-play", "L2-boundary", "L3-resync", "L3-lockstep"))


CUT = everywhere("truncated", "L2-limit", "L3-resync", "L3-lockstep")
LATE = {"L1-time_limit-truncated": "L2-limit-truncated"}
WHOLE = ("L2-play", "L2-limit", "L3-resync", "L3-lockstep")  # sources where the state has no floats
GAME = ("L2-play", "L3-resync", "L3-lockstep")  # and no time limit

BUGS = [
    Bug("T", "drift", "limit off by one", CUT, "123", LATE),
    Bug("T", "drift", "default limit", CUT, "123", LATE),
    Bug("T", "drift", "flags swapped", everywhere("terminated", "L2-play", "L3-resync", "L3-lockstep"), "123", LATE),
    Bug("T", "drift", "flags both false", ("L2-play-terminated", "L2-limit-truncated"), "123", LATE),
    Bug("T", "drift", "goal strict", everywhere("terminated", "L2-play", "L3-resync", "L3-lockstep"), "123"),
    Bug("T", "drift", "counter survives", ("L1-auto_reset-step",), "1"),
    Bug("T", "stones", "draw not seen", everywhere("terminated", *GAME)),
    Bug("T", "stones", "last line missed", everywhere("terminated", *GAME)),
    Bug("A", "drift", "terminal observation lost", ("L1-auto_reset-step",), "1"),
    Bug("A", "drift", "stale field", ("L1-auto_reset-step",), "1"),
    Bug("A", "drift", "stale observation", ("L1-auto_reset-step",), "1"),
    Bug("A", "drift", "resets at the next step", ("L1-auto_reset-step",), "1"),
    Bug("A", "drift", "frozen first state", ("L1-auto_reset-step",), "1"),
    Bug("R", "drift", "no reward at the end", everywhere("reward"), "123"),
    Bug("R", "drift", "reward term missing", everywhere("reward"), "123"),
    Bug("R", "drift", "reward sign", everywhere("reward"), "123", {"L3-episodes-return": "L3-lockstep-reward"}),
    Bug("R", "drift", "reward scale", everywhere("reward"), "123"),
    Bug("R", "drift", "reward clip order", everywhere("reward"), "123"),
    Bug("R", "stones", "reward order", everywhere("reward", *GAME)),
    Bug("R", "stones", "reward not zero-sum", everywhere("reward", *GAME)),
    Bug("D", "drift", "wrong constant", everywhere("v"), "123"),
    Bug("D", "drift", "clip after integration", everywhere("x"), "123"),
    Bug("D", "drift", "wall keeps velocity", everywhere("v"), "123", {"L2-play-observation": "L2-play-v"}),
    Bug("D", "drift", "integrator order", everywhere("x"), "123"),
    Bug("D", "drift", "half angle", everywhere("v"), "123"),
    Bug("D", "drift", "angle not wrapped", (*everywhere("heading"), "L1-contains-observation"), "123"),
    Bug("D", "plain", "wall keeps velocity", everywhere("velocity"), "123"),
    Bug("D", "maze", "clamped index", everywhere("coins", *WHOLE)),
    Bug("O", "drift", "channels permuted", (*everywhere("observation"), "L1-reset-observation"), "123"),
    Bug("O", "drift", "observation dtype", (*everywhere("observation"), "L1-reset-observation"), "123"),
    Bug("O", "drift", "observation bounds", ("L1-contains-observation",), "1"),
    Bug("O", "drift", "observation shape", ("L1-spec-observation",), "1"),
    Bug("O", "maze", "transposed", (*everywhere("observation", *WHOLE), "L1-reset-observation"), "123"),
    Bug("O", "maze", "history order", (*everywhere("observation", *WHOLE), "L1-reset-observation"), "123"),
    Bug("O", "maze", "pixel dtype", (*everywhere("observation", *WHOLE), "L1-contains-observation"), "123"),
    Bug("O", "maze", "ghost left behind", everywhere("observation", *WHOLE)),
    Bug("O", "stones", "planes transposed", everywhere("observation", *GAME)),
    Bug("O", "stones", "always the first player's view", everywhere("observation", *GAME)),
    Bug("O", "stones", "players seen the wrong way round", everywhere("observation", *GAME)),
    Bug("O", "stones", "first cell kept", ("L2-play-observation",)),
    Bug("X", "drift", "action not clipped", ("L1-action_range-step",), "1"),
    Bug("X", "drift", "low action precision", everywhere("v")),
    Bug("X", "drift", "sticky action", ("L1-draws-step", *everywhere("v", "L2-play", "L2-boundary")), "123"),
    Bug("X", "maze", "actions permuted", everywhere("cell", *WHOLE)),
    Bug("X", "stones", "actions permuted", ("L3-lockstep-mask",)),
    Bug("X", "stones", "mask of the last board", everywhere("mask", *GAME)),
    Bug("S", "drift", "slip probability", everywhere("v"), "123", options={"slip": 0.1}),
    Bug("S", "drift", "wind deviation", everywhere("v"), "123", options={"wind": 0.01}),
    Bug("S", "drift", "wrong constant", everywhere("v"), "123", options={"wind": 0.01, "slip": 0.1}),
    Bug("S", "drift", "missing rare branch", everywhere("v"), "123", options={"gust": 0.05}),
    Bug(
        "S",
        "drift",
        "missing outcome",
        ("L2-distribution-v", "L2-distribution-observation"),
        "2",
        options={"ice": True},
    ),
    Bug("S", "drift", "range off by one", ("L1-draws-reset", "L1-reset-tank"), "1"),
    Bug("S", "drift", "reset range", ("L1-draws-reset", "L1-reset-x"), "1"),
    Bug("S", "drift", "reused key", ("L1-reset-joint",), "1"),
    Bug("S", "drift", "correlated slots", ("L1-reset-joint",), "1"),
    Bug("S", "drift", "fixed beginning", ("L1-seeds-reset", "L1-reset-heading"), "1"),
    Bug("S", "vector", "beginning by the clock", ("L1-seeds-reset",), "1"),
    Bug("N", "maze", "integer overflow", everywhere("coins", *WHOLE)),
    Bug("N", "drift", "half precision", everywhere("x"), "123"),
    Bug("N", "drift", "not a number", (*everywhere("observation"), "L1-finite-outputs"), "123"),
    Bug("N", "maze", "argmax tie", everywhere("ghost", *WHOLE)),
    Bug("B", "drift", "evaluated masked branch", (*everywhere("reward"), "L1-finite-outputs"), "123"),
    Bug("B", "drift", "compile-time noise", (*everywhere("v"), "L1-jit-step"), "123"),
    Bug("B", "vector", "broadcast", ("L1-batch-step",), "13"),
    Bug("B", "vector", "batch mean", ("L1-batch-step", "L2-play-v"), "123"),
    Bug("B", "vector", "global noise", ("L1-deterministic-step", "L2-distribution-v"), "12"),
    Bug("B", "vector", "inputs changed", ("L1-inputs_kept-step", "L2-limit-truncated"), "123", LATE),
    Bug("C", "drift", "default goal", everywhere("x", "L2-play", "L2-boundary", "L3-resync"), "123"),
    Bug("C", "drift", "default power", everywhere("v"), "123"),
    Bug("H", "drift", "fuel not carried", everywhere("tank"), "123"),
    Bug("H", "drift", "clock in Python", CUT, "123", LATE),
    Bug("H", "maze", "history not carried", everywhere("before", *WHOLE)),
    Bug("H", "vector", "state not offered", ("L1-round_trip-state", "L2-play-v"), "123"),
]
