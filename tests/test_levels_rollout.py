"""L3, beyond the table of bugs: what only shows in whole episodes, drift that is none, and statistics of episodes."""

from __future__ import annotations

import numpy as np
import pytest
from ports import drift, judging, maze, odd
from ports.judging import one, run

from pytest_envequiv import shrinking
from pytest_envequiv.comparison.fields import pushed
from pytest_envequiv.levels import rollout
from pytest_envequiv.verdict import DIFFERENT, EQUAL


@pytest.fixture
def unshrunk(monkeypatch):
    monkeypatch.setattr(shrinking, "make", lambda bench, verdict, step: (verdict, None))


# -- lockstep --------------------------------------------------------------------------------------------------------


def test_what_a_state_does_not_hold_shows_in_lockstep_alone(unshrunk):
    """A cached value that is not renewed: each single step is right, because each is given the right cache."""
    judge = judging.opened(drift.reference, drift.CachedDrift(stale=True))
    assert judge.pair.map.text()["sine"].startswith("output:observation")
    assert judging.words(run(judge, "L2-play-*", "L3-resync-*")) == {}
    verdicts = run(judge, "L3-lockstep-*")
    assert judging.different(verdicts) == ["L3-lockstep-velocity"]
    assert verdicts["L3-lockstep-observation"].follows == "L3-lockstep-velocity"
    assert judging.words(run(judging.opened(drift.reference, drift.CachedDrift()), "L2-play-*", "L3-*")) == {}


def test_a_divergence_of_a_run_names_the_episode_and_step(unshrunk):
    verdict = one(judging.of("drift", "wall keeps velocity"), "L3-lockstep-v")
    found = verdict.divergence
    assert found.episode is not None and found.step is not None
    assert f"step {found.step} of episode {found.episode}" in verdict.summary
    assert found.error > found.tolerance and "drift" in found.why
    # At the wall the reference stands, the port rolls on.
    assert found.expected == 0.0 > found.actual


def test_drift_is_no_difference():
    """The logistic map: after fifty steps two equal programs have nothing in common."""
    judge = judging.opened(lambda: odd.reference("Chaos"), odd.PlainOdd("Chaos"))
    result = rollout.lockstep(judge.bench)
    apart = one(judge, "L3-lockstep-x")
    assert apart.word == EQUAL and result.lost > 0
    assert "until drift made them unpredictable" in apart.summary


class Leaky(odd.PlainOdd):
    """The same map with a leak of a thousandth."""

    def step(self, state, action):
        after, *rest = super().step(state, action)
        return {**after, "x": after["x"] * 0.999}, *rest


def test_a_difference_is_not_taken_for_drift(unshrunk):
    judge = judging.opened(lambda: odd.reference("Chaos"), Leaky("Chaos"))
    verdict = one(judge, "L3-lockstep-x")
    assert verdict.word == DIFFERENT and verdict.divergence.step < 3


def test_pushes_go_both_ways():
    """A threshold is moved away from by one push and towards by its opposite, in every pattern."""
    judge = judging.of("plain")
    rows = judge.pair.sample.rows.take(slice(0, 8))
    up, down = (
        pushed(judge.pair, rows, 64.0, n).state.fields["position"] - rows.state.fields["position"] for n in (0, 1)
    )
    assert np.array_equal(np.sign(up), -np.sign(down)) and (up != 0).all()
    noise = pushed(judge.pair, rows, 64.0, 0, noise=True).state.fields["position"] - rows.state.fields["position"]
    assert len(set(np.sign(noise).tolist())) == 2  # other directions in other rows


def test_episodes_of_other_lengths_are_measured_too(unshrunk):
    """Play leaves some episodes alone in the middle; that must not upset the drift of the others."""
    judge = judging.opened(lambda: odd.reference("Chaos"), odd.PlainOdd("Chaos"))
    played = judge.bench.played
    lengths = [int(played.rows.step[played.rows.episode == e].max()) + 1 for e in range(played.episodes)]
    lanes = [lengths.index(n) for n in sorted(set(lengths))]
    assert len(lanes) > 1
    drifts = rollout._drift(judge.bench, lanes)
    assert set(drifts) == set(lanes)


# -- resync ----------------------------------------------------------------------------------------------------------


def test_resync_localises(unshrunk):
    """Every step starts from the reference's state: a bug that play meets once is met once, and no later."""
    judge = judging.of("maze", "clamped index")
    resync, lockstep = judge.bench.step("resync"), rollout.lockstep(judge.bench)
    wrong = resync.found["coins"].rows
    assert wrong.any() and not wrong.all()
    cell = resync.ours.state.fields["cell"]
    assert set(np.unique(cell[wrong])) == {maze.SIZE - 1}  # only where the index ends
    assert "coins" in lockstep.wrong


# -- episodes --------------------------------------------------------------------------------------------------------


def test_returns_differ_and_lengths_do_not(unshrunk):
    judge = judging.of("drift", "reward sign")
    verdicts = run(judge, "L3-episodes-*")
    assert verdicts["L3-episodes-return"].word == DIFFERENT
    assert verdicts["L3-episodes-return"].follows == "L3-lockstep-reward"
    assert verdicts["L3-episodes-length"].word == EQUAL


def test_lengths_differ(unshrunk):
    verdict = one(judging.of("drift", "goal strict"), "L3-episodes-length")
    assert verdict.word == DIFFERENT and verdict.follows == "L3-lockstep-terminated"


class Careless(drift.VectorDrift):
    """Neither seeds nor states can be shared, and it may pay too much."""

    def __init__(self, more=0.0):
        super().__init__("beginning by the clock")
        self.more = more

    def step(self, state, action, seeds, tape=None):
        outcome = super().step(state, action, seeds, tape)
        outcome.outputs["reward"] += self.more
        return outcome


def test_episodes_decide_where_nothing_can_be_shared(unshrunk):
    np.random.seed(0)  # noqa: NPY002 - what Careless draws from
    judge = judging.opened(drift.reference, Careless(0.1))
    assert {c.subject for c in judge.checks if c.level == "L3"} == {"episodes"}
    verdict = one(judge, "L3-episodes-return")
    assert verdict.word == DIFFERENT and verdict.follows is None and "P(return" in verdict.summary
    verdict = one(judging.opened(drift.reference, Careless()), "L3-episodes-return")
    assert verdict.word == EQUAL and "detectable_effect" in verdict.evidence
    assert set(verdict.evidence["statistics"]) == {"uniform", "repeat"}


def test_rewards_of_both_seats_are_counted(unshrunk):
    verdict = one(judging.of("stones", "reward not zero-sum"), "L3-episodes-return")
    assert verdict.word == DIFFERENT


def test_more_episodes_are_planned_where_rounding_grows():
    """Returns of pairs that begin alike: all but the same, one in a hundred apart, most apart, and without a value."""
    ours = np.random.default_rng(0).normal(0, 100, 64)
    assert rollout.disagreement(ours, ours + 1e-4) == rollout.ALIKE
    assert rollout.disagreement(ours, np.where(np.arange(64) == 3, ours + 50, ours)) == rollout.ALIKE
    assert rollout.disagreement(ours, ours[::-1]) == rollout.INDEPENDENT
    assert rollout.disagreement(np.full(4, np.nan), np.full(4, np.nan)) == rollout.ALIKE
    assert rollout.disagreement(ours, np.full(64, np.nan)) == rollout.INDEPENDENT
