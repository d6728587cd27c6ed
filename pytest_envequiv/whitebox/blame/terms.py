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

from pytest_envequiv.whitebox.blame import calls
from pytest_envequiv.whitebox.blame.edits import Edit
from pytest_envequiv.whitebox.blame.solving import WRITTEN, solved, target_of
from pytest_envequiv.whitebox.blame.trial import PASSING, Trial
from pytest_envequiv.whitebox.program import Op, read

FACTORS = 3  # of one term
MOST_KNOWN = 20  # values of a call that products are made of
TRIED = 3  # terms whose number is solved for, of an operation: those that fit best
MOST_TRIED = 48  # terms of values that have a name, which are tried as they are
FITS = 0.9  # share of the divergence a term has to explain to be tried
PLAIN = 1.005  # a term times nothing but one or minus one needs no other slip to be written
LONGEST = 8  # vector of which each element is known
STEP = 1e-2  # by how much of its size a value is moved
FUNCTIONS = {"sin", "cos", "tan", "exp", "log", "sqrt", "tanh", "square", "integer_pow", "abs"}
Function = Callable[..., Any]


@dataclass(frozen=True)
class Factor:
    """A function of a value that a function has in each of its calls, one number for each row; of a vector, of one of
    its elements."""

    name: str
    places: tuple[int, ...]
    function: Function
    element: int | None = None

    def of(self, value: Any) -> np.ndarray:
        """float[B]"""
        value = np.asarray(value, float)
        return np.asarray(self.function(value.ravel() if self.element is None else value[:, self.element]))

    def values(self, trial: Trial) -> np.ndarray:
        """float[calls, B]"""
        return np.array([self.of(trial.values[p]) for p in self.places])


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
        elements = list(_elements(trial, group, known))
        plain = [*(f for f in known if f.function is np.asarray), *elements]
        for factor in plain:
            for times in (1.0, -1.0):
                others = _each_plus(trial, group, times, [factor])
                yield Edit(f"{times:g} times {factor.name} is missing", others, WRITTEN)
        squares = [replace(factor, name=f"{factor.name} squared", function=np.square) for factor in plain]
        for factor in (*known, *elements, *squares):
            yield Edit(
                f"times {factor.name} is missing",
                {n: _times(trial, n, factor, c) for c, n in enumerate(group)},
                WRITTEN,
            )
    name, element = wanted
    goal = trial.case.expected[name].astype(float)[:, element]
    rows = trial.diverging & trial.case.counts[name]

    def output(values: Mapping[int, Any]) -> np.ndarray:
        return np.asarray(read(values, trial.outputs[name]), float).reshape(trial.rows, -1)[:, element]

    now = output(trial.values)
    try:
        slopes = np.array([_slope(trial, number, output, now) for number in group])
    except ValueError:  # a number for each row cannot stand here
        return
    for term, times in _fitting(trial, known, slopes, goal - now, rows, TRIED):

        def run(number: float, term: Sequence[Factor] = term) -> Mapping[int, Any]:
            return trial.replaced(_each_plus(trial, group, number, term))

        for right, weight in solved(trial, run, times):
            likely = PLAIN if abs(right) == 1 and weight == WRITTEN else 1.0
            yield Edit(
                f"{right:.6g} times {_words(term)} is missing", _each_plus(trial, group, right, term), weight * likely
            )
    # Where a quotient is added to the lower part of a fraction, what fits best is not what fits exactly.
    for term, times in _fitting(trial, _named(trial, group), slopes, goal - now, rows, MOST_TRIED):
        sign = float(np.sign(times))
        others = _each_plus(trial, group, sign, term)
        yield Edit(f"{sign:g} times {_words(term)} is missing", others, WRITTEN * PLAIN)


def _words(term: Sequence[Factor]) -> str:
    return " times ".join(factor.name for factor in term)


def _each_plus(trial: Trial, group: Sequence[int], number: float, term: Sequence[Factor]) -> dict[int, Op]:
    """The operations of a group, each with a term added in its call."""
    return {n: _plus(trial, n, number, term, call) for call, n in enumerate(group)}


def _fitting(
    trial: Trial, factors: Sequence[Factor], slopes: np.ndarray, error: np.ndarray, rows: np.ndarray, most: int
) -> Iterator[tuple[list[Factor], float]]:
    """(factors of a term, times what number), the best first: ``slopes`` float[calls, B] times it is about the
    error."""
    if not factors:
        return
    with np.errstate(all="ignore"):
        terms, products = _products(np.array([factor.values(trial) for factor in factors]))
        effect = (products * slopes).sum(1)[:, rows]
        size = (effect**2).sum(1)
        share = (effect @ error[rows]) / size
        fit = np.nan_to_num(share**2 * size / (error[rows] @ error[rows]), nan=0.0)
    for at in np.argsort(-fit, kind="stable")[:most]:
        if fit[at] >= FITS:
            yield [factors[k] for k in terms[at]], float(share[at])


