"""``process:<command line>``: a program in any language as a backend, spoken to in msgpack frames over its pipes.

The program answers one map per request (``examples/javascript/README.md`` has the protocol in a table)::

    {op: "hello", version: 1}                   -> {version, name, action, observation, state, draws, ...}
    {op: "reset", seeds, tape?, lanes?}         -> {state, outputs, draws?, hidden?}
    {op: "step", state, action, seeds, tape?, hidden?, lanes?} -> the same
    {op: "close"}                               -> nothing; it leaves, as it does when its stdin ends

Everything is batched: each array has the leading axis B. State travels with every request, so there is nothing to
read or write apart; a program that holds its own states (state "none") is told in ``lanes`` which ones are meant.
``{error: text}`` may answer anything. ``wire.py`` has what arrays, spaces and draws look like on the way.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import (
    AGENT,
    DONE,
    MASK,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Arrays,
    Outcome,
    Spec,
    State,
    Tape,
)
from pytest_envequiv.backends.wire import (
    VERSION,
    Encode,
    cast,
    fit_shape,
    pack,
    quoted,
    spec_from_wire,
    tape_from_wire,
    tape_to_wire,
    unpack,
)
from pytest_envequiv.errors import Limitation, OpenError
from pytest_envequiv.peer import Peer, PeerError

TIMEOUT = 30.0  # seconds for one answer
LANE = np.dtype([("lane", np.int64), ("tick", np.int64)])
LANES = 1024  # episodes that a program of state "none" is asked to hold at a time


class WrongAnswer(PeerError):
    """The program answered, but not with what was asked. One line, with the request and the field."""


class ProgramError(Exception):
    """The program answered {error: text}; this is the text."""


class Lanes:
    """Which outcome of each lane is its latest, for a program that holds its own states.

    Lanes are handed out round robin, so that the program holds a bounded number of episodes. ``tick`` counts the
    outcomes of a lane and never goes back, so that an outcome of an earlier episode is known to be stale.
    """

    def __init__(self) -> None:
        self._ticks = np.zeros(LANES, np.int64)
        self._next = 0

    def begin(self, rows: int) -> np.ndarray:
        """LANE[rows]: fresh lanes for ``rows`` episodes."""
        self._ticks = np.append(self._ticks, np.zeros(max(0, 2 * rows - len(self._ticks)), np.int64))
        lanes = (self._next + np.arange(rows)) % len(self._ticks)
        self._next = int(self._next + rows) % len(self._ticks)
        return self._stamp(lanes)

    def advance(self, hidden: np.ndarray | None) -> np.ndarray:
        """LANE[B]: the next outcome of each row's lane. Raises ValueError for a row that is not its latest."""
        if hidden is None:
            raise ValueError("step: a program with state 'none' can only step the states it returned, unedited")
        lanes, stale = hidden["lane"], np.flatnonzero(self._ticks[hidden["lane"]] != hidden["tick"])
        if len(stale):
            lane, tick = hidden[stale[0]]
            raise ValueError(
                f"step: row {stale[0]} is outcome {tick} of lane {lane}, which is at outcome {self._ticks[lane]} by "
                "now; a program with state 'none' can only step the latest"
            )
        if len(np.unique(lanes)) < len(lanes):
            raise ValueError("step: a program with state 'none' cannot step one lane in two rows at once")
        return self._stamp(lanes)

    def _stamp(self, lanes: np.ndarray) -> np.ndarray:
        self._ticks[lanes] += 1
        stamped = np.empty(len(lanes), LANE)
        stamped["lane"], stamped["tick"] = lanes, self._ticks[lanes]
        return stamped


