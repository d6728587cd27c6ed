"""One stateful environment object: how it is made, begun and stepped, and where its state and its randomness are.

``objects.py`` puts many of them behind the backend protocol; ``probing.py`` finds out what is written down here.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_envequiv.backends import tapes
from pytest_envequiv.backends.codec import Codec
from pytest_envequiv.backends.discovery import Item, Path, reader, reader_of_all, writer
from pytest_envequiv.backends.protocol import Arrays, Space


@dataclass(frozen=True)
class Face:
    """How a library's environment object is made, reset and stepped.

    make()                     a new object
    reset(environment, seed)   begin an episode; seed None: go on with the present generator. -> outputs of one row
    stepper(environment)       a function of one action (a row of the action array; a dict of rows where the space has
                               several parts) -> whatever the library's step returns
    outputs(returned)          B of those -> name -> B values. Outputs are named as in ``Outcome``.
    """

    name: str
    kind: str
    make: Callable[[], Any]
    reset: Callable[[Any, int | None], dict[str, Any]]
    stepper: Callable[[Any], Callable[[Any], Any]]
    outputs: Callable[[Sequence[Any]], Mapping[str, Sequence[Any]]]
    action: Mapping[str, Space]
    observation: Mapping[str, Space]
    time_limit: int | None = None
    seats: int = 1
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    conventions: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def transposed(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows of outputs by name as columns: ``Face.outputs`` of a step that returns them so."""
    return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass
class Lane:
    """An environment object, the recorders it draws from, what they drew since it was last asked, and the values of
    what never changes in it."""

    environment: Any
    step: Callable[[Any], Any]
    sources: list[Any] = field(default_factory=list)
    log: list[tapes.Made] = field(default_factory=list)
    constants: tuple[Any, ...] = ()

    def restart(self, seed: int) -> None:
        """Draw from ``seed`` from now on."""
        for place, source in enumerate(self.sources):
            if isinstance(source, tapes.Recorder):
                source.restart((seed, place))
            else:  # random.Random, numpy.random.RandomState, a key
                source.seed(seed)

    def play(self, values: list[tapes.Made] | None) -> None:
        """Draw the values of a tape from now on; None: draw freely again."""
        for source in self.sources:
            if isinstance(source, tapes.Recorder):
                source.left = values


