"""What can be done with a kind of environment: found out by playing it, and believed only after it was tried.

All budgets are counts of steps, never times: what a backend is must not depend on the machine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pytest_envequiv.backends.codec import ABSENT, Watch, same, same_arrays
from pytest_envequiv.backends.discovery import Item, Path, clone, reader, walk, writer
from pytest_envequiv.backends.lanes import (
    Face,
    Lane,
    Memory,
    Sources,
    global_state_kept,
    random_action,
    seed_globally,
)
from pytest_envequiv.backends.protocol import DONE, MASK, TERMINATED, TRUNCATED, Arrays

STEPS = 1_500  # of the search for what moves
LONG, SHORT = 400, 64  # most steps of its first episodes, in which what is rare may happen, and of the others
TRIAL_EPISODES, TRIAL_STEPS, FOLLOWED = 9, 80, 12  # of the test whether a state can be restored
TWIN_STEPS = 40  # played again, to see whether a seed fixes everything
STYLES = ("uniform", "repeat", "constant")
SMALL = 64  # elements of a constant worth telling, and of one worth guarding

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Found:
    """What is known of a kind of environment.

    example   an object of it; ``alone``: the only one there is, or they get into each other's way
    state     "fields": ``memory`` reads and writes it; "snapshot": the object can be copied; "none"
    draws     as in ``Spec``; ``tape``: the draws of a step, at least, are recorded
    """

    example: Any
    alone: bool
    memory: Memory
    sources: Sources
    state: Literal["fields", "snapshot", "none"]
    draws: Literal["tape", "seed", "none"]
    tape: bool
    constants: Arrays
    notes: tuple[str, ...]


def warm(face: Face, environment: Any) -> Any:
    """The object after one step and a reset: some attributes only come into being then."""
    outputs = face.reset(environment, 0)
    face.stepper(environment)(random_action(face.action, np.random.default_rng(0), outputs.get(MASK)))
    face.reset(environment, 0)
    return environment


def _holders(environment: Any, places: Iterable[Path]) -> dict[Path, Any]:
    """Copies of the dicts and lists in which places are, by path: a wrapper may keep one only between two steps."""
    found = {}
    for path in dict.fromkeys(path[:-1] for path in places if isinstance(path[-1], Item) and len(path) > 1):
        with suppress(Exception):  # what cannot be copied is not put back
            found[path] = copy.deepcopy(reader(path)(environment))
    return found


def probe(face: Face) -> Found:
    """Everything in ``Found``. Raises what the environment raises when it is made, reset and stepped."""
    with global_state_kept():
        environment = warm(face, face.make())
        places, generators = walk(environment)
        holders = _holders(environment, places.values())
        sources, reproduces = _seeding(face, environment, generators)
        player = _Player(face, environment, sources)
        twins = _twins(player)
        fleeting = _fleeting(*twins, places) if twins and reproduces else set()
        recordable = _recordable(player)
        lasting = {name: path for name, path in places.items() if name not in fleeting}
        # A new object too: what grows from episode to episode looks different in its first.
        life = _Life([player, *(twins or ())[:1]], lasting, fleeting)
        alone = twins is None or (reproduces and _entangled(*twins))
        state, note = _state(player, player if alone or twins is None else twins[1], life, alone)
        tape = bool(sources.paths) and recordable and not sources.globally
        return Found(
            example=environment,
            alone=alone,
            memory=replace(life.memory, holders=holders) if state == "fields" else Memory({}),
            sources=sources,
            state=state,
            draws="tape" if tape and sources.recorded else "seed" if reproduces else "none",
            tape=tape,
            constants=life.constants,
            notes=(note,) if note else (),
        )


# -- playing ---------------------------------------------------------------------------------------------------------


class _Player:
    """One environment under a random policy of one of the STYLES; the same seeds play the same."""

    def __init__(self, face: Face, environment: Any, sources: Sources):
        self.face, self.sources = face, sources
        self.lane = Lane(environment, face.stepper(environment))
        sources.follow(self.lane)

    def reset(self, seed: int, style: str = "uniform") -> None:
        self._rng, self._style, self._kept = np.random.default_rng(seed), style, None
        self.outputs = _apart(self.sources.reset(self.face, self.lane, seed))
        self.over = False

    def choose(self) -> Any:
        """What to do next. An action is kept only where there is no mask to obey."""
        mask = self.outputs.get(MASK)
        keep = {"uniform": 0.0, "repeat": 0.9, "constant": 1.0}[self._style]
        if self._kept is None or mask is not None or self._rng.random() >= keep:
            self._kept = random_action(self.face.action, self._rng, mask)
        return self._kept

    def step(self, action: Any, tick: int = 0) -> Outputs:
        """``tick`` seeds what is drawn globally."""
        return self.seen(self.stepped(action, tick))

    def stepped(self, action: Any, tick: int = 0) -> Any:
        """What the library's step returns, which it may overwrite later."""
        if self.sources.globally:
            seed_globally(tick)
        return self.lane.step(copy.copy(action))

    def seen(self, returned: Any) -> Outputs:
        """The outputs in what a step returned."""
        self.lane.log.clear()
        self.outputs = _apart({name: values[0] for name, values in self.face.outputs([returned]).items()})
        self.over = any(bool(self.outputs.get(name, False)) for name in (TERMINATED, TRUNCATED, DONE))
        return self.outputs

    def play(self, seed: int, steps: int = TWIN_STEPS) -> list[Outputs]:
        """The outputs of an episode, at most ``steps`` long."""
        self.reset(seed)
        found = [self.outputs]
        while not self.over and len(found) <= steps:
            found.append(self.step(self.choose(), len(found)))
        return found


