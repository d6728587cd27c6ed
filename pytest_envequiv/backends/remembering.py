"""A reference that remembers its answers: to other targets in the same process, or from one run to the next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv import contents, whole
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import Arrays, Backend, Outcome, State, Tape
from pytest_envequiv.errors import OpenError

MOST = 1 << 30  # bytes of answers that are kept in a process
MOST_SAVED = 1 << 28  # and in a file
OURS = ("numpy", "pytest-envequiv")  # by which it was asked

Answers = dict[bytes, Outcome]


class Remembering:
    """A backend whose state is in its fields, answering from memory what it was asked before.

    What is hidden (the lane an episode was continued in) is not kept: it is only a fast path, and remembered answers
    must not depend on who asked before.

    known   answers of an earlier run; what is asked now is then asked as often as it comes, so that a reference that
            does not repeat itself is seen. None: what was asked once is answered from memory from then on
    """

    def __init__(self, backend: Backend, known: Answers | None = None, most: int = MOST):
        if backend.spec.state != "fields":
            raise ValueError("only a backend whose states are fields can be remembered")
        self.backend, self.spec = backend, backend.spec
        self.asked: Answers = {}
        self._known = self.asked if known is None else known
        self._most, self._size = most, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._answer(_question("reset", {"seeds": seeds}, tape), lambda: self.backend.reset(seeds, tape))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        question = _question("step", {**state.fields, **action, " seeds": seeds}, tape)
        return self._answer(question, lambda: self.backend.step(state, action, seeds, tape))

    def close(self) -> None:
        """Kept open for the next target; whoever made the backend closes it."""

    def _answer(self, question: bytes, ask: Callable[[], Outcome]) -> Outcome:
        if question in self._known:
            self.asked[question] = self._known[question]
            return self._known[question]
        outcome = ask()
        if question not in self.asked and self._size < self._most:
            self._size += _size(outcome)
            self.asked[question] = Outcome(State(outcome.state.fields), outcome.outputs, outcome.draws)
        return outcome


class Noted(Remembering):
    """The same with a file: what it holds is known, and what this run asks is added to it by ``close``."""

    def __init__(self, backend: Backend, path: Path):
        self.path, self._read = path, _state_of(path)
        super().__init__(backend, _loaded(path), MOST_SAVED)

    def close(self) -> None:
        self.backend.close()
        if not self.asked.keys() - self._known.keys():
            return
        # What a run beside this one has written meanwhile (pytest -n) is not lost.
        meanwhile = _loaded(self.path) if _state_of(self.path) != self._read else {}
        both = {**meanwhile, **self._known, **self.asked}
        fit = sum(map(_size, both.values())) <= MOST_SAVED
        with contextlib.suppress(OSError):  # a full disk costs the next run its head start, and this one nothing
            _save(both if fit else self.asked, self.path)


def remembering(name: str, options: Mapping[str, Any], folder: str | None = None) -> Backend:
    """A reference that is opened to be asked by many targets, where its state allows that. ``folder``: as ``noted`` has
    it."""
    backend = open_backend(name, dict(options))
    if folder:
        backend = noted(backend, folder, name, options)
    return Remembering(backend) if backend.spec.state == "fields" else backend


def noted(backend: Backend, folder: str, name: str, options: Mapping[str, Any]) -> Backend:
    """The backend of a reference with the answers that lie in a folder, if its answers are worth keeping: its state is
    in fields, and it is not compiled. They are bound to what the reference is made of."""
    if backend.spec.state != "fields" or backend.spec.traceable:
        return backend
    try:
        libraries = contents.versions([name], sys.modules)
        made_of = [contents.package_hash(name), libraries, {d: contents.version(d) for d in OURS}, name, dict(options)]
    except (OpenError, OSError):
        return backend
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:32]
    return Noted(backend, Path(folder) / f"{key}.answers")


def _size(outcome: Outcome) -> int:
    arrays = [*outcome.state.fields.values(), *outcome.outputs.values()]
    arrays += [a for draw in outcome.draws or () for a in (draw.low, draw.high, draw.value, draw.present)]
    return sum(np.asarray(a).nbytes for a in arrays)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """By which a file is known to be the one that was read; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _loaded(path: Path) -> Answers:
    """Nothing where there is no file, or one that was cut, or another user's: what is unpickled may run anything."""
    try:
        with path.open("rb") as file:
            ours = not hasattr(os, "getuid") or os.fstat(file.fileno()).st_uid == os.getuid()
            known = pickle.load(file) if ours else {}
    except Exception:  # pickle raises whatever it stumbles over
        return {}
    return known if isinstance(known, dict) else {}


def _save(answers: Answers, path: Path) -> None:
    """Written whole or not at all, and to be read by nobody else. Raises OSError."""
    with whole.writing(path, private=True) as file:
        pickle.dump(answers, file, protocol=pickle.HIGHEST_PROTOCOL)


def _question(what: str, arrays: Mapping[str, np.ndarray], tape: Tape | None) -> bytes:
    digest = hashlib.blake2b(what.encode(), digest_size=16)
    for name, value in arrays.items():
        value = np.ascontiguousarray(value)
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    for draw in tape or ():
        digest.update(f"{draw.kind} {draw.shape} {draw.site}".encode())
        for value in (draw.value, draw.present):
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()