@dataclass
class Memory:
    """Where the state of a kind of environment is, and how it is written down.

    places     name -> (path, codec) of what a step changes
    restored   (path, value) of what changes only when an episode is over: put back when a state is written
    plain      name -> path of numbers and texts that were never seen to change; ``arrays``: of arrays
    holders    path -> a dict or list that holds items of the state, where a lane may have None between two steps
    """

    places: Mapping[str, tuple[Path, Codec]]
    restored: Sequence[tuple[Path, Any]] = ()
    plain: Mapping[str, Path] = field(default_factory=dict)
    arrays: Mapping[str, Path] = field(default_factory=dict)
    holders: Mapping[Path, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._readers = [(name, reader(path), codec) for name, (path, codec) in self.places.items()]
        self._writers = [(name, writer(path), codec) for name, (path, codec) in self.places.items()]
        self._restorers = [(writer(path), value) for path, value in self.restored]
        held = {path[:-1] for path, _ in self.places.values() if isinstance(path[-1], Item)}
        self._holders = [(reader(p), writer(p), value) for p, value in self.holders.items() if p in held]
        self._plain = reader_of_all(self.plain.values())
        self._arrays = [reader(path) for path in self.arrays.values()]

    def read(self, lanes: Sequence[Lane]) -> Arrays:
        """The fields of B environments."""
        environments = [lane.environment for lane in lanes]
        return {name: codec.encode(list(map(get, environments))) for name, get, codec in self._readers}

    def write(self, lanes: Sequence[Lane], fields: Arrays) -> None:
        """Put B environments into B states."""
        for get, put, holder in self._holders:
            for lane in lanes:
                if get(lane.environment) is None:
                    put(lane.environment, copy.deepcopy(holder))
        for name, put, codec in self._writers:
            for lane, value in zip(lanes, codec.decode(fields[name]), strict=True):
                put(lane.environment, value)
        for put, value in self._restorers:
            for lane in lanes:
                put(lane.environment, copy.deepcopy(value))
        for lane in lanes:
            if self.constants(lane.environment) != lane.constants:
                self._mend(lane)

    def constants(self, environment: Any) -> tuple[Any, ...]:
        """The present values of what never changes; arrays as their bytes, which are compared faster."""
        return (*self._plain(environment), *[get(environment).tobytes() for get in self._arrays])

    def changed(self, lane: Lane) -> str | None:
        """The name of something that was taken for a constant and has changed, or None."""
        now = self.constants(lane.environment)
        names = (*self.plain, *self.arrays)
        return (
            None
            if now == lane.constants
            else next(n for n, a, b in zip(names, now, lane.constants, strict=True) if a != b)
        )

    def _mend(self, lane: Lane) -> None:
        """A step from an unusual state may change what otherwise never changes; no other row shall see it."""
        values = list(lane.constants)
        for path, value in zip(self.plain.values(), values[: len(self.plain)], strict=True):
            writer(path)(lane.environment, value)
        for path, get, value in zip(self.arrays.values(), self._arrays, values[len(self.plain) :], strict=True):
            now = get(lane.environment)
            writer(path)(lane.environment, np.frombuffer(value, now.dtype).reshape(now.shape).copy())


@dataclass
class Sources:
    """The random generators of a kind of environment.

    paths      where they are held
    recorded   the one of them that a reset draws from just as it would from its seed: resets can be recorded
    globally   it draws from ``random`` or ``numpy.random`` themselves, which are seeded before each call
    """

    paths: Sequence[Path] = ()
    recorded: Path | None = None
    globally: bool = False

    def __post_init__(self) -> None:
        self._places = [(reader(path), writer(path)) for path in self.paths]
        self._install = None if self.recorded is None else writer(self.recorded)

    def reset(self, face: Face, lane: Lane, seed: int, values: list[tapes.Made] | None = None) -> dict[str, Any]:
        """Begin an episode; its draws are in ``lane.log`` afterwards if they are recorded. -> outputs."""
        lane.log.clear()
        if self._install is not None:
            source = tapes.generator(seed)
            source.log, source.left = lane.log, values
            self._install(lane.environment, source)
            outputs = face.reset(lane.environment, None)
        else:
            if self.globally:
                seed_globally(seed)
            outputs = face.reset(lane.environment, seed)
        self.follow(lane)
        return outputs

    def follow(self, lane: Lane) -> None:
        """Put recorders in the place of the generators the environment now holds; their streams go on."""
        lane.sources = []
        for get, put in self._places:
            source = get(lane.environment)
            if isinstance(source, np.random.Generator):
                found = tapes.recording(source)
                if found is not source:
                    put(lane.environment, found)
                found.log, found.left = lane.log, None
                source = found
            elif source is not None and not hasattr(source, "seed"):
                source = _Key(lane.environment, put, source)
            if source is not None:
                lane.sources.append(source)


@dataclass
class _Key:
    """A key of ``jax.random`` that an environment keeps and splits."""

    environment: Any
    put: Callable[[Any, Any], None]
    kind: Any

    def seed(self, seed: int) -> None:
        import jax

        typed = jax.numpy.issubdtype(self.kind.dtype, jax.dtypes.prng_key)
        self.put(self.environment, jax.random.key(seed) if typed else jax.random.PRNGKey(seed))


def seed_globally(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


@contextmanager
def global_state_kept() -> Iterator[None]:
    """What the process draws from ``random`` and ``numpy.random`` afterwards is as if nothing had been drawn here."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002


def random_action(action: Mapping[str, Space], rng: np.random.Generator, mask: Any = None) -> Any:
    """One action as ``Face.stepper`` takes it; a legal one where a mask (n,) is given."""
    row = {name: sample(space, rng, mask) for name, space in action.items()}
    return row["action"] if set(row) == {"action"} else row


def sample(space: Space, rng: np.random.Generator, mask: Any = None) -> Any:
    """One element of ``space``, at most 3 where it has no bound: an int if discrete without a shape, else an array."""
    if space.kind == "discrete":
        if mask is not None and space.shape == () and np.any(mask):
            return int(rng.choice(np.flatnonzero(mask))) + int(space.low)
        value = rng.integers(space.low, np.asarray(space.high) + 1, space.shape or None)
        return int(value) if space.shape == () else value.astype(space.dtype)
    low, high = np.clip(space.low, -3, None), np.clip(space.high, None, 3)
    return rng.uniform(low, np.maximum(low, high), space.shape).astype(space.dtype)
