"""What a repair may not touch, and what the repaired code may not reach for.

    before = frozen(question, tree)      # once, before anything is edited
    after = frozen(question, tree)
    changed(before, after)               # files that are none of the target's, in words
    refused(before, after)               # what the target's source reaches for now, and did not before

Frozen are the worktree without the allow-list, and outside of it the reference where it is installed, the plugin, this
program, and what Python and pytest run by themselves (``*.pth``, ``sitecustomize``, entry points, configuration above
the worktree). A file that Python, pytest or cargo runs unasked is frozen even if the allow-list names it.
"""

from __future__ import annotations

import hashlib
import re
import site
import sysconfig
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest_envequiv
from pytest_envequiv import contents
from pytest_envequiv.errors import OpenError
from repair_agent.question import Question
from repair_agent.tree import modules, reach
from repair_agent.tree.reach import Objection, Surroundings
from repair_agent.tree.worktree import Worktree, allowed, sweep

CONFIGURATION = ("pyproject.toml", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg")
CONTRACT = "envequiv.toml"
PROGRAMS = {
    "the plugin": Path(str(pytest_envequiv.__file__)).resolve().parent,
    "the repair agent": Path(__file__).resolve().parent.parent,
}
# Run by Python, pytest or cargo without being asked for.
UNASKED = re.compile(r"(conftest|setup|sitecustomize|usercustomize)\.py|build\.rs|.*\.pth")
TEST = re.compile(r"(.*/)?(test_[^/]*|[^/]*_test)\.py|(.*/)?tests?/.*")
CODE = (".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo", ".pyx", ".c", ".cpp", ".sh", ".zip", ".egg", ".whl")


@dataclass(frozen=True)
class Frozen:
    """files: path (below the worktree's top, else absolute) -> (what it is, sha256); objections: what the target's
    source reaches for, allowed or not."""

    files: dict[str, tuple[str, str]]
    objections: tuple[Objection, ...] = ()
    more: frozenset[str] = field(default_factory=frozenset)


def frozen(question: Question, tree: Worktree, more: Sequence[str] = ()) -> Frozen:
    """What there is now. ``more``: modules that the target may import besides. Caches in the worktree are emptied."""
    sweep(tree)
    reference = _reference(question, tree)
    files = dict(_of_tree(question, tree, reference))
    for label, path in _outside(question, tree):
        files.setdefault(str(path), (label, _digest(path)))
    return Frozen(files, tuple(_objections(question, tree, reference, frozenset(more))), frozenset(more))


def changed(before: Frozen, after: Frozen) -> list[str]:
    """What was changed that may not be, one line a file; empty if nothing was."""
    lines = []
    for path in sorted(before.files.keys() | after.files.keys()):
        old, new = before.files.get(path), after.files.get(path)
        if old == new or (old is None and path.rpartition("/")[2] == "Cargo.lock"):  # cargo writes it where none is
            continue
        label = (old or new or ("", ""))[0]
        what = "was added" if old is None else "was removed" if new is None else "was changed"
        lines.append(f"{path} {what}: {label}, which may not be edited")
    return lines


def refused(before: Frozen, after: Frozen) -> list[str]:
    """What the target's source may not do: "port.py:3 uses os.environ, ...". What it did before may stay, unless it
    is what no port has a use for: the reference, pytest, inspect."""
    had = {objection.what for objection in before.objections if not objection.hard}
    return [str(objection) for objection in after.objections if objection.what not in had]


# --- files -----------------------------------------------------------------------------------------------------------


def _of_tree(question: Question, tree: Worktree, reference: set[Path]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Everything in the worktree that may not be edited. Links are what they lead to by name, not by content."""
    for path in _walk(tree.top):
        if _editable(path, tree, reference):
            continue
        relative = path.relative_to(tree.top).as_posix()
        yield relative, (_label(path, question, tree, reference), _digest(path))


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        build = path.name == "target" and (folder / "Cargo.toml").is_file() and path.is_dir()
        if path.is_dir() and not path.is_symlink():
            if path.name != ".git" and not build:
                yield from _walk(path)
        else:
            yield path


def _editable(path: Path, tree: Worktree, reference: set[Path]) -> bool:
    if not path.is_relative_to(tree.root) or path.is_symlink() or path in reference:
        return False
    name = path.relative_to(tree.root).as_posix()
    if UNASKED.fullmatch(path.name) or path.name in (*CONFIGURATION, CONTRACT):
        return False
    return allowed(name, tree.files) and (name in tree.files or not TEST.fullmatch(name))


def _label(path: Path, question: Question, tree: Worktree, reference: set[Path]) -> str:
    if path in reference:
        return "the reference"
    if path.name == CONTRACT or (question.contract and path == (tree.root / question.contract).resolve()):
        return "the contract"
    if path.name == "conftest.py" or TEST.fullmatch(path.relative_to(tree.top).as_posix()):
        return "a test"
    if path.name in CONFIGURATION:
        return "configuration"
    if path.is_symlink():
        return "a link"
    return "run unasked" if UNASKED.fullmatch(path.name) else "not on the list"


def _outside(question: Question, tree: Worktree) -> Iterator[tuple[str, Path]]:
    """Files outside of the worktree, with what they are."""
    for label, folder in PROGRAMS.items():
        yield from ((label, p) for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
    try:
        installed = [p for p in contents.paths(question.ref).values() if contents.installed(p.resolve())]
    except (OpenError, OSError):
        installed = []  # a module of the user's own: it is in the worktree
    yield from (("the reference", p) for p in installed if p.suffix in (".py", ".so", ".pyd", ".xml", ".json"))
    for folder in _site_folders():
        patterns = ("*.pth", "sitecustomize.py", "usercustomize.py", "*.dist-info/entry_points.txt")
        yield from (("the environment", path) for pattern in patterns for path in sorted(folder.glob(pattern)))
    for folder in tree.top.parents:
        yield from (("configuration", folder / n) for n in (*CONFIGURATION, "conftest.py") if (folder / n).is_file())
    contract = (tree.root / question.contract).resolve() if question.contract else None
    if contract is not None and contract.is_file() and not contract.is_relative_to(tree.top):
        yield "the contract", contract


@cache
def _site_folders() -> list[Path]:
    names = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()]
    return [path for path in dict.fromkeys(Path(name) for name in names) if path.is_dir()]


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    try:
        return contents.of_file(path)
    except OSError as error:
        return hashlib.sha256(str(error).encode()).hexdigest()


# --- sources ---------------------------------------------------------------------------------------------------------


def _roots(question: Question, tree: Worktree) -> list[Path]:
    return [tree.root, *((tree.root / folder).resolve() for folder in question.search)]


def _reference(question: Question, tree: Worktree) -> set[Path]:
    """The files of the worktree that the reference is made of, the target's own aside."""
    roots = _roots(question, tree)
    name = modules.module_of(question.ref)
    main = modules.located(name, roots)
    target = modules.located(modules.module_of(question.target), roots)
    explicit = {(tree.root / file).resolve() for file in tree.files}
    return {path for path in modules.closure(name, roots) if path == main or path not in explicit} - {target}


def _objections(question: Question, tree: Worktree, reference: set[Path], more: frozenset[str]) -> Iterator[Objection]:
    roots = _roots(question, tree)
    own, through = _own(question, tree, reference, roots), _through(roots)
    around = Surroundings(own, through, question.ref.partition(":")[0], more)
    for path in _walk(tree.root):
        name = path.relative_to(tree.root).as_posix()
        if path.is_symlink() and allowed(name, tree.files):
            yield Objection(name, 1, "is a link", True)
        if not _editable(path, tree, reference):
            continue
        if path.suffix in CODE:
            yield Objection(name, 1, "is code that cannot be read")
        elif path.name == "Cargo.toml":
            yield from _dependencies(name, path)
        elif path.suffix in (".py", ".rs"):
            text = path.read_text(encoding="utf-8", errors="replace")
            python = path.suffix == ".py"
            yield from reach.of_python(name, text, modules.name_of(path, roots), around) if python else ()
            yield from () if python else reach.of_rust(name, text)


def _own(question: Question, tree: Worktree, reference: set[Path], roots: list[Path]) -> Callable[[str], str | None]:
    """What is wrong with a dotted name that is one of the user's own modules, or of something in one."""
    main = modules.located(modules.module_of(question.ref), roots)
    top = modules.module_of(question.target).partition(".")[0]
    places = [root / top for root in roots]

    @cache
    def leads(name: str) -> bool:
        return main is not None and main in modules.closure(name, roots)

    def own(name: str) -> str | None:
        module, path = _within(name, roots)
        if path is None:
            return None
        if path == main:
            return f"imports the reference, {module}"
        if path in reference:
            return f"imports {module}, which the reference is made of"
        if leads(module):
            return f"imports {module}, which leads to the reference"
        mine = _editable(path, tree, reference) or any(
            path.is_relative_to(p) or path == p.with_suffix(".py") for p in places
        )
        return "" if mine else f"imports {module}, which is not of its package"

    return own


def _through(roots: list[Path]) -> Callable[[str], str]:
    @cache
    def given(path: Path, module: str) -> dict[str, str]:
        tree = modules.parsed(path)
        found = modules.imports(tree, module, path.name == "__init__.py") if tree else ()
        return {i.local: i.local if i.local == i.name.partition(".")[0] else i.name for i in found}

    def through(name: str) -> str:
        for _ in range(9):  # a module may hand on what another handed on
            module, path = _within(name, roots)
            first, _, rest = name.removeprefix(module).lstrip(".").partition(".")
            if path is None or not first or first not in given(path, module):
                break
            name = ".".join(filter(None, (given(path, module)[first], rest)))
        return name

    return through


def _within(name: str, roots: list[Path]) -> tuple[str, Path | None]:
    """The longest beginning of a dotted name that is a module of the user's own, and its file."""
    module = name
    while module:
        if path := modules.located(module, roots):
            return module, path
        module = module.rpartition(".")[0]
    return "", None


def _dependencies(name: str, path: Path) -> Iterator[Objection]:
    """What a crate depends on: anything new is another's code."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        yield Objection(name, 1, f"cannot be read: {error}", True)
        return
    tables = [t for key, t in told.items() if key.endswith("dependencies") and isinstance(t, dict)]
    tables += [t for of in (told.get("target") or {}).values() for k, t in of.items() if k.endswith("dependencies")]
    for table in tables:
        for crate, how in sorted(table.items()):
            yield Objection(name, 1, f"depends on {crate} {how}")
    for key in ("build", "links"):
        if key in (told.get("package") or {}):
            yield Objection(name, 1, f"has {key} = {told['package'][key]!r}")
    for key in ("patch", "replace"):
        if key in told:
            yield Objection(name, 1, f"has [{key}]")
