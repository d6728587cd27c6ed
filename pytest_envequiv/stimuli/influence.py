"""The data flow of one side: read from its jaxpr where it has one, else found by changing one input at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Outcome, State
from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.stimuli.play import Play
from pytest_envequiv.whitebox.dataflow import Flow, flow

if TYPE_CHECKING:  # a pair's side is handed in; nothing of it is needed to read this file
    from pytest_envequiv.side import Side

ROWS = 64  # rows in which each input is changed; a quarter more of the last of their episodes
APART = 16  # elements of one input up to which they are changed apart


def flow_of(side: Side, played: Play) -> Flow | None:
    """None where the side's state can be neither traced nor written. ``played``: the side's own play."""
    if side.spec.traceable:
        return flow(side.call("trace", lambda: side.backend.traced("step")))  # type: ignore[attr-defined]
    if side.spec.state != "fields" or not played.alive().any():
        return None
    try:
        return _perturbed(side, played)
    except EnvequivError:  # a state it cannot bear: it keeps its secrets
        return None


def _perturbed(side: Side, played: Play) -> Flow:
    """Each input in turn takes the values it has in other rows; the outputs that change are computed from it.

    What does not change on these rows may still depend on the input elsewhere: this is what was seen, not a proof.
    """
    ending, going_on = np.flatnonzero(~played.alive()), np.flatnonzero(played.alive())
    rows = played.rows.take(np.sort([*_spread(ending, ROWS // 4), *_spread(going_on, ROWS)]))
    base = side.step(State(rows.state.fields), rows.action, rows.seeds)
    given = {f"state.{n}": v for n, v in rows.state.fields.items()} | {f"action.{n}": v for n, v in rows.action.items()}
    before = _outputs(base)
    reads: dict[str, set[str]] = {name: set() for name in before}
    parts: dict[str, dict[int, set[str]]] = {name: {} for name in before}
    inputs = []
    for name, value in given.items():
        for label, columns in _columns(name, value):
            moved = value.reshape(len(value), -1).copy()
            moved[:, columns] = np.roll(moved[:, columns], 1, 0)
            if (moved == value.reshape(len(value), -1)).all():
                continue
            inputs.append(label)
            changed = {**given, name: moved.reshape(value.shape)}
            state = State({n: changed[f"state.{n}"] for n in rows.state.fields})
            outcome = side.step(state, {n: changed[f"action.{n}"] for n in rows.action}, rows.seeds)
            for output, after in _outputs(outcome).items():
                differs = ~((after == before[output]) | ((after != after) & (before[output] != before[output])))
                for element in np.flatnonzero(differs.any(0)):
                    reads[output].add(label)
                    parts[output].setdefault(int(element), set()).add(label)
    draws = {}
    again = _outputs(side.step(State(rows.state.fields), rows.action, rows.seeds[::-1]))
    for output, after in again.items():
        if (after != before[output]).any() and not np.isnan(after.astype(float)).all():
            reads[output].add("draw 0")
            draws["draw 0"] = "whatever is drawn in a step"
    elements = {
        name: {i: frozenset(own) for i, own in found.items()}
        for name, found in parts.items()
        if 1 < before[name].shape[1] <= APART and len(set(map(frozenset, found.values()))) > 1
    }
    return Flow(
        (*inputs, *draws),
        tuple(before),
        {name: frozenset(found) for name, found in reads.items()},
        _shown(before),
        elements,
        draws,
        {name: frozenset(before) - {name} for name in before},  # what stands between is not seen
    )


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of them, from the first to the last."""
    return places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)]


def _columns(name: str, value: np.ndarray) -> list[tuple[str, slice]]:
    width = int(np.prod(value.shape[1:], dtype=int))
    if value.ndim == 1 or width > APART:
        return [(name, slice(None))]
    return [(f"{name}[{i}]", slice(i, i + 1)) for i in range(width)]


def _outputs(outcome: Outcome) -> Arrays:
    """Name -> (B, elements), named as a jaxpr's outputs are."""
    found = {f"state.{n}": v for n, v in outcome.state.fields.items()} | outcome.outputs
    return {n: np.asarray(v).reshape(len(v), -1) for n, v in found.items()}


def _shown(outputs: Mapping[str, np.ndarray]) -> dict[str, frozenset[str]]:
    """Output -> the state fields it repeats, element for element, in every row."""
    found = {}
    for name, value in outputs.items():
        own = set()
        for other, field in outputs.items():
            if other.startswith("state.") and not name.startswith("state.") and (field != field[:1]).any():
                same = (value[:, :, None] == field[:, None, :]).all(0)
                if same.any(0).all():
                    own.add(other)
        found[name] = frozenset(own)
    return found
