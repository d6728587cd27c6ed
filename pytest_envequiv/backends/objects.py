"""Stateful Python environments behind the batched protocol: one object per lane.

``gymnasium.py``, ``pettingzoo.py`` and ``plain.py`` say how one object is made, reset and stepped (a ``Face``);
``probing.py`` finds where its state is and what else can be done with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from pytest_envequiv.backends import tapes
from pytest_envequiv.backends.discovery import clone
from pytest_envequiv.backends.lanes import Face, Lane, global_state_kept, seed_globally, transposed
from pytest_envequiv.backends.probing import probe, warm
from pytest_envequiv.backends.protocol import (
    DONE,
    MASK,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Arrays,
    Leaf,
    Outcome,
    Spec,
    State,
    Tape,
)
from pytest_envequiv.errors import Limitation

LANES = 65_536  # a token is serial * LANES + lane
NOWHERE = -3  # a token that no lane has
KEPT = {"fields": 128, "snapshot": 0, "none": LANES}  # objects kept to be stepped in place
SPARE = 64  # objects that other states are written to


class ObjectBackend:
    """A ``Face`` behind the backend protocol."""

    def __init__(self, face: Face):
        self.face = face
        self.found = found = probe(face)
        self._lanes: list[Lane] = []
        self._spare: list[Lane] = []
        self._tokens = np.full(LANES, -2, np.int64)  # the state each lane is in; -1 is none
        self._over = np.ones(LANES, bool)  # lanes whose episode has ended
        self._serial = 0
        self._most = KEPT[found.state], SPARE
        if found.alone:
            self._most = (0, 1) if found.state == "fields" else (1, 0)
            (self._spare if found.state == "fields" else self._lanes).append(self._lane(found.example))
        self.spec = Spec(
            name=face.name,
            kind=face.kind,
            action=face.action,
            observation=face.observation,
            fields={name: Leaf(codec.shape, codec.dtype) for name, (_, codec) in found.memory.places.items()},
            state=found.state,
            draws=found.draws,
            time_limit=face.time_limit,
            seats=face.seats,
            constants={**found.constants, **face.constants},
            conventions=face.conventions,
            versions=face.versions,
            notes=(*face.notes, *found.notes),
        )

    # -- what the protocol asks for ------------------------------------------------------------------------------

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        listed, sources = np.asarray(seeds).tolist(), self.found.sources
        played = [None] * len(listed) if tape is None else tapes.scatter(tape, len(listed))
        parts: list[Outcome] = []
        logs: list[list[tapes.Made]] = []
        with self._global_state():
            for lanes, numbers in self._begun(len(listed)):
                rows = slice(len(logs), len(logs) + len(lanes))
                begun = [
                    sources.reset(self.face, lane, seed, values)
                    for lane, seed, values in zip(lanes, listed[rows], played[rows], strict=True)
                ]
                logs += _taken(lanes)
                if self.spec.state == "snapshot":
                    lanes = [self._lane(clone(lane.environment)) for lane in lanes]
                parts.append(self._outcome(lanes, numbers, transposed(begun)))
        return _joined(parts, None if sources.recorded is None else tape or tapes.gather(logs))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        listed, actions = np.asarray(seeds).tolist(), self._actions(action)
        if self.spec.state == "fields" and not state.fields and state.hidden is None:
            state = State({}, np.full(len(listed), NOWHERE))  # of an environment without state: it has as many rows
        played = None if tape is None else tapes.scatter(tape, len(state))
        parts, logs = [], []
        with self._global_state():
            for rows, lanes, numbers in self._placed(state, listed):
                if played is None and not self.found.sources.globally:
                    returned = [lane.step(chosen) for lane, chosen in zip(lanes, actions[rows], strict=True)]
                else:
                    returned = self._carefully(lanes, actions[rows], listed[rows], played and played[rows])
                logs += _taken(lanes)
                parts.append(self._outcome(lanes, numbers, self.face.outputs(returned)))
        return _joined(parts, None if not self.found.tape else tape or tapes.gather(logs))

    def close(self) -> None:
        for lane in [*self._lanes, *self._spare]:
            close = getattr(lane.environment, "close", None)
            if close:
                close()

    # -- lanes ---------------------------------------------------------------------------------------------------

    def _lane(self, environment: Any) -> Lane:
        lane = Lane(environment, self.face.stepper(environment))
        self.found.sources.follow(lane)
        lane.constants = self.found.memory.constants(environment)
        return lane

    def _grown(self, lanes: list[Lane], count: int) -> list[Lane]:
        """The first ``count`` of the lanes; new objects are made as they are needed."""
        while len(lanes) < count:
            lanes.append(self._lane(warm(self.face, self.face.make())))
        return lanes[:count]

    def _begun(self, count: int) -> Iterator[tuple[list[Lane], np.ndarray]]:
        """Objects for ``count`` new episodes, in batches of different ones, with their lane's number or -1."""
        kept, spare = self._most
        done = 0
        while done < count and (kept and (not done or not spare)):
            numbers = self._free(min(kept, count - done))
            for lane in (lanes := [self._lanes[n] for n in numbers.tolist()]):
                changed = self.found.memory.changed(lane)
                if changed is not None:
                    raise Limitation(
                        f"its attribute {changed!r} changed in play, which it never did while its state was looked "
                        "for: states are not read completely"
                    )
            yield lanes, numbers
            done += len(lanes)
        for start in range(done, count, spare or 1):
            size = min(spare, count - start)
            yield self._grown(self._spare, size), np.full(size, -1)

    def _free(self, count: int) -> np.ndarray:
        """Numbers of ``count`` lanes: those whose episode is over, then new ones, then the longest unused."""
        over = np.flatnonzero(self._over[: len(self._lanes)])[:count]
        before = len(self._lanes)
        self._grown(self._lanes, min(self._most[0], before + count - len(over)))
        numbers = np.concatenate([over, np.arange(before, len(self._lanes))])
        if len(numbers) < count:
            others = np.setdiff1d(np.arange(len(self._lanes)), numbers)
            numbers = np.concatenate([numbers, others[np.argsort(self._tokens[others], kind="stable")]])[:count]
        return numbers

    def _placed(self, state: State, seeds: list[int]) -> Iterator[tuple[slice, list[Lane], np.ndarray]]:
        """Rows of ``state`` with different lanes that stand in them, and the lanes' numbers or -1."""
        count, (_, spare) = len(state), self._most
        if self.spec.state == "snapshot":
            yield slice(0, count), self._copied(state, seeds), np.full(count, -1)
            return
        here = self._standing(state)
        if state.hidden is not None and here.all():
            numbers = state.hidden % LANES
            yield slice(0, count), [self._lanes[n] for n in numbers.tolist()], numbers
            return
        if self.spec.state == "none":
            raise Limitation(
                f"{self.spec.name}: its state can be neither read nor restored, and this episode has moved on"
            )
        for start in range(0, count, spare):
            rows = slice(start, min(start + spare, count))
            yield rows, *self._written(state.take(rows), seeds[rows])

    def _standing(self, state: State) -> np.ndarray:
        """bool[B]: rows whose lane is still in just that state. Of rows with the same lane only the first is."""
        tokens = state.hidden
        if tokens is None:
            return np.zeros(len(state), bool)
        here = self._tokens[tokens % LANES] == tokens
        if len(set(tokens.tolist())) < len(tokens):
            first = np.zeros(len(tokens), bool)
            first[np.unique(tokens, return_index=True)[1]] = True
            here &= first
        return here

    def _copied(self, state: State, seeds: list[int]) -> list[Lane]:
        if state.hidden is None:
            raise Limitation(f"{self.spec.name}: its state can be restored but not edited")
        lanes = [self._lane(clone(environment)) for environment in state.hidden]
        for lane, seed in zip(lanes, seeds, strict=True):
            lane.restart(seed)
        return lanes

    def _written(self, state: State, seeds: list[int]) -> tuple[list[Lane], np.ndarray]:
        """Lanes that still stand in their state, and spare ones that are written to."""
        here = self._standing(state)
        moved = np.flatnonzero(~here)
        spare = self._grown(self._spare, len(moved))
        self.found.memory.write(spare, {name: column[moved] for name, column in state.fields.items()})
        for lane, i in zip(spare, moved.tolist(), strict=True):
            lane.restart(seeds[i])
        if state.hidden is None:
            return spare, np.full(len(state), -1)
        numbers, left = np.where(here, state.hidden % LANES, -1), iter(spare)
        return [next(left) if n < 0 else self._lanes[n] for n in numbers.tolist()], numbers

    def _carefully(
        self, lanes: list[Lane], actions: list[Any], seeds: list[int], played: list[list[tapes.Made]] | None
    ) -> list[Any]:
        """What the steps return, each with its own tape or its own seed of the global generators."""
        returned = []
        for i, lane in enumerate(lanes):
            if self.found.sources.globally:
                seed_globally(seeds[i])
            lane.play(None if played is None else played[i])
            try:
                returned.append(lane.step(actions[i]))
            finally:
                lane.play(None)
        return returned

    # -- arrays --------------------------------------------------------------------------------------------------

    def _actions(self, action: Arrays) -> list[Any]:
        """B actions: Python integers are what a discrete environment expects; arrays are its own to change."""
        columns = {
            name: value.tolist()
            if self.face.action[name].kind == "discrete" and value.ndim == 1
            else list(value.copy())
            for name, value in action.items()
        }
        if set(columns) == {"action"}:
            return columns["action"]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _outcome(self, lanes: list[Lane], numbers: np.ndarray, columns: Mapping[str, Sequence[Any]]) -> Outcome:
        outputs = {name: _column(name, values) for name, values in columns.items()}
        if self.spec.state == "snapshot":
            hidden = np.empty(len(lanes), object)
            hidden[:] = [lane.environment for lane in lanes]
            return Outcome(State({}, hidden), outputs)
        self._serial += 1
        tokens = np.where(numbers < 0, -1, self._serial * LANES + numbers)
        outcome = Outcome(State(self.found.memory.read(lanes), tokens), outputs)
        kept = tokens >= 0
        self._tokens[numbers[kept]] = tokens[kept]
        self._over[numbers[kept]] = outcome.done[kept]
        return outcome

    def _global_state(self) -> Any:
        return global_state_kept() if self.found.sources.globally else nullcontext()


def _taken(lanes: list[Lane]) -> list[list[tapes.Made]]:
    """What each lane has drawn since it was last asked."""
    logs = [lane.log for lane in lanes]
    if not any(logs):
        return [[]] * len(lanes)
    taken = [log.copy() for log in logs]
    for log in logs:
        log.clear()
    return taken


def _column(name: str, values: Sequence[Any]) -> np.ndarray:
    if name in (TERMINATED, TRUNCATED, DONE, MASK):
        return np.array(values, bool)
    array = np.array(values)
    return array.astype(float) if name == REWARD and array.dtype.kind != "f" else array


def _joined(parts: list[Outcome], draws: Tape | None) -> Outcome:
    if len(parts) == 1:
        return Outcome(parts[0].state, parts[0].outputs, draws)
    outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
    return Outcome(State.join([part.state for part in parts]), outputs, draws)
