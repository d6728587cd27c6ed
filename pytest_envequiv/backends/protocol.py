"""What a backend is: one side of the comparison, batched, with nothing but numpy arrays going in and out.

A backend is opened from a name (see ``opening.py``) and offers three calls::

    reset(seeds, tape=None)                -> Outcome      begin B episodes
    step(state, action, seeds, tape=None)  -> Outcome      one step of B independent rows, never auto-resetting
    close()

``state`` is a value: rows may be taken, repeated, reordered and (where ``spec.state == "fields"``) rewritten
between steps. Every array has a leading batch axis B; every seed is a non-negative integer below 2**31.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Arrays = dict[str, np.ndarray]

# Output names with a fixed meaning; every other output is an observation ("observation" or "observation.<key>").
REWARD, TERMINATED, TRUNCATED, DONE, MASK, AGENT = "reward", "terminated", "truncated", "done", "mask", "agent"


@dataclass(frozen=True)
class Space:
    """A set of arrays: ``kind`` is "discrete" (integers low..high, both included) or "box" (low <= x <= high).

    ``low`` and ``high`` broadcast to ``shape``; a space without bounds has -inf and inf.
    """

    kind: Literal["discrete", "box"]
    shape: tuple[int, ...]
    dtype: str
    low: np.ndarray
    high: np.ndarray

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def contains(self, values: np.ndarray) -> np.ndarray:
        """bool[B]: which rows of ``values`` (B, *shape) lie inside. NaN never does."""
        inside = (values >= self.low) & (values <= self.high)
        return np.asarray(inside.reshape(len(values), -1).all(axis=1))

    def __str__(self) -> str:
        def short(bound: np.ndarray) -> str:
            values = np.unique(bound)
            return (
                f"{values[0]:.6g}" if len(values) == 1 else np.array2string(np.asarray(bound), precision=6, threshold=8)
            )

        if self.kind == "discrete":
            return f"Discrete({short(self.low)}..{short(self.high)}, shape={self.shape}, {self.dtype})"
        return f"Box({short(self.low)}, {short(self.high)}, shape={self.shape}, {self.dtype})"


@dataclass(frozen=True)
class Leaf:
    """Shape (without the batch axis) and numpy dtype name of one state field."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Spec:
    """What a backend is and what it can do. Read by ``pair.py``; a backend never looks at the other side's.

    state        "fields": named arrays can be read and written; "snapshot": a state can be restored but not
                 edited; "none": only the latest outcome of a lane can be stepped.
    draws        "tape": randomness is recorded as labelled draws and can be given as input; "seed": a seed
                 fixes the draws; "none": not reproducible.
    traceable    a jaxpr can be made of one step.
    batched      steps all rows at once; otherwise they are looped.
    time_limit   the number of steps after which an episode is truncated, if the backend declares one.
    constants    named numeric settings (thresholds, limits, masses): boundary values and defaults to compare.
    conventions  how the backend does what is a matter of taste: {"auto_reset": ..., "done": ..., ...}.
    seats        number of players; rewards have shape (B, seats) when it is above one, seat 0 moves first.
    """

    name: str
    kind: str
    action: Mapping[str, Space]
    observation: Mapping[str, Space]
    fields: Mapping[str, Leaf]
    state: Literal["fields", "snapshot", "none"]
    draws: Literal["tape", "seed", "none"]
    traceable: bool = False
    batched: bool = False
    time_limit: int | None = None
    seats: int = 1
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    conventions: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """B states. ``fields``: named arrays (B, ...). ``hidden``: (B,) array of what fields cannot say, or None.

    ``hidden`` belongs to the backend that made it (a snapshot, or a lane number and its tick) and is carried
    along untouched by everyone else.
    """

    fields: Arrays
    hidden: np.ndarray | None = None

    def __len__(self) -> int:
        for value in self.fields.values():
            return len(value)
        return 0 if self.hidden is None else len(self.hidden)

    def take(self, rows: Any) -> State:
        """The chosen rows (an index array, slice or mask), in that order."""
        return State({k: v[rows] for k, v in self.fields.items()}, None if self.hidden is None else self.hidden[rows])

    def edited(self, **fields: np.ndarray) -> State:
        """The same rows with some fields replaced; what was hidden no longer applies."""
        return State({**self.fields, **fields}, None)

    @staticmethod
    def join(states: list[State]) -> State:
        fields = {k: np.concatenate([s.fields[k] for s in states]) for k in states[0].fields}
        hidden = [s.hidden for s in states]
        known = [h for h in hidden if h is not None]
        return State(fields, np.concatenate(known) if len(known) == len(hidden) else None)


@dataclass(frozen=True)
class Draw:
    """One labelled random draw, over B rows.

    kind      "uniform", "normal", "integers", "bernoulli", "permutation", or the generator's own method name
    shape     of the value, without the batch axis
    low,high  bounds where the kind has them (uniform: [low, high); integers: low..high-1; normal: mean, sd;
              bernoulli: probability, nan), each (B, ...) or broadcastable; nan where there are none
    value     (B, *shape)
    present   bool[B]: rows that made this draw (a draw inside a branch is not made by every row)
    site      "file.py:123", where the draw is made
    """

    kind: str
    shape: tuple[int, ...]
    low: np.ndarray
    high: np.ndarray
    value: np.ndarray
    present: np.ndarray
    site: str

    def take(self, rows: Any) -> Draw:
        return replace(
            self, low=self.low[rows], high=self.high[rows], value=self.value[rows], present=self.present[rows]
        )


Tape = tuple[Draw, ...]


@dataclass(frozen=True)
class Outcome:
    """What B rows became: the next state, what was returned, and the draws that were made (None: not recorded).

    ``outputs`` holds "observation" or "observation.<key>", and, except after a reset, "reward" float (B,) or
    (B, seats), and either "terminated" and "truncated" bool (B,) or the merged "done" bool (B,). Where they
    exist also "mask" bool (B, n) of legal actions and "agent" int (B,), the seat to move next.
    """

    state: State
    outputs: Arrays
    draws: Tape | None = None

    @property
    def done(self) -> np.ndarray:
        """bool[B]: rows whose episode ended with this step."""
        if DONE in self.outputs:
            return self.outputs[DONE].astype(bool)
        if TERMINATED not in self.outputs:
            return np.zeros(len(self.state), bool)
        return self.outputs[TERMINATED].astype(bool) | self.outputs[TRUNCATED].astype(bool)

    def take(self, rows: Any) -> Outcome:
        draws = None if self.draws is None else tuple(d.take(rows) for d in self.draws)
        return Outcome(self.state.take(rows), {k: v[rows] for k, v in self.outputs.items()}, draws)


@runtime_checkable
class Backend(Protocol):
    """See the module's text. Errors while running are raised as they come; ``pair.py`` names the side."""

    spec: Spec

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        """Begin len(seeds) episodes. The same seed gives the same episode."""
        ...

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        """Step each row once. ``tape`` supplies the draws; without it row i draws from seeds[i] (or, where a
        lane is continued in place, from its own generator)."""
        ...

    def close(self) -> None: ...
