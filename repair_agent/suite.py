"""The suite as the repair agent sees it: pytest in a process of its own, which may be begun before it is needed.

Nothing of the target is imported here. What a target does to its process (exits, hangs, prints) ends as
``Run.trouble``, never as an error of the agent.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from repair_agent import crates
from repair_agent.findings import SHUT, Run, reported
from repair_agent.question import LEVELS, NODE, Question, options

TICK = 0.2  # seconds between looks at a running suite
# JAX keeps what it compiled for the next run: of a run on CartPole that saves 8 of 26 seconds.
COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# pytest, which waits for a byte before it collects, and ends where nobody is left who could write one.
WAIT = """
import os, sys, pytest

class Waits:
    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self):
        if not os.read(int(sys.argv[1]), 1):
            os._exit(0)

sys.exit(pytest.main(sys.argv[2:], plugins=[Waits()]))
"""
PATIENCE = 5.0  # seconds that pytest has to end by itself before its group is killed


def silent(_: str) -> None:
    """The live line that shows nothing."""


def never() -> bool:
    """The usual ``stop``."""
    return False


def judged(
    question: Question,
    root: Path,
    checks: Sequence[str] = (),
    seed: int | None = None,
    seconds: float | None = None,
    output: Path | None = None,
    tell: Callable[[str], None] = silent,
    fresh: bool = False,
    first: Sequence[str] = (),
    stop: Callable[[], bool] = never,
    begun: Begun | None = None,
) -> Run:
    """Run the suite in ``root``: all of it, or the ``checks`` that are named, or the levels ("L1").

    ``first``: checks that are run before the others; if none of them is EQUAL, the others are not run, which is
    ``trouble``. ``stop``: asked while it runs; once it says so, what is left is not run, which is ``trouble`` too.
    ``begun``: a run of just this that waits already; who began it closes it.

    It runs in a session of its own, which is gone when this returns, however it returns. ``seconds``: a limit, after
    which it is killed; ``output``: where counterexamples go (and where those of the last run are tried again first),
    by default a folder in the temporary directory, never in ``root``; ``fresh``: without the programs that earlier runs
    compiled and what the reference answered them. The user's PYTEST_ADDOPTS are ignored; their configuration and
    conftest files are not. Raises ValueError if ids and levels are mixed, OSError if no process can be started, and
    nothing for what the target does.
    """
    if begun is not None:
        return begun.answered(seconds, tell, stop)
    with contextlib.closing(Begun(question, root, checks, seed, output, fresh, first)) as run:
        return run.answered(seconds, tell, stop)


class Begun:
    """A run of the suite that has begun and waits: pytest and the judge are loaded, and the target is not.

    To load them takes seconds, in which something else can be done: a search for an edit, say. What is judged is what
    lies in ``root`` when ``answered`` is called; arguments and errors are those of ``judged``.
    """

    def __init__(
        self,
        question: Question,
        root: Path,
        checks: Sequence[str] = (),
        seed: int | None = None,
        output: Path | None = None,
        fresh: bool = False,
        first: Sequence[str] = (),
    ):
        self.question, self.root, self.first, self.fresh = question, root.resolve(), tuple(first), fresh
        output = output or place(self.root)
        output.mkdir(parents=True, exist_ok=True)
        self.wanted = tuple(c for c in checks if c not in SHUT)
        levels = tuple(c for c in self.wanted if c in LEVELS)
        if levels and len(levels) < len(self.wanted):
            raise ValueError(f"cannot run levels and single checks in one go: {' '.join(self.wanted)}")
        self._scratch = tempfile.TemporaryDirectory(prefix="envequiv-suite-")
        scratch = Path(self._scratch.name)
        self.report, self.said = scratch / "report.json", scratch / "said.txt"
        self.built = scratch / "built" if fresh else built(self.root)
        if question.crates:
            self.built.mkdir(parents=True, exist_ok=True)  # Python forgets folders that are not there when it begins
        argv = _arguments(question, self.wanted, seed, output, self.report, scratch) + _ordered(first, scratch)
        # An empty name: nowhere, whatever a configuration says.
        argv.append(f"--envequiv-answers={'' if fresh else answers(question)}")
        waiting, self._go = os.pipe()
        try:
            with self.said.open("wb") as out:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", WAIT, str(waiting), *argv],
                    cwd=self.root,
                    env=environment(question, self.root, fresh, self.built),
                    pass_fds=(waiting,),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
        except OSError:
            os.close(self._go)
            self._scratch.cleanup()
            raise
        finally:
            os.close(waiting)

    def answered(
        self, seconds: float | None = None, tell: Callable[[str], None] = silent, stop: Callable[[], bool] = never
    ) -> Run:
        """What it finds; once."""
        began = time.monotonic()
        if self.question.crates:
            tell(f"building {', '.join(self.question.crates)}")
            build(self.question, self.root, self.built, anew=self.fresh)
        with contextlib.suppress(BrokenPipeError):  # it has ended: it says why
            os.write(self._go, b"!")
        ended = self._watched(seconds, tell, stop)
        spent = round(time.monotonic() - began, 3)
        run = reported(self.report, self.question, self.root, self.wanted)
        code, trouble = self._process.returncode, ended or run.trouble
        if not trouble and (code not in (0, 1) or not run.findings):
            text = self.said.read_text(encoding="utf-8", errors="replace")
            trouble = f"pytest ended with exit code {code}: {_last_words(text) or 'it said nothing'}"
        return replace(run, exit=code, seconds=spent, trouble=trouble)

    def close(self) -> None:
        """End it, if nobody has waited for it, and all that it started."""
        if self._process.returncode is None:
            _end(self._process, patience=0.0)
        os.close(self._go)
        self._scratch.cleanup()

    def _watched(self, seconds: float | None, tell: Callable[[str], None], stop: Callable[[], bool]) -> str:
        """Why it was ended, if it was. No process is left when this returns."""
        ended, shown = "", ""
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while self._process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(TICK)
                if (line := _progress(self.said)) and line != shown:
                    shown = line
                    tell(line)
                if stop():
                    ended = "the suite was ended, as nobody waits for it any more"
                elif self.first and _in_vain(self.said, self.first):
                    ended = "the others were not run, as none of the checks that came first is EQUAL"
                elif deadline is not None and time.monotonic() > deadline:
                    ended = f"the suite was ended after {seconds:g} s, the time it was given"
                if ended:
                    ended = ended if self._process.poll() is None else ""
                    break
        finally:
            _end(self._process)
        return ended


def build(question: Question, root: Path, into: Path | None = None, anew: bool = False) -> None:
    """Builds the crates that the target in ``root`` is made of, if any, where ``environment`` has Python look first.

    One that cannot be built says so when it is imported. ``into``, ``anew``: as of ``crates.build``. Raises OSError,
    and ValueError where a crate is gone.
    """
    if question.crates:
        crates.build([root / name for name in question.crates], into or built(root), compiled(), anew)


def environment(question: Question, root: Path, fresh: bool = False, into: Path | None = None) -> dict[str, str]:
    """The variables of every process that looks at the target in ``root``: its files come first on the path, what was
    built of them (``into``, by default ``built(root)``) before their sources.

    Folders of the repository's other checkouts are taken off PYTHONPATH: what is judged is what lies in ``root``.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_CORE", "PYTHONPATH"))}
    others = other_checkouts(root)
    given = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    rest = [folder for folder in given if not any(Path(folder).resolve().is_relative_to(o) for o in others)]
    first = [str((root / folder).resolve()) for folder in question.search]
    made = [str(into or built(root))] if question.crates else []
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*made, str(root), *first, *rest]))
    kept["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing that could be run in place of a source is left in the tree
    kept.pop("PYTHONSAFEPATH", None)
    if fresh:
        kept = {k: v for k, v in kept.items() if k not in COMPILED}
    elif "JAX_COMPILATION_CACHE_DIR" not in kept:
        kept |= {**COMPILED, "JAX_COMPILATION_CACHE_DIR": str(_home() / "compiled")}
    return kept


def other_checkouts(root: Path) -> list[Path]:
    """The top folders of the other worktrees of the repository that ``root`` is in; none outside of one."""
    told = subprocess.run(["git", "worktree", "list", "--porcelain"], cwd=root, capture_output=True, text=True)
    tops = [
        Path(line.removeprefix("worktree ")).resolve() for line in told.stdout.splitlines() if line[:9] == "worktree "
    ]
    return [top for top in tops if not root.resolve().is_relative_to(top)]


def _arguments(
    question: Question, wanted: tuple[str, ...], seed: int | None, output: Path, report: Path, scratch: Path
) -> list[str]:
    """Levels are chosen by their marks rather than by --envequiv-levels: the report then lists all checks."""
    levels = tuple(c for c in wanted if c in LEVELS)
    nodes = [] if levels else [f"{NODE}::{check}" for check in wanted]
    xdist = importlib.util.find_spec("xdist") is not None
    return [
        # What a configuration file may have asked for, and would tell half of a run.
        *("--verbosity=1", "--color=no", "--maxfail=0", "-k", "", "-o", f"cache_dir={scratch / 'cache'}"),
        "--assert=plain",  # as no bytecode is kept, what pytest rewrites would be rewritten in each run
        *(("-n", "0") if xdist else ()),
        *question.options,
        *("-m", " or ".join(levels)),
        *("--envequiv", f"ref={question.ref}", f"target={question.target}"),
        *options(question, seed),
        f"--envequiv-output={output}",
        *("--json-report", f"--json-report-file={report}", "--json-report-omit", "log", "streams", "keywords"),
        "--json-report-indent=0",
        *nodes,
    ]


def _ordered(first: Sequence[str], scratch: Path) -> list[str]:
    """Arguments that put some checks before the others: as if they, and they alone, had failed the last time."""
    if not first:
        return []
    failed = scratch / "cache" / "v" / "cache" / "lastfailed"
    failed.parent.mkdir(parents=True)
    failed.write_text(json.dumps({f"{NODE}::{check}": True for check in first}))
    return ["--failed-first"]


def _end(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """Ends pytest and all that it started: also what the target left behind, and targets in sessions of their own."""
    family = _below(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # pytest then still writes what it has found
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _below(pid: int) -> list[int]:
    """The processes that one has started, and those that they have; nothing where there is no /proc to ask."""
    above: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            above.setdefault(parent, []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        children = above.get(left.pop(), [])
        found += children
        left += children
    return found


def _in_vain(said: Path, first: Sequence[str]) -> bool:
    """Whether all of some checks are over, and none has passed."""
    told = dict(re.findall(r"::([\w.-]+) ([A-Z]+) ", said.read_text(encoding="utf-8", errors="replace")))
    return all(told.get(check, "PASSED") != "PASSED" for check in first)


def _progress(said: Path) -> str:
    """ "L2-play-x, 31 %", from the last line about a check."""
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - 4000))
        lines = re.findall(r"::([\w.-]+) [A-Z]+ +\[ *(\d+)%\]", file.read().decode("utf-8", "replace"))
    return f"{lines[-1][0]}, {lines[-1][1]} %" if lines else ""


def _last_words(text: str) -> str:
    """The line that says most of why pytest ended: its own error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" =_!-")]
    errors = [line for line in lines if re.match(r"(ERROR|INTERNALERROR>|E  )\b.*\w", line)]
    return (errors or lines or [""])[-1][:500]


def answers(question: Question) -> str:
    """The folder in which the reference's answers are kept from run to run."""
    given = [option.partition("=")[2] for option in question.options if option.startswith("--envequiv-answers=")]
    return given[-1] if given else str(_home() / "answers")


def place(root: Path) -> Path:
    """Where a tree's counterexamples lie if nowhere else is asked for: the same for every run on it."""
    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return _home() / name


def built(root: Path) -> Path:
    """Where a tree's crates are built to, but for fresh runs, which have a folder of their own."""
    return place(root) / "built"


def compiled() -> Path:
    """Where cargo keeps what it compiled, of all trees."""
    return _home() / "cargo"


def _home() -> Path:
    return Path(tempfile.gettempdir()) / f"envequiv-repair-{os.getuid()}"
