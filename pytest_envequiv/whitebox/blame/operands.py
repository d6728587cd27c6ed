"""Operands that lack a factor: ``x + acceleration`` for ``x + dt * acceleration``, ``d2 + phi`` for ``d2 * a2 + phi``.

What lacks it is a variable: no operation stands where the factor should, and where the variable is used on other lines
it is right there. A function that is called several times lacks it in each call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame import calls
from pytest_envequiv.whitebox.blame.arguments import Form, given_otherwise
from pytest_envequiv.whitebox.blame.names import Programs
from pytest_envequiv.whitebox.blame.solving import solved
from pytest_envequiv.whitebox.blame.trial import PASSING, Trial
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Constant

LACKING = {"add", "sub", "sin", "cos", "tan", "tanh", "exp", "sqrt", "integer_pow", "square"}  # in a product it is all
FACTOR, NUMBER = (
    0.9,
    0.968,
)  # weight of a factor that is there by then; of one that is a number, of what it is solved for
MOST_CALLS, MOST_FACTORS = 8, 24


def operands(trial: Trial, groups: Sequence[Sequence[int]]) -> Programs:
    """(line, why, weight, all values) of programs in which a variable has one more factor where an operation reads it.
    The line that computes the variable comes with it if nothing else reads it."""
    ops = trial.program.ops
    for group in groups:
        op, site = ops[group[0]], ops[group[0]].site
        if op.name not in LACKING or op.dtypes[0].kind != "f" or site is None or len(group) > MOST_CALLS:
            continue
        known = _factors(trial, group, site)
        for slot in range(len(op.inputs)):
            atoms = [ops[n].inputs[slot] for n in group]
            places = [a for a in atoms if not isinstance(a, Constant)]
            if len(places) < len(group) or (maker := _maker(trial, places[0])) == (site.file, site.line):
                continue
            alone = {n for p in places for n in trial.users.get(p, ())} == set(group)
            lines = [site, *([ops[trial.makers[places[0]]].site] if alone and maker else [])]
            for why, weight, values in _multiplied(trial, group, slot, known):
                yield from ((line, f"{why} is right", weight, values) for line in lines if line is not None)


def _multiplied(
    trial: Trial, group: Sequence[int], slot: int, known: Sequence[tuple[str, Sequence[int]]]
) -> Iterator[tuple[str, float, Mapping[int, Any]]]:
    ops = trial.program.ops

    def run(forms: Sequence[Form]) -> Mapping[int, Any]:
        return trial.replaced({n: given_otherwise(ops[n], slot, f) for n, f in zip(group, forms, strict=True)})

    def times(number: float) -> Mapping[int, Any]:
        return run([Form("", lambda own: own * number)] * len(group))

    for name, places in known:
        with suppress(ValueError, TypeError):  # of another shape
            yield f"an operand times {name}", FACTOR, run([Form("", lambda own, z: own * z, (p,)) for p in places])
    with suppress(ValueError, TypeError):
        for number, weight in solved(trial, times, 1.0) if len(group) == 1 else ():
            yield f"an operand times {number:.6g}", weight * NUMBER, times(number)


def _factors(trial: Trial, group: Sequence[int], site: Site) -> list[tuple[str, list[int]]]:
    """(name, place in each call) of what a function is given or has a name for when an operation runs."""
    makers, count = trial.makers, len(group)
    known = [(f"what line {line} reads", places) for line, places in calls.arguments(trial, site, count)]
    known += [(f"what line {line} computes", places) for line, places in calls.named(trial, site, count)]
    found: dict[tuple[int, ...], tuple[str, list[int]]] = {}
    for name, places in known:
        value = trial.values[places[0]]
        there = all(makers.get(p, -1) < n for p, n in zip(places, group, strict=True))
        if there and isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size in (1, trial.rows):
            found.setdefault(tuple(places), (name, places))
    return list(found.values())[-MOST_FACTORS:]


def _maker(trial: Trial, place: int) -> tuple[str, int] | None:
    """(file, line) on which a value is computed, before it is only passed on; None for an input."""
    atom: Any = place
    while atom in trial.makers and trial.program.ops[trial.makers[atom]].name in PASSING:
        atom = trial.program.ops[trial.makers[atom]].inputs[0]
    site = trial.program.ops[trial.makers[atom]].site if atom in trial.makers else None
    return None if site is None else (site.file, site.line)
