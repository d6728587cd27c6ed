"""The target, which may have been written by someone who wants it to pass: how it is opened and kept apart.

It is opened in this process or, on request, in one of its own; what runs meanwhile, and what it takes from outside, is
noted; and arrays of a backend that is not one of ours are copied on the way in and out.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from pytest_envequiv import contents
from pytest_envequiv.backends.isolated import Begun, IsolatedBackend
from pytest_envequiv.backends.lanes import Face, random_action
from pytest_envequiv.backends.objects import ObjectBackend
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import (
    DONE,
    MASK,
    TERMINATED,
    TRUNCATED,
    Arrays,
    Backend,
    Outcome,
    Spec,
    State,
    Tape,
)
from pytest_envequiv.backends.watching import PACKAGE, Outside, Ran, Watch, listening, owned, watching
from pytest_envequiv.errors import OpenError
from pytest_envequiv.verdict import Settings
from pytest_envequiv.whitebox.jaxprs import walk

PART = 0.9  # of the time a check may be silent: for an isolated answer, so that it is the target that is blamed
LARGEST_SEED = 2**31
EAGER, LARGE = 4, 1_000  # rows; operations of a step up to which that many are taken


@dataclass
class Suspect:
    """The target and what is known of its making.

    thing     what was given instead of a name, or None
    own       the user's own file that the name, or the thing, is from; None for what is installed
    opening   functions that ran while it was opened (only of what is the user's own and has a name)
    outside   what it took from outside in this process
    begun     the same target in a process in which nothing shows that it is judged, if that was begun
    """

    settings: Settings
    thing: Any
    options: Mapping[str, Any]
    like: Spec | None
    own: Path | None
    backend: Backend
    opening: Ran
    outside: Outside
    begun: Begun | None = None

    @property
    def isolated(self) -> IsolatedBackend | None:
        return self.backend if isinstance(self.backend, IsolatedBackend) else None

    @property
    def heard(self) -> Outside | None:
        """Where to write down what it takes from outside; None if it is not in this process."""
        return None if self.isolated or self.backend.spec.kind == "process" else self.outside

    @property
    def named(self) -> bool:
        """Whether it is the user's own code, opened by a name that opens it elsewhere, too."""
        return self.thing is None and self.own is not None

    @property
    def foreign(self) -> bool:
        """Whether it is a backend of another kind than ours: it has to know us."""
        return self.isolated.foreign if self.isolated else isinstance(self.backend, Walled)

    def taken(self) -> Outside:
        """What it took from outside so far; files that are not its own only."""
        found = self.outside if self.isolated is None else self.isolated.outside()
        known = {str(path) for path in own_paths(self.settings.target)} if self.named else set()
        files = {file for file in owned(found.files) if str(Path(file).resolve()) not in known}
        return Outside(frozenset(), files, found.programs, found.network)

    def begin_elsewhere(self) -> None:
        """Have a process begin to open it, which takes seconds and is not waited for."""
        if self.begun is None:
            self.begun = Begun(**_apart(self.settings, self.options, self.like), disguised=True)

    def elsewhere(self) -> IsolatedBackend:
        """The same target in a process in which nothing shows that it is judged. Raises OpenError, or Gone."""
        self.begin_elsewhere()
        begun, self.begun = self.begun, None
        assert begun is not None
        return begun.opened()

    def close(self) -> None:
        """End what was begun and never asked for."""
        if self.begun is not None:
            self.begun.close()


def open_suspect(settings: Settings, thing: Any, options: Mapping[str, Any], like: Spec) -> Suspect:
    """Open the target. Raises OpenError."""
    own = own_file(settings.target, thing)
    watched = thing is None and own is not None
    outside, watch = Outside(), Watch()
    backend: Any
    if settings.isolate:
        if thing is not None:
            raise OpenError(f"{settings.target}: only what has a name can be opened in a process of its own")
        backend = Begun(**_apart(settings, options, like), watch=watched).opened()
        return Suspect(settings, thing, options, like, own, backend, backend.opening, outside)
    if watched:
        preload(settings.target)
    with listening(outside), watching() if watched else nullcontext(watch) as watch:
        backend = open_backend(settings.target if thing is None else thing, dict(options), like)
    return Suspect(settings, thing, options, like, own, walled(backend), watch.ran, outside)


def _apart(settings: Settings, options: Mapping[str, Any], like: Spec | None) -> dict[str, Any]:
    """What a process of its own is told."""
    limits = {"timeout": PART * settings.timeout, "memory": settings.memory}
    return {"name": settings.target, "options": options, "like": like, **limits}


def preload(name: str) -> None:
    """Imports what the user's own files behind a name need of the installed: to look at each function that these
    libraries call while they are imported would take longer than all else, and is not what is asked."""
    try:
        modules = contents.needed(name)
    except (OSError, OpenError):
        return
    for module in modules:
        try:
            importlib.import_module(module)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException:  # SystemExit and pytest's Skipped too: the target meets it itself, and is told so
            continue


def own_file(name: str, thing: Any) -> Path | None:
    """The user's own file that a name begins with, or that a thing was made in; None for what is installed, for
    programs (``process:``), and where it is not known."""
    if thing is None:
        if name.startswith("process:"):
            return None
        found = [contents.find(module) for module in contents.parts(name)[0]]
        files = [module.file for module in found if module and module.file and not module.installed]
        return files[-1].resolve() if files else None
    kind = thing if isinstance(thing, (type, ModuleType, FunctionType)) else type(thing)
    try:
        path = Path(inspect.getfile(kind)).resolve()
    except (TypeError, OSError):
        return None
    return None if contents.installed(path) or str(path).startswith(PACKAGE) else path


def own_paths(name: str) -> list[Path]:
    """The files of the user's own code behind a name: source and data, and files that the source names in quotes (as
    found from its folder, or from here). None of an installed library. Raises OpenError."""
    found = contents.own(name)
    named = {file for path in found if path.suffix == ".py" for file in _named_in(path)}
    return sorted({path.resolve() for path in found | named})


def _named_in(source: Path) -> Iterator[Path]:
    """Files that exist, named by a text in a source file."""
    try:
        nodes = list(ast.walk(ast.parse(source.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if text.isprintable() and 0 < len(text) <= 255 and text.strip("./") and " " not in text:
            near = (source.parent / text, Path(text))
            yield from (path for path in near if path.is_file() and not contents.installed(path.resolve()))


def effective_seed(settings: Settings, thing: Any) -> int:
    """The seed of the questions: of a target with files of its own, mixed with what is in them.

    So nobody can put answers to the questions into a target: that would change the questions. What is installed, or
    is handed over from Python, is asked what the seed alone says; and all are where the reference's answers are kept
    for a later run, which is to ask the same.
    """
    try:
        paths = [] if thing is not None or settings.answers else own_paths(settings.target)
        digests = sorted(contents.of_file(path) for path in paths)
    except (OSError, OpenError):
        digests = []
    if not digests:
        return settings.seed
    digest = hashlib.sha256("\n".join([str(settings.seed), *digests]).encode()).digest()
    return int.from_bytes(digest[:8], "big") % LARGEST_SEED


# -- arrays ----------------------------------------------------------------------------------------------------------


class Walled:
    """A backend that is not one of ours: what goes in and what comes out are copies, plain numpy arrays of numbers.

    faults   what it did to arrays, one line each, by kind: "inputs" (changed in place), "views" (an output shares
             memory with an input), "reused" (what was returned earlier was changed by a later call)
    """

    def __init__(self, backend: Any):
        self._backend = backend
        self.spec: Spec = backend.spec
        self.faults: dict[str, str] = {}
        self._last: list[tuple[str, np.ndarray, np.ndarray]] = []  # name, as it was returned, as it was then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._kept(self._backend.reset(seeds.copy(), tape), {})

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        fields, chosen = ({k: v.copy() for k, v in arrays.items()} for arrays in (state.fields, action))
        outcome = self._backend.step(State(fields, state.hidden), chosen, seeds.copy(), tape)
        for before, now in ((state.fields, fields), (action, chosen)):
            for name, value in before.items():
                if "inputs" not in self.faults and not _same(value, now[name]):
                    self.faults["inputs"] = f"changes its input {name} in place"
        return self._kept(outcome, {**fields, **chosen})

    def close(self) -> None:
        self._backend.close()

    def _kept(self, outcome: Outcome, inputs: Arrays) -> Outcome:
        for name, array, then in self._last:
            if "reused" not in self.faults and not _same(array, then):
                self.faults["reused"] = f"changes the {name} it returned earlier in a later call"
        state, outputs = ({k: _numbers(k, v) for k, v in arrays.items()} for arrays in _raw(outcome))
        self._last = []
        for arrays, copies in zip(_raw(outcome), (state, outputs), strict=True):
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    continue
                self._last.append((name, array, copies[name]))
                for given, value in inputs.items():
                    if "views" not in self.faults and array.size and np.shares_memory(array, value):
                        self.faults["views"] = f"returns a {name} that is a view of its input {given}"
        return Outcome(State(state, outcome.state.hidden), outputs, outcome.draws)


def walled(backend: Any) -> Any:
    """The backend, behind a wall if it is not one of ours."""
    return backend if type(backend).__module__.partition(".")[0] == __name__.partition(".")[0] else Walled(backend)


def faults(backend: Any, changed: bool = False) -> dict[str, str]:
    """What a backend does to arrays that it has returned or, if ``changed``, was given: one line each, by kind."""
    if isinstance(backend, IsolatedBackend):
        return backend.faults(changed)
    if isinstance(backend, Walled):
        return {kind: text for kind, text in backend.faults.items() if (kind == "inputs") == changed}
    found = reused(backend.face) if isinstance(backend, ObjectBackend) and not changed else None
    return {} if found is None else {"reused": found}


def _raw(outcome: Outcome) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return outcome.state.fields, outcome.outputs


def _numbers(name: str, value: Any) -> np.ndarray:
    """A copy as a plain array. Raises TypeError for what is not numbers: it would be compared by its own rules."""
    array = np.array(value, subok=False)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"its {name} is not numbers but {array.dtype}")
    return array


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    first, second = (np.array(x, subok=False) for x in (a, b))
    return first.shape == second.shape and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def reused(face: Face) -> str | None:
    """What an environment object does to arrays it returned earlier: changes them in its next steps. Or None."""
    environment = face.make()
    rng = np.random.default_rng(0)
    mask = face.reset(environment, 0).get(MASK)
    step = face.stepper(environment)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(4):
        returned = step(random_action(face.action, rng, mask))
        if any(not _same(array, then) for array, then in kept):
            return "changes an array it returned earlier in a later step"
        kept += [(array, array.copy()) for array in _arrays(returned)]
        now = face.outputs([returned])
        if any(np.any(now[end][0]) for end in (TERMINATED, TRUNCATED, DONE) if end in now):
            break
        mask = now[MASK][0] if MASK in now else None
    return None


def _arrays(value: Any) -> list[np.ndarray]:
    """The numpy arrays in what a step returns."""
    if isinstance(value, np.ndarray):
        return [value] if value.dtype.kind in "biuf" else []
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [array for part in parts for array in _arrays(part)]


def eager_rows(backend: Any) -> int:
    """How many rows of a JAX program are stepped operation by operation: few, and only one of a large program, whose
    every operation is compiled and started by itself (HalfCheetah's take 15 seconds a row)."""
    try:
        operations = sum(1 for _ in walk(backend.traced("step").closed))
    except Exception:  # of another process, or it cannot be traced
        return EAGER
    return min(EAGER, max(1, EAGER * LARGE // max(1, operations)))


def calls_back(backend: Any) -> bool:
    """Whether a step of a JAX program calls back into Python, as far as can be seen (if not, it may)."""
    if not hasattr(backend, "traced"):
        return bool(getattr(backend, "calling", True))
    try:
        return any("callback" in equation.primitive.name for equation in walk(backend.traced("step").closed))
    except Exception:  # what cannot be traced is looked at longer
        return True
