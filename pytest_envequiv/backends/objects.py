"""Stateful Python environments behind the batched protocol: one object per lane, stepped in a loop.

``gymnasium.py``, ``pettingzoo.py`` and ``plain.py`` say how one object is made, reset and stepped (a ``Face``);
the state is discovered here, and whether it can really be written back is tried before it is believed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pytest_envequiv.backends import discovery, tapes
from pytest_envequiv.backends.discovery import Codec, Place
from pytest_envequiv.backends.protocol import MASK, Arrays, Leaf, Outcome, Space, Spec, State, Tape

LANES = 65_536  # a token is serial * LANES + lane
POOL = 128  # objects kept for lanes, if states can be written; others get as many as they have rows
PROBE_EPISODES, PROBE_STEPS, TRIALS = 8, 64, 12


@dataclass(frozen=True)
class Face:
    """How a library's environment object is made, reset and stepped. Outputs are named as in ``Outcome``.

    reset(environment, seed)    begin an episode; seed None: continue with the present generator. -> outputs
    step(environment, action)   action: one row of the action arrays. -> outputs
    generator / install         read or replace the numpy Generator it draws from; None where it has none.
    """

    name: str
    kind: str
    make: Callable[[], Any]
    reset: Callable[[Any, int | None], dict[str, Any]]
    step: Callable[[Any, Any], dict[str, Any]]
    action: Mapping[str, Space]
    observation: Mapping[str, Space]
    generator: Callable[[Any], Any] | None = None
    install: Callable[[Any, Any], None] | None = None
    time_limit: int | None = None
    seats: int = 1
    conventions: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class Lane:
    """One environment object and where its leaves are; ``token`` names the state it is in."""

    environment: Any
    places: dict[str, Place]
    token: int = -1
    number: int = LANES - 1
    over: bool = True  # nobody is in the middle of an episode here


class ObjectBackend:
    """A ``Face`` behind the backend protocol."""

    def __init__(self, face: Face):
        self.face = face
        self._lanes: list[Lane] = []
        self._serial = 0
        self._codecs: dict[str, Codec] = {}
        self._restored: dict[str, Any] = {}
        self._stochastic = False
        first = face.make()
        face.reset(first, 0)
        self._tape = self._can_record(first)
        self._several = self._can_copy(first)
        constants, mode = self._discover(first)
        self._scratch = Lane(first, self._places(first))
        draws: Literal["tape", "seed", "none"] = "tape" if self._tape else "seed" if self._reproduces(first) else "none"
        self.spec = Spec(
            name=face.name,
            kind=face.kind,
            action=face.action,
            observation=face.observation,
            fields={k: Leaf(c.shape, c.dtype) for k, c in self._codecs.items()},
            state=mode,
            draws=draws,
            time_limit=face.time_limit,
            seats=face.seats,
            constants=constants,
            conventions=face.conventions,
            versions=face.versions,
            notes=face.notes,
        )

    # -- what the protocol asks for ------------------------------------------------------------------------------

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        played = None if tape is None else tapes.scatter(tape, len(seeds))
        rows, raw, logs, hidden = [], [], [], []
        for i, (lane, seed) in enumerate(zip(self._free(len(seeds)), np.asarray(seeds).tolist(), strict=True)):
            environment = lane.environment
            if self._tape and self.face.install:
                source = tapes.generator(seed) if played is None else tapes.player(seed, played[i])
                self.face.install(environment, source)
                row = self.face.reset(environment, None)
                logs.append([] if played is not None else source.log)
                if played is None:
                    source.log = []
            else:
                row = self.face.reset(environment, seed)
            lane.over = False
            alone = lane is self._scratch
            rows.append({k: np.array(v) for k, v in row.items()} if alone else row)
            raw.append(self._read(lane, alone))
            hidden.append(self._hidden(lane))
        return self._outcome(rows, raw, hidden, tape if tape is not None else self._gathered(logs))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        face = self.face
        played = None if tape is None else tapes.scatter(tape, len(state))
        plain = set(action) == {"action"}
        # Plain Python integers are what a discrete environment expects.
        columns = {k: v.tolist() if face.action[k].kind == "discrete" and v.ndim == 1 else v for k, v in action.items()}
        listed = np.asarray(seeds).tolist()
        rows, raw, logs, hidden = [], [], [], []
        recording = self._tape and self._stochastic
        for i in range(len(state)):
            lane, moved = self._placed(state, i)
            environment = lane.environment
            source = None
            if played is not None and face.install:
                source = tapes.player(listed[i], played[i])
                face.install(environment, source)
            elif recording and face.install and face.generator:
                if moved or type(source := face.generator(environment)) is not tapes.Recorder:
                    source = tapes.generator(listed[i])
                    face.install(environment, source)
                source.log = []
            row = face.step(environment, columns["action"][i] if plain else {k: v[i] for k, v in columns.items()})
            if recording and played is None and source is not None:
                logs.append(source.log)
            alone = moved and self.spec.state == "fields"
            rows.append({k: np.array(v) for k, v in row.items()} if alone else row)
            raw.append(self._read(lane, alone))
            hidden.append(self._hidden(lane))
            lane.over = _ended(row)
        return self._outcome(rows, raw, hidden, tape if tape is not None else self._gathered(logs))

    def close(self) -> None:
        for lane in [*self._lanes, self._scratch]:
            close = getattr(lane.environment, "close", None)
            if close:
                close()

    # -- lanes ---------------------------------------------------------------------------------------------------

    def _free(self, count: int) -> list[Lane]:
        """Lanes for ``count`` new episodes: those whose episode is over, new ones up to POOL, then the longest unused."""
        if not self._several:
            return [self._scratch] * count
        if self.spec.state == "snapshot":
            return [self._lane(self._new()) for _ in range(count)]
        chosen = [lane for lane in self._lanes if lane.over][:count]
        while len(chosen) < count and (len(self._lanes) < POOL or self.spec.state == "none"):
            self._lanes.append(self._lane(self._new()))
            self._lanes[-1].number = len(self._lanes) - 1
            chosen.append(self._lanes[-1])
        if len(chosen) < count:
            taken = set(map(id, chosen))
            chosen += sorted((lane for lane in self._lanes if id(lane) not in taken), key=lambda lane: lane.token)
        return [chosen[i % len(chosen)] for i in range(count)]

    def _lane(self, environment: Any) -> Lane:
        return Lane(environment, self._places(environment))

    def _new(self) -> Any:
        environment = self.face.make()
        self.face.reset(environment, 0)
        return environment

    def _hidden(self, lane: Lane) -> Any:
        if self.spec.state == "snapshot":
            return lane.environment
        if lane is self._scratch and self.spec.state == "fields":
            return -1
        self._serial += 1
        lane.token = self._serial * LANES + lane.number
        return lane.token

    def _placed(self, state: State, i: int) -> tuple[Lane, bool]:
        """A lane standing in row i of ``state``, and whether it had to be put there."""
        token = None if state.hidden is None else state.hidden[i]
        if self.spec.state == "snapshot":
            if token is None:
                raise ValueError("its state can be restored but not edited")
            environment = clone(token)
            return Lane(environment, self._places(environment)), True
        if token is not None and token >= 0:
            place = int(token) % LANES
            lane = self._scratch if place == LANES - 1 else self._lanes[place]
            if lane.token == token:
                return lane, False
        if self.spec.state == "none":
            raise ValueError("its state can neither be read nor restored, and this lane has moved on")
        self._write(self._scratch, {k: state.fields[k][i] for k in self._codecs})
        return self._scratch, True

    def _places(self, environment: Any) -> dict[str, Place]:
        return discovery.walk(environment)

    def _read(self, lane: Lane, copied: bool) -> list[Any]:
        values = [discovery.get(lane.places[name]) for name in self._codecs]
        return [discovery.copied(v) for v in values] if copied else values

    def _write(self, lane: Lane, row: Mapping[str, np.ndarray]) -> None:
        for name, codec in self._codecs.items():
            discovery.put(lane.places[name], codec.decode(row[name]))
        for name, value in self._restored.items():
            discovery.put(lane.places[name], copy.copy(value))

    def _gathered(self, logs: list[Any]) -> Tape | None:
        return tapes.gather(logs) if self._tape else None

    def _outcome(self, rows: list[dict[str, Any]], raw: list[Any], hidden: list[Any], tape: Tape | None) -> Outcome:
        outputs = {k: np.array([row[k] for row in rows]) for k in rows[0]}
        fields = {
            name: codec.encode(list(column))
            for (name, codec), column in zip(self._codecs.items(), zip(*raw, strict=True), strict=True)
        }
        if self.spec.state == "snapshot":
            tokens = np.empty(len(hidden), object)
            tokens[:] = hidden
        else:
            tokens = np.array(hidden, np.int64)
        return Outcome(State(fields, tokens), outputs, tape)

    # -- what it can do ------------------------------------------------------------------------------------------

    def _can_record(self, environment: Any) -> bool:
        """Whether resetting with our recorder draws exactly what resetting with a seed draws."""
        if not self.face.install:
            return False
        for seed in (1, 2):
            seeded = self.face.reset(environment, seed)
            seeded = {k: np.array(v) for k, v in seeded.items()}
            self.face.install(environment, tapes.generator(seed))
            recorded = self.face.reset(environment, None)
            if not _equal(seeded, recorded):
                return False
        return True

    def _reproduces(self, environment: Any) -> bool:
        once = {k: np.array(v) for k, v in self.face.reset(environment, 7).items()}
        return _equal(once, self.face.reset(environment, 7))

    def _can_copy(self, environment: Any) -> bool:
        """Whether more objects of the kind can be had; if not, there is one lane and every row is written to it."""
        try:
            self._spare = self.face.make()
        except Exception:  # a lone object that cannot be copied
            return False
        return self._spare is not environment

    def _discover(self, environment: Any) -> tuple[dict[str, np.ndarray], Literal["fields", "snapshot", "none"]]:
        """Find the fields by playing; then try whether writing them (or copying the object) restores a state."""
        live, after = self._probe(environment)
        names = [n for n in live[0] if all(n in s for s in live)]
        moving = [n for n in names if any(not discovery.same(s[n], live[0][n]) for s in live[1:])]
        self._restored = {
            n: live[-1][n]
            for n in names
            if n not in moving and any(n in s and not discovery.same(s[n], live[-1][n]) for s in after)
        }
        codecs = {n: Codec.of([s[n] for s in live]) for n in moving}
        still = {n: discovery.as_array(live[0][n]) for n in names if n not in moving and n not in self._restored}
        constants = {n: v.astype(float) for n, v in still.items() if v is not None and v.size <= 64}
        self._codecs = {n: c for n, c in codecs.items() if c is not None}
        if len(self._codecs) == len(codecs) and self._restores(environment, by_writing=True):
            return constants, "fields"
        self._codecs, self._restored = {}, {}  # what cannot be written back whole is not offered in parts
        if self._several and self._restores(environment, by_writing=False):
            return constants, "snapshot"
        return constants, "none"

    def _probe(self, environment: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Leaf values over a few episodes of random play: while alive, and after the end."""
        live, after = [], []
        rng = np.random.default_rng(0)
        for episode in range(PROBE_EPISODES):
            outputs = self._reset_for_probe(environment, episode)
            for t in range(PROBE_STEPS):
                if t:  # some leaves only take their type with the first step
                    live.append(discovery.snapshot(self._places(environment)))
                outputs = self.face.step(environment, self._random_action(rng, outputs))
                if self._tape and self.face.generator:
                    source = self.face.generator(environment)
                    self._stochastic |= bool(getattr(source, "log", ()))
                    source.log = []
                if _ended(outputs):
                    after.append(discovery.snapshot(self._places(environment)))
                    break
            self._reset_for_probe(environment, episode + 100)
            live.insert(0, discovery.snapshot(self._places(environment)))
        return live, after

    def _reset_for_probe(self, environment: Any, seed: int) -> dict[str, Any]:
        if self._tape and self.face.install:
            source = tapes.generator(seed)
            self.face.install(environment, source)
            outputs = self.face.reset(environment, None)
            source.log = []
            return outputs
        return self.face.reset(environment, seed)

    def _random_action(self, rng: np.random.Generator, outputs: dict[str, Any]) -> Any:
        row = {k: sample_action(s, rng, outputs.get(MASK)) for k, s in self.face.action.items()}
        return row["action"] if set(row) == {"action"} else row

    def _restores(self, environment: Any, by_writing: bool) -> bool:
        """Step from remembered states again, in an object with another history: is everything as it was?"""
        rng = np.random.default_rng(1)
        remembered = []
        try:
            for trial in range(TRIALS):
                outputs = self._reset_for_probe(environment, 200 + trial)
                for _ in range(int(rng.integers(0, 12))):
                    before = outputs
                    outputs = self.face.step(environment, self._random_action(rng, outputs))
                    if _ended(outputs):
                        outputs = self._reset_for_probe(environment, 300 + trial)
                        break
                    del before
                action = self._random_action(rng, outputs)
                lane = Lane(environment, self._places(environment))
                state = self._read(lane, True) if by_writing else clone(environment)
                generator = self.face.generator(environment) if self.face.generator else None
                stream = copy.deepcopy(generator.bit_generator.state) if generator is not None else None
                row = {k: np.array(v) for k, v in self.face.step(environment, action).items()}
                # What lies past the end of an episode is nobody's state.
                then = None if _ended(row) else discovery.snapshot({n: lane.places[n] for n in self._codecs})
                remembered.append((state, stream, action, row, then))
            for state, stream, action, row, then in remembered:
                if by_writing:
                    self._reset_for_probe(environment, 999)
                    lane = Lane(environment, self._places(environment))
                    encoded = {n: c.encode([v])[0] for (n, c), v in zip(self._codecs.items(), state, strict=True)}
                    self._write(lane, encoded)
                else:
                    lane = Lane(state, self._places(state))
                if stream is not None and self.face.install:
                    fresh = tapes.generator(0)
                    fresh.bit_generator.state = stream
                    self.face.install(lane.environment, fresh)
                again = self.face.step(lane.environment, action)
                now = discovery.snapshot({n: lane.places[n] for n in self._codecs})
                if not _equal(row, again):
                    return False
                if then is not None and not all(discovery.same(now[n], then[n]) for n in then):
                    return False
        except Exception:  # whatever goes wrong, the state cannot be restored this way
            return False
        return True


