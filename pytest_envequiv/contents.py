"""What a side is made of: the files behind a name, found and hashed without running any of them.

    files("my_port.env")         {"my_port/env.py": "5f70...", "my_port/__init__.py": "e3b0...", ...}
    package_hash("my_port.env")  one hash over all of them

Of the user's own code these are the folder of the package that the name is in (source and data), and what its import
statements lead to: of a package its folder, of a module its file, and of both the files that a text in the source
names. An installed package is taken whole, without what it imports. Names are relative to where the import begins, so
the same files give the same hash on every machine. Hidden files, bytecode and virtual environments are no part of it.
What is imported by a name made at run time is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import itertools
import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_envequiv.errors import OpenError

KINDS = ("gymnasium", "gymnax", "pgx", "brax", "pettingzoo")  # the kinds that are called like their library
GROUP = "envequiv.backends"  # entry points: the kinds of other packages
ENVIRONMENTS = "gymnasium.envs"  # entry points: "namespace/Id" of gymnasium is another package's
OURS = "pytest_envequiv"  # known by its version: a port may import it
# Libraries that decide no step: those for pictures, and plumbing.
ASIDE = {"matplotlib", "seaborn", "moviepy", "svgwrite", "pillow"}
ASIDE |= {"cloudpickle", "farama-notifications", "packaging", "setuptools", "typing-extensions"}
LONGEST = 255  # characters of a text that may be the name of a file
BYTECODE = (".pyc", ".pyo")


@dataclass(frozen=True)
class Module:
    """A module that was found. ``file``: None for a folder without __init__ and for what is built in; ``root``: the
    folder its name is relative to."""

    name: str
    file: Path | None
    root: Path
    package: bool

    @property
    def installed(self) -> bool:
        return installed(self.root)


def files(name: str) -> dict[str, str]:
    """Relative name -> sha256 of its bytes, of everything that belongs to a side.

    ``name`` is as on the command line. Of ``process:`` commands these are the command and the files named in it.
    Raises OpenError, in one line, if there is nothing of that name.
    """
    words = parts(name)[2]
    found = {"(command)": _digest("\0".join(words).encode())} if words else {}
    found |= {relative: of_file(path) for relative, path in paths(name).items()}
    if not found:
        raise OpenError(f"{name}: it has no files that could be looked at")
    return dict(sorted(found.items()))


def paths(name: str) -> dict[str, Path]:
    """Relative name -> where it is, of everything that belongs to a side. Raises OpenError as ``files`` does."""
    modules, given, _ = parts(name)
    found = {_portable(path): path for path in given}
    for module, folder in _closure(_located(modules, name)):
        for path in _belonging(module, folder):
            found.setdefault(Path(os.path.relpath(path, module.root)).as_posix(), path)
    return found | {path.name: path for path in _contract_of_lone(modules)}


def own(name: str) -> set[Path]:
    """The files behind a name that are the user's own code and data: none of an installed library.

    Raises OpenError as ``files`` does.
    """
    modules, paths, _ = parts(name)
    own = [(module, folder) for module, folder in _closure(_located(modules, name)) if not module.installed]
    return {*paths, *(path for module, folder in own for path in _belonging(module, folder))}


def needed(name: str) -> list[str]:
    """The installed modules that the user's own files behind a name import when they are imported themselves.

    Raises OpenError as ``files`` does.
    """
    modules, _, _ = parts(name)
    own = [module for module, _ in _closure(_located(modules, name)) if not module.installed]
    names = dict.fromkeys(n for module in own for n in _imports(module, _at_import(module)))
    return [n for n in names if (found := find(n)) and found.installed]


def package_hash(name: str) -> str:
    """One sha256 for all of ``files(name)``. Raises OpenError as they do."""
    return combined(files(name))


def combined(hashes: dict[str, str]) -> str:
    return _digest("".join(f"{relative}\0{digest}\n" for relative, digest in sorted(hashes.items())).encode())


def of_pair(ref: str, target: str) -> dict[str, Any]:
    """{"ref": {"sha256": over all, "files": relative name -> sha256}, "target": likewise}, or {"error": one line}."""
    try:
        found = {"ref": files(ref), "target": files(target)}
    except (OpenError, OSError) as error:
        return {"error": str(error)}
    return {side: {"sha256": combined(hashes), "files": hashes} for side, hashes in found.items()}


def bound(hashed: dict[str, Any], settings: Mapping[str, Any], contract: str, loaded: Iterable[str]) -> dict[str, Any]:
    """What a certificate is bound to: {"ref", "target": sha256, "contract", "libraries"}, or {"error"}.

    ``hashed``: of_pair's, from before anything was imported; ``contract``: its text; ``loaded``: modules that are
    imported by now, to tell the libraries in use from those that a side merely asks for.
    """
    if "error" in hashed:
        return hashed
    # A contract that was not named lies in the target's package: its file is hashed there.
    named = {"path": settings["contract"], "sha256": of_text(contract)} if settings["contract"] else None
    return {
        **{side: hashed[side]["sha256"] for side in ("ref", "target")},
        "contract": named,
        "libraries": versions([settings["ref"], settings["target"]], loaded),
    }


def versions(names: Iterable[str], loaded: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of what sides are and import, and of what of ``loaded``, modules, they ask for.

    Raises OpenError as ``files`` does.
    """
    in_use = {owner for top in {name.partition(".")[0] for name in loaded} for owner in owners_of(top)}
    about = {d for name in names for d in libraries(name, in_use)} - ASIDE
    about |= {"jaxlib"} if "jax" in about else set()
    return {d: v for d in sorted(about) if (v := version(d))}


