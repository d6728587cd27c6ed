"""PufferLib 3.0.0's Pong as a backend: its own ``pong.h``, unmodified, compiled with ``driver.c``.

    pytest --envequiv ref="targets.pong.reference?frameskip=8&continuous=true" target=...

All of PufferLib's settings are options. The backend reads and writes C's structs in place; each call takes states in
and gives states out, and nothing is kept between calls but memory.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Draw, Leaf, Outcome, Space, Spec, State, Tape
from pytest_envequiv.errors import OpenError
from targets.pong.build import VERSION, library

# The defaults of PufferLib's class Pong (pong.py); pong.ini, which its training uses, sets frameskip to 8.
DEFAULTS: dict[str, float] = {
    "width": 500, "height": 640, "paddle_width": 20, "paddle_height": 70, "ball_width": 32, "ball_height": 32,
    "paddle_speed": 8, "ball_initial_speed_x": 10, "ball_initial_speed_y": 1, "ball_speed_y_increment": 3,
    "ball_max_speed_y": 13, "max_score": 21, "frameskip": 1, "continuous": False,
}  # fmt: skip
WHOLE = {"max_score": (1, 2**32 - 1), "frameskip": (0, 2**31 - 1)}  # C divides by the one and counts to the other
# What a step changes. The buffer of observations is state too: a step that scores may leave it as it was.
FIELDS = (
    "paddle_yl", "paddle_yr", "ball_x", "ball_y", "ball_vx", "ball_vy", "score_l", "score_r", "paddle_dir", "tick",
    "n_bounces", "win",
)  # fmt: skip
SHOWN = 8
LOG = ("perf", "score", "episode_return", "episode_length", "n")
KINDS = {"p": np.uint64, "f": np.float32, "i": np.int32, "u": np.uint32}
SITE = "pong.h:111"  # where rand() is called: the serve


def backend(**settings: float) -> PongBackend:
    """Opens the reference. Raises OpenError for an unknown or impossible setting, and as ``build.library`` does."""
    chosen = {**DEFAULTS, **settings}
    for name, value in settings.items():
        if name not in DEFAULTS:
            raise OpenError(f"targets.pong.reference: no setting {name!r}; it has {', '.join(DEFAULTS)}")
        if not isinstance(value, (int, float)):
            raise OpenError(f"targets.pong.reference: {name} is a number, not {value!r}")
        least, most = WHOLE.get(name, (-np.inf, np.inf))
        if not least <= value <= most or (name in WHOLE and value != int(value)):
            raise OpenError(f"targets.pong.reference: {name} is a whole number from {least} on, not {value!r}")
    return PongBackend(Driver(library()), chosen)


class Driver:
    """The compiled driver. ``layout``: the dtype of C's struct Pong, as the compiler laid it out."""

    def __init__(self, path: Path):
        self.c = ctypes.CDLL(str(path))
        self.c.pong_layout.restype, self.c.pong_size.restype = ctypes.c_char_p, ctypes.c_size_t
        names: list[str] = []
        kinds: list[Any] = []
        offsets: list[int] = []
        offset = ctypes.c_size_t()
        while (told := self.c.pong_layout(ctypes.c_size_t(len(names)), ctypes.byref(offset))) is not None:
            kind, name = told.decode().split()
            names.append(name)
            kinds.append(KINDS[kind])
            offsets.append(offset.value)
        self.layout = np.dtype(
            {"names": names, "formats": kinds, "offsets": offsets, "itemsize": self.c.pong_size()}  # type: ignore[call-overload]
        )


