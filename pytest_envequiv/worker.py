"""The judge in a process of its own: the end of the pipe that asks. ``judging.py`` is the other.

pytest's process imports no backend: a target that exits, crashes, hangs, skips or patches pytest does so in there,
and costs the run one check and a fresh process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_envequiv.judging import LEAVING, PAGE
from pytest_envequiv.peer import Peer, PeerError, PeerGarbled, PeerSilent
from pytest_envequiv.verdict import DIFFERENT, INCONCLUSIVE, Check, Progress, Settings, Verdict, Word, silent

# The parent's search path, so that what a test file can import opens here too; never the folder pytest was called
# in (-P): that comes first, but only once the judge is loaded, so that no file in it can take a module's place.
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pytest_envequiv.judging import main
main(sys.argv[2])
"""

# The one check of a pair that cannot be opened.
OPEN = Check(id="L1-open-pair", level="L1", subject="open", field="pair")

# After so many deaths in a row by one side's hand the rest of its checks are not tried.
DEATHS = 2


class Failure(Exception):
    """A request that was not answered, in one line.

    ``side`` ("target", "reference" or "") is who did it as far as is known; ``word`` is what it says of a check;
    ``died``: the worker is gone with it; ``traceback`` is for the output folder.
    """

    def __init__(self, message: str, *, side: str = "", word: Word = INCONCLUSIVE, died: bool, traceback: str = ""):
        super().__init__(message)
        self.side, self.died, self.traceback = side, died, traceback
        self.word: Word = word


def read_crumb(crumb: str) -> tuple[str, bool, str]:
    """A breadcrumb as (side, whether it was being opened, the rest): "target.step" is ("target", False, "step")."""
    found = re.match(r"(opening )?(?:the )?(target|reference|ref)\b[\s.:]*(.*)", crumb, re.DOTALL)
    if not found:
        return "", False, crumb
    return ("target" if found[2] == "target" else "reference"), bool(found[1]), found[3]


def account(crumb: str, what: str) -> str:
    """One line: who did ``what`` ("exited with code 0; its last words: ...") at the breadcrumb."""
    side, opening, where = read_crumb(crumb)
    what, *rest = re.split(r"(?=; its last words: )", what, maxsplit=1)
    what = f"gave {what}" if what.startswith("no answer") else what
    if opening:
        line = f"while opening the {side} {where}, it {what}"
    else:
        line = f"the {side or 'judge'} {what}" + (f" in {where}" if side and where else f" ({where})" if where else "")
    return "".join([line, *rest])


def failure_of_peer(error: PeerError, crumb: str) -> Failure:
    """A target that dies is not the environment the reference is; one that is only slow may be."""
    side = read_crumb(crumb)[0]
    word: Word = DIFFERENT if side == "target" and not isinstance(error, PeerSilent) else INCONCLUSIVE
    return Failure(account(crumb, str(error)), side=side, word=word, died=True)


def failure_of_reply(reply: Mapping[str, Any], crumb: str) -> Failure:
    """What the child says of a request that raised."""
    if reply["mendable"]:
        side = "reference" if reply["side"] == "ref" else reply["side"]
        message = reply["error"]
    else:
        side = read_crumb(crumb)[0] if reply["theirs"] else ""
        message = account(crumb if side else crumb and f"after {crumb}", reply["error"])
    word: Word = DIFFERENT if side == "target" and not reply["silent"] else INCONCLUSIVE
    return Failure(message, side=side, word=word, died=False, traceback=reply["traceback"])


def searched() -> list[str]:
    """Where pytest's process looks for modules."""
    return [str(folder) for folder in sys.path if folder]


class Worker:
    """The judge's process as pytest sees it: started when first asked, and again after it died."""

    def __init__(self, cwd: str):
        self.cwd = cwd
        self._peer: Peer | None = None
        self._trail: Any = None  # the file of the breadcrumb

    def begin(self) -> None:
        """Start it, if it does not run: it loads the judge, which takes seconds, before anything is asked."""
        if self._trail is None:
            self._trail = tempfile.NamedTemporaryFile()
            self._sweep()
        if self._peer is None:
            argv = [sys.executable, "-P", "-c", BOOT, json.dumps(searched()), self._trail.name]
            self._peer = Peer(argv, cwd=self.cwd)

    def ask(self, request: Mapping[str, Any], timeout: float, progress: Progress = silent) -> Any:
        """The answer, or Failure. The deadline is ``timeout`` seconds of silence; progress is a sign of life."""
        try:
            self.begin()
            self._sweep()
            token = secrets.token_hex(8)  # of this question: what does not have it is not its answer
            assert self._peer is not None
            self._peer.send({**request, "search": searched(), "token": token}, timeout)
            while "progress" in (reply := self._peer.receive(timeout)):
                progress(*reply["progress"])
            if not isinstance(reply, Mapping) or reply.get("token") != token:
                raise PeerGarbled("wrote an answer that is not the judge's")
        except PeerError as error:
            self.kill()
            raise failure_of_peer(error, self._crumb()) from None
        except BaseException:  # Ctrl-C, a timeout plugin: the answer would arrive when something else is asked
            self.kill()
            raise
        if "error" in reply:
            raise failure_of_reply(reply, self._crumb())
        return reply[request["do"]]

    def _sweep(self) -> None:
        os.pwrite(self._trail.fileno(), bytes(PAGE), 0)

    def _crumb(self) -> str:
        return os.pread(self._trail.fileno(), PAGE, 0).partition(b"\0")[0].decode("utf-8", "ignore")

    def kill(self) -> None:
        if self._peer is not None:
            self._peer.kill()
            self._peer = None

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close(LEAVING)
            self._peer = None


