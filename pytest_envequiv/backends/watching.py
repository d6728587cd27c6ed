"""Whose code runs: the functions that are executed while a side is asked, and what it takes from outside.

Functions are seen by Python's profile hook, in this thread and in those that are started meanwhile; files that are
read, programs that are started and connections that are made, by its audit hook. Neither changes what the code does,
except that a side may not kill other processes.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = str(Path(__file__).parent.parent) + os.sep
STDLIB = sysconfig.get_path("stdlib") + os.sep
INSTALLED = ("/site-packages/", "/dist-packages/")
IMPORTING = "<frozen importlib"
FUNCTION = 0x1  # flag of a code object (CO_OPTIMIZED) that the bodies of modules and classes do not have

# Packages any two programs may use.
GENERAL = frozenset(
    {
        "numpy", "scipy", "jax", "jaxlib", "ml_dtypes", "opt_einsum", "flax", "chex", "equinox", "distrax", "haiku",
        "optax", "orbax", "absl", "attr", "attrs", "typing_extensions", "torch", "tensorflow", "numba", "cloudpickle",
        "msgpack", "hypothesis", "pytest", "_pytest", "pluggy", "pygame", "mujoco", "dm_env", "jaxtyping", "beartype",
        "toolz", "six", "rustworkx", "_distutils_hack", "setuptools", "pkg_resources",
    }
)  # fmt: skip
# What environment libraries have for all their environments: base classes, wrappers, spaces, registries.
SHARED = (
    "gymnasium.core", "gymnasium.spaces", "gymnasium.wrappers", "gymnasium.utils", "gymnasium.vector",
    "gymnasium.logger", "gymnasium.error", "gymnasium.envs.registration", "gymnasium.envs.functional_jax_env",
    "gymnasium.experimental", "gymnax.environments.environment", "gymnax.environments.spaces", "gymnax.wrappers",
    "gymnax.registration", "pgx.core", "pgx._src.struct", "pgx._src.types", "pgx._src.utils", "pgx._src.cards",
    "pettingzoo.utils", "brax.base", "brax.envs.base", "brax.envs.wrappers", "jumanji.env", "jumanji.specs",
    "jumanji.types", "jumanji.wrappers", "jumanji.registration", "dm_control.rl",
)  # fmt: skip

Place = tuple[str, str]  # (file, qualified name of a function)


@dataclass(frozen=True)
class Ran:
    """Functions that were executed, those of general libraries left out.

    entered  called by us or by a general library: where an environment's own code begins
    called   called by such code
    """

    entered: frozenset[Place] = frozenset()
    called: frozenset[Place] = frozenset()

    @property
    def everything(self) -> frozenset[Place]:
        return self.entered | self.called

    def __or__(self, other: Ran) -> Ran:
        return Ran(self.entered | other.entered, self.called | other.called)


@dataclass
class Watch:
    """What was seen so far. ``disturbed``: the hook was taken away while it should have looked."""

    pairs: dict[tuple[int, int], tuple[CodeType, CodeType | None]] = field(default_factory=dict)
    disturbed: bool = False

    @property
    def ran(self) -> Ran:
        entered: set[Place] = set()
        called: set[Place] = set()
        for code, caller in self.pairs.values():
            if code.co_flags & FUNCTION and not is_general(code.co_filename):
                outside = caller is None or is_general(caller.co_filename)
                (entered if outside else called).add((code.co_filename, code.co_qualname))
        return Ran(frozenset(entered), frozenset(called))


_watches: list[Watch] = []  # those that look now; threads keep the hook, and report to whoever looks


def _note(frame: FrameType, event: str, _: Any) -> None:
    if event == "call" and _watches:
        back = frame.f_back
        code, caller = frame.f_code, None if back is None else back.f_code
        _watches[-1].pairs[id(code), id(caller)] = (code, caller)


@contextmanager
def watching() -> Iterator[Watch]:
    """Notes every function that is called inside the block."""
    watch, before = Watch(), sys.getprofile()
    _watches.append(watch)
    threading.setprofile(_note)
    sys.setprofile(_note)
    try:
        yield watch
    finally:
        watch.disturbed = sys.getprofile() is not _note
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
        _watches.pop()


@functools.cache
def is_general(file: str) -> bool:
    """Whether code in a file may be run by any environment: ours, Python's, a general library's."""
    if file.startswith(("<", PACKAGE)):
        return True
    inner = installed(file)
    if not inner:
        return file.startswith(STDLIB)
    module = inner.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return module.split(".")[0] in GENERAL or any(f"{module}.".startswith(f"{name}.") for name in SHARED)


def installed(file: str) -> str:
    """The path of an installed file below the folder of packages, or ""."""
    return next((file.rpartition(mark)[2] for mark in INSTALLED if mark in file), "")


def own_files(reference: Ran) -> frozenset[str]:
    """The files that are the reference itself: where its code begins and, if it is installed, the rest of the same
    folder. What it merely uses may be used by others."""
    begun = {file for file, _ in reference.entered}
    folders = {os.path.dirname(file) for file in begun if installed(file)}
    return frozenset(begun | {file for file, _ in reference.called if os.path.dirname(file) in folders})


def borrowed(reference: Ran, target: Ran, own: str | None) -> list[Place]:
    """What the target runs of the reference's own code, sorted. ``own``: the file the target is known to be in; if
    both are in one file, only the very functions count in which the reference's code begins."""
    files = own_files(reference) - {own}
    return sorted(
        place for place in target.everything if place[0] in files or (place[0] == own and place in reference.entered)
    )