def _slope(trial: Trial, number: int, output: Callable[[Mapping[int, Any]], np.ndarray], now: np.ndarray) -> np.ndarray:
    """float[B]: how much an output moves with an operation's result."""
    op = trial.program.ops[number]
    place = op.outputs[0]
    value = np.broadcast_to(np.asarray(trial.values[place], float).ravel(), (trial.rows,))
    by = STEP * max(float(np.abs(value).mean()), 1.0)
    moved = trial.rerun({place: (value + by).reshape(trial.shape_of(place)).astype(op.dtypes[0])})
    return (output(moved) - now) / by


def _known(trial: Trial, group: Sequence[int]) -> list[Factor]:
    """What there is by then, another number for each row: inputs of the function, their sines and cosines, and
    functions of one number in it."""
    ops = trial.program.ops
    site = ops[group[0]].site
    assert site is not None  # only operations with a site are grouped
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

    for line, places in calls.arguments(trial, site, len(group)):
        add(f"what line {line} reads", places, False)
    for numbers in calls.operations(trial, site, len(group)):
        name = ops[numbers[0]].name
        if (name in FUNCTIONS or name in PASSING) and all(n < g for n, g in zip(numbers, group, strict=True)):
            places = [ops[n].outputs[0] for n in numbers]
            add(f"what line {calls.line_of(trial, numbers)} computes", places, name in FUNCTIONS)
    return found[:MOST_KNOWN]


def _elements(trial: Trial, group: Sequence[int], known: Sequence[Factor]) -> Iterator[Factor]:
    """Elements of the vectors that the function is given, but for those that are known."""
    site = trial.program.ops[group[0]].site
    assert site is not None  # only operations with a site are grouped
    seen = [f.of(trial.values[f.places[0]]) for f in known if f.function is np.asarray]
    for line, places in calls.arguments(trial, site, len(group)):
        first = trial.values[places[0]]
        if not (isinstance(first, np.ndarray) and first.dtype.kind == "f" and first.shape[:1] == (trial.rows,)):
            continue
        for element, row in enumerate(first.T if first.ndim == 2 and first.shape[1] <= LONGEST else ()):
            if not any(np.array_equal(row, other, equal_nan=True) for other in seen):
                seen.append(row)
                yield Factor(f"element {element} of what line {line} reads", tuple(places), np.asarray, element)


def _named(trial: Trial, group: Sequence[int]) -> list[Factor]:
    """What the function has a name for by then, another number for each row, and one over it."""
    ops = trial.program.ops
    site = ops[group[0]].site
    assert site is not None  # only operations with a site are grouped
    found: list[Factor] = []
    for line, places in calls.named(trial, site, len(group)):
        values = [trial.values[p] for p in places]
        there = all(trial.makers[p] < n for p, n in zip(places, group, strict=True))
        if there and all(isinstance(v, np.ndarray) and v.dtype.kind == "f" and v.size == trial.rows for v in values):
            found.append(Factor(f"what line {line} computes", tuple(places), np.asarray))
            found.append(Factor(f"one over what line {line} computes", tuple(places), np.reciprocal))
    return found[-MOST_KNOWN:]


def _products(values: np.ndarray) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Products of up to FACTORS of K values (K, calls, B): which are multiplied, and (products, calls, B)."""
    chosen: list[tuple[int, ...]] = []
    for factors in range(1, FACTORS + 1):
        chosen += combinations_with_replacement(range(len(values)), factors)
    return chosen, np.stack([values[list(c)].prod(0) for c in chosen])


def _plus(trial: Trial, number: int, times: float, term: Sequence[Factor], call: int) -> Op:
    """The operation, with a number times other values added to its result."""
    return _with(trial, number, term, call, lambda own, *parts: own + times * np.prod(parts, axis=0))


def _times(trial: Trial, number: int, factor: Factor, call: int) -> Op:
    return _with(trial, number, [factor], call, np.multiply)


def _with(trial: Trial, number: int, factors: Sequence[Factor], call: int, function: Function) -> Op:
    """The operation, its result made something else of with other values: ``function(result, *values)``, flat."""
    op = trial.program.ops[number]
    count = len(op.inputs)

    def run(values: Sequence[Any]) -> list[Any]:
        own = np.asarray(op.run(values[:count])[0])
        parts = [f.of(v) for f, v in zip(factors, values[count:], strict=True)]
        made = function(own.astype(float).ravel(), *parts)
        return [made.reshape(own.shape if own.size == made.size else made.shape).astype(op.dtypes[0])]

    return replace(op, inputs=(*op.inputs, *(factor.places[call] for factor in factors)), run=run)
