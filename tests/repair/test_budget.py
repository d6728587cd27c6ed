"""Budgets: no limit is overshot, whatever is asked and whatever comes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repair_agent.budget import Budget, Exhausted, Limits, Usage, cost
from repair_agent.prices import PICO, UnknownPrice, parsed, price_of, table

PRICES = table(["odd=0.000001,3.333333,0.7,0.3", "free=0,0"])
MODELS = ("claude-opus-5-5", "claude-haiku-5-5", "odd", "free")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def budget(clock=None, **limits) -> Budget:
    return Budget(Limits(**limits), PRICES, clock or Clock())


@st.composite
def within(draw, input_tokens: int, max_tokens: int, keep: str) -> Usage | None:
    """What a call may really have used, or None if it did not say."""
    if draw(st.integers(0, 4)) == 0:
        return None
    prompt = draw(st.integers(0, input_tokens))
    written = draw(st.integers(0, prompt))
    read = draw(st.integers(0, prompt - written))
    field = "write_1h" if keep == "1h" else "write_5m"
    output = draw(st.integers(0, max_tokens))
    return Usage(input=prompt - written - read, output=output, read=read, **{field: written})


@given(
    st.data(),
    st.one_of(st.none(), st.floats(0, 3, allow_nan=False)),
    st.one_of(st.none(), st.integers(0, 6)),
    st.one_of(st.none(), st.integers(0, 600_000)),
)
def test_no_limit_is_ever_overshot(data, dollars, calls, tokens):
    limits = Limits(dollars=dollars, calls=calls, tokens=tokens)
    held = Budget(limits, PRICES)
    waiting = []
    for _ in range(data.draw(st.integers(1, 10))):
        if waiting and data.draw(st.booleans()):
            reservation = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            usage = data.draw(within(reservation.input_tokens, reservation.max_tokens, reservation.keep))
            assert held.settle(reservation, usage) <= reservation.pico
        elif data.draw(st.booleans()):
            held = Budget.from_json(json.loads(json.dumps(held.as_json())), limits, PRICES)
            waiting = []
        else:
            model, keep = data.draw(st.sampled_from(MODELS)), data.draw(st.sampled_from(["5m", "1h"]))
            size, most = data.draw(st.integers(0, 300_000)), data.draw(st.integers(1, 64_000))
            try:
                waiting.append(held.reserve(model, size, most, keep))
            except Exhausted:
                continue
        spent = held.spent
        if dollars is not None:
            assert spent.pico <= dollars * PICO
        if calls is not None:
            assert spent.calls <= calls
        if tokens is not None:
            assert spent.tokens <= tokens


@given(st.sampled_from(MODELS), st.integers(0, 300_000), st.floats(0, 2), st.sampled_from(["5m", "1h"]))
def test_affordable_is_the_most_that_can_be_reserved(model, size, dollars, keep):
    held = Budget(Limits(dollars=dollars, tokens=400_000), PRICES)
    most = held.affordable(model, size, keep)
    price = price_of(model, PRICES)
    if most >= 1:
        held.settle(held.reserve(model, size, most, keep), Usage())
        assert most <= min(price.max_output, price.context - size)
    if most < min(price.max_output, price.context - size, 400_000 - size):
        with pytest.raises(Exhausted):
            held.reserve(model, size, max(most, 0) + 1, keep)


def test_the_worst_case_is_the_whole_prompt_written_and_a_full_answer():
    held = budget(dollars=10.0)
    reservation = held.reserve("claude-opus-5-5", 20_000, 16_000)
    assert reservation.pico / PICO == pytest.approx(20_000 * 5e-6 + 16_000 * 20e-6)
    assert held.worst("claude-opus-5-5", 20_000, 16_000, "1h") == pytest.approx(20_000 * 8e-6 + 16_000 * 20e-6)


def test_what_is_reserved_cannot_be_reserved_again():
    held = budget(dollars=1.0)
    first = held.reserve("claude-opus-5-5", 0, 30_000)
    with pytest.raises(Exhausted, match=r"may cost \$0.6000, and \$0.4000 are left"):
        held.reserve("claude-opus-5-5", 0, 30_000)
    held.settle(first, Usage(output=1))
    held.reserve("claude-opus-5-5", 0, 30_000)


def test_a_call_that_failed_without_saying_is_charged_its_prompt_at_worst():
    held = budget(dollars=1.0)
    held.settle(held.reserve("claude-opus-5-5", 10_000, 5_000), None)
    spent = held.spent
    assert spent.dollars == pytest.approx(10_000 * 5e-6)
    assert (spent.calls, spent.failed, spent.tokens) == (1, 1, 10_000)


def test_what_a_call_used_is_what_is_charged():
    usage = Usage(input=100, output=200, write_5m=300, write_1h=400, read=500)
    price = price_of("claude-opus-5-5")
    dollars = 100 * 4e-6 + 200 * 20e-6 + 300 * 5e-6 + 400 * 8e-6 + 500 * 0.2e-6
    assert cost(price, usage) / PICO == pytest.approx(dollars)
    held = budget(dollars=1.0)
    held.settle(held.reserve("claude-opus-5-5", 1300, 200, "1h"), usage)
    assert held.spent.tokens == 1500
    assert held.spent.text() == f"${dollars:.4f}, 1 calls, 1,500 tokens, 38% of the prompts from the cache"


def test_a_call_is_settled_once():
    held = budget()
    reservation = held.reserve("free", 1, 1)
    held.settle(reservation, Usage())
    with pytest.raises(ValueError, match="settled before"):
        held.settle(reservation, Usage())


def test_more_than_was_reserved_is_told_truly_and_ends_it():
    held = budget(dollars=0.1)
    held.settle(held.reserve("claude-opus-5-5", 10, 1000), Usage(output=10_000))
    assert held.spent.dollars == pytest.approx(0.2)
    with pytest.raises(Exhausted, match=r"\$0.2000 of \$0.1"):
        held.check()


def test_an_unknown_model_is_refused_before_anything_is_set_aside():
    held = budget(dollars=1.0)
    with pytest.raises(UnknownPrice):
        held.reserve("claude-nobody", 1, 1)
    assert held.as_json()["pico"] == 0


def test_time_runs_over_both_runs():
    clock = Clock()
    first = budget(clock, seconds=10.0)
    clock.now += 6
    assert first.seconds_left == 4.0
    later = Budget.from_json(first.as_json(), Limits(seconds=10.0), PRICES, clock)
    later.check()
    clock.now += 4
    with pytest.raises(Exhausted, match="time: 10 s are over"):
        later.check()
    with pytest.raises(Exhausted, match="time"):
        later.reserve("free", 1, 1)


def test_calls_and_tokens_are_limited_alike():
    held = budget(calls=1, tokens=100, dollars=None)
    with pytest.raises(Exhausted, match="tokens: the next call may use 101, and 100 are left"):
        held.reserve("free", 100, 1)
    held.settle(held.reserve("free", 1, 1), None)
    with pytest.raises(Exhausted, match="calls: 1 of 1 were made"):
        held.check()


def test_under_a_limit_of_nothing_only_calls_are_refused():
    held = budget(dollars=0.0, calls=0, tokens=0)
    held.check()
    with pytest.raises(Exhausted):
        held.reserve("free", 0, 1)


def test_a_call_under_way_when_the_run_was_killed_counts_in_full():
    held = budget(dollars=1.0)
    reservation = held.reserve("claude-opus-5-5", 1000, 1000)
    again = Budget.from_json(held.as_json(), Limits(dollars=1.0), PRICES)
    assert again.spent.pico == reservation.pico
    assert again.spent.calls == 1
    assert again.dollars == pytest.approx(0.025)


def test_what_is_left_in_words():
    held = budget(dollars=2.0, calls=3)
    held.settle(held.reserve("claude-opus-5-5", 0, 50_000), Usage(output=50_000))
    assert held.text() == "$1.00, 2 calls"
    assert budget(dollars=None).text() == "no limit"


def test_parsed_prices_count_too():
    held = Budget(Limits(dollars=1.0), {"mine": parsed("mine=1,2")})
    assert held.affordable("mine", 100_000) == 64_000  # $0.20 for the prompt leaves more than an answer may have
