"""One side of a pair: its backend, with errors named, time kept and rows counted."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from pytest_envequiv import contents
from pytest_envequiv.backends.process import ProgramError
from pytest_envequiv.backends.protocol import Arrays, Backend, Outcome, State, Tape
from pytest_envequiv.backends.watching import Outside, listening
from pytest_envequiv.errors import BackendError, BudgetSpent, EnvequivError
from pytest_envequiv.verdict import Progress, silent


class Side:
    """One backend with its errors named and its rows counted."""

    def __init__(self, name: Literal["ref", "target"], backend: Backend, outside: Outside | None = None):
        self.name, self.backend, self.spec = name, backend, backend.spec
        self.outside = outside  # what it takes from outside is written down here
        self.compiled = getattr(backend, "compiled", backend.spec.traceable)  # it wants every draw it may make
        self.transitions = 0
        self.progress: Progress = silent
        self._shapes: dict[str, tuple[tuple[int, ...], str]] = {}  # of one row of each output, and what gave it first
        self.deadline = float("inf")  # time.monotonic() after which nothing more is asked
        self.masked = True  # whether policies keep to its mask, if it tells one
        self.untold: frozenset[str] = frozenset()  # outputs that it tells now and then, which counts as never

    def close(self) -> None:
        self.backend.close()

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._formed("reset", self._guarded("reset", lambda: self.backend.reset(seeds, tape)))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        self.transitions += len(seeds)
        return self._formed("step", self._guarded("step", lambda: self.backend.step(state, action, seeds, tape)))

    def call(self, where: str, function: Any) -> Any:
        """Anything else a backend offers, guarded alike."""
        return self._guarded(where, function)

    def _formed(self, where: str, outcome: Outcome) -> Outcome:
        """The outcome, if each output has the shape it always had, without what is ``untold``. Raises BackendError."""
        if self.untold & outcome.outputs.keys():
            outcome = replace(outcome, outputs={k: v for k, v in outcome.outputs.items() if k not in self.untold})
        for name, value in outcome.outputs.items():
            shape = np.shape(value)[1:]
            before, first = self._shapes.setdefault(name, (shape, where))
            if shape != before:
                raise BackendError(
                    self.name, where, f"{name} has shape {shape} for one row after {where}, {before} after {first}"
                )
        return outcome

    def _guarded(self, where: str, function: Any) -> Any:
        self.progress(f"{self.name}.{where}", 0, 0)
        if time.monotonic() > self.deadline:
            raise BudgetSpent(f"the time budget is spent before {self.name}.{where}")
        try:
            with nullcontext() if self.outside is None else listening(self.outside):
                return function()
        except (KeyboardInterrupt, MemoryError, EnvequivError):
            raise
        except BaseException as error:  # SystemExit and pytest's Skipped included
            text = " ".join(str(error).split())[:300]
            kind = "" if isinstance(error, ProgramError) else type(error).__name__  # its text begins with the kind
            raise BackendError(self.name, where, ": ".join(filter(None, (kind, text)))) from error


def packages_of(name: str, backend: Backend) -> set[str]:
    """The top-level packages the reference is from."""
    environment = getattr(getattr(backend, "found", None), "example", None)
    kinds = type(getattr(environment, "unwrapped", environment)).__mro__ if environment is not None else ()
    return {kind.__module__.partition(".")[0] for kind in kinds} | {
        module.partition(".")[0] for module in (contents.parts(name)[0] if name.isprintable() else ())
    }
