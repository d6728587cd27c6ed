"""Small environments, each of which keeps its state, or its randomness, in another place."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import random
import time
from collections import deque
from types import SimpleNamespace
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces


class Tiny(gymnasium.Env):
    """An environment whose ``start`` and ``move(action) -> (reward, ended)`` are all there is to write."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        gymnasium.Env.reset(self, seed=seed)
        self.start()
        return self.seen(), {}

    def step(self, action):
        reward, ended = self.move(action)
        return self.seen(), float(reward), bool(ended), False, {}

    def seen(self):
        return np.array([self.x, getattr(self, "t", 0)], np.float32)


class Lists(Tiny):
    """Nested lists, changed in place."""

    def start(self):
        self.grid, self.n = [[0, 0], [0, int(self.np_random.integers(3))]], 0

    def move(self, action):
        self.grid[action % 2][0] += action
        self.n += 1
        return self.grid[0][0], self.n >= 25

    def seen(self):
        return np.array([sum(map(sum, self.grid)), self.n], np.float32)


class Nested(Tiny):
    """Dicts in dicts, with arrays changed in place and tuples replaced."""

    def start(self):
        self.world = {"ball": {"at": np.array([0.0, self.np_random.random()]), "speed": 0.5}, "score": (0, 0)}

    def move(self, action):
        ball, score = self.world["ball"], self.world["score"]
        ball["at"] += ball["speed"] * (action - 1)
        ball["speed"] *= 0.99
        self.world["score"] = (score[0] + 1, score[1] + action)
        return score[1], score[0] > 30

    def seen(self):
        return self.world["ball"]["at"].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Spot:
    x: float
    t: int


class Replaced(Tiny):
    """A frozen dataclass that every step replaces."""

    def start(self):
        self.spot = Spot(float(self.np_random.random()), 0)

    def move(self, action):
        self.spot = Spot(self.spot.x * 0.9 + action, self.spot.t + 1)
        return self.spot.x, self.spot.t > 30

    def seen(self):
        return np.array([self.spot.x, self.spot.t], np.float32)


class Pair(NamedTuple):
    x: float
    t: int


class Named(Replaced):
    """A named tuple."""

    def start(self):
        self.spot = Pair(float(self.np_random.random()), 0)

    def move(self, action):
        self.spot = Pair(self.spot.x * 0.9 + action, self.spot.t + 1)
        return self.spot.x, self.spot.t > 30


class Mood(enum.Enum):
    CALM = 1
    CROSS = 2


class Mixed(Tiny):
    """Texts, members of an enum, a numpy scalar, a number that is sometimes None, and one that is sometimes whole."""

    def start(self):
        self.mood, self.word, self.maybe, self.v = Mood.CALM, "left", None, 0
        self.x = np.float32(self.np_random.random())

    def move(self, action):
        self.mood = Mood.CROSS if action == 2 else Mood.CALM
        self.word = ("left", "right", "up")[action]
        self.maybe = None if action == 0 else action * 1.5
        self.v = max(0, self.v + (action - 1) * 0.37)
        self.x = np.float32(self.x + 0.01 * self.v)
        return self.mood.value, self.x > 3

    def seen(self):
        return np.array([self.x + self.v, self.mood.value + len(self.word) + (self.maybe or 0)], np.float32)


class Queue(Tiny):
    """A deque that delays what is done by three steps."""

    def start(self):
        self.x, self.t, self.waiting = 0.0, 0, deque([0.0, 0.0, 0.0], maxlen=3)

    def move(self, action):
        self.x, self.t = self.waiting[0], self.t + 1
        self.waiting.append(float(action))
        return self.x, self.t > 30


class Slotted:
    __slots__ = ("v", "x")


class Objects(Tiny):
    """A list of objects, one of which has slots, made anew by every reset."""

    def start(self):
        self.walkers, self.turn = [SimpleNamespace(at=[0, 0], alive=True) for _ in range(2)], 0
        self.slotted = Slotted()
        self.slotted.x, self.slotted.v = 0.0, 1.0

    def move(self, action):
        self.walkers[self.turn].at[0] += action
        self.slotted.x += self.slotted.v * action
        self.slotted.v *= 0.95
        self.turn = 1 - self.turn
        return 0, self.slotted.x > 9

    def seen(self):
        return np.array([self.walkers[self.turn].at[0], self.slotted.x], np.float32)


