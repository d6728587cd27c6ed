"""A target as if one of its files had been edited: the module is imported anew from another text, nothing is written.

Only the modules that can hold old code are imported anew: the edited one and those of its package that refer to it,
however indirectly. JAX and the rest of the process stay as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import jax

from pytest_envequiv.backends.functional import JaxBackend
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import Backend, Spec
from pytest_envequiv.errors import OpenError
from pytest_envequiv.whitebox.jaxprs import site, walk


@contextmanager
def loaded(
    name: str, options: dict[str, Any] | None, file: str, source: str, like: Spec | None = None
) -> Iterator[Backend]:
    """The backend of ``name`` in which the module of ``file`` was imported from ``source``. ``like``: the reference's
    spec, which says what the target does not.

    Inside the block the edited modules are the ones in ``sys.modules`` (what is traced late may still import);
    afterwards the original ones are, whatever happened. Raises what importing and opening raise; OpenError if the
    target does not use the file. A target that hangs or prints does so here: isolate it in a process of its own.
    """
    edited = module_of(file)
    if edited is None:  # not imported yet: the original has to be there first, to be put back
        open_backend(name, options, like)
        edited = module_of(file)
    if edited is None:
        raise OpenError(f"{name}: does not use {os.path.basename(file)}")
    packages = {module.split(".")[0] for module in (edited.__name__, name_of_module(name) or edited.__name__)}
    before = {key: module for key, module in list(sys.modules.items()) if key.split(".")[0] in packages}
    stale = _holders(edited, before)
    path = edited.__file__ or file
    finder = _Finder(stale, edited.__name__, source)
    bound = _bound(stale, before)
    line_cache = linecache.cache.get(path)
    for module in stale:
        del sys.modules[module]
    outer = _edits.get(path)
    sys.meta_path.insert(0, finder)
    _edits[path] = source
    linecache.cache[path] = (len(source), None, source.splitlines(True), path)
    try:
        yield open_backend(name, options, like)
    finally:
        sys.meta_path.remove(finder)
        if outer is None:
            del _edits[path]
        else:
            _edits[path] = outer
        _restore(packages, before, bound)
        del linecache.cache[path]
        if line_cache is not None:
            linecache.cache[path] = line_cache


def sources(
    name: str, options: dict[str, Any] | None = None, shared: bool = False, like: Spec | None = None
) -> list[str]:
    """The files that make up a target: that of its own module, then those of its package in which equations of its
    step, reset or auto-resetting step are written, those with the most equations first.

    ``shared``: also the files of the classes it is derived from. ``like``: the reference's spec, which says what the
    target does not. Of a backend that cannot be traced only the first.
    """
    backend = open_backend(name, options, like)
    module = name_of_module(name)
    if module is None:
        raise OpenError(f"{name}: which module it is in is not known")
    own = os.path.realpath(sys.modules[module].__file__ or "")
    bases = set() if shared else _bases(name) - {own}
    counts = Counter({own: 1 << 60})
    if isinstance(backend, JaxBackend):
        for what in ("step", "reset", *(["auto"] if backend.functional.auto is not None else [])):
            for equation in walk(backend.traced(what).closed):
                place = site(equation)
                if place is not None:
                    counts[os.path.realpath(place.file)] += 1
    files = [file for file, _ in counts.most_common() if file == own or belongs(file, module, own)]
    return [file for file in files if file not in bases]


def reached(
    name: str, options: dict[str, Any] | None = None, like: Spec | None = None
) -> dict[str, frozenset[str]] | None:
    """File -> the functions, by qualified name, that run while a target is opened (``like``: as in ``sources``) and its
    step, reset and auto-resetting step are traced. An edit of any other function changes nothing. None where Python's
    own branches decide what runs (a backend that is not traced)."""
    codes: dict[int, CodeType] = {}  # by identity: the hash of a code object is that of all it contains

    def called(frame: Any, event: str, _: Any) -> None:
        codes[id(frame.f_code)] = frame.f_code

    jax.clear_caches()  # a function that was traced before is not called again
    previous = sys.gettrace()
    sys.settrace(called)
    try:
        backend = open_backend(name, options, like)
        if isinstance(backend, JaxBackend):
            for what in ("step", "reset", *(["auto"] if backend.functional.auto is not None else [])):
                backend.traced(what)
    finally:
        sys.settrace(previous)
    if not isinstance(backend, JaxBackend):
        return None
    found: dict[str, set[str]] = {}
    for code in codes.values():
        found.setdefault(code.co_filename, set()).add(code.co_qualname)
    return {os.path.realpath(file): frozenset(names) for file, names in found.items()}


def name_of_module(name: str) -> str | None:
    """The module a target is written in: of its class, where a library makes it from an id; imports it."""
    thing = _thing(name)
    if thing is None or isinstance(thing, ModuleType):
        return None if thing is None else thing.__name__
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return str(kind.__module__)


# -- inside ----------------------------------------------------------------------------------------------------------


_edits: dict[str, str] = {}  # file -> the text it is imported from, as long as a block lasts: they may be nested


class _Loader(SourceFileLoader):
    """Imports a module from its file, or from another text in its place, under the file's name."""

    def __init__(self, name: str, path: str, text: str | None):
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType | None:
        if self._text is None:
            return super().get_code(fullname)
        return compile(self._text, self.path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str | None:
        return super().get_source(fullname) if self._text is None else self._text

    def exec_module(self, module: ModuleType) -> None:
        # Submodules that stay are not imported again, which is what would make them known to their package.
        for key, value in list(sys.modules.items()):
            parent, _, child = key.rpartition(".")
            if parent == module.__name__ and value is not None:
                setattr(module, child, value)
        super().exec_module(module)


class _Finder:
    """Finds the modules that are imported anew where they were before."""

    def __init__(self, stale: dict[str, ModuleType], edited: str, source: str):
        self._stale, self._edited, self._source = stale, edited, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self._stale:
            return None
        old = self._stale[name]
        file = str(old.__file__)
        places = list(old.__path__) if hasattr(old, "__path__") else None
        text = self._source if name == self._edited else _edits.get(file)
        loader = _Loader(name, file, text)
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=places)


