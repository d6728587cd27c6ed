"""Pairs of inputs that meet in one output of the target, and states in which both are moved together.

Which pairs there are is read from the target's data flow; which states are live is for the reference to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_envequiv.backends.protocol import State
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Play, Rows
from pytest_envequiv.whitebox.dataflow import Flow

if TYPE_CHECKING:  # a pair is handed in; nothing of it is needed to read this file
    from pytest_envequiv.pair import Pair

PARTS = 3  # parts of an input's range; a pair is exercised where rows lie in all PARTS x PARTS cells
MOST = 256  # pairs that are looked at
LEVELS = 9  # values between the ends of a field's range that are given to it


@dataclass(frozen=True, order=True)
class Input:
    """One number the reference's step takes: an element of a state field or of an action."""

    kind: Literal["state", "action"]
    name: str
    element: int = -1  # -1: the only one

    def __str__(self) -> str:
        return self.name if self.element < 0 else f"{self.name}[{self.element}]"

    @property
    def place(self) -> int:
        return max(self.element, 0)

    def read(self, rows: Rows) -> np.ndarray:
        """float[B]"""
        values = rows.state.fields if self.kind == "state" else rows.action
        return values[self.name].reshape(len(rows), -1)[:, self.place].astype(float)


@dataclass(frozen=True)
class Meetings:
    """pairs: each once; by_output: output of the target -> numbers of the pairs that meet there."""

    pairs: tuple[tuple[Input, Input], ...]
    by_output: dict[str, tuple[int, ...]]


def meetings(pair: Pair, flow: Flow | None) -> Meetings:
    """The pairs of numbers that can be moved (of the state, and actions) and meet in an output of the target."""
    if flow is None or not pair.injectable():
        return Meetings((), {})
    inputs = {name: _input(pair, name) for name in flow.inputs}
    numbers: dict[tuple[Input, Input], int] = {}
    by_output = {}
    for output in flow.outputs:
        mine = []
        for a, b in flow.meetings(output):
            first, second = inputs[a], inputs[b]
            if first is None or second is None or first == second:
                continue
            both = (first, second) if first < second else (second, first)
            if both in numbers or len(numbers) < MOST:
                mine.append(numbers.setdefault(both, len(numbers)))
        by_output[output] = tuple(sorted(set(mine)))
    return Meetings(tuple(numbers), by_output)


def _input(pair: Pair, name: str) -> Input | None:
    """The reference's number behind an input of the target; None if it is not one that can be moved."""
    found = re.fullmatch(r"(state|action)\.(.*?)(?:\[(\d+)\])?", name)
    if found is None:
        return None
    field, element = found[2], int(found[3] or -1)
    if found[1] == "action":
        ours = pair.actions.get(field) or pair.actions.get(f"action.{field}")
        return None if ours is None else Input("action", ours, element)
    link = next((link for link in pair.map.links if link.field == field), None)
    if link is None or link.recode:
        return None
    source = link.sources[max(element, 0)] if len(link.sources) > 1 else link.sources[0]
    if source.kind != "state" or source.digit or not states.movable(pair, pair.sample, source.name):
        return None
    return Input("state", source.name, element if source.index is None else source.index)


def moved_together(pair: Pair, played: Play, met: Meetings, count: int, seed: int, limits: states.Ends) -> Rows:
    """At most ``count`` live rows: of each pair both numbers moved over their ranges, everything else as in play.

    Actions are given last, to the states stepped into, so that a pair with an action has just that one.
    """
    rng = np.random.default_rng([seed, 19])
    base = played.rows.take(np.sort(rng.integers(0, len(played.rows), 2 * count)))
    fields = {n: v.reshape(len(v), -1).copy() for n, v in base.state.fields.items()}
    which = np.arange(len(base)) % len(met.pairs)
    acts = {n: v.copy() for n, v in states.fresh_actions(pair, len(base), rng).items()}
    for number, inputs in enumerate(met.pairs):
        here = np.flatnonzero(which == number)
        for own in inputs:
            if own.kind == "state":
                values = _levels(pair, played, own)
                if len(values):
                    fields[own.name][here, own.place] = rng.choice(values, len(here))
    state = State({n: fields[n].reshape(v.shape).astype(v.dtype) for n, v in base.state.fields.items()})
    made_up = replace(base, state=state, action=states.legal(acts, base, pair, rng))
    entered = states.stepped_into(pair, made_up, seed + 19)
    inside = entered.take(np.flatnonzero(states.within(entered, limits)))
    return inside.take(np.sort(rng.permutation(len(inside))[:count]))


def _levels(pair: Pair, played: Play, own: Input) -> np.ndarray:
    if not states.continuous(played, own.name):
        return states.places(pair, played, own.name, own.place)
    seen = own.read(played.rows)
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    return np.unique([*np.linspace(low, high, LEVELS), *([0.0] if low < 0 < high else [])])


def exercised(pair: Pair, played: Play, met: Meetings, rows: Rows) -> np.ndarray:
    """float[pairs]: the share of the PARTS x PARTS cells of each pair's ranges that some row lies in."""
    found = np.zeros(len(met.pairs))
    for number, (a, b) in enumerate(met.pairs):
        cells = set(zip(_part(pair, played, a, rows), _part(pair, played, b, rows), strict=True))
        found[number] = len(cells) / (_parts(pair, a) * _parts(pair, b))
    return found


def _parts(pair: Pair, own: Input) -> int:
    space = pair.ref.spec.action[own.name] if own.kind == "action" else None
    if space is None or space.kind == "box":
        return PARTS
    low, high = (int(np.broadcast_to(v, space.shape or (1,)).ravel()[own.place]) for v in (space.low, space.high))
    return min(PARTS, high - low + 1)


def _part(pair: Pair, played: Play, own: Input, rows: Rows) -> list[int]:
    parts = _parts(pair, own)
    if own.kind == "action":
        space = pair.ref.spec.action[own.name]
        low, high = (np.broadcast_to(v, space.shape or (1,)).ravel()[own.place] for v in (space.low, space.high))
    else:
        seen = own.read(played.rows)
        low, high = np.nanmin(seen), np.nanmax(seen)
    share = (own.read(rows) - low) / max(float(high - low), 1e-12)
    places: list[int] = np.clip((np.nan_to_num(share) * parts).astype(int), 0, parts - 1).tolist()
    return places
