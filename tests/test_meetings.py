"""Pairs of inputs that meet in one output: which there are, in which states they are tried, and what that finds."""

from __future__ import annotations

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from ports import drift, judging, odd

from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.meetings import exercised, meetings
from pytest_envequiv.verdict import DIFFERENT


def met(judge, output):
    """The pairs that meet in one output of the target, in words."""
    found = judge.bench.meetings
    return {f"{a} x {b}" for a, b in (found.pairs[n] for n in found.by_output[output])}


def all_pairs(*names):
    return {f"{a} x {b}" for a, b in combinations(names, 2)}


@pytest.fixture(scope="module")
def cart():
    return judging.of("drift")


@pytest.mark.parametrize(
    "rule, output, expected",
    [
        ("Chaos", "state.x", {"action x x"}),
        ("Twins", "state.left", {"action x left"}),
        ("Twins", "observation", all_pairs("action", "left", "right")),
        ("Twins", "terminated", {"action x left"}),
        ("Wide", "state.x", {"action x x"}),
        ("Wide", "state.y", set()),
        ("Wide", "reward", {"action x x"}),
        ("Wide", "observation", all_pairs("action", "x", "y")),
    ],
)
def test_those_that_meet(rule, output, expected):
    judge = judging.opened(lambda: odd.reference(rule), odd.PlainOdd(rule))
    found = {pair.replace("action[0]", "action") for pair in met(judge, output)}
    assert found == expected


def test_no_pairs_where_nothing_can_be_moved():
    assert not judging.of("maze").bench.meetings.pairs  # whole numbers only
    assert "pairs" not in {check.subject for check in judging.of("maze").checks}
    judge = judging.of("drift")
    assert meetings(judge.pair, None).pairs == ()


def test_each_pair_once_and_only_what_can_be_moved(cart):
    found = cart.bench.meetings
    assert len(set(found.pairs)) == len(found.pairs) == len({frozenset(pair) for pair in found.pairs})
    assert {own.name for pair in found.pairs for own in pair} == {"position", "velocity", "angle", "action"}
    assert met(cart, "state.tank") == met(cart, "truncated") == set()  # fuel and clock are whole numbers


def test_a_perturbed_flow_gives_the_same_pairs(cart):
    assert set(judging.of("vector").bench.meetings.pairs) == set(cart.bench.meetings.pairs)


def test_rows_are_states_the_reference_steps_into(cart):
    rows = cart.bench.step("pairs").rows
    fields = rows.state.fields
    assert len(rows) > 500
    assert (np.abs(fields["velocity"]) <= drift.FAST).all() and (np.abs(fields["angle"]) <= np.pi).all()
    assert (fields["position"] >= drift.WALL).all() and (fields["position"] < 0.5).all()
    stopped = fields["position"] == drift.WALL
    assert stopped.any() and (fields["velocity"][stopped] >= 0).all()


def test_pairs_are_exercised_better_than_in_play(cart):
    bench = cart.bench
    played = states.from_play(bench.pair, bench.played, 2048, 0)
    share = {
        name: exercised(bench.pair, bench.played, bench.meetings, rows)
        for name, rows in (("play", played), ("pairs", bench.step("pairs").rows))
    }
    assert (share["pairs"] >= share["play"]).all() and share["pairs"].min() > 0.85
    one = exercised(bench.pair, bench.played, bench.meetings, played.take(slice(0, 1)))
    assert one == pytest.approx(1 / 9)


def test_the_report_says_which_pairs_and_how_well(cart):
    evidence = judging.one(cart, "L2-pairs-v").evidence
    assert set(evidence["pairs"]) == met(cart, "state.v") and evidence["least_exercised"] in evidence["pairs"]
    assert 0.85 < evidence["pair_cells"] <= 1
    assert judging.one(cart, "L2-pairs-tank").evidence["pairs"] == []


class Both(drift.GymnaxDrift):
    """Wrong where two inputs are special at once: close to the goal, and driving away from it fast."""

    def _reward(self, state, v, push, terminated):
        return super()._reward(state, v, push, terminated) + jnp.where((state.x > 0.2) & (state.v < -0.04), 1.0, 0.0)


def test_what_takes_two_inputs_at_once_is_found():
    judge = judging.opened(drift.reference, Both())
    found = judging.run(judge, "L2-play-reward", "L2-pairs-reward")
    assert found["L2-play-reward"].word == "EQUAL"  # or else this shows nothing
    at = found["L2-pairs-reward"].divergence.state
    assert found["L2-pairs-reward"].word == DIFFERENT and at["position"] > 0.2 and at["velocity"] < -0.04
