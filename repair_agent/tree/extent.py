"""What of the user's folder is the target's: which files may be edited, and where Python finds them."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from pytest_envequiv import contents
from repair_agent import crates
from repair_agent.crates import Crate
from repair_agent.question import Question
from repair_agent.suite import build, environment, other_checkouts
from repair_agent.tree import modules
from repair_agent.tree.worktree import Unfit

# Where the files of the target named on the command line are, as the process that is asked would find them.
ASK = """
import json, sys
from pytest_envequiv import contents
print(json.dumps([str(path) for path in contents.own(sys.argv[1])]))
"""
# Never the target's to change, wherever they are.
NEVER = re.compile(r"(^|/)(conftest\.py|test_[^/]*\.py|[^/]*_test\.py|setup\.py|build\.rs|(site|user)customize\.py)$")


def default_files(target: str, folder: Path, ref: str = "") -> tuple[str, ...]:
    """The files of the target's own package or module below ``folder``, relative to it: what may be edited if nothing
    else is said.

    Of Python: the target's module and what it imports of the same top-level package, or from beside it. Of a Rust
    crate, or of those that the target imports: ``src/**/*.rs``. What the reference is made of, and tests, are left
    out. Raises Unfit.
    """
    folder = folder.resolve()
    files = _of_program(target, folder) if target.startswith("process:") else _of_module(target, folder, ref)
    own = [made.manifest.parent for made in _made_of(target, folder)]
    crate = _crate(folder, [folder / name for name in files] or _manifests(target, folder) or [folder])
    places = dict.fromkeys(own or ([crate] if crate else []))
    files += sorted(p.relative_to(folder).as_posix() for place in places for p in (place / "src").rglob("*.rs"))
    chosen = tuple(name for name in dict.fromkeys(files) if not NEVER.search(name))
    if not chosen:
        raise Unfit(f"{target}: which files are its own is not known: name them with --files")
    return chosen


def built_from(target: str, folder: Path, ref: str = "") -> tuple[str, ...]:
    """The projects of maturin's below ``folder``, relative to it, that a target is or imports: they have to be built
    before it can be judged. Raises Unfit where they cannot be, or where the reference is made of one too."""
    folder = folder.resolve()
    mine = _made_of(target, folder)
    if mine and (lacking := crates.lacking()):
        raise Unfit(f"{target} is made of a Rust crate, {mine[0].module}: {lacking}")
    both = [each for each in mine if each in _made_of(ref, folder)] if mine and ref else []
    if both:
        raise Unfit(f"{target}: the reference {ref} is made of its crate, {both[0].module}, too: it cannot change")
    return tuple(each.folder.relative_to(folder).as_posix() for each in mine)


def _made_of(name: str, folder: Path) -> list[Crate]:
    """Of a ``process:`` none: its command builds what it runs."""
    module = modules.module_of(name)
    known = crates.declared(folder) if module else []
    place = contents.find(module) if known else None
    roots = [folder, *dict.fromkeys(each.python for each in known)]
    roots += [place.root] if place and not place.installed else []
    used = {module.partition(".")[0]}
    for path, inner in modules.closure(module, roots).items() if known else ():
        tree = modules.parsed(path)
        found = modules.imports(tree, inner, path.name == "__init__.py") if tree else ()
        used |= {imported.name.partition(".")[0] for imported in found}
    return [each for each in known if each.top in used]


def search(target: str, folder: Path) -> tuple[str, ...]:
    """Folders of the user's repository that Python looks in besides ``folder``, relative to it (``src``)."""
    folder = folder.resolve()
    module = modules.module_of(target)
    place = contents.find(module) if module else None
    given = [str(each.python) for each in _made_of(target, folder)] + ([str(place.root)] if place else [])
    given += [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    top = _top(folder)
    found = []
    for text in filter(None, given):
        path = Path(text).resolve()
        aside = contents.installed(path) or any((p / "pyvenv.cfg").exists() for p in (path, *path.parents))
        if path.is_dir() and path.is_relative_to(top) and path != folder and not aside:
            found.append(Path(os.path.relpath(path, folder)).as_posix())
    return tuple(dict.fromkeys(found))


def astray(question: Question, root: Path) -> list[str]:
    """Files of the target that Python would take from another checkout of the repository than ``root``'s: an editable
    installation can put the user's own copy first. Asked of a process of its own that imports none of them."""
    build(question, root)
    done = subprocess.run(
        [sys.executable, "-c", ASK, question.target],
        cwd=root, env=environment(question, root), capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        paths = [Path(root, path).resolve() for path in json.loads(done.stdout)]
    except ValueError:
        return []  # there is no such module: the suite says so
    others = other_checkouts(root)
    return sorted(str(path) for path in paths if any(path.is_relative_to(other) for other in others))


def _of_module(target: str, folder: Path, ref: str) -> list[str]:
    name = modules.module_of(target)
    if name in contents.KINDS and ":" in target:
        mend = "copy its source into your repository and name that module"
        raise Unfit(f"{target} is installed code of {name}, which is not yours to mend: {mend}")
    found = contents.find(name) if name else None
    made = next((each for each in _made_of(target, folder) if each.top == name.partition(".")[0]), None)
    if made is not None:  # what is installed of it was built from here
        local = modules.located(name, [made.python])
        if local is None:
            return []
        file, roots = local, [made.python]
    elif found is None or found.file is None:
        local = modules.located(name, [folder])
        if local is None:
            raise Unfit(
                f"{target}: there is no module {name!r} in {folder}: call envequiv-repair where it can be imported"
            )
        file, roots = local, [folder]
    else:
        file, roots = found.file.resolve(), [found.root.resolve()]
    if contents.installed(file):
        mend = "copy its source into your repository and name that module"
        raise Unfit(f"{target} is installed code ({file.parent}), which is not yours to mend: {mend}")
    if not file.is_relative_to(folder):
        raise Unfit(f"{target} is in {file.parent}, not below {folder}: call envequiv-repair there")
    above = list(_packages(name, roots))
    other = set(modules.closure(modules.module_of(ref), roots)) if ref else set()
    files = {file: name, **modules.closure(name, roots), **dict.fromkeys(above, "")}
    ours = [path for path in files if path not in other and _belongs(path, name, file, roots[0])]
    inside = [path for path in ours if path.is_relative_to(folder) and path.suffix == ".py"]
    if file in other:
        raise Unfit(
            f"{target}: the reference {ref} is made of it, so it cannot be changed: give the target files of its own"
        )
    return [path.relative_to(folder).as_posix() for path in inside]


def _packages(name: str, roots: list[Path]) -> list[Path]:
    """The ``__init__.py`` files on the way to a module."""
    parts = name.split(".")[:-1]
    found = (modules.located(".".join(parts[: n + 1]), roots) for n in range(len(parts)))
    return [path for path in found if path is not None]


def _belongs(path: Path, name: str, file: Path, root: Path) -> bool:
    """Of the same top-level package, or beside a module that is in none."""
    if file.parent == root:
        return path.parent == root
    return path.is_relative_to(root / name.partition(".")[0])


def _of_program(target: str, folder: Path) -> list[str]:
    """The files below the folder that a command names, interpreters and builds aside."""
    words = _words(target)
    named = [p for p in _named(words, folder) if p.name != "Cargo.toml" and not os.access(p, os.X_OK)]
    after = [modules.located(word, [folder]) for flag, word in itertools.pairwise(words) if flag == "-m"]
    return [path.relative_to(folder).as_posix() for path in (*named, *filter(None, after))]


def _manifests(target: str, folder: Path) -> list[Path]:
    """The Cargo.toml that a command names: ``process:cargo run --manifest-path port/Cargo.toml``."""
    return [path for path in _named(_words(target), folder) if path.name == "Cargo.toml"]


def _named(words: list[str], folder: Path) -> list[Path]:
    """The files below the folder that the words of a command are."""
    paths = [(folder / word).resolve() for word in words]
    return [path for path in paths if path.is_file() and path.is_relative_to(folder)]


def _words(target: str) -> list[str]:
    return shlex.split(target.removeprefix("process:")) if target.startswith("process:") else []


def _crate(folder: Path, files: list[Path]) -> Path | None:
    """The nearest folder with a Cargo.toml, at or below ``folder``, that holds one of the files."""
    for file in files:
        for place in (file, *file.parents):
            if place.is_relative_to(folder) and (place / "Cargo.toml").is_file():
                return place
    return None


def _top(folder: Path) -> Path:
    done = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True)
    return Path(done.stdout.strip()).resolve() if done.returncode == 0 else folder
