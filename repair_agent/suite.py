"""The suite as the repair agent sees it: pytest in a process of its own, and what its JSON report says.

Nothing of the target is imported here. What a target does to its process (exits, hangs, prints) ends as
``Run.trouble``, never as an error of the agent.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Word = Literal["EQUAL", "DIFFERENT", "INCONCLUSIVE", "MISSING"]  # MISSING: expected, and not in the report

LEVELS = ("L1", "L2", "L3")  # at L4 policies are trained: too slow to be asked after every edit
OPEN = "L1-open-pair"  # the one check of a pair that does not open
NODE = "envequiv"  # what the node ids of a pair of the command line begin with
TICK = 0.2  # seconds between looks at a running suite
# JAX keeps what it compiled for the next run: of a run on CartPole that saves 8 of 26 seconds.
COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
PATIENCE = 5.0  # seconds that pytest has to end by itself before its group is killed


@dataclass(frozen=True)
class Question:
    """What pytest is asked. ``options``: more of its arguments, as typed (``--envequiv-strict``); ``search``: folders
    that come first on Python's path, after the one the suite runs in and relative to it (``src``)."""

    ref: str
    target: str
    profile: str = "quick"
    contract: str | None = None  # path, relative to the folder the suite runs in
    seed: int = 0
    options: tuple[str, ...] = ()
    search: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """As pytest_envequiv.verdict.Settings takes it, for processes that ask the judge without pytest."""
        return {
            "ref": self.ref,
            "target": self.target,
            "profile": self.profile,
            "seed": self.seed,
            "contract": self.contract,
            "strict": "--envequiv-strict" in self.options,
        }


@dataclass(frozen=True)
class Finding:
    """One check of a run."""

    node: str  # pytest's node id
    check: str  # its last part: "L2-boundary-velocity"
    level: str
    subject: str
    field: str
    word: Word
    summary: str
    follows: str | None = None  # the check whose divergence explains this one
    divergence: dict[str, Any] | None = None
    blame: tuple[dict[str, Any], ...] = ()  # {"file", "line", "code", "score", "why"}, best first
    counterexample: str | None = None  # absolute path
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of the suite. ``expected``: ids of all checks of the pair; ``order``: outputs in data-flow order.

    ``findings`` has every check that was asked for: those that are not in the report are there as MISSING.
    """

    findings: dict[str, Finding]  # by check id
    expected: tuple[str, ...]
    order: tuple[str, ...] = ()
    describe: dict[str, Any] = dataclasses.field(default_factory=dict)
    contents: dict[str, Any] = dataclasses.field(default_factory=dict)
    exit: int = 0
    seconds: float = 0.0
    trouble: str = ""  # why there is no report, or only half of one
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the run was asked to do, as it told

    @property
    def green(self) -> bool:
        """Every check that was expected is there and EQUAL, and pytest ended as it does then."""
        return (
            not self.trouble
            and self.exit == 0
            and bool(self.expected)
            and all(c in self.findings and self.findings[c].word == "EQUAL" for c in self.expected)
        )


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
) -> Run:
    """Run the suite in ``root``: all of it, or the ``checks`` that are named, or the levels ("L1").

    ``first``: checks that are run before the others; if none of them is EQUAL, the others are not run, which is
    ``trouble``. ``stop``: asked while it runs; once it says so, what is left is not run, which is ``trouble`` too.

    It runs in a session of its own, which is gone when this returns, however it returns. ``seconds``: a limit, after
    which it is killed; ``output``: where counterexamples go (and where those of the last run are tried again first),
    by default a folder in the temporary directory, never in ``root``; ``fresh``: without the programs that earlier runs
    compiled. The user's PYTEST_ADDOPTS are ignored; their
    configuration and conftest files are not. Raises ValueError if ids and levels are mixed, OSError if no process can
    be started, and nothing for what the target does.
    """
    root = root.resolve()
    output = output or place(root)
    output.mkdir(parents=True, exist_ok=True)
    wanted = tuple(c for c in checks if c != OPEN)  # it exists only where the pair does not open
    levels = tuple(c for c in wanted if c in LEVELS)
    if levels and len(levels) < len(wanted):
        raise ValueError(f"cannot run levels and single checks in one go: {' '.join(wanted)}")
    with tempfile.TemporaryDirectory(prefix="envequiv-suite-") as scratch:
        report, said = Path(scratch) / "report.json", Path(scratch) / "said.txt"
        argv = _arguments(question, wanted, seed, output, report, Path(scratch)) + _ordered(first, Path(scratch))
        began = time.monotonic()
        code, ended = _run(argv, root, environment(question, root, fresh), said, seconds, tell, first, stop)
        spent = round(time.monotonic() - began, 3)
        text = said.read_text(encoding="utf-8", errors="replace")
        run = _told(report, question, root, wanted)
    trouble = ended or run.trouble
    if not trouble and (code not in (0, 1) or not run.findings):
        trouble = f"pytest ended with exit code {code}: {_last_words(text) or 'it said nothing'}"
    return replace(run, exit=code, seconds=spent, trouble=trouble)


def read(path: Path, question: Question, folder: Path) -> Run:
    """The run that a JSON report tells of. ``folder``: where pytest was called; its paths are meant from there.

    Raises ValueError: what is wrong with the file, and how to mend it.
    """
    again = f"write it with: {command(question)}"
    try:
        document = _parsed(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; {again}") from error
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON report, or was cut off ({error}); {again}") from error
    try:
        run = _of_report(document, question, folder.resolve())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {again}") from error
    return run


def command(question: Question) -> str:
    """What a person types to run the same."""
    words = ["pytest", "--envequiv", f"ref={question.ref}", f"target={question.target}", *_asked(question)]
    return " ".join([*words, *question.options, "--json-report", "--json-report-file=report.json"])


def environment(question: Question, root: Path, fresh: bool = False) -> dict[str, str]:
    """The variables of every process that looks at the target in ``root``: its files come first on the path.

    Folders of the repository's other checkouts are taken off PYTHONPATH: what is judged is what lies in ``root``.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_CORE", "PYTHONPATH"))}
    others = other_checkouts(root)
    given = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    rest = [folder for folder in given if not any(Path(folder).resolve().is_relative_to(o) for o in others)]
    first = [str((root / folder).resolve()) for folder in question.search]
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(root), *first, *rest]))
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


