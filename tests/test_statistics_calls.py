"""The statistics as they are called: the same answer however it is asked, and what makes no sense is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_envequiv.comparison.statistics import Plan, begin, compare, judge, most_payoffs, pairs_needed, update
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE

PLAN = Plan(names=("return",), alpha=1e-3, margin=0.1, units=2600)


# ---------------------------------------------------------------- the same answer however it is asked

columns = st.sampled_from(
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.integers(0, 3, n).astype(float),
        lambda rng, n: np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        lambda rng, n: rng.standard_cauchy(n).round(1),
        lambda rng, n: np.where(rng.random(n) < 0.2, -np.inf, 1e308 * rng.normal(size=n).clip(-1, 1)),
        lambda rng, n: np.ones(n),
    ]
)


@st.composite
def samples(draw):
    """A plan and two samples, of the same or of different distributions, sometimes with shared draws."""
    units, seed = draw(st.integers(2, 700)), draw(st.integers(0, 2**32 - 1))
    kinds = draw(st.lists(st.tuples(columns, columns, st.booleans()), min_size=1, max_size=3))
    again = seed if draw(st.booleans()) else seed + 1
    x, y = (
        np.stack([kind[side](np.random.default_rng([s, i]), units) for i, kind in enumerate(kinds)], axis=1)
        for side, s in ((0, seed), (1, again))
    )
    keep = np.array([same for _, _, same in kinds])
    y[:, keep] = x[:, keep]
    names = tuple(f"column{i}" for i in range(len(kinds)))
    return Plan(names, 0.01, draw(st.sampled_from([0.02, 0.3])), units), x, y


def same_answer(a, b):
    assert a.as_json() == b.as_json()  # NaN is text there, so that it equals itself


@given(samples(), st.lists(st.integers(0, 700), max_size=8))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_batches_make_no_difference(sample, cuts):
    plan, x, y = sample
    bettor = begin(plan)
    for rows in np.split(np.arange(plan.units), sorted(min(c, plan.units) for c in cuts)):
        bettor = update(bettor, x[rows], y[rows])
    same_answer(judge(bettor), compare(plan, x, y))


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_unit_by_unit_and_all_at_once_are_the_same(shift):
    rng = np.random.default_rng(0)
    plan = replace(PLAN, units=900)
    x, y = rng.normal(size=(900, 1)), rng.normal(shift, size=(900, 1))
    bettor = begin(plan)
    for i in range(900):
        if not bettor.finished:
            bettor = update(bettor, x[i : i + 1], y[i : i + 1])
    assert bettor.finished
    assert (bettor.decided_at is not None) == (shift > 0)
    same_answer(judge(bettor), compare(plan, x, y))


@given(samples())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_swapping_the_sides_swaps_only_the_sign(sample):
    plan, x, y = sample
    answer, swapped = compare(plan, x, y), compare(plan, y, x)
    assert (swapped.word, swapped.wealth, swapped.units, swapped.bound) == (
        answer.word,
        answer.wealth,
        answer.units,
        answer.bound,
    )
    assert swapped.event == answer.event
    assert np.array_equal(swapped.difference, -answer.difference, equal_nan=True)


@given(samples())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_an_answer_says_what_it_knows(sample):
    plan, x, y = sample
    answer = compare(plan, x, y)
    same_answer(answer, compare(plan, x.copy(), y.copy()))
    assert 0 < answer.payoffs <= most_payoffs(len(plan.names))
    assert answer.column in plan.names
    assert answer.units <= plan.units
    assert (answer.word == DIFFERENT) == (answer.wealth >= 1 / plan.alpha)
    assert (answer.decided_at is None) == (answer.word == INCONCLUSIVE)
    if answer.word != DIFFERENT:
        assert (answer.word == EQUAL) == (answer.bound <= plan.margin)
        assert abs(answer.difference) <= answer.bound
    if np.array_equal(x, y, equal_nan=True):
        assert answer.wealth == 1.0


def test_update_leaves_what_it_was_given_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 1)), rng.normal(size=(500, 1))
    before = update(begin(PLAN), x[:200], y[:200])
    counts = before.plus.copy()
    update(before, x[200:], y[200:])
    assert before.units == 200
    assert np.array_equal(before.plus, counts)


# ---------------------------------------------------------------- what makes no sense is refused


@pytest.mark.parametrize(
    "change",
    [
        {"names": ()},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"margin": 0.0},
        {"margin": math.nan},
        {"confidence": 1.0},
        {"units": 1},
        {"resolution": -1.0},
        {"resolution": math.nan},
        {"resolution": math.inf},
        {"resolution": (0.1, 0.1)},
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change)).removesuffix("s") + "|column|2 units"):
        replace(PLAN, **change)


@pytest.mark.parametrize("shapes", [((5,), (5,)), ((5, 1), (4, 1)), ((5, 2), (5, 2)), ((5, 1, 1), (5, 1, 1))], ids=str)
def test_arrays_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="were expected"):
        update(begin(PLAN), np.zeros(shapes[0]), np.zeros(shapes[1]))


@pytest.mark.parametrize("arguments", [(0.0, 1e-3, 22), (0.1, 0.0, 22), (0.1, 1e-3, 0), (math.nan, 1e-3, 22)], ids=str)
def test_a_plan_without_end_is_refused(arguments):
    with pytest.raises(ValueError, match="no plan for"):
        pairs_needed(*arguments)
