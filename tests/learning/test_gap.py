"""The confidence sequence for the mean gap: it holds the truth, it is narrow where pairs are alike, it finds a gap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_envequiv.comparison import gap
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE

PLAN = gap.Plan(-0.25, 1.25, 0.1, 1e-4)


def test_the_same_returns_are_equal_once_there_are_enough():
    few, many = (gap.judge(PLAN, np.full(n, 0.7), np.full(n, 0.7)) for n in (64, 256))
    assert few.word == INCONCLUSIVE and few.high > 0.1
    assert many.word == EQUAL and -0.1 < many.low < 0 < many.high < 0.1
    assert many.gap == 0 and many.reference == many.target == pytest.approx(0.7)
    assert many.high < many.detectable < 0.15


def test_a_gap_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.7, 0.1, 512), rng.normal(0.5, 0.1, 512)
    found = gap.judge(PLAN, x, y)
    assert found.word == DIFFERENT and found.low < 0.2 < found.high and found.low > 0.1
    assert gap.judge(PLAN, y, x).gap == -found.gap  # reference - target


def test_a_small_gap_that_is_proven_is_different_whatever_the_margin():
    x = np.full(4_000, 0.5)
    assert gap.judge(PLAN, x, x - 0.02).word == DIFFERENT


def test_returns_beyond_the_range_are_clipped_and_nan_is_the_worst():
    x, y = np.full(300, 1.0), np.full(300, math.inf)
    assert gap.judge(PLAN, x, y).target == 1.25
    assert gap.judge(PLAN, x, np.full(300, math.nan)).target == -0.25
    assert gap.judge(PLAN, np.full(300, math.nan), np.full(300, math.nan)).word == EQUAL


def test_false_alarms_are_rare_however_often_one_looks():
    """Unpaired returns of the same distribution, looked at after every 32: 1 in 20 is promised, far fewer come."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        apart = rng.choice([0.0, 1.0], 256, p=[0.3, 0.7]) - rng.choice([0.0, 1.0], 256, p=[0.3, 0.7])
        wrong += any(not gap.holds(apart[:n], 1.5, 0.0, 0.05) for n in range(32, 257, 32))
    assert wrong <= 400 * 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.9, 0.9), st.integers(1, 200))
def test_the_interval_is_what_the_bets_have_not_ruled_out(seed, mean, count):
    apart = np.clip(np.random.default_rng(seed).normal(mean, 0.3, count), -1, 1)
    low, high = gap.interval(apart, 1.0, 0.01)
    assert -1 <= low < high <= 1
    for m in np.linspace(-1, 1, 41):
        if min(abs(m - low), abs(m - high)) > 1e-6:
            assert gap.holds(apart, 1.0, m, 0.01) == (low < m < high)


def test_the_bets_are_those_of_the_definition():
    """Against the product over units, one bet at a time."""
    apart, mean, reach = np.array([0.3, -0.2, 0.9, 0.0]), 0.1, 1.5
    z, m = (apart + reach) / (2 * reach), (mean + reach) / (2 * reach)
    expected = np.mean([np.prod(1 + share / m * (z - m)) for share in gap.SHARES])
    assert gap._wealth(apart, reach, mean) == pytest.approx(math.log(expected))


def test_what_was_detectable_is_detected():
    rng = np.random.default_rng(2)
    pairs = rng.normal(0.5, 0.2, (2, 400))
    least = gap.judge(PLAN, *pairs).detectable
    assert 0.05 < least < 0.2
    found = [gap.judge(PLAN, x := rng.normal(0.5, 0.2, 400), rng.normal(0.5 - least, 0.2, 400)).word for _ in range(40)]
    assert found.count(DIFFERENT) >= 32
    assert len(x) == 400


def test_planning_is_not_far_off():
    rng = np.random.default_rng(3)
    for deviation in (0.0, 0.1, 0.3):
        for units in (256, 2_048):
            apart = rng.normal(0, deviation, units)
            low, high = gap.interval(apart, 1.5, 1e-3)
            width = gap.half_width(deviation, 1.5, units, 1e-3)
            assert 0.5 * width < (high - low) / 2 < 1.3 * width


@pytest.mark.parametrize("wrong", [{"low": 1.0, "high": 1.0}, {"margin": 0.0}, {"alpha": 1.0}, {"high": math.inf}])
def test_plans_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        gap.Plan(**{"low": 0.0, "high": 1.0, "margin": 0.1, "alpha": 1e-3, **wrong})
    with pytest.raises(ValueError, match="same length"):
        gap.judge(PLAN, np.zeros(3), np.zeros(4))