def clone(environment: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy, attribute by attribute: many environments define a copy that forgets the episode (EzPickle)."""
    memo = {} if memo is None else memo
    if not hasattr(environment, "__dict__"):
        return copy.deepcopy(environment, memo)
    inner = {k: v for k, v in vars(environment).items() if k in ("env", "_env", "aec_env") and hasattr(v, "step")}
    twin = object.__new__(type(environment))
    memo[id(environment)] = twin
    for key, value in inner.items():
        memo[id(value)] = memo.get(id(value)) or clone(value, memo)
    twin.__dict__.update({key: copy.deepcopy(value, memo) for key, value in vars(environment).items()})
    return twin


def _ended(outputs: dict[str, Any]) -> bool:
    return bool(outputs.get("terminated") or outputs.get("truncated") or outputs.get("done"))


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(_equal_arrays(np.asarray(a[k]), np.asarray(b[k])) for k in a)


def _equal_arrays(x: np.ndarray, y: np.ndarray) -> bool:
    return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f" and y.dtype.kind == "f"))


def sample_action(space: Space, rng: np.random.Generator, mask: Any = None) -> Any:
    """One random action inside ``space``; a legal one where a mask (n,) is given."""
    if space.kind == "discrete":
        if mask is not None and space.shape == () and np.any(mask):
            return int(rng.choice(np.flatnonzero(mask))) + int(space.low)
        value = rng.integers(space.low, np.asarray(space.high) + 1, space.shape or None)
        return int(value) if space.shape == () else value.astype(space.dtype)
    low, high = np.clip(space.low, -3, None), np.clip(space.high, None, 3)
    return rng.uniform(low, high, space.shape).astype(space.dtype)
