"""The statistics keep what they promise: counted over many seeds, or computed exactly where that is possible."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from pytest_envequiv.comparison import statistics
from pytest_envequiv.comparison.statistics import (
    Plan,
    begin,
    compare,
    detectable,
    judge,
    most_payoffs,
    pairs_needed,
    share,
    update,
)
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE

PLAN = Plan(names=("return",), alpha=1e-3, margin=0.1, units=2600)


def normal(rng, n, mean=0.0, deviation=1.0):
    return rng.normal(mean, deviation, (n, 1))


def coin(rng, n, chance=0.5):
    return (rng.random((n, 1)) < chance) * 1.0


def sometimes_nan(rng, n):
    return np.where(coin(rng, n, 0.3) > 0, np.nan, rng.normal(size=(n, 1)))


def pair_of(draw):
    return lambda rng, n: (draw(rng, n), draw(rng, n))


def shared_draws(rng, n):
    common = rng.normal(size=(n, 1))
    return common + 0.1 * rng.normal(size=(n, 1)), common + 0.1 * rng.normal(size=(n, 1))


def opposed_draws(rng, n):
    x = rng.normal(size=(n, 1))
    return x, -x


EQUAL_PAIRS = {
    "normal": pair_of(normal),
    "few values": pair_of(lambda rng, n: rng.integers(0, 4, (n, 1)).astype(float)),
    "constant": pair_of(lambda rng, n: np.full((n, 1), 7.0)),
    "heavy tails": pair_of(lambda rng, n: rng.standard_cauchy((n, 1))),
    "sometimes nan": pair_of(sometimes_nan),
    "rarely infinite": pair_of(lambda rng, n: np.where(coin(rng, n, 0.02) > 0, np.inf, 1.0)),
    "shared draws": shared_draws,
    "opposed draws": opposed_draws,
}


def decisions(plan, draw_pair, runs, seed=0):
    """When DIFFERENT was decided in each run, None where it was not."""
    rngs = (np.random.default_rng([seed, run]) for run in range(runs))
    return [update(begin(plan), *draw_pair(rng, plan.units)).decided_at for rng in rngs]


def words(plan, draw_pair, runs):
    rngs = (np.random.default_rng(run) for run in range(runs))
    return [compare(plan, *draw_pair(rng, plan.units)).word for rng in rngs]


# ---------------------------------------------------------------- false alarms


@pytest.mark.parametrize("kind", EQUAL_PAIRS)
def test_false_alarms_stay_within_alpha(kind):
    runs, alpha = 300, 0.05
    found = decisions(replace(PLAN, alpha=alpha, units=400), EQUAL_PAIRS[kind], runs)
    alarms = sum(at is not None for at in found)
    assert alarms <= binom.isf(1e-3, runs, alpha)


@pytest.mark.parametrize("kind", EQUAL_PAIRS)
def test_no_false_alarm_at_the_default_budget(kind):
    assert not any(decisions(replace(PLAN, units=1000), EQUAL_PAIRS[kind], 50, seed=1))


def test_false_alarms_do_not_add_up_over_columns_and_looks():
    plan = replace(PLAN, names=tuple("abcdef"), alpha=0.05, units=400)
    runs = 200
    found = decisions(plan, lambda rng, n: (rng.normal(size=(n, 6)), rng.normal(size=(n, 6))), runs)
    assert sum(at is not None for at in found) <= binom.isf(1e-3, runs, plan.alpha)


@pytest.mark.parametrize("disagreements", [1, 2, 17, 400])
def test_betting_against_a_fair_coin_neither_wins_nor_loses(disagreements):
    plus = np.arange(disagreements + 1)
    capital = statistics._wealth(plus, disagreements - plus)
    assert np.sum(binom.pmf(plus, disagreements, 0.5) * capital) == pytest.approx(1, abs=1e-9)


def test_the_opening_is_not_bet_on():
    x, y = np.ones((2600, 1)), np.ones((2600, 1))
    y[: PLAN.opening] = 0.0  # a difference in the opening only
    assert compare(PLAN, x, y).wealth == 1.0


def test_share_spends_no_more_than_the_budget():
    assert 7 * share(7, 0.01) == pytest.approx(0.01)
    assert share(1) == 1e-3
    with pytest.raises(ValueError, match="at least 1"):
        share(0)


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(
    ("other", "units", "median"),
    [  # the measured figures of a simpler version of this test, at the same alpha
        (lambda rng, n: normal(rng, n, mean=0.2), 8000, 1618),
        (lambda rng, n: normal(rng, n, deviation=1.25), 8000, 985),
    ],
    ids=["mean", "spread"],
)
def test_finds_a_shift_and_a_change_of_spread(other, units, median):
    found = decisions(replace(PLAN, units=units), lambda rng, n: (normal(rng, n), other(rng, n)), 30)
    assert all(found)
    assert np.median(found) <= 1.1 * median


def test_finds_a_missing_rare_branch():
    found = decisions(replace(PLAN, units=3000), lambda rng, n: (coin(rng, n, 1 / 64), np.zeros((n, 1))), 30)
    assert all(found)
    assert np.median(found) <= 1480


def test_an_obvious_difference_stops_early():
    answer = compare(PLAN, np.zeros((2600, 1)), np.ones((2600, 1)))
    assert answer.word == DIFFERENT
    assert answer.units == answer.decided_at < PLAN.opening + 30
    assert answer.difference == pytest.approx(-1)
    assert answer.bound is None
    assert answer.detectable == detectable(PLAN.units - PLAN.opening, PLAN.alpha, answer.payoffs, 1.0)


def test_the_wealth_is_the_largest_there_has_been():
    x, y = np.zeros((2600, 1)), np.zeros((2600, 1))
    x[200:206], y[300:306] = 1.0, 1.0
    earlier = judge(update(begin(PLAN), x[:250], y[:250])).wealth
    assert earlier > 2
    assert judge(update(begin(PLAN), x[:320], y[:320])).wealth == earlier


@pytest.mark.parametrize("new", [-1.0, 1.0, 3.0, math.nan, math.inf, -math.inf])
def test_finds_a_value_the_opening_never_showed(new):
    """0 and 2 on both sides, but later the target replaces 2 by something below, between, above or not finite."""
    rng = np.random.default_rng(0)
    x = 2 * coin(rng, 400)
    y = x.copy()
    y[100:][x[100:] == 2] = new
    assert compare(replace(PLAN, units=400), x, y).word == DIFFERENT


@pytest.mark.parametrize(
    ("value", "event"), [(math.nan, "return is NaN"), (math.inf, "return is infinite"), (-math.inf, "infinite")]
)
def test_values_that_are_not_finite_are_seen_and_named(value, event):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2600, 1))
    y = np.where(coin(rng, 2600, 0.03) > 0, value, rng.normal(size=(2600, 1)))
    answer = compare(PLAN, x, y)
    assert answer.word == DIFFERENT
    assert event in answer.event
    assert answer.difference < 0
    assert answer.as_json()["word"] == DIFFERENT


def test_nothing_finite_at_all():
    nothing = np.full((2600, 1), np.nan)
    assert compare(PLAN, nothing, nothing).word == EQUAL
    assert compare(PLAN, nothing, np.zeros((2600, 1))).word == DIFFERENT


def test_names_the_column_that_differs():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2600, 3)), rng.normal(size=(2600, 3))
    y[:, 1] += 0.6
    answer = compare(replace(PLAN, names=("return", "length", "score")), x, y)
    assert (answer.word, answer.column) == (DIFFERENT, "length")
    assert answer.event.startswith("length > ")
    assert answer.event in answer.text
    assert answer.difference < 0  # the event happens more often in y


# ---------------------------------------------------------------- EQUAL and INCONCLUSIVE


@pytest.mark.parametrize("kind", ["normal", "few values", "constant", "heavy tails"])
def test_equal_pairs_come_out_equal_with_the_units_planned(kind):
    plan = replace(PLAN, units=pairs_needed(0.1, PLAN.alpha, most_payoffs(1)))
    assert words(plan, EQUAL_PAIRS[kind], 25) == [EQUAL] * 25


def test_equal_pairs_come_out_equal_where_the_bound_sets_the_units():
    """Coins have the largest variance. With so much confidence and alpha, finding the margin needs fewer units."""
    runs, alpha, confidence = 60, 0.2, 1 - 1e-6
    needed = pairs_needed(0.1, alpha, 3 * 8, confidence)
    assert needed > 2 * pairs_needed(0.1, alpha, 3 * 8, confidence=0.9)
    plan = Plan(("a", "b", "c"), alpha, margin=0.1, units=needed, confidence=confidence)
    undecided = words(plan, pair_of(lambda rng, n: rng.integers(0, 2, (n, 3))), runs).count(INCONCLUSIVE)
    assert undecided <= binom.isf(1e-3, runs, 0.1)


def test_equal_names_the_event_that_is_bounded_worst():
    rng = np.random.default_rng(0)
    x, y = (np.hstack([np.zeros((2600, 1)), coin(rng, 2600)]) for _ in range(2))
    answer = compare(replace(PLAN, names=("length", "return")), x, y)
    assert (answer.word, answer.column) == (EQUAL, "return")
    assert answer.event in answer.text


def test_pairs_that_share_their_draws_need_far_fewer_units():
    plan = replace(PLAN, margin=0.02, units=pairs_needed(0.02, PLAN.alpha, most_payoffs(1), disagreement=0.0))
    assert plan.units < 1600
    assert pairs_needed(0.02, PLAN.alpha, most_payoffs(1)) > 50_000
    x = np.random.default_rng(0).normal(size=(plan.units, 1))
    answer = compare(plan, x, x)
    assert answer.word == EQUAL
    assert answer.bound == pytest.approx(math.log(2 / 1e-3) / (plan.units - plan.opening), rel=0.01)


@pytest.mark.parametrize("disagreement", [0.0, 0.5])
def test_a_difference_of_the_margin_comes_out_different_with_the_units_planned(disagreement):
    margin, runs = 0.1, 60
    plan = replace(PLAN, units=pairs_needed(margin, PLAN.alpha, most_payoffs(1), disagreement=disagreement))

    def pair(rng, n):
        y = coin(rng, n) if disagreement else np.zeros((n, 1))
        return (coin(rng, n, 0.5 + margin) if disagreement else coin(rng, n, margin)), y

    assert words(plan, pair, runs).count(DIFFERENT) >= binom.ppf(1e-3, runs, 0.9)


def test_a_wider_margin_needs_fewer_units():
    needed = [pairs_needed(margin, 1e-3, 22) for margin in (0.05, 0.1, 0.2, 0.4)]
    assert needed == sorted(set(needed), reverse=True)


def test_the_opening_is_counted_in_and_no_unit_is_wasted():
    left = {units: units - replace(PLAN, units=units).opening for units in range(2, 1000)}
    assert (left[400], left[999]) == (300, 899)
    for bets in range(1, 800):
        assert statistics._units(bets) == min(units for units in left if left[units] >= bets)


@given(plus=st.floats(0, 1), minus=st.floats(0, 1), n=st.integers(1, 30), confidence=st.sampled_from([0.5, 0.9, 0.999]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_bound_holds_with_its_confidence_exactly(plus, minus, n, confidence):
    """Summed over every possible outcome, the bound is below the truth with probability at most 1 - confidence."""
    plus, minus = plus / max(1, plus + minus), minus / max(1, plus + minus)
    a, b = (counts.ravel() for counts in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    a, b = a[a + b <= n], b[a + b <= n]
    chance = multinomial.pmf(np.stack([a, b, n - a - b], 1), n, [plus, minus, max(0.0, 1 - plus - minus)])
    wrong = statistics._bound(a, b, n, confidence) < abs(plus - minus) - 1e-12
    assert np.sum(np.where(wrong, chance, 0)) <= 1 - confidence + 1e-9


def test_a_difference_beyond_the_margin_is_called_equal_no_more_often_than_promised():
    """With so little alpha that betting never decides, only the bound stands between the difference and EQUAL."""
    plan = Plan(("won",), alpha=1e-15, margin=0.2, units=500, confidence=0.9)

    def pair(rng, n):
        return coin(rng, n, 0.6), coin(rng, n, 0.4 - 1e-3)

    runs = 200
    said = words(plan, pair, runs)
    assert 0 < said.count(EQUAL) <= binom.isf(1e-3, runs, 0.1)
    assert EQUAL not in words(replace(plan, confidence=0.999), pair, runs)


@pytest.mark.parametrize("seed", range(20))
def test_never_equal_when_the_difference_exceeds_the_margin(seed):
    rng = np.random.default_rng(seed)
    for margin, difference in [(0.02, 0.03), (0.1, 0.12), (0.3, 0.35)]:
        for units in (10, 100, 1000):
            x, y = coin(rng, units, 0.5 + difference / 2), coin(rng, units, 0.5 - difference / 2)
            assert compare(replace(PLAN, margin=margin, units=units), x, y).word != EQUAL


def test_inconclusive_when_the_units_are_too_few():
    rng = np.random.default_rng(0)
    x, y = normal(rng, 300), normal(rng, 300)
    answer = compare(replace(PLAN, units=300), x, y)
    assert answer.word == INCONCLUSIVE
    assert answer.decided_at is None
    assert answer.bound > PLAN.margin
    assert answer.detectable > PLAN.margin


@pytest.mark.parametrize("seen", [0, 1, 99, 100, 101, 2599])
def test_equal_is_not_said_before_all_planned_units_were_seen(seen):
    same = np.zeros((seen, 1))
    answer = compare(PLAN, same, same)
    assert (answer.word, answer.units, answer.bound) == (INCONCLUSIVE, seen, None)
    assert answer.text
    assert compare(replace(PLAN, units=2600), np.zeros((2600, 1)), np.zeros((2600, 1))).word == EQUAL


def test_units_beyond_the_plan_are_not_looked_at():
    x, y = np.zeros((5000, 1)), np.zeros((5000, 1))
    y[2600:] = 1.0
    answer = compare(PLAN, x, y)
    assert (answer.word, answer.units, answer.decided_at) == (EQUAL, 2600, 2600)


def test_a_proven_difference_within_the_margin_is_still_a_difference():
    x, y = coin(np.random.default_rng(0), 2600, 0.03), np.zeros((2600, 1))
    assert compare(replace(PLAN, margin=0.5), x, y).word == DIFFERENT


def test_resolution_makes_the_last_bit_of_a_float32_one_value():
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 0, (2600, 1)) * 0.1
    y = rng.integers(-3, 0, (2600, 1)).astype(np.float32) * np.float32(0.1)
    assert compare(PLAN, x, y).word == DIFFERENT
    assert compare(replace(PLAN, resolution=1e-6), x, y).word == EQUAL
    assert compare(replace(PLAN, resolution=(1e-6,)), x, y + 1e-3).word == DIFFERENT


def test_values_within_the_resolution_are_one_value_even_if_the_opening_did_not_show_them():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2600, 1)) + rng.uniform(0, 1e-6, (2600, 1))
    y = rng.integers(0, 3, (2600, 1)) + np.where(np.arange(2600) < 150, 5e-7, 1e-6)[:, None]
    answer = compare(replace(PLAN, resolution=1e-6), x, y)
    assert (answer.word, answer.payoffs) == (EQUAL, 3 * 2 + 2 + 2)  # two per value, distances 0 and 1, and the rest


def test_a_column_of_few_values_is_looked_at_value_by_value():
    squares = (np.arange(2600) % 20)[:, None] ** 2.0  # no two at the same distance from the median
    assert compare(PLAN, squares, squares).payoffs == most_payoffs(1)
    more = (np.arange(2600) % 21)[:, None] ** 2.0
    assert compare(PLAN, more, more).payoffs < most_payoffs(1) / 2


# ---------------------------------------------------------------- the detectable effect


@pytest.mark.parametrize("disagreement", [0.0, 0.05, 0.5])
def test_the_detectable_effect_is_detected_and_half_of_it_is_not(disagreement):
    plan = Plan(("won",), alpha=1e-3, margin=0.1, units=1000)
    payoffs, runs = 8, 100  # two values: 2 above, 2 below, 2 around, infinite, NaN
    effect = detectable(plan.units - plan.opening, plan.alpha, payoffs, disagreement)

    def pair(difference):
        def draw(rng, n):
            ranks = rng.random((n, 1))
            x = ranks < disagreement / 2 + difference
            return x * 1.0, (~x & (ranks < disagreement + difference)) * 1.0

        return draw

    assert update(begin(plan), *pair(effect)(np.random.default_rng(0), 1000)).plus.size == payoffs
    assert sum(map(bool, decisions(plan, pair(effect), runs))) >= binom.ppf(1e-3, runs, 0.9)
    assert sum(map(bool, decisions(plan, pair(effect / 2), runs))) <= runs / 2


def test_the_detectable_effect_shrinks_with_units_and_grows_with_care():
    assert detectable(8000, 1e-3, 22) < detectable(2000, 1e-3, 22) < detectable(500, 1e-3, 22)
    assert detectable(2000, 1e-3, 22) < detectable(2000, 1e-6, 22)
    assert detectable(2000, 1e-3, 22) < detectable(2000, 1e-3, 220)
    assert detectable(2000, 1e-3, 22, 0.01) < detectable(2000, 1e-3, 22, 0.5)
    assert detectable(10, 1e-3, 22) == detectable(0, 1e-3, 22) == math.inf
