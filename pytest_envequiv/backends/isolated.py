"""A side in a process of its own, by its name: only arrays come back from it. ``cell.py`` is the other end.

It has a time limit for each answer, a memory limit, no network where Linux allows to go without, and of the
environment variables only those that programs need to run. In disguise, nothing in it is called as we are: a side that
looks whether it is watched finds an unknown package with other batch sizes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pytest_envequiv.backends.process import ProcessBackend, ProgramError, answered, read_outcome
from pytest_envequiv.backends.protocol import Arrays, Outcome, Spec, State
from pytest_envequiv.backends.watching import Outside, Ran
from pytest_envequiv.backends.wire import VERSION, spec_from_wire, spec_to_wire
from pytest_envequiv.errors import Gone, Limitation, OpenError
from pytest_envequiv.peer import Peer, PeerError, PeerSilent

PACKAGE = Path(__file__).parent.parent
MEMORY = 8.0  # GiB
SIZES = (96, 96)  # rows per compiled call, in disguise: others than usual
# Environment variables that programs need to run. The rest may hold secrets, or tell that this is a test.
KEPT = re.compile(
    r"(PATH|HOME|LANG|LANGUAGE|TZ|TMPDIR|LD_LIBRARY_PATH|CUDA_\w+|NVIDIA_\w+|LC_\w+|XLA_\w+|JAX_(?!COMPILATION)\w+"
    r"|OMP_\w+|OPENBLAS_\w+|MKL_\w+|SDL_\w+|MUJOCO_\w+|PYOPENGL_\w+|PYTHONDONTWRITEBYTECODE)"
)
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop())
from {package}.backends.cell import main
main()
"""


class IsolatedBackend(ProcessBackend):
    """The far backend, and the ways to look at it. Raises Gone where that process dies or falls silent.

    free, compiled    as of the far backend; ``ways``: the names of its other ways to step
    opening           the functions that ran while it was opened
    """

    def __init__(self, peer: Peer, spec: Spec, timeout: float, told: Mapping[str, Any], room: Any):
        super().__init__(peer, spec, timeout, lists=False)
        self.free: Mapping[str, int] = told["free"]
        self.compiled: bool = told["compiled"]
        self.foreign: bool = told["foreign"]  # it is not one of our kinds of backends
        self.ways: tuple[str, ...] = tuple(told["more"])
        self.opening = ran_from_wire(told["opening"])
        self.calling: bool = told["calling"]  # its program calls back into Python
        self.labels = {"step": () if told["sure"] else ("unknown",)}
        self.functional = SimpleNamespace(auto="auto" in self.ways)
        self.disturbed = False
        self._room = room  # the folder of a disguise, kept for as long as it is used
        self._watched: list[Ran] | None = None
        self._end: Gone | None = None  # how that process ended
        if "eager" in self.ways:
            self.step_as = self._step_as

    # -- other ways to step --------------------------------------------------------------------------------------

    def auto_step(self, state: State, action: Arrays, seeds: np.ndarray) -> Outcome:
        return self._stepped("auto", state, action, seeds)

    def _step_as(self, how: str, state: State, action: Arrays, seeds: np.ndarray) -> Outcome:
        return self._stepped(how, state, action, seeds)

    def reset_eagerly(self, seeds: np.ndarray) -> Outcome:
        count = len(seeds)
        none = {name: np.zeros((count, *leaf.shape), leaf.dtype) for name, leaf in self.spec.fields.items()}
        action = {name: np.zeros((count, *s.shape), s.dtype) for name, s in self.spec.action.items()}
        return self._stepped("begin", State(none), action, seeds)

    def _stepped(self, how: str, state: State, action: Arrays, seeds: np.ndarray) -> Outcome:
        rows = len(seeds)
        inputs = {
            "state": self._outgoing("state field", state.fields, self.spec.fields, rows),
            "action": self._outgoing("action", action, self.spec.action, rows),
        }
        answer = self._exchange({"op": how, **inputs, "seeds": self._encode(np.asarray(seeds, np.int64))})
        return read_outcome(how, answer, dataclasses.replace(self.spec, draws="seed"), rows, None)

    # -- looking at it -------------------------------------------------------------------------------------------

    def watch(self, on: bool) -> Ran:
        """From now on note which functions run, or stop; what was noted so far."""
        noted, self._watched = self._watched or [], [] if on else None
        found = Ran()
        for ran in noted:
            found |= ran
        return found

    def outside(self) -> Outside:
        """What it took from outside so far."""
        answer = self._exchange({"op": "outside"})
        return Outside(frozenset(), set(answer["files"]), set(answer["programs"]), set(answer["network"]))

    def faults(self, changed: bool) -> dict[str, str]:
        """What it does to arrays, by kind; see ``suspect.faults``."""
        return dict(self._exchange({"op": "faults", "changed": changed})["faults"])

    def replaced(self) -> str | None:
        """The first function of those we rely on that it replaced in its process, or None."""
        name = self._exchange({"op": "outside"})["replaced"]
        return None if name is None else str(name)

    # -- inside --------------------------------------------------------------------------------------------------

    def _exchange(self, request: dict[str, Any]) -> Mapping[str, Any]:
        watched = {} if self._watched is None else {"watch": True}
        if self._end is not None:
            raise self._end
        try:
            answer = super()._exchange({**request, **watched})
        except PeerError as error:
            self._end = gone(request["op"], error)
            raise self._end from None
        if self._watched is not None and "ran" in answer:
            self._watched.append(ran_from_wire(answer["ran"]))
            self.disturbed = self.disturbed or bool(answer["disturbed"])
        return answer


