"""The engine without an API: a search for one edit of the target's source, screened on saved transitions.

The target never runs here: candidates are made and screened in processes of their own (``screening.py``), and the one
that is written into the tree has still to pass the gate. Where it cannot search, it says so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from repair_agent import journal
from repair_agent.case import Attempt, Case
from repair_agent.question import Question
from repair_agent.suite import answers, environment

SECONDS = 120.0  # one search may take
SOON = 0.3  # of the time, after which an edit that leaves something wrong is good enough
LOOK = 0.1  # seconds between two looks at what was found
JOB = "job.json"  # what the processes of a search wait for


@dataclass(frozen=True)
class Found:
    """An edit with which the saved transitions agree. ``clean``: all of them, not only the group's; ``strays``: rows
    that were asked and not saved, and are missed."""

    number: int
    file: str
    text: str
    change: str
    clean: bool
    strays: int = 0


@dataclass
class Search:
    """What has been heard of one search. ``at``: part -> the number of the candidate it is at."""

    found: list[Found] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    saved: str = ""
    cannot: str = ""
    line: int = 0

    @property
    def screened(self) -> int:
        """Candidates looked at, about."""
        return max((n for n in self.at.values() if n < 1 << 29), default=-1) + 1

    @property
    def clean(self) -> Found | None:
        """The likeliest edit with which everything agrees, once no likelier one can still be found."""
        best = min((f for f in self.found if f.clean and not f.strays), key=lambda f: f.number, default=None)
        if best is None or any(self.at.get(p, -1) < best.number for p in self.at if p not in self.done):
            return None
        return best


class Offline:
    """See the module's text. ``seconds``: of one search; ``parts``: processes that share it."""

    name = "offline"

    def __init__(self, seconds: float = SECONDS, parts: int | None = None):
        self.seconds = seconds
        self.parts = max(1, min(parts or os.cpu_count() or 1, 4))
        self._tried: dict[str, list[str]] = {}
        self._waiting: Searchers | None = None

    def begin(self, question: Question, root: Path) -> None:
        """Have the processes of the first search load their libraries meanwhile, which takes seconds."""
        self.close()
        self._waiting = Searchers(question, root, self.parts)

    def close(self) -> None:
        """End what was begun and not used."""
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def attempt(self, case: Case) -> Attempt:
        """Write the likeliest edit into the tree. What was tried on this group before is not tried again."""
        files = [f for f in case.tree.files if f.endswith(".py") and (case.tree.root / f).is_file()]
        if not files:
            return Attempt(False, "it can search in Python only, and none of the target's files is", gave_up=True)
        tried = self._tried.setdefault(case.group.key, _told_before(case))
        began = time.monotonic()
        search = self._searched(case, files, tried)
        spent = round(time.monotonic() - began, 1)
        mine = {str((case.tree.root / file).resolve()) for file in files}
        # What is told comes from where the target's code ran: no other file is written, whatever it says.
        found = [f for f in search.found if f.file in mine]
        best = min(found, key=lambda f: (not f.clean, f.strays, f.number), default=None)
        case.journal.write(
            "offline",
            group=case.group.key,
            seconds=spent,
            screened=search.screened,
            saved=search.saved,
            found=len(search.found),
            change="" if best is None else best.change,
        )
        if best is None:
            return Attempt(False, _why_not(search, len(tried), spent), gave_up=True)
        tried.append(best.change)
        Path(best.file).write_text(best.text, encoding="utf-8")
        name = os.path.relpath(best.file, case.tree.root.resolve())
        rest = "" if best.clean else "; other fields still differ"
        rest += f"; {best.strays} others do not" if best.strays else ""
        return Attempt(True, f"{name} {best.change} (candidate {best.number + 1}; saved transitions agree{rest})")

    def _searched(self, case: Case, files: list[str], tried: list[str]) -> Search:
        """Raises ``budget.Exhausted`` at a limit; no process is left behind, however it ends."""
        seconds = min(self.seconds, case.budget.seconds_left)
        search = Search(at=dict.fromkeys(range(self.parts), -1))
        searchers, self._waiting = self._waiting or Searchers(case.question, case.tree.root, self.parts), None
        with closing(searchers):
            searchers.give(_job(case, files, tried, self.parts, seconds))
            end, heard = time.monotonic() + seconds + 5, dict.fromkeys(range(self.parts), 0)
            first = 0.0
            while len(search.done) < self.parts and time.monotonic() < end:
                time.sleep(LOOK)
                case.budget.check()
                for part, process in enumerate(searchers.processes):
                    ended = process.poll() is not None
                    heard[part] = _heard(search, part, searchers.folder / f"part-{part}.jsonl", heard[part])
                    if ended:
                        search.done.add(part)
                case.tell(f"{case.group.key}: offline, {search.screened} candidates, line {search.line}")
                if search.clean is not None:
                    break
                if search.found:
                    first = first or time.monotonic()
                    if time.monotonic() - first > SOON * seconds:
                        break
        return search