class Pair:
    """A pair's checks, asked for through a worker. What goes wrong comes back as a verdict, never as an exception.

    checks, notes, describe and contents are the judge's, once ``open`` was called. A pair that does not open has one
    check, ``OPEN``, that tells why.
    """

    def __init__(self, settings: Settings, worker: Worker):
        self.settings = settings
        self.worker = worker
        self.checks: list[Check] = []
        self.notes: list[str] = []
        self.describe: dict[str, Any] = {}
        self.contents: dict[str, Any] = {"error": "the pair did not open"}
        self._began = 0.0
        self._unopened: Verdict | None = None
        self._deaths: list[tuple[str, str]] = []  # (side, check id), in a row and by the same side

    def open(self, progress: Progress = silent) -> None:
        """Safe to call again."""
        if self.checks:
            return
        self._began = time.monotonic()
        try:
            opened = json.loads(self._ask("open", progress))
        except Failure as failure:
            self._unopened = self._verdict(OPEN, failure)
            self.checks = [OPEN]
        else:
            self.checks = [Check(**check) for check in opened["checks"]]
            self.notes, self.describe, self.contents = opened["notes"], opened["describe"], opened["contents"]

    def run(self, check: Check, progress: Progress = silent) -> Verdict:
        began = time.monotonic()
        budget = self.settings.budget
        if self._unopened is not None:
            return self._unopened
        if budget is not None and began - self._began > budget:
            return Verdict(check, INCONCLUSIVE, f"time budget of {budget:g} s spent")
        if len(self._deaths) >= DEATHS:
            side, first = self._deaths[0]
            return Verdict(
                check, INCONCLUSIVE, f"not run: the {side or 'judge'} crashed {len(self._deaths)} times (see {first})"
            )
        try:
            verdict = Verdict.from_json(json.loads(self._ask("run", progress, id=check.id)))
        except Failure as failure:
            if failure.died:
                self._deaths = [*(d for d in self._deaths if d[0] == failure.side), (failure.side, check.id)]
            verdict = self._verdict(check, failure)
        else:
            gone = verdict.evidence.get("gone")
            self._deaths = [*(d for d in self._deaths if d[0] == "target"), ("target", check.id)] if gone else []
        verdict.evidence.setdefault("seconds", round(time.monotonic() - began, 3))
        return verdict

    def propose(self, progress: Progress = silent) -> str:
        """The field map as TOML, or Failure."""
        return self._ask("propose", progress)

    def _ask(self, what: str, progress: Progress, **more: Any) -> Any:
        request = {"do": what, "settings": self.settings.as_json(), **more}
        return self.worker.ask(request, self.settings.timeout, progress)

    def _verdict(self, check: Check, failure: Failure) -> Verdict:
        return verdict_of_failure(check, failure, self.settings.output)


class Replay:
    """A counterexample file as a pair of one check: it fails for as long as the file's inputs still diverge."""

    def __init__(self, path: str, settings: Settings, worker: Worker, destination: str | None = None):
        stem = re.sub(r"[^\w.-]", "_", Path(path).stem)
        self.path = path
        self.settings = settings
        self.worker = worker
        self.destination = destination
        self.checks = [Check(id=f"replay-{stem}", level="replay", subject="replay", field=stem)]
        self.notes: list[str] = []
        self.describe: dict[str, Any] = {}
        self.contents: dict[str, Any] = {}

    def open(self, progress: Progress = silent) -> None:
        """Nothing to do: the file names its pair, and is read when it is run."""

    def run(self, check: Check, progress: Progress = silent) -> Verdict:
        """Export it first, if asked to: that needs no environment."""
        told = self.settings.as_json() if self.settings.ref else None
        try:
            if self.destination is not None:
                request = {"do": "export", "path": self.path, "destination": self.destination}
                self.worker.ask(request, self.settings.timeout)
                self.notes = [f"{self.path} exported as {self.destination}"]
            again: dict[str, Any] = {"do": "replay", "settings": told, "path": self.path}
            return Verdict.from_json(json.loads(self.worker.ask(again, self.settings.timeout, progress)))
        except Failure as failure:
            return verdict_of_failure(check, failure, self.settings.output)


def contents_now(worker: Worker, settings: Settings) -> dict[str, Any]:
    """What both sides are made of now, {"ref", "target"}, or {"error"}."""
    try:
        told: dict[str, Any] = json.loads(worker.ask({"do": "contents", "settings": settings.as_json()}, 60.0))
    except Failure as failure:
        return {"error": str(failure)}
    return told


def verdict_of_failure(check: Check, failure: Failure, folder: str) -> Verdict:
    """A failure as a verdict; its traceback, if it has one, goes to a file in ``folder``."""
    evidence: dict[str, Any] = {}
    if failure.traceback:
        path = Path(folder) / f"{check.id}.traceback.txt"
        with contextlib.suppress(OSError):  # the verdict matters more
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(failure.traceback, encoding="utf-8")
            evidence["traceback"] = str(path)
    return Verdict(check, failure.word, str(failure), evidence=evidence)