class Numbered(Tiny):
    """Dicts whose keys are numbers and pairs of numbers."""

    def start(self):
        self.cells, self.at, self.t = dict.fromkeys(range(4), 0), {(0, 1): 1.5}, 0

    def move(self, action):
        self.cells[action] += 1
        self.at[0, 1] *= 0.9
        self.t += 1
        return 0, self.t > 30

    def seen(self):
        return np.array([self.cells[2], self.at[0, 1]], np.float32)


class Board(Tiny):
    """A bit board: whole numbers beyond 63 bits."""

    def start(self):
        self.bits, self.t = 0, 0

    def move(self, action):
        self.bits |= 1 << int(self.np_random.integers(64))
        self.t += 1
        return 1, self.t > 30

    def seen(self):
        return np.array([self.bits.bit_count(), self.bits >> 63], np.float32)


class Late(Tiny):
    """Something that does not move before the 45th step, and something that needs one action to be kept for 60."""

    def start(self):
        self.x, self.t, self.bonus, self.kept, self.flag = 0.0, 0, 0, 0, False

    def move(self, action):
        self.t += 1
        self.kept = self.kept + 1 if action == 2 else 0
        if self.t == 45:
            self.bonus = 3
        if self.kept == 60:
            self.flag = True
        self.x += action * 0.1 + self.bonus + (5 if self.flag else 0)
        return self.x, self.t > 200


class Stamped(Tiny):
    """A clock on the wall, which is nobody's state."""

    def start(self):
        self.x = 0.0

    def move(self, action):
        self.stamp = time.perf_counter()
        self.x += action
        return 0, self.x > 30


class Forgetful(Tiny, gymnasium.utils.EzPickle):
    """A copy of it forgets the episode."""

    def __init__(self):
        gymnasium.utils.EzPickle.__init__(self)

    def start(self):
        self.x, self.seen_before = 0.0, set()

    def move(self, action):
        self.x += action
        self.seen_before.add(self.x)
        return len(self.seen_before), self.x > 30


class Growing(Tiny):
    """A list that grows, and is read."""

    def start(self):
        self.x, self.log = 0.0, []

    def move(self, action):
        self.log.append(action)
        self.x = float(self.log[len(self.log) // 2])
        return self.x, len(self.log) > 30


class Enclosed(Tiny):
    """A counter in a closure."""

    def start(self):
        count = 0

        def tick():
            nonlocal count
            count += 1
            return count

        self.x, self.tick = 0.0, tick

    def move(self, action):
        self.x = self.tick() * action
        return 0, self.x > 40


class Generated(Tiny):
    """A Python generator: it cannot even be copied."""

    def start(self):
        self.x, self.numbers = 0.0, (n for n in range(10**9))

    def move(self, action):
        self.x = next(self.numbers) * action
        return 0, self.x > 40


class Counted(Generated):
    """A C object that can be copied but not read."""

    def start(self):
        self.x, self.numbers = 0.0, itertools.count()


class Delayed(Tiny):
    """A set, seen only five steps later."""

    def start(self):
        self.x, self.t, self.plan = 0.0, 0, {}

    def move(self, action):
        self.t += 1
        self.plan[self.t + 5] = action
        self.x = float(self.plan.pop(self.t, 0))
        return 0, self.t > 40


SHARED = np.zeros(2, np.float32)


class Shared(Tiny):
    """Every object shows the same array."""

    def start(self):
        self.x = 0.0

    def move(self, action):
        self.x += action
        return 0, self.x > 30

    def seen(self):
        SHARED[0] = self.x
        return SHARED


class Common(Tiny):
    """The state is one for all objects of the class."""

    x = 0.0

    def start(self):
        Common.x = float(self.np_random.integers(5))

    def move(self, action):
        Common.x += action
        return 0, Common.x > 30


class Own(Tiny):
    """A generator of its own, made by every reset; ``kind`` says which."""

    def __init__(self, kind="default_rng"):
        self.kind = kind

    def reset(self, *, seed=None, options=None):
        self.rng = {
            "default_rng": np.random.default_rng,
            "RandomState": np.random.RandomState,
            "Random": random.Random,
        }[self.kind](seed)
        self.x, self.t = self.rng.uniform(0, 1), 0
        return self.seen(), {}

    def move(self, action):
        self.x += self.rng.uniform(0, 1) * action
        self.t += 1
        return 0, self.t > 20


class Global(Tiny):
    """Draws from the generators everyone has."""

    def start(self):
        self.x, self.t = np.random.rand(), 0  # noqa: NPY002

    def move(self, action):
        self.x += random.random() * action
        self.t += 1
        return 0, self.t > 20
