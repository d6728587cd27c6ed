"""Numbers that were set before the step was traced: another value of one, tried in all places that it has gone into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame.solving import UNLIKELY, numbers_for, solved
from pytest_envequiv.whitebox.blame.suspects import Suspect
from pytest_envequiv.whitebox.blame.trial import EXPLAINED, Trial
from pytest_envequiv.whitebox.definitions import Definition, Moved, Retraced, moved
from pytest_envequiv.whitebox.program import Constant, Op

PARTLY = 0.45  # of what is mended and not broken, where not all is
NEARER = 3  # times that a number is looked at again from nearer by
MOST_BESIDE = 6  # definitions of one statement that are exchanged


@dataclass(frozen=True)
class Defined:
    """The definitions of a target, how it is traced with another value of one, and the reference's settings by name."""

    definitions: Sequence[Definition]
    retraced: Retraced
    known: Mapping[str, float]
    bare: Callable[[str], str]


def defined(trial: Trial, given: Defined) -> Iterator[Suspect]:
    """Definitions with another value of which everything is right: the reference's of that name, a usual slip, or one
    that is solved for; and two that stand side by side, exchanged."""
    beside: dict[int, list[tuple[Definition, Moved, float, float]]] = {}
    for definition in given.definitions:
        found = _moved(trial, given, definition, None)
        if found is None or not found[0]:
            continue
        how, old, new = found
        yield from _valued(trial, given, definition, how, old, new)
        beside.setdefault(definition.beside, []).append((definition, how, old, new))
    for together in beside.values():
        for one, other in combinations(together[:MOST_BESIDE], 2):
            parts = [_at(trial, m, old, new, value) for (_, m, old, new), value in ((one, other[2]), (other, one[2]))]
            values = trial.altered(parts[0][0] | parts[1][0], _merged(trial, parts[0][1], parts[1][1]))
            if one[2] != other[2] and trial.explains(values):
                for definition in (one[0], other[0]):
                    yield Suspect(1.0, definition.place, f"{one[2]:.6g} and {other[2]:.6g} exchanged")


def _moved(
    trial: Trial, given: Defined, definition: Definition, value: float | None
) -> tuple[Moved, float, float] | None:
    found = given.retraced(definition, value)
    if found is None:
        return None
    program, old, new = found
    how = moved(trial.program, program)
    if how is None or new == old or not (how.constants or trial.suspected & how.ops.keys()):
        return None
    return how, old, new


def _valued(
    trial: Trial, given: Defined, definition: Definition, how: Moved, old: float, new: float
) -> Iterator[Suspect]:
    """Another value of one definition."""
    name = definition.name or "it"
    known = given.known.get(given.bare(definition.name))
    if known is not None and np.isclose(known, old, rtol=1e-6, atol=0):
        return

    def exact(value: float) -> float:
        """The score of a value, with the port imported anew."""
        found = _moved(trial, given, definition, value)
        return 0.0 if found is None else _score(trial, _run(trial, found[0], old, found[2], found[2]))

    if known is not None:
        yield Suspect(exact(known), definition.place, f"{name} is {known:.6g} in the reference, {old:.6g} here")
    for value, why, weight in numbers_for(trial, old):
        if trial.explains(_run(trial, how, old, new, value)) and (score := exact(value)) > 0:
            yield Suspect(score * weight, definition.place, why)
    here = old
    for _ in range(NEARER if abs(new - old) != 1 else 0):  # where what comes of it is no straight line, from nearer by
        run = partial(_run, trial, how, here, new)
        right = solved(trial, run, new if here != old else old)
        for value, weight in right:
            if trial.explains(run(value)) and (score := exact(value)) > 0:
                yield Suspect(score * weight, definition.place, f"{name} = {value:.6g} in the place of {old:.6g}")
                if score == 1 and weight > UNLIKELY:
                    return
        nearer = _moved(trial, given, definition, right[-1][0]) if right else None
        if nearer is None or nearer[2] in (here, new):
            return
        how, here, new = _line(trial, how, nearer[0]), new, nearer[2]


def _line(trial: Trial, one: Moved, other: Moved) -> Moved:
    """The straight line through what two other numbers give."""

    def ends(before: Any, key: Any, a: Mapping[Any, Any], b: Mapping[Any, Any]) -> tuple[Any, Any]:
        return (a[key][1] if key in a else before), (b[key][1] if key in b else before)

    ops = {}
    for number in one.ops.keys() | other.ops.keys():
        mine, theirs = one.ops.get(number, {}), other.ops.get(number, {})
        before = {slot: (theirs.get(slot) or mine[slot])[0] for slot in mine.keys() | theirs.keys()}
        ops[number] = {slot: ends(value, slot, mine, theirs) for slot, value in before.items()}
    places = one.constants.keys() | other.constants.keys()
    return Moved(ops, {p: ends(trial.values[p], p, one.constants, other.constants) for p in places})


def _run(trial: Trial, how: Moved, old: float, new: float, value: float) -> dict[int, Any]:
    return trial.altered(*_at(trial, how, old, new, value))


def _at(trial: Trial, how: Moved, old: float, new: float, value: float) -> tuple[dict[int, Any], dict[int, Op]]:
    """(constants, operations) as they would be with ``value``: on the straight line through what was seen."""
    share = (value - old) / (new - old)

    def between(x: Any, y: Any) -> Any:
        x, y = np.asarray(x), np.asarray(y)
        if x.dtype == bool:
            return y if share else x
        made = x + share * (y.astype(float) - x.astype(float))
        return (np.round(made) if x.dtype.kind in "iu" else made).astype(x.dtype)

    ops = {}
    for number, slots in how.ops.items():
        op = trial.program.ops[number]
        inputs = list(op.inputs)
        for slot, (x, y) in slots.items():
            inputs[slot] = Constant(between(x, y))
        ops[number] = replace(op, inputs=tuple(inputs))
    return {place: between(x, y) for place, (x, y) in how.constants.items()}, ops


def _merged(trial: Trial, one: Mapping[int, Op], other: Mapping[int, Op]) -> dict[int, Op]:
    """Two sets of changed operations at once."""
    found = dict(one)
    for number, op in other.items():
        before = trial.program.ops[number].inputs
        mine = found[number].inputs if number in found else before
        inputs = tuple(a if b is c else b for a, b, c in zip(mine, op.inputs, before, strict=True))
        found[number] = replace(op, inputs=inputs)
    return found


def _score(trial: Trial, values: Mapping[int, Any]) -> float:
    mended, broken = trial.verdict(values)
    if mended >= EXPLAINED and broken <= 1 - EXPLAINED:
        return 1.0
    return PARTLY * max(0.0, mended - 2 * broken)
