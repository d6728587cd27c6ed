"""A numpy generator that writes down what it draws, or hands out what it is given.

``Recorder`` is a real ``numpy.random.Generator`` with the same stream. Fed with the values of a tape, it returns
those instead and matches them by kind and shape, not by position.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pytest_envequiv.backends.protocol import Draw, Tape

NAN = float("nan")
Numpy: Any = np.random.Generator


class Made(NamedTuple):
    """One draw of one row, as it was made."""

    kind: str
    shape: tuple[int, ...]
    low: Any
    high: Any
    value: Any
    site: str


class TapeError(Exception):
    """A draw was asked for that the tape does not hold."""


def _outermost(method: Callable[..., Any]) -> Callable[..., Any]:
    """numpy's own methods call each other; only the call from outside is a draw, the others go straight to numpy."""
    plain = getattr(Numpy, method.__name__)

    @functools.wraps(plain)
    def draw(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        return plain(self, *args, **kwargs) if self._inside else method(self, *args, **kwargs)

    return draw


class Recorder(np.random.Generator):
    """Draws as numpy does and appends each draw to ``log``; where ``left`` is a list, hands out its values instead.

    A draw that ``left`` does not hold raises TapeError. Locations and scales are taken off (a normal is written down
    in units of its deviation, a choice as the index), which is how a JAX port draws.
    """

    def __init__(self, bit_generator: Any):
        super().__init__(bit_generator)
        self.log: list[Made] = []
        self.left: list[Made] | None = None
        self._inside = False
        self._seed: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        twin = Recorder(copy.deepcopy(self.bit_generator, memo))
        twin._seed = self._seed
        return twin

    def restart(self, seed: Any) -> None:
        """Draw from ``seed`` (anything with a repr) from now on. Costs nothing until something is drawn."""
        self._seed = seed

    def drawn(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What numpy's own method draws, written down nowhere."""
        if self._seed is not None:
            self.bit_generator.state = _state(self._seed)
            self._seed = None
        self._inside = True
        try:
            return method(self, *args, **kwargs)
        finally:
            self._inside = False

    def keep(self, kind: str, low: Any, high: Any, value: Any) -> Any:
        """``value`` written down; when playing, the tape's in its place."""
        shape = value.shape if isinstance(value, np.ndarray) else ()
        if self.left is None:
            self.log.append(Made(kind, shape, low, high, value.copy() if shape else value, _site()))
            return value
        for place, made in enumerate(self.left):
            if made.kind == kind and made.shape == shape:
                del self.left[place]
                return np.asarray(made.value, value.dtype) if shape else type(value)(made.value)
        raise TapeError(f"the tape holds no {kind} draw of shape {shape}, asked for at {_site()}")

    @_outermost
    def random(self, *args: Any, **kwargs: Any) -> Any:
        return _into(kwargs, self.keep("uniform", 0.0, 1.0, self.drawn(Numpy.random, *args, **kwargs)))

    @_outermost
    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self.keep("uniform", low, high, self.drawn(Numpy.uniform, low, high, size))

    @_outermost
    def standard_normal(self, *args: Any, **kwargs: Any) -> Any:
        return _into(kwargs, self.keep("normal", 0.0, 1.0, self.drawn(Numpy.standard_normal, *args, **kwargs)))

    @_outermost
    def standard_exponential(self, *args: Any, **kwargs: Any) -> Any:
        return _into(
            kwargs, self.keep("exponential", NAN, NAN, self.drawn(Numpy.standard_exponential, *args, **kwargs))
        )

    @_outermost
    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._located("normal", (0.0, 1.0), loc, scale, size)

    @_outermost
    def laplace(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._located("laplace", (NAN, NAN), loc, scale, size)

    @_outermost
    def gumbel(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._located("gumbel", (NAN, NAN), loc, scale, size)

    def _located(self, kind: str, bounds: tuple[float, float], loc: Any, scale: Any, size: Any) -> Any:
        if np.any(np.less(scale, 0)):
            return self.drawn(getattr(Numpy, kind), loc, scale, size)  # numpy has its word about that
        shape = size if size is not None else np.broadcast_shapes(np.shape(loc), np.shape(scale)) or None
        value = loc + scale * self.keep(kind, *bounds, self.drawn(getattr(Numpy, kind), 0.0, 1.0, shape))
        return float(value) if shape is None else value

    @_outermost
    def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
        shape = size if size is not None else np.shape(scale) or None
        value = scale * self.keep("exponential", NAN, NAN, self.drawn(Numpy.standard_exponential, shape))
        return float(value) if shape is None else value

    @_outermost
    def standard_gamma(self, shape: Any, *args: Any, **kwargs: Any) -> Any:
        drawn = self.drawn(Numpy.standard_gamma, shape, *args, **kwargs)
        return _into(kwargs, self.keep("gamma", shape, NAN, drawn))

    @_outermost
    def gamma(self, shape: Any, scale: Any = 1.0, size: Any = None) -> Any:
        size = size if size is not None else np.broadcast_shapes(np.shape(shape), np.shape(scale)) or None
        value = scale * self.keep("gamma", shape, NAN, self.drawn(Numpy.standard_gamma, shape, size))
        return float(value) if size is None else value

    @_outermost
    def integers(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False
    ) -> Any:
        first, last = (0, low) if high is None else (low, high)
        return self.keep(
            "integers", first, last + endpoint, self.drawn(Numpy.integers, low, high, size, dtype, endpoint)
        )

    @_outermost
    def choice(
        self, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0, shuffle: bool = True
    ) -> Any:
        whole = isinstance(a, (int, np.integer))
        count = int(a) if whole else np.shape(a)[axis]
        kind = "integers" if p is None and replace else "choice"
        index = self.keep(kind, 0, count, self.drawn(Numpy.choice, count, size, replace, p, 0, shuffle))
        return index if whole else np.take(a, index, axis)

    @_outermost
    def permutation(self, x: Any, axis: int = 0) -> Any:
        return self.keep("permutation", NAN, NAN, self.drawn(Numpy.permutation, x, axis))

    @_outermost
    def shuffle(self, x: Any, axis: int = 0) -> None:
        if isinstance(x, np.ndarray):
            mixed = x.copy()
            self.drawn(Numpy.shuffle, mixed, axis)
            x[...] = self.keep("permutation", NAN, NAN, mixed)
        else:  # a list of anything: the order is what is drawn
            x[:] = [x[i] for i in self.keep("permutation", NAN, NAN, self.drawn(Numpy.permutation, len(x)))]


def _into(kwargs: dict[str, Any], value: Any) -> Any:
    """numpy's ``out``: the array to write to, which may differ from ``value`` when a tape is played."""
    out = kwargs.get("out")
    if out is not None:
        out[...] = value
    return value if out is None else out


def _other(name: str) -> Callable[..., Any]:
    """Any other method: its own kind, with the first two parameters for bounds."""
    plain = getattr(Numpy, name)

    def method(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        given = [*args, *(v for k, v in kwargs.items() if k not in ("size", "dtype", "method", "axis", "out"))]
        low, high = ([float(v) for v in given[:2] if isinstance(v, (int, float, np.number))] + [NAN, NAN])[:2]
        return self.keep(name, low, high, self.drawn(plain, *args, **kwargs))

    method.__name__ = name
    return _outermost(method)


for _name in dir(Numpy):
    if not _name.startswith("_") and _name not in ("bit_generator", "spawn") and _name not in vars(Recorder):
        setattr(Recorder, _name, _other(_name))


_sites: dict[Any, str] = {}


def _site() -> str:
    """ "file.py:12" of the line outside this file that asked for a draw."""
    frame: Any = sys._getframe(2)
    while frame.f_code.co_filename == __file__ and frame.f_back:
        frame = frame.f_back
    where = (frame.f_code, frame.f_lineno)
    if where not in _sites:
        _sites[where] = f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
    return _sites[where]


def _state(seed: Any) -> dict[str, Any]:
    """A state of PCG64 that follows from the seed."""
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=32).digest()
    numbers = {"state": int.from_bytes(digest[:16], "big"), "inc": int.from_bytes(digest[16:], "big") | 1}
    return {"bit_generator": "PCG64", "state": numbers, "has_uint32": 0, "uinteger": 0}


def generator(seed: int) -> Recorder:
    """The generator ``gymnasium.utils.seeding.np_random(seed)`` makes, recording."""
    return Recorder(np.random.PCG64(np.random.SeedSequence(int(seed))))


def recording(source: np.random.Generator) -> Recorder:
    """A recorder with the stream of ``source``."""
    if isinstance(source, Recorder):
        return source
    if isinstance(source.bit_generator, np.random.PCG64):
        return Recorder(source.bit_generator)
    return Recorder(np.random.PCG64(source.integers(2**63)))


# -- rows together ---------------------------------------------------------------------------------------------------


def gather(logs: Sequence[Sequence[Made]]) -> Tape:
    """One tape from the logs of B rows: draws of the same kind, shape, site and occurrence belong together."""
    lengths = set(map(len, logs))
    if lengths == {0}:
        return ()
    if len(lengths) == 1:  # the usual case: every row made the same draws
        columns = list(zip(*logs, strict=True))
        labels = [{(made.kind, made.shape, made.site) for made in column} for column in columns]
        if all(len(label) == 1 for label in labels):
            return tuple(_draw(label.pop(), column) for label, column in zip(labels, columns, strict=True))
    found: dict[tuple[Any, ...], list[Made | None]] = {}
    for row, log in enumerate(logs):
        counted: dict[tuple[Any, ...], int] = {}
        for made in log:
            label = (made.kind, made.shape, made.site)
            counted[label] = counted.get(label, 0) + 1
            found.setdefault((*label, counted[label]), [None] * len(logs))[row] = made
    return tuple(_draw(label[:3], rows) for label, rows in found.items())


def _draw(label: tuple[Any, ...], rows: Sequence[Made | None]) -> Draw:
    kind, shape, site = label
    present = np.array([r is not None for r in rows])
    example = next(r for r in rows if r is not None)
    made = [r or example for r in rows]
    low, high, value = (np.array([r[i] for r in made]) for i in (2, 3, 4))
    return Draw(kind, shape, low, high, value, present, site)


def scatter(tape: Tape, count: int) -> list[list[Made]]:
    """The tape as one list of draws for each row."""
    return [
        [Made(d.kind, d.shape, d.low[i], d.high[i], d.value[i], d.site) for d in tape if d.present[i]]
        for i in range(count)
    ]