class ProcessBackend:
    """A program behind a pipe. Whatever ends the conversation (death, silence, garble) ends the program too.

    Raises PeerError (with the program's last words), WrongAnswer, ProgramError, and ValueError for a stale state.
    """

    def __init__(self, peer: Peer, spec: Spec, timeout: float, lists: bool):
        self.spec = spec
        self._peer = peer
        self._timeout = timeout
        self._encode: Encode = (lambda array: array.tolist()) if lists else pack
        self._lanes = Lanes()
        self._over = ""

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        """B = len(seeds) episodes. With state "none" they take the place of the LANES-th last ones."""
        lanes = self._lanes.begin(len(seeds)) if self.spec.state == "none" else None
        return self._ask("reset", {}, seeds, tape, lanes)

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        rows = len(seeds)
        request: dict[str, Any] = {"action": self._outgoing("action", action, self.spec.action, rows)}
        lanes = None
        if self.spec.state == "none":
            lanes = self._lanes.advance(state.hidden)
        else:
            request["state"] = self._outgoing("state field", state.fields, self.spec.fields, rows)
            if state.hidden is not None:
                request["hidden"] = state.hidden.tolist()
        return self._ask("step", request, seeds, tape, lanes)

    def close(self) -> None:
        if not self._over:
            self._over = "it was closed"
            with contextlib.suppress(PeerError):  # it may have left by itself
                self._peer.send({"op": "close"}, 1.0)
        self._peer.close()

    def _outgoing(self, what: str, arrays: Arrays, declared: Mapping[str, Any], rows: int) -> dict[str, Any]:
        """The declared ones of ``arrays`` as the program expects them. Raises ValueError."""
        sent = {}
        for name, leaf in declared.items():
            if name not in arrays:
                raise ValueError(f"step: no {what} {name!r} (there is {quoted(arrays)})")
            try:
                array = cast(np.asarray(arrays[name]), leaf.dtype)
                fit_shape(array, (rows, *leaf.shape))
            except ValueError as error:
                raise ValueError(f"step: {what} {name!r} {error}") from None
            sent[name] = self._encode(array)
        return sent

    def _ask(
        self, op: str, inputs: dict[str, Any], seeds: np.ndarray, tape: Tape | None, lanes: np.ndarray | None
    ) -> Outcome:
        request = {"op": op, **inputs, "seeds": self._encode(np.asarray(seeds, np.int64))}
        if lanes is not None:
            request["lanes"] = self._encode(np.ascontiguousarray(lanes["lane"]))
        if tape is not None:
            if self.spec.draws != "tape":
                raise ValueError(f"{op}: this program takes no tape (its draws are {self.spec.draws!r})")
            request["tape"] = tape_to_wire(tape, self._encode)
        return read_outcome(op, self._exchange(request), self.spec, len(seeds), lanes)

    def _exchange(self, request: dict[str, Any]) -> Mapping[str, Any]:
        if self._over:
            raise PeerError(f"{request['op']}: the program is gone: {self._over}")
        try:
            return exchange(self._peer, request, self._timeout)
        except (ProgramError, Limitation):
            raise
        except BaseException as error:  # also Ctrl-C: a late answer must not be taken for the next one
            self._over = str(error) or type(error).__name__
            self._peer.kill()
            raise


def exchange(peer: Peer, request: dict[str, Any], timeout: float) -> Mapping[str, Any]:
    """The answer to one request. Raises PeerError, or ProgramError with the text of {error: text}."""
    peer.send(request, timeout)
    return answered(peer, request["op"], timeout)


def answered(peer: Peer, op: str, timeout: float) -> Mapping[str, Any]:
    """The answer to the request ``op`` that was sent last; raises as ``exchange``."""
    answer = peer.receive(timeout)
    if not isinstance(answer, Mapping):
        raise WrongAnswer(f"the answer to {op} is {type(answer).__name__} instead of a map")
    if answer.get("error") is not None:
        raise (Limitation if answer.get("limitation") else ProgramError)(str(answer["error"]))
    return answer