def _apart(outputs: Mapping[str, Any]) -> Outputs:
    return {name: np.array(value) for name, value in outputs.items()}


def _same_outputs(a: Outputs, b: Outputs) -> bool:
    return a.keys() == b.keys() and all(same_arrays(a[k], b[k]) for k in a)


def _same_plays(a: list[Outputs], b: list[Outputs]) -> bool:
    return len(a) == len(b) and all(map(_same_outputs, a, b))


# -- seeds -----------------------------------------------------------------------------------------------------------


def _seeding(face: Face, environment: Any, generators: Mapping[str, Path]) -> tuple[Sources, bool]:
    """How resets are seeded, and whether the same seed then plays the same."""
    paths = tuple(generators.values())
    numpys = {n: p for n, p in generators.items() if isinstance(reader(p)(environment), np.random.Generator)}
    usual = [p for n, p in numpys.items() if n.split(".")[-1] in ("np_random", "_np_random")] or list(numpys.values())
    by_seed = [_Player(face, environment, Sources(paths)).play(seed) for seed in (1, 2)]
    if len(usual) == 1:
        recorded = Sources(paths, usual[0])
        if all(_same_plays(_Player(face, environment, recorded).play(s), by_seed[s - 1]) for s in (1, 2)):
            return recorded, True
    for sources in (Sources(paths), Sources(paths, None, globally=True)):
        first, second = ([_Player(face, environment, sources).play(seed) for seed in (1, 2)] for _ in range(2))
        if all(map(_same_plays, first, second)):
            return sources, True
    return Sources(paths), False


def _streams(player: _Player) -> list[Any]:
    """Copies of the generators it holds, in the order of ``sources.paths``."""
    return [copy.deepcopy(reader(path)(player.lane.environment)) for path in player.sources.paths]


def _recordable(player: _Player) -> bool:
    """Whether everything it draws in an episode comes from numpy Generators."""
    before = _streams(player)
    player.play(5)
    pairs = zip(before, _streams(player), strict=True)
    return all(isinstance(old, np.random.Generator) or same(old, new) for old, new in pairs)


