"""``process:<command line>``: a program in any language as a backend, spoken to in msgpack frames over its pipes.

The program answers one map per request (``examples/javascript/README.md`` has the protocol in a table)::

    {op: "hello", version: 1}                   -> {version, name, action, observation, state, draws, ...}
    {op: "reset", seeds, tape?, lanes?}         -> {state, outputs, draws?, hidden?}
    {op: "step", state, action, seeds, tape?, hidden?, lanes?} -> the same
    {op: "close"}                               -> nothing; it leaves, as it does when its stdin ends

Everything is batched: each array has the leading axis B. State travels with every request, so there is nothing to
read or write apart; a program that holds its own states (state "none") is told in ``lanes`` which ones are meant.
An array is {dtype, shape, data: little-endian bytes} or a plain nested list, read as the dtype hello declared.
``{error: text}`` may answer anything. Used by ``opening.py``, and by ``serve.py`` for the codec.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping
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
    Draw,
    Leaf,
    Outcome,
    Space,
    Spec,
    State,
    Tape,
)
from pytest_envequiv.errors import Limitation, OpenError
from pytest_envequiv.peer import Peer, PeerError

VERSION = 1
TIMEOUT = 30.0  # seconds for one answer
REQUIRED = ("version", "name", "action", "observation", "state", "draws")
DTYPES = {"bool", "float16", "float32", "float64"} | {f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)}
DRAW_DTYPES = {"uniform": "float64", "normal": "float64", "integers": "int64", "permutation": "int64"}
LANE = np.dtype([("lane", np.int64), ("tick", np.int64)])
LANES = 1024  # episodes that a program of state "none" is asked to hold at a time

Encode = Callable[[np.ndarray], Any]


class WrongAnswer(PeerError):
    """The program answered, but not with what was asked. One line, with the request and the field."""


class ProgramError(Exception):
    """The program answered {error: text}; this is the text."""


# The codec: arrays, spaces, draws and specs as msgpack can hold them, and back.


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array with its exact bits. Raises TypeError for a dtype the wire does not know."""
    array = np.asarray(array)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"arrays of {array.dtype.name} cannot be sent")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": little.tobytes()}


def unpack(wire: Any, default: str | None = None) -> np.ndarray:
    """The array in ``wire``: packed, with the dtype it says, or a (nested) list of numbers, read as ``default``.

    Raises ValueError with the end of a sentence.
    """
    if not isinstance(wire, Mapping):
        try:
            array = np.asarray(wire)
        except ValueError:
            raise ValueError("is a list whose rows differ in length") from None
        if array.dtype.kind not in "biuf":
            raise ValueError(f"is not numbers but {str(wire)[:40]!r}")
        return array if default is None else _cast(array, default)
    if not {"dtype", "shape", "data"} <= wire.keys():
        raise ValueError(f"is a map of {sorted(map(str, wire))} instead of 'data', 'dtype' and 'shape'")
    name, shape, data = wire["dtype"], tuple(wire["shape"]), wire["data"]
    if name not in DTYPES:
        raise ValueError(f"has the unknown dtype {name!r}")
    dtype = np.dtype(np.uint8 if name == "bool" else name)  # a bool is a byte that is not zero
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != size:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise ValueError(f"has {found} of data, expected {size} bytes for {name} of shape {shape}")
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(name)  # a copy, so writable


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """``array`` as ``dtype``. Rounds to a float; raises ValueError where an integer or bool would change."""
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    if cast.dtype.kind != "f" and not np.array_equal(cast, array):
        raise ValueError(f"holds {array[cast != array].flat[0].item()!r}, which is not {dtype}")
    return cast


def space_from_wire(wire: Any) -> Space:
    """Defaults: shape []; discrete: int64 from 0; box: no bounds. Raises ValueError with the end of a sentence."""
    kind = wire.get("kind") if isinstance(wire, Mapping) else None
    if kind not in ("discrete", "box"):
        raise ValueError(f"needs the kind 'discrete' or 'box', found {kind!r}")
    if kind == "discrete" and wire.get("high") is None:
        raise ValueError("is discrete and needs 'high', its largest value")
    dtype = _dtype(wire.get("dtype", "int64" if kind == "discrete" else None))
    unbounded = (0, None) if kind == "discrete" else (-np.inf, np.inf)

    def bound(key: str, otherwise: Any) -> np.ndarray:
        value = otherwise if wire.get(key) is None else wire[key]
        if isinstance(value, Mapping):
            return unpack(value)
        plain = unpack(value)
        return plain.astype(dtype if dtype.startswith("float") or np.isfinite(plain).all() else "float64")

    return Space(kind, tuple(wire.get("shape", ())), dtype, bound("low", unbounded[0]), bound("high", unbounded[1]))


def _dtype(name: Any) -> str:
    if name not in DTYPES:
        raise ValueError(f"needs a dtype such as 'float32', found {name!r}")
    return name


def tape_to_wire(tape: Tape, encode: Encode = pack) -> list[dict[str, Any]]:
    return [
        {
            "kind": draw.kind,
            "shape": list(draw.shape),
            "site": draw.site,
            **{key: encode(getattr(draw, key)) for key in ("low", "high", "value", "present")},
        }
        for draw in tape
    ]