# --- asking ----------------------------------------------------------------------------------------------------------


def _asked(question: Question, seed: int | None = None) -> list[str]:
    asked = [f"--envequiv-profile={question.profile}", f"--envequiv-seed={question.seed if seed is None else seed}"]
    if not any(option.startswith("--envequiv-levels") for option in question.options):
        asked.append(f"--envequiv-levels={','.join(LEVELS)}")
    return asked + ([f"--envequiv-contract={question.contract}"] if question.contract else [])


def _arguments(
    question: Question, wanted: tuple[str, ...], seed: int | None, output: Path, report: Path, scratch: Path
) -> list[str]:
    """Levels are chosen by their marks rather than by --envequiv-levels: the report then lists all checks."""
    levels = tuple(c for c in wanted if c in LEVELS)
    nodes = [] if levels else [f"{NODE}::{check}" for check in wanted]
    xdist = importlib.util.find_spec("xdist") is not None
    return [
        *(sys.executable, "-m", "pytest"),
        # What a configuration file may have asked for, and would tell half of a run.
        *("--verbosity=1", "--color=no", "--maxfail=0", "-k", "", "-o", f"cache_dir={scratch / 'cache'}"),
        "--assert=plain",  # as no bytecode is kept, what pytest rewrites would be rewritten in each run
        *(("-n", "0") if xdist else ()),
        *question.options,
        *("-m", " or ".join(levels)),
        *("--envequiv", f"ref={question.ref}", f"target={question.target}"),
        *_asked(question, seed),
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


def _run(
    argv: list[str],
    root: Path,
    env: Mapping[str, str],
    said: Path,
    seconds: float | None,
    tell: Callable[[str], None],
    first: Sequence[str],
    stop: Callable[[], bool],
) -> tuple[int, str]:
    """pytest's exit code, and why it was ended, if it was."""
    ended = ""
    with said.open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=root, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        deadline = None if seconds is None else time.monotonic() + seconds
        shown = ""
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TICK)
                if (line := _progress(said)) and line != shown:
                    shown = line
                    tell(line)
                if stop():
                    ended = "the suite was ended, as nobody waits for it any more"
                elif first and _in_vain(said, first):
                    ended = "the others were not run, as none of the checks that came first is EQUAL"
                elif deadline is not None and time.monotonic() > deadline:
                    ended = f"the suite was ended after {seconds:g} s, the time it was given"
                if ended:
                    ended = ended if process.poll() is None else ""
                    break
        finally:
            _end(process)
    return process.returncode, ended


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends pytest and all that it started: also what the target left behind, and targets in sessions of their own."""
    family = _below(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # pytest then still writes what it has found
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
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


def place(root: Path) -> Path:
    """Where a tree's counterexamples lie if nowhere else is asked for: the same for every run on it."""
    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return _home() / name