def _told_before(case: Case) -> list[str]:
    """What this engine tried on the group before it was interrupted."""
    told = journal.read(case.journal.path)
    mine = [event for event in told if event["kind"] == "offline" and event.get("group") == case.group.key]
    return [event["change"] for event in mine if event.get("change")]


def _job(case: Case, files: list[str], tried: list[str], parts: int, seconds: float) -> dict[str, Any]:
    question, run, group = case.question, case.run, case.group
    places = {str((case.tree.root / file).resolve()): file for file in files}
    findings = [run.findings[c] for c in group.checks if c in run.findings]
    rest = [f for f in run.findings.values() if f.word == "DIFFERENT" and not f.follows and f not in findings]
    blamed = []
    # The first line of each finding, then the second: what a bound blames may follow from another field's cause.
    for suspect in chain.from_iterable(zip_longest(*(finding.blame for finding in (*findings, *rest)))):
        place = suspect and next((p for p, file in places.items() if _same_file(suspect["file"], file)), None)
        if place and [place, suspect["line"]] not in blamed:
            blamed.append([place, suspect["line"]])
    return {
        "settings": {**question.settings(), "answers": answers(question)},
        "files": list(places),
        "blamed": blamed,
        "checks": list(group.checks),
        "fields": sorted({group.field, *(f.field for f in findings)}),
        "counterexamples": [f.counterexample for f in findings if f.counterexample],
        "skipped": tried,
        "parts": parts,
        "seconds": seconds,
    }


def _same_file(told: str, file: str) -> bool:
    """Whether a report's path, relative to where it ran or from its package on, is a file of the tree."""
    a, b = Path(told).parts, Path(file).parts
    short = min(len(a), len(b))
    return a[-short:] == b[-short:]


class Searchers:
    """The processes of one search, each in a session of its own: they load what they need, and wait for the job.

    Raises OSError where no process can be started.
    """

    def __init__(self, question: Question, root: Path, count: int):
        self._scratch = tempfile.TemporaryDirectory(prefix="envequiv-offline-")
        self.folder = Path(self._scratch.name)
        self.processes: list[subprocess.Popen[bytes]] = []
        variables = environment(question, root.resolve())
        # This program is found wherever it lies, but after all that the target may import.
        own = str(Path(__file__).resolve().parents[2])
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (variables.get("PYTHONPATH"), own)))
        argv = [sys.executable, "-m", "repair_agent.offline.screening", str(self.folder)]
        try:
            for part in range(count):
                with (self.folder / f"part-{part}.txt").open("wb") as said:
                    self.processes.append(
                        subprocess.Popen(
                            [*argv, str(part), question.target],
                            cwd=root.resolve(),
                            env=variables,
                            stdin=subprocess.DEVNULL,
                            stdout=said,
                            stderr=said,
                            start_new_session=True,
                        )
                    )
        except OSError:
            self.close()
            raise

    def give(self, job: dict[str, Any]) -> None:
        written = self.folder / "job.part"
        written.write_text(json.dumps(job), encoding="utf-8")
        written.replace(self.folder / JOB)

    def close(self) -> None:
        """End them, with all they started."""
        for process in self.processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._scratch.cleanup()


def _heard(search: Search, part: int, path: Path, heard: int) -> int:
    """Read what a part has told since ``heard`` (bytes); the new place."""
    if not path.exists():
        return heard
    with path.open("rb") as file:
        file.seek(heard)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.splitlines():
        event = json.loads(line)
        if event["kind"] == "at":
            search.at[part], search.line = event["number"], event["line"] or search.line
        elif event["kind"] == "found":
            found = {k: event[k] for k in ("number", "file", "text", "change", "clean", "strays")}
            search.found.append(Found(**found))
            search.at[part] = max(search.at[part], event["number"])
        elif event["kind"] == "saved":
            search.saved = event["why"]
        elif event["kind"] == "cannot":
            search.cannot = event["why"]
        elif event["kind"] == "done":
            search.done.add(part)
    return heard + len(whole)


def _why_not(search: Search, tried: int, spent: float) -> str:
    if search.cannot and not search.screened:
        return f"it cannot search: {search.cannot}"
    if not search.saved:
        return f"it cannot search: no transitions were saved within {spent:g} s"
    before = f" that were not tried before ({tried} were)" if tried else ""
    count = f"none of {search.screened} candidates{before}"
    return f"{count} makes the saved transitions agree, in {spent:g} s; {search.saved}"