def tape_from_wire(wire: Any, rows: int) -> Tape:
    """``low`` and ``high`` may be one number for all rows or left out, and ``present`` left out.

    Raises ValueError with a whole sentence.
    """
    return tuple(_draw_from_wire(i, entry, rows) for i, entry in enumerate(wire))


def _draw_from_wire(i: int, entry: Any, rows: int) -> Draw:
    if not isinstance(entry, Mapping) or not {"kind", "shape", "value"} <= entry.keys():
        raise ValueError(f"draw {i} is not a map with 'kind', 'shape' and 'value'")
    kind, shape = str(entry["kind"]), tuple(entry["shape"])

    def read(key: str, dtype: str | None, shape: tuple[int, ...] | None, otherwise: Any = None) -> np.ndarray:
        try:
            array = unpack(otherwise if entry.get(key) is None else entry[key], dtype)
            if array.ndim == 0 and otherwise is not None:
                array = np.full(rows, array)
            _fit_shape(array, (rows, *(array.shape[1:] if shape is None else shape)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{key!r} of draw {i} ({kind}) {error}") from None
        return array

    return Draw(
        kind=kind,
        shape=shape,
        low=read("low", "float64", None, np.nan),
        high=read("high", "float64", None, np.nan),
        value=read("value", DRAW_DTYPES.get(kind), shape),
        present=read("present", "bool", (), True),
        site=str(entry.get("site") or ""),
    )


def _fit_shape(array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless ``array`` has ``shape``, in which None is any length."""
    fits = (wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=False))
    if array.ndim != len(shape) or not all(fits):
        expected = str(shape).replace("None", "any")
        raise ValueError(f"has shape {array.shape}, expected {expected}")


def spec_from_wire(wire: Mapping[str, Any]) -> Spec:
    """Raises ValueError or TypeError with the whole sentence of what is wrong with this answer to hello."""
    if wire.get("version", VERSION) != VERSION:
        raise ValueError(f"the program speaks protocol version {wire['version']}, pytest-envequiv version {VERSION}")
    required = (*REQUIRED, "fields") if wire.get("state") == "fields" else REQUIRED
    missing = [key for key in required if key not in wire]
    if missing:
        raise ValueError(f"the answer to hello lacks {_words(missing)} (it has {_words(wire)})")
    for key, words in (("state", ("fields", "snapshot", "none")), ("draws", ("tape", "seed", "none"))):
        if wire[key] not in words:
            raise ValueError(f"'{key}' in the answer to hello is {wire[key]!r}, not one of {_words(words)}")

    def each(key: str, read: Callable[[Any], Any], single: Callable[[Any], bool] = lambda _: False) -> dict[str, Any]:
        entries = wire.get(key) or {}
        if not isinstance(entries, Mapping):
            raise TypeError(f"'{key}' in the answer to hello is not a map")
        found = {}
        for name, entry in ({key: entries} if single(entries) else entries).items():
            try:
                found[name] = read(entry)
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"'{name}' in '{key}' of the answer to hello {error}") from None
        return found

    def one_space(entries: Mapping[str, Any]) -> bool:
        return isinstance(entries.get("kind"), str)

    return Spec(
        name=str(wire["name"]),
        kind="process",
        action=each("action", space_from_wire, one_space),
        observation=each("observation", space_from_wire, one_space),
        fields=each("fields", lambda leaf: Leaf(tuple(leaf.get("shape", ())), _dtype(leaf.get("dtype")))),
        state=wire["state"],
        draws=wire["draws"],
        batched=bool(wire.get("batched", True)),
        time_limit=wire.get("time_limit"),
        seats=wire.get("seats") or 1,
        constants=each("constants", unpack),
        conventions=each("conventions", str),
        versions=each("versions", str),
        notes=tuple(wire.get("notes") or ()),
    )


def _words(names: Any) -> str:
    return ", ".join(repr(str(name)) for name in names)


# The backend.


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
                raise ValueError(f"step: no {what} {name!r} (there is {_words(arrays)})")
            try:
                array = _cast(np.asarray(arrays[name]), leaf.dtype)
                _fit_shape(array, (rows, *leaf.shape))
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
            raise WrongAnswer(f"the answer to {op} lacks the map {key!r} (it has {_words(answer)})")
        return answer[key]

    def read(what: str, wire: Any, dtype: str | None, shape: tuple[int | None, ...] | None) -> np.ndarray:
        try:
            array = unpack(wire, dtype)
            if shape is not None and rows == array.size == 0:  # [] says nothing of the other axes
                array = array.reshape([n or 0 for n in shape])
            _fit_shape(array, (rows, *array.shape[1:]) if shape is None else shape)
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
            raise WrongAnswer(f"the answer to {op} lacks the output {name!r} (it has {_words(outputs)})")
    fields = {}
    if spec.state == "fields":
        state = within("state")
        for name, leaf in spec.fields.items():
            if state.get(name) is None:
                raise WrongAnswer(f"the answer to {op} lacks the state field {name!r} (it has {_words(state)})")
            fields[name] = read(f"the state field {name!r}", state[name], leaf.dtype, (rows, *leaf.shape))
    if spec.draws == "tape" and answer.get("draws") is None:
        raise WrongAnswer(f"the answer to {op} lacks 'draws', which hello promised (it has {_words(answer)})")
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
        raise OpenError(f"{name}: the options are 'timeout' and 'cwd', found {_words(sorted(unknown))}")
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
