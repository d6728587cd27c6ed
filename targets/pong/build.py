"""PufferLib's own C sources: downloaded by pip, checked, kept in the user's cache, and compiled with our driver.

    python -m targets.pong.build        does both now, instead of when the reference is first opened

Everything gets its final name by one rename, so that several processes may do the same work at the same time.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_envequiv.errors import OpenError

VERSION = "3.0.0"
SDIST = "7df3a3e3f5f894d78d2a1f5374097890aec01473183e748abefe4f3faa10eaa9"  # sha256 of the archive that pip downloads
FILES = {  # path in its pufferlib/ocean -> sha256; the bindings are for the benchmark
    "pong/pong.h": "47c08b8ed9f90c92bb6569cdc0be6999f1586f5abe11cf7777a6b9861a74f669",
    "pong/binding.c": "e303f54befbb2fe40c265dfaafa9f52f71efcaad2f9950f182bf6d94d5727341",
    "env_binding.h": "559c17719647f18bf8fac328af75eb119a25fd8ed346e77ce127b77f4a8988c8",
}
HERE = Path(__file__).parent
NAME = "targets.pong.reference"
# -O2 is what PufferLib's setup.py asks for. Fused multiply-adds, which some machines use unasked, round otherwise.
FLAGS = ("-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w")
COMPILERS = ("cc", "gcc", "clang")
PATIENCE = 900  # seconds for pip


def sources() -> Path:
    """The folder with FILES, downloaded if need be. Raises OpenError: no pip, no network, another archive."""
    folder = cache() / f"pufferlib-{VERSION}-{SDIST[:12]}"
    if not folder.is_dir():
        print(f"{NAME}: downloading the sources of pufferlib {VERSION} (61 MB, once)", file=sys.stderr, flush=True)
        with _beside(folder) as staging:
            unpacked = _downloaded(staging / "pip")
            for name in FILES:
                (staging / "ocean" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(unpacked / name, staging / "ocean" / name)
            _named(staging / "ocean", folder)
    for name, digest in FILES.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else "missing"
        if found != digest:
            raise OpenError(f"{NAME}: {folder / name} is not PufferLib's ({found[:12]}): remove {folder} and try again")
    return folder


def library() -> Path:
    """The driver, compiled with pong.h. Raises OpenError as ``sources`` does, and if there is no C compiler."""
    headers = sources()
    return compiled(HERE / "driver.c", headers / "pong", "libpong.so")


def compiled(source: Path, headers: Path, name: str, flags: Sequence[str] = ()) -> Path:
    """The shared library made of ``source``: from the cache if compiler, flags and all inputs are as they were then."""
    command = [*compiler(), *FLAGS, *flags, f"-I{headers}", f"-I{HERE}"]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in (source, HERE / "raylib.h", Path(__file__)):
        digest.update(path.read_bytes())
    target = cache() / f"{digest.hexdigest()[:12]}-{name}"
    if not target.is_file():
        with _beside(target) as staging:
            done = subprocess.run(
                [*command, str(source), "-lm", "-o", str(staging / name)],
                capture_output=True, text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode:
                raise OpenError(f"{NAME}: {command[0]} cannot compile {source.name}: {_last(done.stderr)}")
            _named(staging / name, target)
    return target


def compiler() -> list[str]:
    """The words of a command that compiles C: $CC, cc, gcc, clang, or the one in the package ziglang."""
    if given := shlex.split(os.environ.get("CC", "")):
        if shutil.which(given[0]) is None:
            raise OpenError(f"{NAME}: the C compiler that $CC names is not here: {given[0]}")
        return given
    if found := next(filter(None, map(shutil.which, COMPILERS)), None):
        return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise OpenError(
        f"{NAME}: it is compiled from C, and there is no C compiler here (looked for {', '.join(COMPILERS)}): "
        "install one, or: pip install ziglang"
    )


def cache() -> Path:
    """Where downloads and libraries are kept: pytest-envequiv/pong in $XDG_CACHE_HOME, or in ~/.cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-envequiv" / "pong"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpenError(f"{NAME}: {folder} cannot be written ({error.strerror}): set XDG_CACHE_HOME") from error
    return folder


def _downloaded(work: Path) -> Path:
    """Lets pip fetch, check and unpack the archive below ``work``; returns its pufferlib/ocean.

    pip asks every source archive for its metadata. This one's setup.py wants torch for that, and fails: what we came
    for lies unpacked in pip's temporary folder by then.
    """
    work.mkdir()
    asked = work / "requirements.txt"
    asked.write_text(f"pufferlib=={VERSION} --hash=sha256:{SDIST}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-clean"),
        *("--no-deps", "--no-binary", "pufferlib", "--no-build-isolation", "--dest", str(work), "-r", str(asked)),
    ]
    # Where torch is there, setup.py would go on and download more.
    environment = {**os.environ, "TMPDIR": str(work), "NO_OCEAN": "1", "NO_TRAIN": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise OpenError(f"{NAME}: pip was still downloading pufferlib after {PATIENCE} seconds: try again") from None
    found = next(work.glob("*/*/pufferlib/ocean"), None)
    if found is None or not all((found / name).is_file() for name in FILES):
        raise OpenError(
            f"{NAME}: pip could not bring the sources of pufferlib {VERSION}, which are downloaded once: "
            f"{_last(done.stderr)}"
        )
    return found


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as ``target``."""
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".making-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _named(made: Path, target: Path) -> None:
    """Give it its name, unless another process was faster."""
    try:
        os.rename(made, target)
    except OSError:
        if not target.exists():
            raise


def _last(text: str) -> str:
    """The line that says most: the last error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no reason given"])[-1]


def main() -> None:
    try:
        print(ctypes.CDLL(str(library()))._name)
    except OpenError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
