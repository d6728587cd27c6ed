"""Maze: whole numbers only. A runner on a ring of cells picks coins and is followed by a ghost; it sees two pictures.

``Maze`` is the Gymnasium reference: integer state, a uint8 picture of now and of the step before, a coin counter that
is state. ``PlainMaze`` is its JAX port as plain functions; ``SnapshotMaze`` keeps the state where no one can write it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

SIZE, LIMIT = 9, 20
WORTH = np.array([60, 10, 0, 30, 70, 5, 0, 20, 90])  # of the coin in each cell
ACTION = gymnasium.spaces.Discrete(3)
PICTURE = gymnasium.spaces.Box(0, 255, (2, SIZE, 2), np.uint8)
MOVES = (-1, 0, 2)
MAZE = "gymnasium:ports.maze:Maze-v0"


class Maze(gymnasium.Env):
    """Actions: back, stay, leap. The ghost steps towards the runner, to the right where both ways are as long; while
    the runner stays it rests."""

    def __init__(self, size=SIZE, prize=3):
        self.size, self.prize = size, prize
        self.action_space, self.observation_space = ACTION, PICTURE
        self.cell = self.ghost = self.coins = self.last_cell = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = int(self.np_random.integers(0, self.size))
        self.ghost = (self.cell + int(self.np_random.integers(3, 6))) % self.size
        self.coins, self.last_cell = 0, self.cell
        return self._seen(), {}

    def step(self, action):
        self.last_cell = self.cell
        self.cell = min(max(self.cell + MOVES[int(action)], 0), self.size - 1)
        ahead = WORTH[self.cell + 1] if self.cell + 1 < self.size else 0
        self.coins += int(WORTH[self.cell]) + int(ahead) // 10
        left, right = (self.ghost - self.cell) % self.size, (self.cell - self.ghost) % self.size
        nearness = [-abs(left - 1), -abs(right - 1)]
        if action != 1:
            self.ghost = (self.ghost + (1, -1)[int(np.argmax(nearness[::-1]))]) % self.size
        caught = self.ghost == self.cell
        reward = self.coins // 100 - (self.prize if caught else 0)
        return self._seen(), float(reward), caught, False, {}

    def _seen(self):
        picture = np.zeros((2, self.size, 2), np.uint8)
        picture[0, self.last_cell, 0] = 255
        picture[1, self.cell, 0] = 255
        picture[1, self.ghost, 1] = min(100 + self.coins // 4, 255)
        return picture


gymnasium.register("Maze-v0", entry_point="ports.maze:Maze", max_episode_steps=LIMIT, disable_env_checker=True)


def reference(**options):
    return gymnasium.make("Maze-v0", **options)


class SnapshotMaze(Maze):
    """The same, with the state in a frozen set, where it is not found; it can still be copied."""

    def __getattr__(self, name):
        try:
            return dict(self.__dict__["kept"])[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        if name in ("cell", "ghost", "coins", "last_cell"):
            super().__setattr__("kept", frozenset({**dict(self.__dict__.get("kept", ())), name: value}.items()))
        else:
            super().__setattr__(name, value)


def snapshot():
    return gymnasium.wrappers.TimeLimit(SnapshotMaze(), LIMIT)


class Runner(NamedTuple):
    cell: Any
    ghost: Any
    coins: Any
    before: Any
    steps: Any


class PlainMaze:
    """The port. ``bug``: see bugs.py."""

    action_space, observation_space = ACTION, PICTURE

    def __init__(self, bug=None):
        self._bug = bug
        self.max_steps_in_episode = LIMIT
        self._coin = jnp.int8 if bug == "integer overflow" else jnp.int32

    def reset(self, key):
        first, second = jax.random.split(key)
        cell = jax.random.randint(first, (), 0, SIZE)
        ghost = (cell + jax.random.randint(second, (), 3, 6)) % SIZE
        state = Runner(cell, ghost, jnp.zeros((), self._coin), cell, jnp.int32(0))
        return state, self._seen(state)

    def step(self, state, action):
        bug = self._bug
        moves = jnp.array([2, 0, -1] if bug == "actions permuted" else MOVES)
        worth = jnp.array(WORTH)
        cell = jnp.clip(state.cell + moves[action], 0, SIZE - 1)
        ahead = worth[cell + 1]  # beyond the end JAX reads the last entry
        if bug != "clamped index":
            ahead = jnp.where(cell + 1 < SIZE, ahead, 0)
        gained = worth[cell] + ahead // 10
        coins = (state.coins + gained).astype(self._coin)
        left, right = (state.ghost - cell) % SIZE, (cell - state.ghost) % SIZE
        nearness = jnp.stack([-jnp.abs(left - 1), -jnp.abs(right - 1)])
        if bug == "argmax tie":
            way = jnp.where(jnp.argmax(nearness) == 0, -1, 1)
        else:
            way = jnp.where(jnp.argmax(nearness[::-1]) == 0, 1, -1)
        ghost = jnp.where(action == 1, state.ghost, (state.ghost + way) % SIZE)
        caught = ghost == cell
        before = state.before if bug == "history not carried" else state.cell
        after = Runner(cell, ghost, coins, before, state.steps + 1)
        reward = coins // 100 - jnp.where(caught, 3, 0)
        truncated = after.steps >= self.max_steps_in_episode
        return after, self._seen(after, state), reward.astype(jnp.float32), caught, truncated

    def _seen(self, state, previous=None):
        bug = self._bug
        empty = jnp.zeros((SIZE, 2), jnp.int32)
        then = empty.at[state.before, 0].set(255)
        bright = jnp.minimum(100 + state.coins.astype(jnp.int32) // 4, 255)
        now = empty.at[state.cell, 0].set(255).at[state.ghost, 1].set(bright)
        if bug == "ghost left behind" and previous is not None:
            now = now.at[previous.ghost, 1].max(jnp.where(previous.ghost == state.cell, 1, 0))
        if bug == "transposed":
            now, then = (jnp.reshape(p.T, (SIZE, 2)) for p in (now, then))
        picture = jnp.stack([now, then] if bug == "history order" else [then, now])
        if bug == "pixel dtype":  # what does not fit in 8 signed bits
            return picture.astype(jnp.int8)
        if bug == "wide pixels":  # a difference of convention: the same numbers
            return picture.astype(jnp.int32)
        return picture.astype(jnp.uint8)


def port(bug=None):
    return PlainMaze(bug)