def of_text(text: str) -> str:
    return _digest(text.encode())


def libraries(name: str, in_use: set[str]) -> set[str]:
    """The distributions a side is or imports, and those of ``in_use`` that an installed side asks for.

    Raises OpenError as ``files`` does.
    """
    modules, _, _ = parts(name)
    found: set[str] = set()
    for module, _ in _closure(_located(modules, name)):
        imported = [module.name] if module.installed else [module.name, *_imports(module)]
        owners = {d for m in imported for d in owners_of(m)}
        found |= owners
        if module.installed:
            asked = [r for distribution in owners for r in metadata.requires(distribution) or ()]
            found |= {_normal(re.split(r"[^\w.-]", r, maxsplit=1)[0]) for r in asked} & in_use
    return found - {_normal(OURS)}


def owners_of(module: str) -> list[str]:
    """The distributions that have a module's top-level package."""
    return _owners().get(module.partition(".")[0], [])


def version(distribution: str) -> str | None:
    """The version that is installed here, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def of_file(path: Path | str) -> str:
    """The sha256 of a file's bytes, in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- from a name to modules ------------------------------------------------------------------------------------------


def parts(name: str) -> tuple[list[str], list[Path], list[str]]:
    """The modules a name begins with, the files it names, and, of a ``process:``, the words of its command."""
    if name.startswith("process:"):
        try:
            command = shlex.split(name.removeprefix("process:"))
        except ValueError as error:
            raise OpenError(f"{name}: {error}") from error
        after = [word for flag, word in itertools.pairwise(command) if flag == "-m" and find(word)]
        paths = [Path(word) for word in command if Path(word).is_file()]
        return after, paths, [_portable(Path(word)) if Path(word) in paths else word for word in command]
    kind, _, rest = name.partition("?")[0].partition(":")
    if kind in KINDS and rest:
        return [kind, *(_registrants(rest) if kind == "gymnasium" else ())], [], []
    points = {point.name: point.value.partition(":")[0] for point in metadata.entry_points(group=GROUP)}
    if kind in points and rest:
        return [points[kind]], [path for path in [Path(rest)] if path.is_file()], []
    return [kind], [], []


def _registrants(rest: str) -> list[str]:
    """The module that registers an environment of gymnasium, where its id says so."""
    if ":" in rest:
        return [rest.partition(":")[0]]
    space = rest.partition("/")[0] if "/" in rest else None
    return [p.value.partition(":")[0] for p in metadata.entry_points(group=ENVIRONMENTS) if p.name == space]


def _located(modules: Iterable[str], name: str) -> list[Module]:
    importlib.invalidate_caches()
    found = [(module, find(module)) for module in modules]
    for module, place in found:
        if place is None:
            raise OpenError(f"{name}: there is no module {module!r} here")
    return [place for _, place in found if place is not None]


