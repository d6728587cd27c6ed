"""pytest's side of the options: what can be asked, on the command line, in a marker or in a configuration file."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_envequiv import plugin_coverage
from pytest_envequiv.verdict import LEVELS, PROFILES, Settings

ROOT = "envequiv"  # the name of the root collector: what node ids begin with

# name, what its value is called, type in a configuration file, help
OPTIONS = (
    ("levels", "L1,L2,L3,L4", "args", "which levels to run (default: all; L4 if the extra learning is installed)"),
    ("profile", "NAME", "string", f"how thorough: {', '.join(PROFILES)} (default: quick)"),
    ("seed", "N", "int", "seed of every random choice; the same seed gives the same verdicts (default: 0)"),
    ("budget", "SECONDS", "float", "time for the whole run; checks not reached are INCONCLUSIVE (default: none)"),
    ("timeout", "SECONDS", "float", "how long a check may be silent before its side counts as hung (default: 300)"),
    ("memory", "GIB", "float", "what an isolated target may allocate, in GiB (default: 8)"),
    ("contract", "FILE", "string", "what 'the same' means for this pair (TOML)"),
    ("output", "DIR", "string", "folder for counterexamples and proposals (default: .envequiv)"),
    ("answers", "DIR", "string", "keep what the reference answers there, and ask it only what is new the next time"),
)


def add(parser: pytest.Parser) -> None:
    group = parser.getgroup("envequiv", "decide whether two environments are the same")
    group.addoption(
        "--envequiv", nargs=2, metavar=("ref=NAME", "target=NAME"), help="compare the target with the reference"
    )
    parser.addini("envequiv", "the pair to compare: ref=NAME target=NAME", type="args", default=None)
    for name, value, kind, text in OPTIONS:
        group.addoption(f"--envequiv-{name}", metavar=value, help=text)
        parser.addini(f"envequiv_{name}", text, type=kind, default=None)  # type: ignore[arg-type]
    strict = "differences of convention are failures"
    isolate = "the target runs in a process of its own, exchanging arrays only"
    for name, text in (("strict", strict), ("isolate", isolate)):
        group.addoption(f"--envequiv-{name}", action="store_true", default=None, help=text)
        parser.addini(f"envequiv_{name}", text, type="bool", default=None)
    group.addoption("--envequiv-replay", metavar="FILE", help="try a counterexample again: fails if it still diverges")
    group.addoption("--envequiv-export", metavar="FILE.py", help="with replay: also write it as a standalone test")
    group.addoption(
        "--envequiv-propose", metavar="FILE.toml", help="write the field map as a contract to complete; run no checks"
    )
    group.addoption("--envequiv-certificate", metavar="FILE", help="where a full EQUAL run leaves its certificate")
    plugin_coverage.add_option(group)


def nearest(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"choose from {', '.join(known)}" + (f" (did you mean {close[0]!r}?)" if close else "")


def parse(name: str, value: Any, folder: Path, at_home: bool) -> Any:
    """An option as Settings holds it, or ValueError: what was wrong and how to mend it.

    Paths are meant from ``folder``; ``at_home`` if that is where pytest was called, so that they can stay short.
    """
    if name == "levels":
        parts = value.split(",") if isinstance(value, str) else [p for v in value for p in str(v).split(",")]
        wanted = [part.strip().upper() for part in parts if part.strip()]
        for level in wanted:
            if level not in LEVELS:
                raise ValueError(f"no level {level!r}: {nearest(level, LEVELS)}")
        if not wanted:
            raise ValueError(f"no level given: {nearest('', LEVELS)}")
        return tuple(level for level in LEVELS if level in wanted)
    if name == "profile":
        if value not in PROFILES:
            raise ValueError(f"no profile {value!r}: {nearest(str(value), PROFILES)}")
        return value
    if name == "seed":
        try:
            seed = int(value)
        except (TypeError, ValueError):
            seed = -1
        if seed < 0:
            raise ValueError(f"{value!r} is not a seed: give a whole number from 0 up")
        return seed
    if name in ("budget", "timeout", "memory"):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if not 0 < number < float("inf"):
            what, unit = ("a size", "GiB") if name == "memory" else ("a time", "seconds")
            raise ValueError(f"{value!r} is not {what}: give {unit} above 0")
        return number
    if name == "contract" and not (folder / value).is_file():
        raise ValueError(f"no file {value!r} in {folder}: --envequiv-propose writes one to begin with")
    if name in ("contract", "output", "answers"):
        return str(value) if at_home else str(folder / value)
    return bool(value)  # strict, isolate


def parse_pair(words: list[str]) -> dict[str, str]:
    """ref and target from "ref=NAME target=NAME", in either order."""
    pair = {side: name for side, _, name in (word.partition("=") for word in words)}
    if len(words) != 2 or set(pair) != {"ref", "target"} or not all(pair.values()):
        raise ValueError(f"expected ref=NAME target=NAME, got {' '.join(words)!r}")
    return pair


def read_settings(config: pytest.Config, marker: Mapping[str, Any], beside: Path) -> Settings:
    """The command line's word, else the marker's, else the configuration file's, else the default.

    Raises UsageError, in one line that names the option as it was written.
    """
    home = config.invocation_params.dir
    ini = config.inipath.parent if config.inipath else config.rootpath
    settings: dict[str, Any] = {"ref": "", "target": ""}
    for name in ("envequiv", *(option[0] for option in OPTIONS), "strict", "isolate"):
        option = "envequiv" if name == "envequiv" else f"envequiv_{name}"
        given = config.getoption(option)
        where, folder = f"--{option.replace('_', '-')}", home
        try:
            if given is None and name in marker:
                given, where, folder = marker[name], f"the envequiv marker's {name}", beside
            elif given is None:
                where, folder = f"{option} in {config.inipath}", ini
                given = config.getini(option)
            if given is not None:
                if name == "envequiv":
                    settings |= parse_pair(given)
                else:
                    settings[name] = parse(name, given, folder, folder == home)
        except (TypeError, ValueError) as error:
            raise pytest.UsageError(f"{where}: {error}") from None
    return Settings(**settings | {side: marker[side] for side in ("ref", "target") if side in marker})


def take_ids(config: pytest.Config) -> list[str]:
    """Take the ids of checks out of the arguments, where pytest would look for files of that name."""
    ours: list[str] = []
    rest: list[str] = []
    for argument in config.args:
        path, _, name = argument.partition("::")
        mine = name and Path(path).name == ROOT and not (config.invocation_params.dir / path).is_file()
        (ours if mine else rest).append(name if mine else argument)
    config.args = rest
    return ours


def check_writable(folder: Path) -> str | None:
    """Why nothing can be written to a folder (made if missing), or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"
    return None