class _Draws(ctypes.Structure):
    """As in driver.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("tape", "taped", "stream", "value", "count")]


class Lanes:
    """``count`` of C's structs in one array, with the buffers they point to.

    structs       (B,), a field of the struct each
    observations  float32 (B, 8); actions, rewards  float32 (B,); terminals  uint8 (B,)
    """

    def __init__(self, driver: Driver, count: int, settings: dict[str, float]):
        self.driver, self.count = driver, count
        self.structs = np.zeros(count, driver.layout)
        self.observations = np.zeros((count, SHOWN), np.float32)
        self.actions, self.rewards = np.zeros(count, np.float32), np.zeros(count, np.float32)
        self.terminals = np.zeros(count, np.uint8)
        for name, value in settings.items():
            self.structs[name] = value
        for name in ("observations", "actions", "rewards", "terminals"):
            buffer: np.ndarray = getattr(self, name)
            self.structs[name] = buffer.ctypes.data + buffer.strides[0] * np.arange(count)
        driver.c.pong_init(_at(self.structs), count)

    def reset(self, drawn: Drawn | None = None) -> None:
        """c_reset of every lane. Without ``drawn`` it is the C library that draws."""
        self.driver.c.pong_reset(_at(self.structs), self.count, None if drawn is None else drawn.pointer)

    def step(self, drawn: Drawn | None = None) -> None:
        """c_step of every lane, with what is in ``actions``."""
        self.driver.c.pong_step(_at(self.structs), self.count, None if drawn is None else drawn.pointer)

    def run(self, steps: int, table: np.ndarray) -> None:
        """``steps`` steps in one call, the actions of step t being row t of ``table``, float32 (T, B), again and
        again."""
        assert table.dtype == np.float32 and table.shape[1] == self.count and table.flags.c_contiguous
        self.driver.c.pong_run(
            _at(self.structs), self.count, ctypes.c_long(steps), _at(table), len(table), _at(self.actions)
        )


@dataclass
class Drawn:
    """What rand() gives, lane by lane: the tape's value where there is one, else the next of the lane's own stream.

    seeds   int (B,), where the streams begin; tape  int32 (B,), and taped  bool (B,)
    value   int32 (B,), what rand() returned last; count  int32 (B,), how often it was called
    """

    seeds: np.ndarray
    tape: np.ndarray | None = None
    taped: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.stream = np.array(self.seeds, np.uint64)
        self.value, self.count = np.zeros(len(self.seeds), np.int32), np.zeros(len(self.seeds), np.int32)
        parts = (self.tape, self.taped, self.stream, self.value, self.count)
        self._structure = _Draws(*(None if part is None else part.ctypes.data for part in parts))

    @property
    def pointer(self) -> Any:
        return ctypes.byref(self._structure)


class PongBackend:
    """See pytest_envequiv/backends/protocol.py."""

    def __init__(self, driver: Driver, settings: dict[str, float]):
        self.driver, self.settings = driver, settings
        floats = {"observation": Space("box", (SHOWN,), "float32", np.array(0.0), np.array(1.0))}
        self.spec = Spec(
            name="targets.pong.reference",
            kind="pufferlib",
            observation=floats,
            action={
                "action": Space("box", (1,), "float32", np.array(-1.0), np.array(1.0))
                if settings["continuous"]
                else Space("discrete", (), "int32", np.array(0), np.array(2))
            },
            fields={
                **{name: Leaf((), driver.layout[name].name) for name in FIELDS},
                **{f"observations.{i}": Leaf((), "float32") for i in range(SHOWN)},
            },
            state="fields",
            draws="tape",
            batched=True,
            constants={name: np.array(float(value)) for name, value in settings.items()},
            conventions={"auto_reset": "same-step", "step": "auto-reset", "done": "separate"},
            versions={"pufferlib": VERSION},
        )

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        lanes, drawn = Lanes(self.driver, len(seeds), self.settings), _drawn(seeds, tape)
        lanes.reset(drawn)
        return Outcome(_state(lanes), {"observation": lanes.observations}, _tape(drawn))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        lanes, drawn = Lanes(self.driver, len(state), self.settings), _drawn(seeds, tape)
        for name in FIELDS:
            lanes.structs[name] = state.fields[name]
        for i in range(SHOWN):
            lanes.observations[:, i] = state.fields[f"observations.{i}"]
        # PufferLib's class Pong clips what C would take as it is (pong.py, step).
        given = action["action"].reshape(len(state))
        lanes.actions[:] = np.clip(given, -1.0, 1.0) if self.settings["continuous"] else given
        lanes.step(drawn)
        outputs = {
            "observation": lanes.observations,
            "reward": lanes.rewards,
            "terminated": lanes.terminals != 0,
            "truncated": np.zeros(len(state), bool),
        }
        return Outcome(_state(lanes), outputs, _tape(drawn))

    def close(self) -> None:
        """Memory goes with the lanes."""


def _state(lanes: Lanes) -> State:
    fields = {name: lanes.structs[name].copy() for name in FIELDS}
    return State({**fields, **{f"observations.{i}": lanes.observations[:, i].copy() for i in range(SHOWN)}})


def _drawn(seeds: np.ndarray, tape: Tape | None) -> Drawn:
    if not tape:
        return Drawn(seeds)
    values = np.asarray(tape[0].value).reshape(len(seeds)).astype(np.uint32) & 0x7FFFFFFF  # rand() is never negative
    return Drawn(seeds, values.astype(np.int32), np.ascontiguousarray(tape[0].present, np.uint8))


def _tape(drawn: Drawn) -> Tape:
    """One draw of a random word, made by the rows that served."""
    none = np.full(len(drawn.value), np.nan)
    return (Draw("bits", (), none, none, drawn.value, drawn.count > 0, SITE),)


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
