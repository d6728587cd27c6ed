"""The other end of ``process:``, in Python: any backend in a process of its own.

``process:python -m pytest_envequiv.backends.serve gymnasium:CartPole-v1`` is the same environment as
``gymnasium:CartPole-v1``, behind a pipe: in another interpreter, virtual environment or sandbox.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Backend, Outcome, State
from pytest_envequiv.backends.wire import pack, spec_to_wire, tape_from_wire, tape_to_wire, unpack
from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.peer import read_frame, write_frame

Pipes = tuple[IO[bytes], IO[bytes]]
Step = Callable[[State, Arrays, np.ndarray], Outcome]


def take_pipes() -> Pipes:
    """Stdin and stdout as private binary streams; from here on what is printed goes to stderr.

    At the level of file descriptors, so that C code and child processes can neither garble a frame nor eat one.
    """
    sys.stdout.flush()
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipes


def serve(backend: Backend, pipes: Pipes | None = None) -> None:
    """Answer requests until "close" or the end of stdin, then close ``backend``. Errors are answers, too.

    ``pipes``: from ``take_pipes``, where the caller needed stdout out of the way before the backend existed.
    """
    requests, answers = take_pipes() if pipes is None else pipes
    answer = answerer(backend)
    try:
        while (request := read_frame(requests))["op"] != "close":
            try:
                reply = answer(request)
            except Exception as error:
                traceback.print_exc()
                reply = {"error": told(error)}
            write_frame(answers, reply)
    except (EOFError, BrokenPipeError):
        pass  # nobody is asking any more
    finally:
        backend.close()


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def answerer(backend: Backend, more: Mapping[str, Step] | None = None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The function from a request to its answer. ``more``: other ways to step, by the name of their request.

    It remembers nothing, except for a backend of state "none": there the latest state of each lane.
    """
    lanes: dict[int, State] = {}
    more = more or {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        op = request["op"]
        if op == "hello":
            return spec_to_wire(backend.spec)
        if op not in ("reset", "step", *more):
            raise ValueError(f"unknown request {op!r}")
        seeds = unpack(request["seeds"])
        tape = tape_from_wire(request["tape"], len(seeds)) if "tape" in request else None
        mine = unpack(request["lanes"]).tolist() if "lanes" in request else None
        if op == "reset":
            outcome = backend.reset(seeds, tape)
        else:
            state = read_state(request) if mine is None else State.join([lanes[lane] for lane in mine])
            action = {name: unpack(wire) for name, wire in request["action"].items()}
            outcome = more[op](state, action, seeds) if op in more else backend.step(state, action, seeds, tape)
        if mine is None:
            return outcome_to_wire(outcome)
        lanes.update((lane, outcome.state.take(slice(row, row + 1))) for row, lane in enumerate(mine))
        return outcome_to_wire(Outcome(State({}), outcome.outputs, outcome.draws))

    return answer


def read_state(request: dict[str, Any]) -> State:
    hidden = request.get("hidden")
    return State(
        {name: unpack(wire) for name, wire in request["state"].items()},
        None if hidden is None else np.concatenate([pickle.loads(row) for row in hidden]),
    )


def outcome_to_wire(outcome: Outcome) -> dict[str, Any]:
    """Hidden state travels as one pickle per row: the judge takes and joins rows without ever looking inside."""
    hidden = outcome.state.hidden
    return {
        "state": {name: pack(value) for name, value in outcome.state.fields.items()},
        "outputs": {name: pack(value) for name, value in outcome.outputs.items()},
        "draws": None if outcome.draws is None else tape_to_wire(outcome.draws),
        "hidden": None if hidden is None else [pickle.dumps(hidden[i : i + 1]) for i in range(len(hidden))],
    }


def main(argv: list[str]) -> int:
    """Open the backend named on the command line and serve it. A name that does not open answers hello."""
    pipes = take_pipes()
    try:
        (name,) = argv
        from pytest_envequiv.backends.opening import open_backend  # here, so that what it imports prints to stderr

        backend = open_backend(name, options={})
    except Exception as error:
        traceback.print_exc()
        read_frame(pipes[0])
        write_frame(pipes[1], {"error": str(error) if isinstance(error, EnvequivError) else told(error)})
        return 1
    serve(backend, pipes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