def gone(where: str, error: PeerError) -> Gone:
    """The end of a process, with its last words behind."""
    what, *words = re.split(r"(?=; its last words: )", str(error), maxsplit=1)
    silent = isinstance(error, PeerSilent)
    return Gone("".join([where, *words]), f"gave {what}" if silent else what, silent)


def ran_from_wire(wire: Mapping[str, Any]) -> Ran:
    return Ran(*(frozenset((str(file), str(name)) for file, name in wire[key]) for key in ("entered", "called")))


def environment() -> dict[str, str]:
    """The variables of this process that a side gets to see."""
    return {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}


def disguise(folder: str) -> str:
    """Copy this package into ``folder`` under a name that nobody knows; the name."""
    name = f"m{secrets.token_hex(6)}"
    for path in PACKAGE.rglob("*.py"):
        copy = Path(folder) / name / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8").replace(PACKAGE.name, name), encoding="utf-8")
    return name


def _argv(room: tempfile.TemporaryDirectory[str] | None) -> list[str]:
    """The command that starts ``cell.main``: of this package, or of a copy of it in ``room``, in disguise."""
    package = PACKAGE.name if room is None else disguise(room.name)
    search = [*([] if room is None else [room.name]), *(folder or os.getcwd() for folder in sys.path)]
    if room is None and str(PACKAGE.parent) not in search:
        search.append(str(PACKAGE.parent))
    return [sys.executable, "-P", "-c", BOOT.format(package=package), json.dumps(search)]


class Begun:
    """A process that was started and asked to open ``name`` as ``opening.open_backend`` does; it works meanwhile.

    ``timeout``: seconds for one answer, and for opening once it is waited for; ``memory``: GiB that it may allocate;
    ``watch``: note the functions that run while it is opened. Raises nothing: ``opened`` does.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        like: Spec | None,
        *,
        timeout: float,
        memory: float = MEMORY,
        watch: bool = False,
        disguised: bool = False,
    ):
        self._name, self._timeout = name, timeout
        self._room: tempfile.TemporaryDirectory[str] | None = None
        self._peer: Peer | None = None
        self._failed: Exception | None = None
        hello = {
            "op": "hello",
            "version": VERSION,
            "name": name,
            "options": dict(options),
            "like": None if like is None else spec_to_wire(like),
            "memory": memory,
            "watch": watch,
            "disguised": disguised,
            "sizes": list(SIZES) if disguised else None,
        }
        try:
            self._room = tempfile.TemporaryDirectory() if disguised else None
            self._peer = Peer(_argv(self._room), env=environment(), own_session=True)
        except (PeerError, OSError) as error:  # a full disk, say: nothing is known of the target
            self._failed = Limitation(f"{name}: no process of its own could be begun: {error}")
            return
        try:
            self._peer.send(hello, timeout)
        except PeerError as error:
            self._failed = error

    def opened(self) -> IsolatedBackend:
        """The backend, once it is open; to be called once.

        Raises OpenError, in one line, Gone, or Limitation where no process could be begun.
        """
        try:
            if self._failed is not None:
                raise self._failed
            assert self._peer is not None
            told = answered(self._peer, "hello", self._timeout)
            spec = dataclasses.replace(spec_from_wire(told), kind=told["kind"])
        except BaseException as error:
            self.close()
            if isinstance(error, ProgramError):
                raise OpenError(str(error)) from error
            if isinstance(error, PeerError):
                raise gone(f"opening {self._name}", error) from error
            if isinstance(error, (ValueError, TypeError, KeyError)):
                raise OpenError(f"{self._name}: in a process of its own: {error}") from error
            raise
        notes = [*spec.notes, *(["its network could not be cut off here"] if told["network"] else [])]
        spec = dataclasses.replace(spec, notes=tuple(notes))
        return IsolatedBackend(self._peer, spec, self._timeout, told, self._room)

    def close(self) -> None:
        """End what is not wanted any more."""
        if self._peer is not None:
            self._peer.kill()