def module_of(file: str) -> ModuleType | None:
    """The module that was imported from a file; None if there is none."""
    path = os.path.realpath(file)
    name = os.sep + os.path.basename(path)
    for module in list(sys.modules.values()):
        found = getattr(module, "__file__", None)
        if not isinstance(found, str) or not (os.sep + found).endswith(name):
            continue
        if os.path.realpath(found) == path and module.__name__ in sys.modules:
            return module
    return None


def _holders(edited: ModuleType, modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """The edited module and the modules that refer to it or to something in it, or to such a module, and so on."""
    written = {k: m for k, m in modules.items() if str(getattr(m, "__file__", None)).endswith(".py")}
    refers = {key: _referred(module) for key, module in written.items()}
    stale = {edited.__name__}
    while True:
        more = {key for key, names in refers.items() if key not in stale and names & stale}
        if not more:
            return {key: written[key] for key in written if key in stale}
        stale |= more


def _referred(module: ModuleType) -> set[str]:
    """The modules in which the values of a module were written, as far as they tell."""
    values = list(vars(module).values())
    for table in [v for v in values if isinstance(v, dict) and len(v) < 1000]:
        values.extend(table.values())
    names = set()
    for value in values:
        with suppress(Exception):  # a value may raise anything when it is asked for what it has not
            names.add(value.__name__ if isinstance(value, ModuleType) else value.__module__)
        if not isinstance(value, (ModuleType, type)):
            names.add(type(value).__module__)
    return {name for name in names if isinstance(name, str)}


Bound = list[tuple[ModuleType, str, Any]]


def _bound(stale: dict[str, ModuleType], modules: dict[str, ModuleType]) -> Bound:
    """What packages that stay call the modules that do not: (package, name, value)."""
    parts = [(key.rpartition(".")[0], key.rpartition(".")[2]) for key in stale]
    kept = [(parent, child) for parent, child in parts if parent in modules and parent not in stale]
    return [(modules[p], child, vars(modules[p])[child]) for p, child in kept if child in vars(modules[p])]


def _restore(packages: set[str], before: dict[str, ModuleType], bound: Bound) -> None:
    for key in [key for key in sys.modules if key.split(".")[0] in packages and key not in before]:
        parent, _, child = key.rpartition(".")
        module = sys.modules.pop(key)
        if parent in before and vars(before[parent]).get(child) is module:
            delattr(before[parent], child)
    sys.modules.update(before)
    for package, child, value in bound:
        setattr(package, child, value)


def _thing(name: str) -> Any:
    """What a name stands for, as far as that tells where it is written."""
    bare = name.partition("?")[0]
    kind, _, rest = bare.partition(":")
    if kind == "gymnax":
        return importlib.import_module("gymnax").make(rest)[0]
    if kind == "pgx":
        return importlib.import_module("pgx").make(rest)
    if kind == "gymnasium":
        return importlib.import_module("gymnasium").make(rest).unwrapped
    try:
        thing = importlib.import_module(kind)
    except ImportError:
        return None
    for attribute in filter(None, rest.split(".")):
        thing = getattr(thing, attribute)
    return thing


def _bases(name: str) -> set[str]:
    """The files of the classes above a target's own."""
    thing = _thing(name)
    kind = thing if isinstance(thing, type) else type(thing)
    files = (getattr(sys.modules.get(c.__module__), "__file__", None) for c in kind.__mro__)
    return {os.path.realpath(file) for file in files if file}


def belongs(file: str, module: str, own: str) -> bool:
    """Whether a file is of the same package as the module, or stands beside a module that is of none."""
    if "." in module:
        root = sys.modules[module.split(".")[0]]
        folders = [os.path.realpath(folder) for folder in getattr(root, "__path__", [])]
        return any(file.startswith(folder + os.sep) for folder in folders)
    return os.path.dirname(file) == os.path.dirname(own)
