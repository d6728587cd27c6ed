"""Rust crates that Python imports: projects that maturin builds (PyO3), found by their pyproject.toml.

What is judged is what lies in a tree. So the crates a target is made of are built from the tree's sources, into a
folder that comes first on Python's path; what the user has installed of them is never looked at. A crate that cannot be
built is a module there that says so when it is imported: the pair does not open, with the compiler's own words.

    python -m repair_agent.crates FOLDER CACHE PROJECT...      builds projects into a folder, as before each run
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repair_agent import apart

SECONDS = 1200.0  # one build may take; the first one compiles what the crate depends on
WORDS = 500  # characters of what a compiler said


@dataclass(frozen=True)
class Crate:
    """folder: of the pyproject.toml; manifest: the Cargo.toml; module: what is compiled, as Python imports it ("port",
    "port._native"); python: where the Python sources of its package are looked for, if it has any."""

    folder: Path
    manifest: Path
    module: str
    python: Path

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def declared(folder: Path) -> list[Crate]:
    """The projects of maturin at or below a folder, as far as git knows them. Builds and installations are not."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*pyproject.toml"]
    told = subprocess.run(argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = [crate(folder / name) for name in sorted(told.stdout.split("\0")) if Path(name).name == "pyproject.toml"]
    return [each for each in found if each is not None]


def crate(project: Path) -> Crate | None:
    """The crate of a pyproject.toml; None if it is no project of maturin's or cannot be read."""
    told = _read(project)
    backend = told.get("build-system", {}).get("build-backend", "")
    settings = told.get("tool", {}).get("maturin", {})
    folder = project.resolve().parent
    places = [settings["manifest-path"]] if "manifest-path" in settings else ["Cargo.toml", "rust/Cargo.toml"]
    manifest = next((folder / place for place in places if (folder / place).is_file()), None)
    if not str(backend).startswith("maturin") or manifest is None:
        return None
    cargo = _read(manifest)
    library = cargo.get("lib", {}).get("name") or cargo.get("package", {}).get("name", "").replace("-", "_")
    module = settings.get("module-name") or library
    return Crate(folder, manifest.resolve(), module, folder / settings.get("python-source", ".")) if module else None


def lacking() -> str:
    """What has to be installed before a crate can be built; "" if nothing."""
    if shutil.which("cargo") is None:
        return "cargo is not installed here: install Rust"
    return "" if _maturin() else "maturin is not installed here: pip install maturin"


def build(projects: Sequence[Path], into: Path, cache: Path, anew: bool = False, seconds: float = SECONDS) -> list[str]:
    """Builds projects, their folders, in release mode into a folder that is emptied first. Of those that do not build
    why, in a line each.

    ``cache``: where cargo keeps what it compiled from build to build; one build at a time uses it. ``anew``: the crates
    themselves are compiled anew whatever lies there. Raises OSError, and ValueError for a folder that is no project.
    """
    cache.mkdir(parents=True, exist_ok=True)
    failed = []
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        into.mkdir(parents=True, exist_ok=True)  # it stays the same folder: a process may look there already
        for path in into.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for project in projects:
            found = crate(project / "pyproject.toml")
            if found is None:
                raise ValueError(f"{project}: there is no project of maturin's any more")
            if anew:
                for source in found.manifest.parent.glob("src/**/*.rs"):
                    source.touch()  # newer than what cargo has
            if why := _wheel(found, into, cache, seconds):
                shutil.rmtree(into / found.top, ignore_errors=True)
                failed.append(f"the crate {found.module} does not build: {why}")
                (into / f"{found.top}.py").write_text(f"raise ImportError({failed[-1]!r})\n", encoding="utf-8")
    return failed


def command(projects: Sequence[Path], into: Path, cache: Path) -> str:
    """What a person types to build the same."""
    return shlex.join([sys.executable, "-m", "repair_agent.crates", str(into), str(cache), *map(str, projects)])


def _wheel(crate: Crate, into: Path, cache: Path, seconds: float) -> str:
    """Builds one project and unpacks it; why it could not, or ""."""
    maturin = _maturin()
    if not maturin:
        return lacking()
    with tempfile.TemporaryDirectory(prefix="envequiv-wheel-") as out:
        argv = [*maturin, "build", "--release", "--interpreter", sys.executable, "--out", out]
        code, said = ran(argv, crate.folder, crate.manifest, cache, seconds)
        wheels = list(Path(out).glob("*.whl"))
        if code is None:
            return f"not within {seconds:g} s"
        if code or not wheels:
            return _told(said)
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(into)
    return ""


def ran(argv: list[str], folder: Path, manifest: Path, cache: Path, seconds: float) -> tuple[int | None, str]:
    """(exit code or None if it took too long, what was said on stderr) of a program that runs cargo. Nothing is left in
    the tree: what it compiles goes to ``cache``, and a Cargo.lock that was not there is taken away."""
    lock = manifest.with_name("Cargo.lock")
    locked = lock.exists()
    env = {**apart.clean(os.environ), "CARGO_TARGET_DIR": str(cache), "CARGO_TERM_COLOR": "never"}
    code, _, said = apart.process(argv, folder, env, "", seconds)
    if not locked:
        lock.unlink(missing_ok=True)
    return code, said


def _told(said: str) -> str:
    """The compiler's first error and where it is, in one line; else the last words."""
    match = re.search(r"^error[^\n]*(?:\n *--> [^\n]*)?", said, re.MULTILINE)
    text = match[0] if match else (said.strip().splitlines() or ["it said nothing"])[-1]
    return " ".join(text.split())[:WORDS]


def _maturin() -> list[str]:
    if importlib.util.find_spec("maturin") is not None:
        return [sys.executable, "-m", "maturin"]
    found = shutil.which("maturin")
    return [found] if found else []


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    if len(arguments) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    into, cache, *projects = map(Path, arguments)
    failed = build(projects, into, cache)
    print("\n".join(failed) or f"built into {into}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
