"""A side in a process of its own, seen from inside: ``isolated.py`` starts ``main`` and talks to it.

It speaks the protocol of ``process.py``. Its hello says what to open and under which limits, and it answers a few
requests more: the other ways in which a backend can step ("jit", "eager", "auto", and "begin" for an eager reset) and
"outside" (what was taken from outside). A request with ``watch`` is also answered with the functions that ran.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any

from pytest_envequiv.backends.watching import Outside, Ran, Watch, listening, owned, watching
from pytest_envequiv.errors import EnvequivError, Limitation, OpenError
from pytest_envequiv.peer import read_frame, write_frame
from pytest_envequiv.seal import seal

NEW_USER, NEW_NETWORK = 0x1000_0000, 0x4000_0000  # flags of unshare(2)


def cut_network() -> bool:
    """Into a network namespace without connections, as Linux offers it to anyone; whether that could be had.

    Must come before there are threads.
    """
    user, group = os.getuid(), os.getgid()
    try:
        if ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK) != 0:
            return False
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except (OSError, AttributeError):
        return False
    return True


def limit_memory(gib: float) -> None:
    """What the process may allocate. Address space is not limited: JAX reserves much that it never uses."""
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def ran_to_wire(ran: Ran) -> dict[str, Any]:
    return {"entered": sorted(map(list, ran.entered)), "called": sorted(map(list, ran.called))}


def main() -> None:
    """Serve the one who started this process until "close" or the end of stdin."""
    quiet = cut_network()
    from pytest_envequiv.backends import serve  # numpy and its threads: after the network was cut

    requests, answers = serve.take_pipes()
    hello = read_frame(requests)
    limit_memory(hello["memory"])
    prepare(hello)
    from pytest_envequiv.backends.suspect import faults, preload

    outside, broken = Outside(), seal()  # what is loaded by now is no news
    if hello["watch"]:
        preload(hello["name"])
    try:
        with listening(outside), watching() if hello["watch"] else contextlib.nullcontext(Watch()) as opening:
            backend = opened(hello)
            answer = answerer(backend)
            said: dict[str, Any] = {**answer({"op": "hello"}), **abilities(backend), "network": not quiet}
        said["opening"] = ran_to_wire(opening.ran)
        if replaced := broken():
            raise OpenError(f"{hello['name']}: it replaced {replaced} in its process")
    except BaseException as error:  # SystemExit and pytest's Skipped are no Exceptions, and no excuse
        write_frame(answers, refusal(error))
        os._exit(1)
    write_frame(answers, said)

    def replied(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "faults":
            return {"faults": faults(backend, request["changed"])}
        if request["op"] == "outside":
            taken = {"programs": sorted(outside.programs), "network": sorted(outside.network)}
            return {**taken, "files": owned(outside.files), "replaced": broken()}
        if not request.get("watch"):
            return answer(request)
        with watching() as watch:
            reply = answer(request)
        return {**reply, "ran": ran_to_wire(watch.ran), "disturbed": watch.disturbed}

    with listening(outside), contextlib.suppress(EOFError, BrokenPipeError):
        while (request := read_frame(requests))["op"] != "close":
            try:
                reply = replied(request)
            except BaseException as error:
                reply = refusal(error)
            write_frame(answers, reply)
    os._exit(0)  # threads of the side's own do not keep it alive


def prepare(hello: dict[str, Any]) -> None:
    """Import what any backend needs, and set what is other than usual."""
    from pytest_envequiv.backends import functional, opening

    if hello["sizes"]:
        functional.SMALL, functional.LARGE = hello["sizes"]
    if hello["disguised"]:  # kinds of other packages would bring in what must not be seen
        opening.entry_points = lambda **_: ()  # type: ignore[assignment]
    opening.kinds_loaded()


def opened(hello: dict[str, Any]) -> Any:
    """The backend that hello names."""
    from pytest_envequiv.backends import opening
    from pytest_envequiv.backends.suspect import walled
    from pytest_envequiv.backends.wire import spec_from_wire

    like = None if hello["like"] is None else spec_from_wire(hello["like"])
    return walled(opening.open_backend(hello["name"], hello["options"], like))


def abilities(backend: Any) -> dict[str, Any]:
    """What a backend offers besides the protocol."""
    from pytest_envequiv.backends.suspect import Walled, calls_back

    functional = getattr(backend, "functional", None)
    steps = hasattr(backend, "step_as")
    return {
        "kind": backend.spec.kind,
        "foreign": isinstance(backend, Walled),
        "compiled": bool(backend.spec.traceable),
        "free": dict(getattr(backend, "free", {})),
        "more": [*(("jit", "eager") if steps else ()), *(("auto",) if getattr(functional, "auto", None) else ())],
        "calling": steps and calls_back(backend),
        "sure": steps and backend.spec.draws == "tape" and not backend.labels["step"],
    }


def answerer(backend: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    from pytest_envequiv.backends import serve

    more: dict[str, serve.Step] = {
        "jit": lambda state, action, seeds: backend.step_as("jit", state, action, seeds),
        "eager": lambda state, action, seeds: backend.step_as("eager", state, action, seeds),
        "auto": lambda state, action, seeds: backend.auto_step(state, action, seeds),
        "begin": lambda state, action, seeds: backend.reset_eagerly(seeds),
    }
    return serve.answerer(backend, more)


def refusal(error: BaseException) -> dict[str, Any]:
    traceback.print_exc(file=sys.stderr)
    text = " ".join(str(error).split())[:500]
    if isinstance(error, EnvequivError):
        return {"error": text, "limitation": isinstance(error, Limitation)}
    if isinstance(error, MemoryError):
        text += "; a limit is set with --envequiv-memory" if text else "out of memory (see --envequiv-memory)"
    return {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
