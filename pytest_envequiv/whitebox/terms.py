"""A term that is missing: a product of what a function knows, times a number, that would have to be added.

How much each output moves with an operation's result is measured. If the divergence of all rows is that, times some
product, times one number, the product is added in earnest and the number solved for. A function that is called several
times misses the term in each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.edits import Edit
from pytest_envequiv.whitebox.program import Constant, Op, read
from pytest_envequiv.whitebox.trial import PASSING, WRITTEN, Trial, solved, target_of

FACTORS = 3  # of one term
MOST_KNOWN = 16  # values of a call that products are made of
TRIED = 3  # terms that are tried for an operation, those that fit best
FITS = 0.9  # share of the divergence a term has to explain to be tried
STEP = 1e-2  # by how much of its size a value is moved
FUNCTIONS = {"sin", "cos", "tan", "exp", "log", "sqrt", "tanh", "square", "integer_pow", "abs"}
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Factor:
    """A function of a value that a function has in each of its calls, one number for each row."""

    name: str
    places: tuple[int, ...]
    function: Function

    def values(self, trial: Trial) -> np.ndarray:
        """float[calls, B]"""
        return np.array([self.function(np.asarray(trial.values[p], float).ravel()) for p in self.places])


def missing(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """A term added to the result of an operation."""
    op = trial.program.ops[group[0]]
    wanted = target_of(trial)
    if wanted is None or op.dtypes[0].kind != "f" or op.name in PASSING or len(group) > 8:
        return
    known = _known(trial, group)
    if not known or any(np.size(trial.values[trial.program.ops[n].outputs[0]]) not in (1, trial.rows) for n in group):
        return
    if len(group) > 1:  # one that is not is told by what it should have been
        for factor in (f for f in known if f.function is np.asarray):
            for times in (1.0, -1.0):
                others = {n: _plus(trial, n, times, [factor], call) for call, n in enumerate(group)}
                yield Edit(f"{times:g} times {factor.name} is missing", others, WRITTEN)
    name, element = wanted
    goal = trial.case.expected[name].astype(float)[:, element]
    rows = trial.diverging & trial.case.counts[name]

    def output(values: Mapping[int, Any]) -> np.ndarray:
        return np.asarray(read(values, trial.outputs[name]), float).reshape(trial.rows, -1)[:, element]

    now = output(trial.values)
    slopes = []
    for number in group:
        place = trial.program.ops[number].outputs[0]
        value = np.broadcast_to(np.asarray(trial.values[place], float).ravel(), (trial.rows,))
        by = STEP * max(float(np.abs(value).mean()), 1.0)
        moved = trial.rerun({place: (value + by).reshape(trial.shape_of(place)).astype(op.dtypes[0])})
        slopes.append((output(moved) - now) / by)
    terms, products = _products(np.array([factor.values(trial) for factor in known]))
    effect = (products * np.array(slopes)).sum(1)[:, rows]
    error = (goal - now)[rows]
    with np.errstate(all="ignore"):
        size = (effect**2).sum(1)
        share = (effect @ error) / size
        fit = np.nan_to_num(share**2 * size / (error @ error), nan=0.0)
    for at in np.argsort(-fit, kind="stable")[:TRIED]:
        if fit[at] < FITS:
            return
        term = [known[k] for k in terms[at]]

        def with_term(number: float, term: Sequence[Factor] = term) -> dict[int, Op]:
            return {n: _plus(trial, n, number, term, call) for call, n in enumerate(group)}

        def run(number: float, made: Callable[[float], dict[int, Op]] = with_term) -> Mapping[int, Any]:
            return trial.replaced(made(number))

        words = " times ".join(factor.name for factor in term)
        for right, weight in solved(trial, run, float(share[at])):
            yield Edit(f"{right:.6g} times {words} is missing", with_term(right), weight)


def _known(trial: Trial, group: Sequence[int]) -> list[Factor]:
    """What there is by then, another number for each row: inputs of the function, their sines and cosines, and
    functions of one number in it."""
    ops = trial.program.ops
    site = ops[group[0]].site
    assert site is not None  # only operations with a site are grouped
    within: dict[Any, list[int]] = {}
    for number, op in enumerate(ops):
        if op.site is not None and (op.site.file, op.site.function) == (site.file, site.function):
            within.setdefault((op.site, op.name, op.inputs if len(group) == 1 else len(op.inputs)), []).append(number)
    found: list[Factor] = []
    seen: list[np.ndarray] = []

    def add(name: str, places: list[int], computed: bool) -> None:
        first = trial.values[places[0]]
        if not (isinstance(first, np.ndarray) and first.dtype.kind == "f" and first.size == trial.rows):
            return
        row = first.ravel()
        if (row != row[0]).any() and not any(np.array_equal(row, other, equal_nan=True) for other in seen):
            seen.append(row)
            found.append(Factor(name, tuple(places), np.asarray))
            if not computed:
                found.append(Factor(f"the sine of {name}", tuple(places), np.sin))
                found.append(Factor(f"the cosine of {name}", tuple(places), np.cos))

    inner = {place for numbers in within.values() for n in numbers for place in ops[n].outputs}
    for (where, name, _), numbers in within.items():
        times, rest = divmod(len(numbers), len(group))
        for first in range(times if not rest else 0):
            calls = numbers[first::times]
            outside = [a for a in ops[calls[0]].inputs if not isinstance(a, Constant) and a not in inner]
            for atom in outside if name not in PASSING else []:
                slot = ops[calls[0]].inputs.index(atom)
                given = [ops[n].inputs[slot] for n in calls]
                if not any(isinstance(a, Constant) for a in given):
                    add(f"what line {where.line} reads", [a for a in given if not isinstance(a, Constant)], False)
            if (name in FUNCTIONS or name in PASSING) and all(c < g for c, g in zip(calls, group, strict=True)):
                add(f"what line {where.line} computes", [ops[n].outputs[0] for n in calls], name in FUNCTIONS)
    return found[:MOST_KNOWN]


def _products(values: np.ndarray) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Products of up to FACTORS of K values (K, calls, B): which are multiplied, and (products, calls, B)."""
    chosen: list[tuple[int, ...]] = []
    for factors in range(1, FACTORS + 1):
        chosen += combinations_with_replacement(range(len(values)), factors)
    return chosen, np.stack([values[list(c)].prod(0) for c in chosen])


def _plus(trial: Trial, number: int, times: float, term: Sequence[Factor], call: int) -> Op:
    """The operation, with a number times other values added to its result."""
    op = trial.program.ops[number]
    count = len(op.inputs)

    def run(values: Sequence[Any]) -> list[Any]:
        own = np.asarray(op.run(values[:count])[0])
        parts = [f.function(np.asarray(v, float).ravel()) for f, v in zip(term, values[count:], strict=True)]
        added = times * np.prod(parts, axis=0)
        shape = own.shape if own.size == added.size else added.shape
        return [(own.astype(float).ravel() + added).reshape(shape).astype(op.dtypes[0])]

    return replace(op, inputs=(*op.inputs, *(factor.places[call] for factor in term)), run=run)
