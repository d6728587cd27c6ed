"""Numbers that were set before the step was traced: another value of one, tried in all places that it has gone into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame.rewritten import Reprogrammed
from pytest_envequiv.whitebox.blame.solving import UNLIKELY, numbers_for, solved, target_of
from pytest_envequiv.whitebox.blame.suspects import Suspect
from pytest_envequiv.whitebox.blame.trial import EXPLAINED, Trial
from pytest_envequiv.whitebox.definitions import Definition, Moved, Retraced, moved
from pytest_envequiv.whitebox.program import Constant, Op, read

THRESHOLD, HALVINGS = 0.9, 12  # weight of a number found by the side on which flags are; steps to find it
LIKELY, READ = 0.5, 0.98  # score from which lines that read a number are told of; what they have of it
FEW_LINES = 3
OTHERWISE = 0.945  # weight of what would be right if it were written otherwise
PARTLY = 0.45  # of what is mended and not broken, where not all is
NEARER = 6  # times that a number is looked at again from nearer by
ROUNDED = 0.02  # of how far off it was, that rounding may leave of it
HOPEFUL = 0.3  # of how far off it was, with which a number may be the one
MOST_BESIDE = 6  # definitions of one statement that are exchanged


@dataclass(frozen=True)
class Defined:
    """The definitions of a target, how it is traced with another value of one and how from another text, what one would
    be if it were written otherwise, and the reference's settings by name."""

    definitions: Sequence[Definition]
    retraced: Retraced
    reprogrammed: Reprogrammed
    otherwise: Callable[[Definition], Mapping[float, str]]
    known: Mapping[str, float]
    bare: Callable[[str], str]


def defined(trial: Trial, given: Defined) -> Iterator[Suspect]:
    """Definitions with another value of which everything is right: the reference's of that name, a usual slip, or one
    that is solved for; and two that stand side by side, exchanged."""
    beside: dict[int, list[tuple[Definition, float]]] = {}
    for definition in given.definitions:
        found = _moved(trial, given, definition, None)
        if found is None:
            continue
        how, old, new = found
        for suspect in _valued(trial, given, definition, how, old, new):
            yield suspect
            yield from reading(trial, suspect, how.ops)
        beside.setdefault(definition.beside, []).append((definition, old))
    for together in beside.values():
        for (one, a), (other, b) in combinations(together[:MOST_BESIDE], 2):
            again = given.retraced([(one, b), (other, a)]) if a != b else None
            how_both = None if again is None else moved(trial.program, again[0])
            if how_both and trial.explains(_run(trial, how_both, 0.0, 1.0, 1.0)):
                for definition in (one, other):
                    yield Suspect(1.0, definition.place, f"{a:.6g} and {b:.6g} exchanged")


def reading(trial: Trial, suspect: Suspect, numbers: Iterable[int]) -> Iterator[Suspect]:
    """Where another number would be right, and only a few lines read it: these, of which as much can be wrong."""
    sites = [trial.program.ops[n].site for n in numbers if n in trial.suspected]
    lines = {(site.file, site.line): site for site in sites if site is not None}
    if suspect.score >= LIKELY and len(lines) <= FEW_LINES:
        for site in lines.values():
            yield Suspect(suspect.score * READ, site, f"reads what line {suspect.site.line} sets")


