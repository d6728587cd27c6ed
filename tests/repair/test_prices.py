"""Prices: what is known, what is given, and that nothing is guessed."""

from __future__ import annotations

import datetime
import typing

import pytest
from anthropic.types.model_param import ModelParam

from repair_agent.prices import PICO, UnknownPrice, parsed, price_of, table


def known_to_the_sdk() -> set[str]:
    literal = typing.get_args(ModelParam)[0]
    return set(typing.get_args(literal))


def test_every_price_is_dated_and_plausible():
    for price in table().values():
        assert datetime.date.fromisoformat(price.as_of) >= datetime.date(2026, 1, 1)
        assert price.source
        r = price.rates
        assert 0 < r.read < r.input < r.write_5m < r.write_1h < r.output, price.model
        assert 0 < price.max_output < price.context


def test_every_priced_model_is_one_the_sdk_knows():
    assert set(table()) <= known_to_the_sdk()


def test_the_models_without_a_price_are_those_that_the_file_explains():
    unpriced = known_to_the_sdk() - set(table())
    assert unpriced == {
        "claude-fable-5-2",
        "claude-mythos-5-2",  # no price was found
        "claude-mythos-preview",
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",  # retired, or within days of it
    }


def test_an_unknown_model_is_refused_with_how_to_give_its_price():
    with pytest.raises(
        UnknownPrice, match=r"'claude-opus-5-6'.*mean 'claude-opus-5-5'.*--price claude-opus-5-6=IN,OUT"
    ):
        price_of("claude-opus-5-6")


def test_a_dated_name_has_the_price_of_its_model():
    assert price_of("claude-haiku-4-5-20251001").rates == price_of("claude-haiku-4-5").rates


def test_a_given_price():
    price = table(["mine=2,10,2.5,0.2"])["mine"]
    assert (price.rates.input, price.rates.write_5m, price.rates.read) == (2_000_000, 2_500_000, 200_000)
    assert price.worst(1_000_000, 100_000) == (2.5 + 1.0) * PICO


def test_what_is_left_out_of_a_given_price_is_charged_rather_too_high():
    rates = parsed("mine=3,15").rates
    assert rates.write_5m == rates.write_1h == 2 * rates.input
    assert rates.read == rates.input


@pytest.mark.parametrize(
    "text", ["mine", "mine=", "mine=1", "mine=1,2,3", "mine=a,b", "=1,2", "mine=-1,2", "mine=nan,1"]
)
def test_a_price_that_cannot_be_read_says_what_was_expected(text):
    with pytest.raises(UnknownPrice, match="expected MODEL=IN,OUT"):
        parsed(text)


def test_a_file_of_prices_replaces_those_that_come_with_the_program(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "[claude-opus-5]\ninput=1\noutput=2\nwrite_5m=1.25\nwrite_1h=2\nread=0.1\n"
        'context=1000\nmax_output=100\nas_of=2026-11-01\nsource="bill"\n'
    )
    assert table(file=file)["claude-opus-5"].rates.output == 2_000_000
    assert table(["claude-opus-5=7,8"], file)["claude-opus-5"].rates.output == 8_000_000


@pytest.mark.parametrize("text", ["[m]\ninput=1\n", "m=3\n", "not toml", "[m]\ninput='x'\n"])
def test_a_broken_file_of_prices_is_told_in_one_line(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UnknownPrice) as caught:
        table(file=file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_prompt_has_its_own_price_from_one_token_above():
    haiku = price_of("claude-haiku-5-5")
    assert haiku.above is not None
    assert haiku.rates_of(haiku.above).input == 100_000
    assert haiku.rates_of(haiku.above + 1).input == 500_000
    assert haiku.worst(haiku.above, 0) * 5 < haiku.worst(haiku.above + 1, 0)


def test_the_line_for_people_has_the_date():
    assert price_of("claude-opus-5-5").text() == (
        "claude-opus-5-5: $4 in, $20 out, $5 cache write, $0.2 cache read per million tokens (2026-10-24)"
    )