def find(name: str) -> Module | None:
    """Where a module is, without importing it or its parents: importing ``a.b`` would run ``a``."""
    top, *rest = name.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    specs = (finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    package = spec.submodule_search_locations is not None
    root = folders[0].parent if folders else file.parent if file else Path(sysconfig.get_path("stdlib"))
    for part in rest:
        inner = next(filter(None, (_within(folder, part) for folder in folders)), None)
        if inner is None:
            return None
        file, package, folders = inner
    return Module(name, file, root, package)


def _within(folder: Path, part: str) -> tuple[Path | None, bool, list[Path]] | None:
    """The module ``part`` in a package's folder: its file, whether it is a package, and where its own modules are."""
    for suffix in importlib.machinery.all_suffixes():
        if (file := folder / part / f"__init__{suffix}").is_file():
            return file, True, [folder / part]
    for suffix in importlib.machinery.all_suffixes():
        if (file := folder / f"{part}{suffix}").is_file():
            return file, False, []
    return (None, True, [folder / part]) if (folder / part).is_dir() else None


def installed(path: Path) -> bool:
    """Whether a path is among what was installed, rather than the user's own."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@cache
def _owners() -> dict[str, list[str]]:
    """Top-level module -> the distributions that have it."""
    return {top: sorted(set(map(_normal, owners))) for top, owners in metadata.packages_distributions().items()}


# --- from modules to files -------------------------------------------------------------------------------------------


def _closure(named: Iterable[Module]) -> Iterator[tuple[Module, Path | None]]:
    """Each module, and the folder that is taken with it: those named, their parents, and what they import of the
    user's own code. A module may come twice."""
    waiting = [(module, _home(module)) for module in named]
    seen = set()
    while waiting:
        module, folder = waiting.pop()
        if (module.name, folder) in seen or module.name.partition(".")[0] == OURS:
            continue
        seen.add((module.name, folder))
        yield module, folder
        if module.installed:
            continue
        above = find(module.name.rpartition(".")[0])
        waiting += [(above, None)] if above else []
        for name in _imports(module):
            if (found := find(name)) and not found.installed:
                waiting.append((found, found.file.parent if found.package and found.file else None))


def _home(module: Module) -> Path | None:
    """The folder of the package that a named module is in; None for a lone module."""
    if module.installed:
        return _outermost(module)
    if module.file is None:
        return module.root.joinpath(*module.name.split("."))
    return module.file.parent if module.file.parent != module.root else None


def _imports(module: Module, nodes: list[ast.AST] | None = None) -> list[str]:
    """What a module's import statements name; of ``from a import b`` it is ``a.b`` if that is a module, else ``a``."""
    nodes = _nodes(module) if nodes is None else nodes
    own = module.name.split(".") if module.package else module.name.split(".")[:-1]
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = own[: len(own) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{origin}.{alias.name}" for alias in node.names]
            names += [name if find(name) else origin for name in inner]
    return list(dict.fromkeys(filter(None, names)))


def _nodes(module: Module) -> list[ast.AST]:
    """The syntax tree of a module's source; nothing if it has none that can be read."""
    if module.file is None or module.file.suffix != ".py":
        return []
    try:
        return list(ast.walk(ast.parse(module.file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return []


def _at_import(module: Module) -> list[ast.AST]:
    """The part of a module's syntax tree that is run when it is imported: nothing within functions."""
    found, waiting = [], _nodes(module)[:1]
    while waiting:
        found.append(node := waiting.pop())
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def _belonging(module: Module, folder: Path | None) -> Iterator[Path]:
    """The files of a folder, else of the module alone; and those that the user's own source names."""
    if folder is not None:
        yield from _walk(folder)
    elif module.file is not None and module.file.is_file():
        yield module.file
    if not module.installed:
        yield from _quoted(module)


def _quoted(module: Module) -> Iterator[Path]:
    """Files that a text in the source names, as seen from its folder: data that is read from beside a lone module."""
    for node in _nodes(module):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if module.file and 0 < len(text) <= LONGEST and text.isprintable() and not os.path.isabs(text):
            path = module.file.parent / text
            yield from [path] if path.is_file() else []


def _contract_of_lone(modules: Iterable[str]) -> Iterator[Path]:
    """The contract that is read from beside a named module; in a package it is one of its files anyway."""
    for name in modules:
        module = find(name)
        if module and module.file and not module.installed and module.file.parent == module.root:
            path = module.file.parent / "envequiv.toml"
            yield from [path] if path.is_file() else []


def _outermost(module: Module) -> Path | None:
    """The folder of the first package with an __init__ on the way to an installed module; None for a lone module."""
    names = module.name.split(".")
    for n in range(1, len(names) + 1):
        on_the_way = find(".".join(names[:n]))
        if on_the_way is not None and on_the_way.package and on_the_way.file is not None:
            return on_the_way.file.parent
    return None


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, bytecode or of a virtual environment; links are followed once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or "pyvenv.cfg" in names:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        yield from (Path(place, n) for n in names if not n.startswith(".") and not n.endswith(BYTECODE))


def _portable(path: Path) -> str:
    """A path as it was written, without the folders of this machine."""
    return path.name if path.is_absolute() else path.as_posix()


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