def _moved(
    trial: Trial, given: Defined, definition: Definition, value: float | None
) -> tuple[Moved, float, float] | None:
    found = given.retraced([(definition, value)])
    how = None if found is None else moved(trial.program, found[0])
    if found is None or not how or not (how.constants or trial.suspected & how.ops.keys()):
        return None
    ((old, new),) = found[1]
    return None if new == old else (how, old, new)


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
        return 0.0 if found is None else _score(trial, _run(trial, found[0], 0.0, 1.0, 1.0))

    if known is not None:
        yield Suspect(exact(known), definition.place, f"{name} is {known:.6g} in the reference, {old:.6g} here")
    turned = _moved(trial, given, definition, -old or 1.0) if how.ops and abs(new - old) != 1 else None
    if old and turned is not None and trial.explains(_run(trial, turned[0], 0.0, 1.0, 1.0)):
        yield Suspect(1.0, definition.place, f"{name} = {-old:.6g} in the place of {old:.6g}")
        return
    curved = turned is not None and _curved(trial, how, old, new, -old or 1.0, turned[0])
    usual = _miss(trial, trial.values)
    written = ((value, f"{text} is right", OTHERWISE) for value, text in given.otherwise(definition).items())
    for value, why, weight in (*numbers_for(trial, old), *(w for w in written if not curved and w[0] != old)):
        if not curved:  # what is far along the line is rounded there
            values = _run(trial, how, old, new, value)
            if not trial.explains(values) and not _miss(trial, values) <= ROUNDED * usual < np.inf:
                continue
        if (score := exact(value)) > 0:
            yield Suspect(score * weight, definition.place, why)
            if score == 1:
                return
    if target_of(trial) is None and abs(new - old) != 1:
        at = _threshold(trial, partial(_run, trial, how, old, new), old)
        if at is not None and exact(at) == 1:
            yield Suspect(THRESHOLD, definition.place, f"{name} = {at:.6g} in the place of {old:.6g}")
            return
    here, start = old, old if np.isfinite(usual) else new  # a mass of nothing: from next to it
    for _ in range(NEARER if abs(new - old) != 1 else 0):  # where what comes of it is no straight line, from nearer by
        run = partial(_run, trial, how, here, new)
        right = solved(trial, run, start)
        for value, weight in right:
            if trial.explains(run(value)) and (score := exact(value)) > 0:
                yield Suspect(score * weight, definition.place, f"{name} = {value:.6g} in the place of {old:.6g}")
                if score == 1 and weight > UNLIKELY:
                    return
        near = right[-1][0] if right else old
        if not right or near in (here, new) or _miss(trial, run(near)) > HOPEFUL * usual:
            return
        nearer = _moved(trial, given, definition, near)
        if nearer is None:
            return
        how, here, new, start = _line(trial, how, nearer[0]), new, nearer[2], near


def _curved(trial: Trial, how: Moved, old: float, new: float, far: float, turned: Moved) -> bool:
    """Whether what comes of a number is no straight line, by what came of one that is ``far``."""
    places, ops = _at(trial, how, old, new, far)
    pairs = [(places[p], turned.constants.get(p, (x, x))[1]) for p, (x, _) in how.constants.items()]
    for number, slots in how.ops.items():
        there = turned.ops.get(number, {})
        pairs += [(read({}, ops[number].inputs[s]), there.get(s, (x, x))[1]) for s, (x, _) in slots.items()]
    return not all(np.allclose(a, b, rtol=1e-3, atol=1e-9) for a, b in pairs)


def _threshold(trial: Trial, run: Callable[[float], Mapping[int, Any]], old: float) -> float | None:
    """The number nearest to ``old`` with which every row is right that was wrong, where only flags are."""

    def mended(value: float) -> bool:
        return trial.verdict(run(value))[0] >= EXPLAINED

    for sign in (1, -1):
        far = next((f for k in range(10, -1, -1) if mended(old * (1 + (f := sign * 2.0**-k)))), None)
        if far is None:
            continue
        near = 0.0
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            near, far = (near, middle) if mended(old * (1 + middle)) else (middle, far)
        if trial.explains(run(old * (1 + far))):
            return old * (1 + far)
    return None


def _miss(trial: Trial, values: Mapping[int, Any]) -> float:
    """How far off the output that is most off is, in the middle one of the rows that diverge."""
    wanted = target_of(trial)
    if wanted is None:
        return np.inf
    name, element = wanted
    goal = trial.case.expected[name].astype(float)[:, element]
    actual = np.asarray(read(values, trial.outputs[name]), float).reshape(trial.rows, -1)[:, element]
    return float(np.median(np.nan_to_num(np.abs(actual - goal), nan=np.inf)[trial.diverging]))


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


def _score(trial: Trial, values: Mapping[int, Any]) -> float:
    mended, broken = trial.verdict(values)
    if mended >= EXPLAINED and broken <= 1 - EXPLAINED:
        return 1.0
    return PARTLY * max(0.0, mended - 2 * broken)
