"""Policies that need no training and, together, go to very different places.

Every policy is a pure function of the batch, the step and a generator. A portfolio deals them out over the lanes:
uniform play alone never reaches a wall that sticky or extreme play hits at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pytest_envequiv.backends.protocol import MASK, Arrays, Space

PORTFOLIO = ("uniform", "repeat", "extreme", "linear", "bang")
BLOCK = 64  # steps for which actions are drawn at once
REACH = 3.0  # where an action space has no bound


@dataclass
class Portfolio:
    """Policies for ``lanes`` lanes: lane i plays ``names[i]``. All randomness comes from ``seed``.

    uniform   a new uniform action at each step
    repeat    keeps its action with probability 0.9
    extreme   one corner of the action space, kept for the episode; discrete: one action kept
    linear    the sign of a random linear function of the observation picks a corner; discrete: the argmax of one
    bang      a corner, changed with probability 0.1
    Where there is a mask every policy picks among legal actions.
    """

    action: Mapping[str, Space]
    lanes: int
    seed: int
    names: np.ndarray

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 77])
        self._kept: Arrays = {}
        self._weights: dict[str, np.ndarray] = {}
        self._scale: np.ndarray | None = None
        self._block: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._chances = np.empty((0, self.lanes))
        self._at = BLOCK
        self._uniform = self.names == "uniform"
        self._cornered = np.isin(self.names, ["extreme", "bang"])
        self._new = np.ones(self.lanes, bool)

    @staticmethod
    def of(action: Mapping[str, Space], lanes: int, seed: int, only: tuple[str, ...] = PORTFOLIO) -> Portfolio:
        return Portfolio(action, lanes, seed, np.array([only[i % len(only)] for i in range(lanes)]))

    def renew(self, rows: np.ndarray) -> None:
        """The lanes ``rows`` begin a new episode: what they had chosen to keep is chosen anew."""
        self._new[rows] = True

    def act(self, seen: Arrays, rows: np.ndarray) -> Arrays:
        """Actions for the lanes ``rows`` (int array), which see ``seen``: name -> (len(rows), *shape)."""
        # Every lane draws at every step, so that a lane's actions do not depend on which others have ended; and many
        # steps at once, because numpy's price is by the call.
        if self._at == BLOCK:
            for name, space in self.action.items():
                fresh, corner = (
                    draw(space, BLOCK * self.lanes, self._rng).reshape(BLOCK, self.lanes, *space.shape)
                    for draw in (uniform, extremes)
                )
                self._block[name] = fresh, corner
            self._chances, self._at = self._rng.random((BLOCK, self.lanes)), 0
        chosen = {name: self._one(name, space, seen, rows) for name, space in self.action.items()}
        self._at += 1
        self._new[:] = False
        return chosen

    def _one(self, name: str, space: Space, seen: Arrays, rows: np.ndarray) -> np.ndarray:
        fresh, corner = (part[self._at] for part in self._block[name])
        other = np.where(_wide(self._cornered, fresh), corner, fresh)
        # repeat and bang change now and then, uniform always, extreme and linear only with the episode.
        change = self._new | self._uniform | ((self._chances[self._at] < 0.1) & (self.names != "extreme"))
        kept = other if name not in self._kept else np.where(_wide(change, fresh), other, self._kept[name])
        self._kept[name] = kept
        action = kept[rows]
        linear = self.names[rows] == "linear"
        if linear.any():
            action = np.where(_wide(linear, action), self._linear(name, space, seen, rows), action)
        action = action.astype(space.dtype, copy=False)
        mask = seen.get(MASK)
        return action if mask is None or space.shape else self._legal(action, mask, space, rows)

    def _linear(self, name: str, space: Space, seen: Arrays, rows: np.ndarray) -> np.ndarray:
        parts = [np.asarray(v, float).reshape(len(rows), -1) for k, v in seen.items() if k.startswith("observation")]
        features = np.nan_to_num(np.concatenate(parts, 1), posinf=0, neginf=0)[:, :512]
        size = np.abs(features).max(0)
        if self._scale is None:
            self._scale = np.zeros(features.shape[1])
        self._scale = np.maximum(self._scale, size)
        features = features / np.where(self._scale > 0, self._scale, 1)
        choices = int(np.prod(space.high - space.low + 1)) if space.kind == "discrete" and not space.shape else 0
        width = choices or max(1, int(np.prod(space.shape)))
        if name not in self._weights:
            self._weights[name] = self._rng.normal(size=(self.lanes, features.shape[1], width))
        elif self._new.any():
            self._weights[name][self._new] = self._rng.normal(size=(int(self._new.sum()), features.shape[1], width))
        scores = np.einsum("bf,bfw->bw", features, self._weights[name][rows])
        if choices:
            return scores.argmax(1) + int(space.low)
        low, high = _reach(space)
        return np.where(scores.reshape(len(rows), *space.shape) > 0, high, low)

    def _legal(self, action: np.ndarray, mask: np.ndarray, space: Space, rows: np.ndarray) -> np.ndarray:
        """Illegal actions replaced by uniformly chosen legal ones."""
        noise = self._rng.random((self.lanes, mask.shape[1]))[rows]
        instead = np.where(mask.astype(bool), noise, -1).argmax(1) + int(space.low)
        index = np.clip(action - int(space.low), 0, mask.shape[1] - 1).astype(int)
        legal = np.take_along_axis(mask.astype(bool), index[:, None], 1)[:, 0]
        return np.where(legal, action, instead).astype(space.dtype)


def uniform(space: Space, rows: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, *shape): uniform inside the bounds; where there are none, within REACH."""
    low, high = _reach(space)
    if space.kind == "discrete":
        return rng.integers(low, high + 1, (rows, *space.shape)).astype(space.dtype)
    return rng.uniform(low, high, (rows, *space.shape)).astype(space.dtype)


def extremes(space: Space, rows: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, *shape): corners of a box; single values of a discrete space."""
    if space.kind == "discrete":
        return uniform(space, rows, rng)
    low, high = _reach(space)
    return np.where(rng.random((rows, *space.shape)) < 0.5, low, high).astype(space.dtype)


def _reach(space: Space) -> tuple[np.ndarray, np.ndarray]:
    if space.kind == "discrete":
        return np.asarray(space.low), np.asarray(space.high)
    return np.where(np.isfinite(space.low), space.low, -REACH), np.where(np.isfinite(space.high), space.high, REACH)


def _wide(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *[1] * (like.ndim - 1))