# -- several objects -------------------------------------------------------------------------------------------------


def _twins(player: _Player) -> tuple[_Player, _Player] | None:
    """Two more objects, new and with the same history; None if there can be only one."""
    try:
        made = [player.face.make() for _ in range(2)]
    except Exception:  # a lone object that cannot be copied
        return None
    if len({id(player.lane.environment), *map(id, made)}) < 3:
        return None
    first, second = (_Player(player.face, warm(player.face, environment), player.sources) for environment in made)
    return first, second


def _entangled(first: _Player, second: _Player) -> bool:
    """Whether an object plays otherwise than its twin, or than alone when the other is played in between."""
    if not _same_plays(first.play(3), second.play(3)):
        return True
    alone = first.play(3)  # again, because what the other is compared with has the same history
    second.reset(3)
    first.reset(4)
    together = [second.outputs]
    while not second.over and len(together) <= TWIN_STEPS:
        returned = second.stepped(second.choose(), len(together))
        if not first.over:
            first.step(first.choose(), 1000 + len(together))
        together.append(second.seen(returned))
    return not _same_plays(alone, together)


def _fleeting(first: _Player, second: _Player, places: Mapping[str, Path]) -> set[str]:
    """Places that differ in twins after the same history: clocks, object numbers."""
    if not _same_plays(first.play(6), second.play(6)):
        return set()
    looks = [{name: _look(path, player) for name, path in places.items()} for player in (first, second)]
    return {name for name in places if not same(looks[0][name], looks[1][name])}


# -- what moves ------------------------------------------------------------------------------------------------------


def _look(path: Path, player: _Player) -> Any:
    try:
        return reader(path)(player.lane.environment)
    except (AttributeError, LookupError, TypeError):
        return ABSENT


class _Life:
    """What the places of an environment hold over many episodes: which move, and which only after the end."""

    def __init__(self, players: Sequence[_Player], places: Mapping[str, Path], known: Set[str]):
        self.places = dict(places)
        self.watches = {name: Watch() for name in places}
        self.late: set[str] = set()  # moved when an episode was over
        total = episode = 0
        while total < STEPS:
            total += self._episode(players[episode % len(players)], episode, total)
            episode += 1
        players[0].reset(episode)
        self._see(players[0], stepped=False)
        found, _ = walk(players[0].lane.environment)
        self.appeared = sorted(found.keys() - places.keys() - known)

    def _episode(self, player: _Player, episode: int, tick: int) -> int:
        """The number of steps it took."""
        player.reset(episode, STYLES[episode % len(STYLES)])
        self._see(player, stepped=False)
        longest = LONG if episode < len(STYLES) else SHORT
        for t in range(1, longest + 1):
            player.step(player.choose(), tick + t)
            if player.over:
                self._see_the_end(player)
                return t
            self._see(player, stepped=True, closely=t % 16 == 0 or t < 4)
        return longest

    def _see(self, player: _Player, stepped: bool, closely: bool = True) -> None:
        for name, watch in self.watches.items():
            watch.see(_look(self.places[name], player), stepped, closely)

    def _see_the_end(self, player: _Player) -> None:
        for name, watch in self.watches.items():
            if not (watch.moved or name in self.late or same(_look(self.places[name], player), watch.first)):
                self.late.add(name)

    @property
    def moving(self) -> list[str]:
        return [name for name, watch in self.watches.items() if watch.moved]

    @property
    def irregular(self) -> list[str]:
        """What moves and cannot be written down as numbers."""
        return [name for name in self.moving if self.watches[name].codec() is None] + self.appeared

    @property
    def still(self) -> list[str]:
        return [name for name, watch in self.watches.items() if not watch.moved and name not in self.late]

    @property
    def memory(self) -> Memory:
        codecs = {name: self.watches[name].codec() for name in self.moving}
        first = {name: self.watches[name].first for name in self.still}
        plain = [n for n, v in first.items() if v is None or (isinstance(v, (str, int, float, np.generic)) and v == v)]
        arrays = [
            n for n, v in first.items() if isinstance(v, np.ndarray) and 0 < v.size <= SMALL and v.dtype.kind in "biuf"
        ]
        return Memory(
            {name: (self.places[name], codec) for name, codec in codecs.items() if codec is not None},
            [
                (self.places[n], self.watches[n].first)
                for n in self.watches
                if n in self.late and not self.watches[n].moved
            ],
            {name: self.places[name] for name in plain},
            {name: self.places[name] for name in arrays},
        )

    @property
    def constants(self) -> Arrays:
        known = {name: self.watches[name].constant for name in self.still}
        return {name: value.astype(float) for name, value in known.items() if value is not None and value.size <= SMALL}


