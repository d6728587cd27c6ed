"""The judge in a process of its own: the end of the pipe that answers. It is run by ``worker.py``.

It reads one request per frame and answers it with progress frames and then one answer:

    {"do": "open", "settings": {...}}                      -> {"open": {"checks", "notes", "describe", "contents"}}
    {"do": "run", "settings": {...}, "id": str}            -> {"run": verdict}
    {"do": "replay", "settings": {...} | None, "path": str} -> {"replay": verdict}
    {"do": "export", "path": str, "destination": str}      -> {"export": destination}
    {"do": "propose", "settings": {...}}                   -> {"propose": TOML}
    {"do": "cover", "settings": {...}}                     -> {"cover": branch coverage of the target alone}
    {"do": "contents", "settings": {...}}                  -> {"contents": {"ref", "target"} | {"error"}}

A progress frame is {"progress": [what, done, total]}. Its ``what`` is also a breadcrumb, kept in a page both ends
see: when this process dies, it says which side did it. A request that fails is answered with {"error", "kind", ...}.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pytest_envequiv import contents
from pytest_envequiv.errors import BackendError, EnvequivError, Gone
from pytest_envequiv.peer import read_frame, write_frame
from pytest_envequiv.seal import seal
from pytest_envequiv.verdict import Progress, Settings, plain

PACKAGE = Path(__file__).parent
PAGE = 4096  # bytes of the page that holds the last breadcrumb
LEAVING = 4.0  # seconds that an idle worker has to close what is open


class Teller:
    """Leaves every breadcrumb, and sends each kind of progress a few times a second.

    A breadcrumb costs about a microsecond, so a judge that steps two environments in turn can tell of every step.
    """

    def __init__(self, outbound: IO[bytes], trail: str):
        self.outbound = outbound
        with open(trail, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), PAGE)
        self.what = ""
        self.sent: dict[str, float] = {}  # when each was last sent

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            crumb = what.encode("utf-8", "replace")[: PAGE - 1] + b"\0"
            self.page[: len(crumb)] = crumb
            self.what = what
        if now - self.sent.get(what, -1.0) > 0.1:
            self.sent[what] = now
            write_frame(self.outbound, {"progress": [sound(what), int(done), int(total)]})

    def forget(self) -> None:
        """Each request lays its own trail."""
        self.what = ""
        self.sent.clear()


def main(trail: str) -> None:
    """Serve requests from stdin until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest decides what Ctrl-C means
    inbound, outbound = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a target that reads stdin must not eat requests
    os.dup2(2, 1)  # nor garble the answers by printing
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # its last words must not sit in a buffer
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    leaving = threading.Event()
    threading.Thread(target=listen, args=(inbound, inbox, leaving), daemon=True).start()

    from pytest_envequiv import judge as judge_module

    sys.path.insert(0, os.getcwd())
    judges: dict[str, tuple[Any, dict[str, Any]]] = {}  # by settings: what is open, and what it is made of
    tell = Teller(outbound, trail)
    broken, write = seal(), write_frame  # kept here, where a target cannot easily replace them
    while (request := inbox.get()) is not None:
        tell.forget()
        sys.path += [folder for folder in request["search"] if folder not in sys.path]
        try:
            reply = {request["do"]: answer(request, judge_module, judges, tell)}
        except BaseException as error:
            reply = refusal(error)
        if replaced := broken():
            text = f"the target replaced {replaced}: nothing here can be believed any more"
            reply = {"error": text, "side": "target", "silent": False, "mendable": True, "traceback": ""}
        write(outbound, {**reply, "token": request["token"]})
    leaving.set()
    _exit_after(LEAVING)
    for judge, _ in judges.values():
        judge.close()
    _exit_after(0.5)  # whatever threads a target left


def listen(inbound: IO[bytes], inbox: queue.SimpleQueue[Any], leaving: threading.Event) -> None:
    """Hand on requests. When pytest is gone, let an idle worker leave in peace and end a busy one."""
    with contextlib.suppress(Exception):
        while True:
            inbox.put(read_frame(inbound))
    inbox.put(None)
    if not leaving.wait(0.5):
        os._exit(0)


def _exit_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def answer(
    request: Mapping[str, Any], judge_module: Any, judges: dict[str, tuple[Any, dict[str, Any]]], tell: Progress
) -> Any:
    """What a request asks for, msgpack-safe. A pair's files are hashed before they are imported: what is judged is
    what was there then."""
    told: Any = request.get("settings")
    settings = None if told is None else Settings.from_json(told)

    def opened() -> tuple[Any, dict[str, Any]]:
        key = json.dumps(told, sort_keys=True)
        if key not in judges:
            hashed = contents.of_pair(told["ref"], told["target"])
            judge = judge_module.Judge(settings, tell)
            judges[key] = judge, contents.bound(hashed, told, judge.contract.text, sys.modules)
        return judges[key]

    match request["do"]:
        case "open":
            judge, sealed = opened()
            checks = [check.as_json() for check in judge.checks]
            answered = {"checks": checks, "notes": list(judge.notes), "describe": judge.describe()}
            return json_safe({**answered, "contents": sealed})
        case "contents":
            return json_safe(contents.of_pair(told["ref"], told["target"]))
        case "run":
            verdict = opened()[0].run(request["id"], tell)
            if verdict.evidence.get("gone"):  # the target's own process: the next check has a new one
                judges.pop(json.dumps(told, sort_keys=True))[0].close()
            return json_safe(verdict.as_json())
        case "replay":
            return json_safe(judge_module.replay(request["path"], settings, tell).as_json())
        case "export":
            judge_module.export(request["path"], request["destination"])
            return request["destination"]
        case "propose":
            return sound(opened()[0].proposal())
        case "cover":
            return json_safe(judge_module.cover(settings, tell))
    raise ValueError(f"unknown request {request['do']!r}")


def json_safe(value: Any) -> str:
    """As JSON text: it has no limit on integers (the state of a generator has 128 bits) as msgpack has."""
    return sound(json.dumps(plain(value), ensure_ascii=False, default=str))


def sound(text: str) -> str:
    """Without the halves of surrogate pairs that no encoder takes."""
    return text.encode("utf-8", "replace").decode()


def refusal(error: BaseException) -> dict[str, Any]:
    """The answer to a request that raised. ``theirs``: it was raised by a side's code rather than by the judge's."""
    frames = traceback.extract_tb(error.__traceback__)
    place = last_user_line(frames)
    text = one_line(error)
    mendable = isinstance(error, EnvequivError)
    told = mendable and error.__cause__ is None and error.__context__ is None  # the line is all there is to know
    return {
        "error": text if mendable else f"raised {type(error).__name__}: {text}{f' ({place})' if place else ''}",
        "kind": type(error).__name__,
        "side": error.side if isinstance(error, BackendError) else "target" if isinstance(error, Gone) else "",
        "silent": isinstance(error, Gone) and error.silent,
        "mendable": mendable,
        "theirs": bool(place) or not isinstance(error, Exception),
        "traceback": "" if told else sound("".join(traceback.format_exception(error))),
    }


def one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = ""
    return sound(" ".join(text.split()))[:500] or "no message"


def last_user_line(frames: traceback.StackSummary) -> str:
    """ "file:line" of the last frame in code that is neither ours nor installed, or ""."""
    installed = [str(PACKAGE), *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}]
    own = [f for f in frames if not f.filename.startswith(("<", *installed))]
    if not own:
        return ""
    name = os.path.relpath(own[-1].filename)
    return f"{own[-1].filename if name.startswith('..') else name}:{own[-1].lineno}"