def read_outcome(op: str, answer: Mapping[str, Any], spec: Spec, rows: int, lanes: np.ndarray | None) -> Outcome:
    """The checked answer to reset or step. Raises WrongAnswer naming the request and the field."""

    def within(key: str) -> Mapping[str, Any]:
        if not isinstance(answer.get(key), Mapping):
            raise WrongAnswer(f"the answer to {op} lacks the map {key!r} (it has {quoted(answer)})")
        return answer[key]

    def read(what: str, wire: Any, dtype: str | None, shape: tuple[int | None, ...] | None) -> np.ndarray:
        try:
            array = unpack(wire, dtype)
            if shape is not None and rows == array.size == 0:  # [] says nothing of the other axes
                array = array.reshape([n or 0 for n in shape])
            fit_shape(array, (rows, *array.shape[1:]) if shape is None else shape)
        except (ValueError, TypeError) as error:
            raise WrongAnswer(f"the answer to {op}: {what} {error}") from None
        return array

    # What a list is read as, and the shape; any other output is one more observation of any shape.
    known = {
        REWARD: ("float64", (rows,) if spec.seats == 1 else (rows, spec.seats)),
        **dict.fromkeys((TERMINATED, TRUNCATED, DONE), ("bool", (rows,))),
        MASK: ("bool", (rows, None)),
        AGENT: ("int64", (rows,)),
        **{name: (space.dtype, (rows, *space.shape)) for name, space in spec.observation.items()},
    }
    outputs = {name: wire for name, wire in within("outputs").items() if wire is not None}
    ends = [DONE] if DONE in outputs else [TERMINATED, TRUNCATED]
    for name in [*spec.observation, *([REWARD, *ends] if op == "step" else [])]:
        if name not in outputs:
            raise WrongAnswer(f"the answer to {op} lacks the output {name!r} (it has {quoted(outputs)})")
    fields = {}
    if spec.state == "fields":
        state = within("state")
        for name, leaf in spec.fields.items():
            if state.get(name) is None:
                raise WrongAnswer(f"the answer to {op} lacks the state field {name!r} (it has {quoted(state)})")
            fields[name] = read(f"the state field {name!r}", state[name], leaf.dtype, (rows, *leaf.shape))
    if spec.draws == "tape" and answer.get("draws") is None:
        raise WrongAnswer(f"the answer to {op} lacks 'draws', which hello promised (it has {quoted(answer)})")
    try:
        draws = tape_from_wire(answer["draws"], rows) if spec.draws == "tape" else None
    except (ValueError, TypeError) as error:
        raise WrongAnswer(f"the answer to {op}: {error}") from None
    return Outcome(
        State(fields, _hidden(op, answer.get("hidden"), spec, rows) if lanes is None else lanes),
        {name: read(f"the output {name!r}", wire, *known.get(name, (None, None))) for name, wire in outputs.items()},
        draws,
    )


def _hidden(op: str, wire: Any, spec: Spec, rows: int) -> np.ndarray | None:
    """object[rows]: what the program wants back with each row, or None."""
    if wire is None and spec.state == "fields":
        return None
    if not isinstance(wire, list) or len(wire) != rows:
        found = f"{len(wire)} entries" if isinstance(wire, list) else repr(wire)[:40]
        raise WrongAnswer(f"the answer to {op}: 'hidden' has {found}, expected a list of {rows}")
    hidden = np.empty(rows, object)
    for row, value in enumerate(wire):  # at once, numpy would look into the values
        hidden[row] = value
    return hidden


# Opening a name.


def claim(thing: Any, name: str = "", options: dict[str, Any] | None = None) -> None:
    """No Python object is a program: this kind is only ever opened by its name."""


def open_name(rest: str, options: dict[str, Any]) -> ProcessBackend:
    """Start the command line ``rest`` and say hello. Raises OpenError with one line.

    ``options``: "timeout", seconds per answer (30); "cwd", the folder to run in.
    """
    name, cwd = f"process:{rest}", options.get("cwd")
    if unknown := set(options) - {"timeout", "cwd"}:
        raise OpenError(f"{name}: the options are 'timeout' and 'cwd', found {quoted(sorted(unknown))}")
    try:
        argv, timeout = shlex.split(rest), float(options.get("timeout", TIMEOUT))
    except (ValueError, TypeError) as error:
        raise OpenError(f"{name}: {error}") from None
    if not argv:
        raise OpenError(f"{name}: expected a command line, as in 'process:node examples/javascript/mountain_car.mjs'")
    if not timeout > 0:
        raise OpenError(f"{name}: the timeout must be above 0 seconds, found {timeout:g}")
    if cwd is not None and not Path(cwd).is_dir():
        raise OpenError(f"{name}: the folder {str(cwd)!r} to run it in does not exist")
    try:
        peer = Peer(argv, cwd=cwd)
    except PeerError as error:
        raise OpenError(f"{name}: {error}") from error
    try:
        answer = exchange(peer, {"op": "hello", "version": VERSION}, timeout)
        return ProcessBackend(peer, spec_from_wire(answer), timeout, lists=answer.get("arrays") == "lists")
    except BaseException as error:
        peer.kill()
        if isinstance(error, (PeerError, ProgramError, ValueError, TypeError)):
            raise OpenError(f"{name}: {error}") from error
        raise