# -- what can be restored --------------------------------------------------------------------------------------------


@dataclass
class _Moment:
    """A state in the middle of an episode, and what followed: actions with their outputs, and the fields in the end."""

    state: Any
    streams: list[Any]
    followed: list[tuple[int, Any, Outputs]] = field(default_factory=list)
    fields: Arrays | None = None


def _state(
    player: _Player, other: _Player, life: _Life, alone: bool
) -> tuple[Literal["fields", "snapshot", "none"], str]:
    """How states can be had, and a note where they are not plain numbers."""
    if life.irregular:
        why = f"its attribute {life.irregular[0]!r} changes and is not always the same kind of numbers"
    elif _restores(player, other, life.memory):
        return "fields", ""
    else:
        why = "what is read and written back does not go on as before"
    if not alone and _restores(player, other, None):
        return "snapshot", f"states can be restored but not edited: {why}"
    return "none", f"states can be neither read nor restored: {why}, and a copy does not go on as before"


def _restores(player: _Player, other: _Player, memory: Memory | None) -> bool:
    """Do states go on as before when they are written to ``other``, or (no memory) copied?"""
    try:
        return all(_goes_on(moment, other, memory) for moment in _moments(player, memory))
    except Exception:  # whatever goes wrong, states cannot be restored this way
        return False


def _moments(player: _Player, memory: Memory | None) -> list[_Moment]:
    """States from all over the play of ``player``, each with what followed."""
    rng = np.random.default_rng(9)
    moments: list[_Moment] = []
    for episode in range(TRIAL_EPISODES):
        player.reset(1000 + episode, STYLES[episode % len(STYLES)])
        running: list[_Moment] = []
        for t in range(TRIAL_STEPS):
            if t < 2 or rng.random() < 0.1:
                state = clone(player.lane.environment) if memory is None else memory.read([player.lane])
                running.append(_Moment(state, _streams(player)))
                moments.append(running[-1])
            action = copy.deepcopy(player.choose())
            outputs = player.step(action, t)
            for moment in running:
                moment.followed.append((t, action, outputs))
            if player.over:
                break  # what lies past the end of an episode is nobody's state
            for moment in running:
                if len(moment.followed) == FOLLOWED and memory is not None:
                    moment.fields = memory.read([player.lane])
            running = [moment for moment in running if len(moment.followed) < FOLLOWED]
    return moments


def _goes_on(moment: _Moment, other: _Player, memory: Memory | None) -> bool:
    if memory is None:
        other = _Player(other.face, moment.state, other.sources)
    else:
        other.lane.constants = memory.constants(other.lane.environment)
        memory.write([other.lane], moment.state)
    for path, stream in zip(other.sources.paths, moment.streams, strict=True):
        writer(path)(other.lane.environment, stream)
    for tick, action, outputs in moment.followed:
        if not _same_outputs(other.step(action, tick), outputs):
            return False
    if memory is None or moment.fields is None:
        return True
    return all(same_arrays(value, moment.fields[name]) for name, value in memory.read([other.lane]).items())