# -- what is taken from outside --------------------------------------------------------------------------------------

SYSTEM = ("/proc/", "/sys/", "/dev/", "/usr/", "/etc/", "/lib/", "/lib64/")
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"}
NETWORK = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"}
FATAL = {"os.kill", "os.killpg"}
HEARD = {"open"} | PROGRAMS | NETWORK | FATAL


def _loaded() -> frozenset[str]:
    """The files of all modules that are loaded by now; they are read again to show a line of them."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return frozenset(os.path.abspath(file) for file in files if isinstance(file, str))


@dataclass
class Outside:
    """What code took from outside the process: files it read, programs it started, connections it made.

    known   files of modules that were loaded before: not counted
    """

    known: frozenset[str] = field(default_factory=_loaded)
    files: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)
    network: set[str] = field(default_factory=set)


class NotAllowed(Exception):
    """A side tried to end another process."""


_listening: list[Outside] = []
_hooked: list[bool] = []


@contextmanager
def listening(outside: Outside) -> Iterator[None]:
    """Adds what is taken from outside inside the block."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_heard)  # it cannot be taken away again
    _listening.append(outside)
    try:
        yield
    finally:
        _listening.pop()


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listening or event not in HEARD or not _by_others():
        return
    outside = _listening[-1]
    if event == "open":
        path, mode, flags = arguments
        reading = not (flags or 0) & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC) and not set(mode or "r") & set("wax")
        file = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if reading and file and file not in outside.known:
            outside.files.add(file)
    elif event in PROGRAMS:
        outside.programs.add(" ".join(map(_word, arguments[:1])) or event)
    elif event in NETWORK:
        outside.network.add(" ".join(map(_word, arguments[-1:])) or event)
    elif arguments[0] not in (os.getpid(), 0):
        raise NotAllowed(f"it tried to send signal {arguments[1]} to process {arguments[0]} ({event})")


def _by_others() -> bool:
    """Whether code that is neither ours nor general is what led here; not by importing a library that did."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((PACKAGE, IMPORTING)):
            return False
        if not is_general(file):
            return True
        frame = frame.f_back
    return False


def _word(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes)) else " ".join(map(str, value)) if value else ""


def owned(files: Iterable[str]) -> list[str]:
    """The files among those read that belong to nobody else: not installed, not Python's, no device, no cache."""
    jax = sys.modules.get("jax")
    cache = getattr(getattr(jax, "config", None), "jax_compilation_cache_dir", None)
    others = (PACKAGE, STDLIB, *SYSTEM, *([os.path.abspath(cache) + os.sep] if cache else []))
    return sorted(
        {
            _source(file)
            for file in files
            if not file.startswith(others) and not installed(file) and not _hidden(os.path.dirname(file))
            if os.path.isfile(_source(file))
        }
    )


def _source(file: str) -> str:
    """x.py for __pycache__/x.cpython-311.pyc: what is compiled depends on when."""
    folder, name = os.path.split(file)
    if os.path.basename(folder) != "__pycache__":
        return file
    return os.path.join(os.path.dirname(folder), f"{name.split('.')[0]}.py")


def _hidden(folder: str) -> bool:
    """Whether a folder is a program's own business: caches and settings under names with a dot, packages' metadata."""
    return any(part.startswith(".") or part.endswith((".egg-info", ".dist-info")) for part in folder.split(os.sep))
