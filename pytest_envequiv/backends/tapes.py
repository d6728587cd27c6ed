"""numpy generators that write down what they draw, or hand out what they are given.

``Recorder`` is a real ``numpy.random.Generator`` with the same stream; ``Player`` returns the values of a tape and
matches them by kind and shape, not by position.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import Draw, Tape


@dataclass(frozen=True)
class Made:
    """One draw of one row, as it was made."""

    kind: str
    low: Any
    high: Any
    value: Any
    site: str

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.value)


class TapeError(Exception):
    """A draw was asked for that the tape does not hold."""


class Recorder(np.random.Generator):
    """Draws as numpy does and appends each draw to ``log``."""

    def __init__(self, bit_generator: Any):
        super().__init__(bit_generator)
        self.log: list[Made] = []

    def _keep(self, kind: str, low: Any, high: Any, value: Any) -> Any:
        frame = sys._getframe(2)
        while frame.f_code.co_filename == __file__ and frame.f_back:
            frame = frame.f_back
        site = f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
        kept = value.copy() if isinstance(value, np.ndarray) else value
        self.log.append(Made(kind, low, high, kept, site))
        return value

    def random(self, *args: Any, **kwargs: Any) -> Any:
        return self._keep("uniform", 0.0, 1.0, super().random(*args, **kwargs))

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self._keep("uniform", low, high, super().uniform(low, high, size))

    def standard_normal(self, *args: Any, **kwargs: Any) -> Any:
        return self._keep("normal", 0.0, 1.0, super().standard_normal(*args, **kwargs))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Written down in units of the deviation, which is how a JAX port draws it."""
        value = super().normal(loc, scale, size)
        unit = (value - np.asarray(loc)) / np.where(np.asarray(scale) == 0, 1, scale)
        self._keep("normal", 0.0, 1.0, unit)
        return value

    def integers(self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False) -> Any:
        value = super().integers(low, high, size, dtype, endpoint)
        first, last = (0, low) if high is None else (low, high)
        return self._keep("integers", first, np.asarray(last) + int(endpoint), value)

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0, shuffle: bool = True) -> Any:
        """Written down as the index that was chosen."""
        pool = np.arange(a) if isinstance(a, (int, np.integer)) else np.asarray(a)
        index = super().choice(pool.shape[axis], size, replace, p, 0, shuffle)
        self._keep("integers" if p is None and replace else "choice", 0, pool.shape[axis], index)
        return np.take(pool, index, axis)

    def permutation(self, x: Any, axis: int = 0) -> Any:
        return self._keep("permutation", np.nan, np.nan, super().permutation(x, axis))

    def shuffle(self, x: Any, axis: int = 0) -> None:
        super().shuffle(x, axis)
        self._keep("permutation", np.nan, np.nan, np.array(x))

    def exponential(self, *args: Any, **kwargs: Any) -> Any:
        return self._keep("exponential", np.nan, np.nan, super().exponential(*args, **kwargs))


class Player(Recorder):
    """Hands out the values of a tape: the first not yet used of the kind and shape that is asked for.

    A draw the tape does not hold raises TapeError. ``left`` is what has not been asked for.
    """

    def __init__(self, bit_generator: Any, values: Sequence[Made]):
        super().__init__(bit_generator)
        self.left = list(values)

    def _keep(self, kind: str, low: Any, high: Any, value: Any) -> Any:
        for place, made in enumerate(self.left):
            if made.kind == kind and made.shape == np.shape(value):
                del self.left[place]
                given = np.asarray(made.value, np.asarray(value).dtype)
                return given if given.shape else given[()]
        raise TapeError(f"the tape holds no {kind} draw of shape {np.shape(value)}")

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        unit = self._keep("normal", 0.0, 1.0, np.random.Generator.normal(self, loc, scale, size))
        return unit * np.asarray(scale) + np.asarray(loc)

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0, shuffle: bool = True) -> Any:
        pool = np.arange(a) if isinstance(a, (int, np.integer)) else np.asarray(a)
        example = np.random.Generator.choice(self, pool.shape[axis], size, replace, p, 0, shuffle)
        index = self._keep("integers" if p is None and replace else "choice", 0, pool.shape[axis], example)
        return np.take(pool, index, axis)

    def shuffle(self, x: Any, axis: int = 0) -> None:
        x[:] = self._keep("permutation", np.nan, np.nan, np.array(x))


def generator(seed: int) -> Recorder:
    """The generator ``gymnasium.utils.seeding.np_random(seed)`` makes, recording."""
    return Recorder(np.random.PCG64(np.random.SeedSequence(int(seed))))


def player(seed: int, values: Sequence[Made]) -> Player:
    return Player(np.random.PCG64(np.random.SeedSequence(int(seed))), values)


def gather(logs: Sequence[Sequence[Made]]) -> Tape:
    """One tape from the logs of B rows: draws of the same kind, shape, site and occurrence belong together."""
    found: dict[tuple[Any, ...], list[Made | None]] = {}
    for row, log in enumerate(logs):
        counted: dict[tuple[Any, ...], int] = {}
        for made in log:
            label = (made.kind, made.shape, made.site)
            counted[label] = counted.get(label, 0) + 1
            found.setdefault((*label, counted[label]), [None] * len(logs))[row] = made
    return tuple(_draw(label, rows) for label, rows in found.items())


def _draw(label: tuple[Any, ...], rows: list[Made | None]) -> Draw:
    kind, shape, site, _ = label
    example = next(r for r in rows if r is not None)
    present = np.array([r is not None for r in rows])

    def column(name: str) -> np.ndarray:
        filler = getattr(example, name)
        return np.array([filler if r is None else getattr(r, name) for r in rows])

    return Draw(kind, shape, column("low"), column("high"), column("value"), present, site)


def scatter(tape: Tape, count: int) -> list[list[Made]]:
    """The tape as one list of draws for each row."""
    return [
        [Made(d.kind, d.low[i], d.high[i], d.value[i], d.site) for d in tape if d.present[i]] for i in range(count)
    ]
