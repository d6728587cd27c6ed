"""Gymnasium's toy text: a whole number that is several in one, a mask of what is of use, ends that random play does not
come to. Ports of others, judged without a contract."""

from __future__ import annotations

import types

import pytest
from ports import cab, cliff, judging

from pytest_envequiv.whitebox import sources

PAIRS = {"gymnasium:CliffWalking-v1": cliff, "gymnasium:Taxi-v4": cab}
SLIPS = {
    "no inner walls": ("[1, 0, 1, 0, 0, 1]", "[1, 0, 0, 0, 0, 1]", "L2-play-column"),
    "another price": ("jnp.where(arrived, 20.0", "jnp.where(arrived, 10.0", "L2-coverage-reward"),
    "who arrives stays": ("stand == cab.destination", "stand != cab.destination", "L2-coverage-terminated"),
}


def slipped(before, after):
    text = sources.text_of(cab.__file__)
    assert before in text
    port = types.ModuleType("cab_with_a_slip")
    exec(compile(text.replace(before, after), "cab_with_a_slip.py", "exec"), vars(port))
    return port


@pytest.mark.parametrize("reference", PAIRS)
def test_it_is_equal_without_a_contract(reference):
    judge = judging.opened(reference, PAIRS[reference])
    assert judging.words(judging.run(judge, "*")) == {}
    assert judge.bench.step("coverage").ours.done.any(), "the end is reached one step at a time"


@pytest.mark.parametrize("kind", SLIPS)
def test_a_slip_is_found_in_one_step(kind):
    before, after, check = SLIPS[kind]
    judge = judging.opened("gymnasium:Taxi-v4", slipped(before, after))
    assert check in judging.different(judging.run(judge, "L2-*"))