def _home() -> Path:
    return Path(tempfile.gettempdir()) / f"envequiv-repair-{os.getuid()}"


# --- reading ---------------------------------------------------------------------------------------------------------


def _told(report: Path, question: Question, root: Path, wanted: tuple[str, ...]) -> Run:
    """What the report of a run tells; a run without findings if it tells nothing of the pair."""
    try:
        document = _parsed(report)
        return _of_report(document, question, root, wanted)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return Run({}, ())
    except ValueError as error:
        compared = isinstance(document, dict) and "envequiv" in document
        return Run({}, (), trouble=str(error) if compared else _collection(document))


def _parsed(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _of_report(document: Any, question: Question, folder: Path, wanted: tuple[str, ...] = ()) -> Run:
    """Raises ValueError if the document tells nothing of the pair."""
    pair = _pair(document, question)
    prefix = str(pair["node"])
    try:
        findings = {}
        for test in document["tests"]:
            told = (test.get("metadata") or {}).get("envequiv")
            if told and told["pair"]["node"] == prefix and told["check"]["level"] != "L4":
                finding = _finding(test["nodeid"], told, folder)
                findings[finding.check] = finding
        expected = tuple(str(check) for check in pair["checks"] if not check.startswith("L4-"))
        flow = pair["describe"].get("dataflow") or {}
        order, describe, contents = tuple(flow.get("order", ())), dict(pair["describe"]), dict(pair["contents"])
        exit_code = int(document.get("exitcode", 0))
        settings = dict(pair.get("settings") or {})
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is not as docs/report.schema.json says it is ({type(error).__name__}: {error})") from error
    for check in expected:
        if check not in findings and (not wanted or check in wanted or check[:2] in wanted):
            findings[check] = _missing(prefix, check)
    trouble = _collection(document)
    ordered = {check: findings.pop(check) for check in expected if check in findings} | findings
    return Run(
        ordered, expected, order, describe, contents, exit_code, float(document.get("duration") or 0), trouble, settings
    )


def _pair(document: Any, question: Question) -> dict[str, Any]:
    if not isinstance(document, dict) or "tests" not in document:
        raise ValueError("is JSON, but not of pytest --json-report")
    if not isinstance(document.get("envequiv"), dict):
        raise ValueError(_collection(document) or "no pair of environments was compared in it")
    try:
        pairs = [dict(pair) for pair in document["envequiv"]["pairs"]]
        same = [pair for pair in pairs if (pair["ref"], pair["target"]) == (question.ref, question.target)]
        known = ", ".join(f"ref={pair['ref']} target={pair['target']}" for pair in pairs)
        # The same pair may also stand in a marked test: the one of the command line is what was asked for.
        ours = sorted(same, key=lambda pair: pair["node"] != NODE)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is not as docs/report.schema.json says it is ({type(error).__name__}: {error})") from error
    if not ours:
        raise ValueError(f"is about {known or 'no pair'}, not about ref={question.ref} target={question.target}")
    return ours[0]


def _finding(node: str, told: dict[str, Any], folder: Path) -> Finding:
    check, evidence = told["check"], dict(told["evidence"])
    path = told["counterexample"]
    return Finding(
        node=node,
        check=str(check["id"]),
        level=str(check["level"]),
        subject=str(check["subject"]),
        field=str(check["field"]),
        word=told["word"],
        summary=str(told["summary"]),
        follows=told["follows"],
        divergence=told["divergence"],
        blame=tuple(evidence.get("blame", ())),
        counterexample=None if path is None else str((folder / path).resolve()),
        evidence=evidence,
    )


def _missing(prefix: str, check: str) -> Finding:
    level, subject, name = [*check.split("-", 2), "", ""][:3]
    return Finding(f"{prefix}::{check}", check, level, subject, name, "MISSING", "it was expected, and did not run")


def _collection(document: Any) -> str:
    """Why pytest could not collect something, or ""."""
    for collector in (isinstance(document, dict) and document.get("collectors")) or ():
        if isinstance(collector, dict) and collector.get("outcome") == "failed":
            lines = str(collector.get("longrepr") or "").strip().splitlines()
            return f"pytest could not collect {collector.get('nodeid')}: {lines[-1][:500] if lines else 'no reason'}"
    return ""
