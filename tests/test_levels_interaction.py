"""L2, beyond the table of bugs: which states are asked, what is live, chances, and what is only unknown."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import drift, judging, maze, odd
from ports.judging import one, run

from pytest_envequiv import shrinking
from pytest_envequiv.comparison.fields import compare
from pytest_envequiv.stimuli import states
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE


@pytest.fixture(scope="module")
def equal():
    return judging.of("drift")


# -- states ----------------------------------------------------------------------------------------------------------


def test_states_of_all_kinds_are_asked(equal):
    for source in ("play", "boundary", "limit"):
        rows = equal.bench.step(source).rows
        assert len(rows) > 100
    x = equal.bench.step("boundary").rows.state.fields["position"]
    assert np.sum(x < drift.WALL + 0.02) > 30 and np.sum(x > 0.4) > 30  # at the wall, before the goal
    clock = equal.bench.step("limit").rows.clock
    assert set(np.unique(clock)) <= set(range(drift.LIMIT - 5, drift.LIMIT)) and drift.LIMIT - 1 in clock


def test_only_live_states_are_asked(equal):
    """No state is beyond the goal, and none is one the reference would have ended in."""
    for source in ("play", "boundary", "limit"):
        rows = equal.bench.step(source).rows
        assert (rows.state.fields["position"] < 0.5).all()
        assert (rows.clock < drift.LIMIT).all()


class Beyond(drift.GymnaxDrift):
    """Pays differently where no episode can be."""

    def _reward(self, state, v, push, terminated):
        return super()._reward(state, v, push, terminated) + jnp.where(state.x >= 0.5, 7.0, 0.0)


def test_a_difference_where_no_episode_can_be_is_none():
    assert judging.words(run(judging.opened(drift.reference, Beyond()), "L2-*-reward")) == {}


def test_a_rule_of_the_contract_says_what_is_live():
    contract = '[live]\nrule = "position > -0.9"\n'
    judge = judging.of("drift", "wall keeps velocity", contract=contract)
    for source in ("play", "boundary"):
        assert (judge.bench.step(source).rows.state.fields["position"] > -0.9).all()
    found = judging.different(run(judge, "L2-play-v", "L2-boundary-v"))
    free = judging.of("drift", "wall keeps velocity")
    assert len(found) <= len(judging.different(run(free, "L2-play-v", "L2-boundary-v"))) == 2


class Seldom(drift.GymnaxDrift):
    """Wrong in a thin slice of states that play hardly meets: just before the wall, moving at full speed."""

    def _reward(self, state, v, push, terminated):
        return super()._reward(state, v, push, terminated) + jnp.where(
            (state.x < drift.WALL + 0.06) & (state.x > drift.WALL) & (state.v < -0.069), 1.0, 0.0
        )


def test_a_corner_of_the_state_space_is_looked_at():
    verdict = one(judging.opened(drift.reference, Seldom()), "L2-boundary-reward")
    assert verdict.word == DIFFERENT and verdict.divergence.state["velocity"] < -0.069


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_a_divergence_is_told_in_full(monkeypatch):
    monkeypatch.setattr(shrinking, "make", lambda bench, verdict, step: (verdict, None))
    judge = judging.of("drift", "wall keeps velocity")
    found = one(judge, "L2-play-v").divergence
    assert found.field == "v" and found.expected == 0.0 > found.actual
    assert found.error == pytest.approx(-found.actual) and found.error > found.tolerance > 0
    assert "64 times" in found.why
    assert set(found.state) == {"position", "velocity", "angle", "fuel", "_elapsed_steps"}
    assert found.source == "play" and set(found.action) == {"action"}
    follower = one(judge, "L2-play-observation")
    assert (follower.follows, follower.word) == ("L2-play-v", DIFFERENT)
    assert "observation" in one(judge, "L2-play-v").evidence["followers"]


def test_draws_are_part_of_a_divergence():
    found = one(judging.of("drift", "slip probability", {"slip": 0.1}), "L2-play-v").divergence
    assert [d["kind"] for d in found.draws] == ["uniform"]
    assert 0.1 <= found.draws[0]["value"] < 0.2  # between the two chances


def test_index_of_the_element():
    found = one(judging.of("maze", "history order"), "L2-play-observation").divergence
    assert len(found.index) == 3 and found.tolerance is None and found.why.startswith("exact")


def test_coverage_below_the_contract_is_unknown():
    floor = "[coverage]\nterminations = {}\ntruncations = {}\n"
    judge = judging.of("drift", contract=floor.format(1, 1_000_000))
    assert one(judge, "L2-play-terminated").word == EQUAL
    verdict = one(judge, "L2-play-truncated")
    assert verdict.word == INCONCLUSIVE and "the contract asks for 1000000" in verdict.summary
    assert one(judge, "L2-play-reward").word == EQUAL


# -- chances ---------------------------------------------------------------------------------------------------------


def test_draws_that_cannot_be_shared_are_compared_as_chances():
    judge = judging.of("drift", None, {"ice": True})
    verdict = one(judge, "L2-distribution-v")
    assert judge.pair.step_mode == "distribution"
    assert verdict.word == EQUAL and "detectable_effect" in verdict.evidence
    verdict = one(judging.of("drift", "missing outcome", {"ice": True}), "L2-distribution-v")
    assert verdict.word == DIFFERENT and "in each of two samples" in verdict.summary


@pytest.mark.parametrize("slip, wind", [(0.1, 0.0), (0.5, 0.0), (0.1, 0.01)])
def test_draws_that_are_used_in_another_way_are_no_difference(slip, wind):
    judge = judging.of("drift", "slips for large numbers", {"slip": slip, "wind": wind})
    assert judge.pair.step_mode == "distribution" and not judge.pair.doubt
    assert any("used in another way" in note for note in judge.notes)
    assert judging.words(run(judge, "L1-draws-step", "L2-distribution-v")) == {}


@pytest.mark.parametrize("bug", ["wrong constant", "slip probability", "reward scale"])
def test_chance_does_not_hide_a_difference(bug):
    """A small slip of arithmetic is far below what samples can show; the shared draws show it."""
    judge = judging.of("drift", bug, {"slip": 0.1, "wind": 0.03})
    assert judge.pair.step_mode == "tape"
    assert judging.different(run(judge, "L2-play-*"))


# -- tolerances ------------------------------------------------------------------------------------------------------


def test_an_error_of_rounding_is_explained_where_the_state_is_sensitive():
    """Single precision at a million: errors a thousand times the observation's own precision, and no difference."""
    judge = judging.opened(lambda: odd.reference("Large"), odd.PlainOdd("Large"))
    step = judge.bench.step("play")
    found = step.found["observation"]
    assert found.error.max() > 1000 * np.finfo(np.float32).eps * found.field.scale.max()
    assert not found.rows.any() and not found.unsure.any()


def test_a_flip_at_a_threshold_is_a_tie():
    judge = judging.opened(lambda: odd.reference("Large"), odd.PlainOdd("Large"))
    verdict = one(judge, "L3-resync-terminated")
    assert verdict.word == EQUAL and verdict.evidence["ties"] > 0
    assert "not counted" in verdict.notes[0]


class Threshold(drift.GymnaxDrift):
    """The goal a hair too early: more than rounding, less than anyone sees."""

    @property
    def default_params(self):
        return drift.Params(goal=0.4999)


def test_a_threshold_that_is_off_by_a_hair_is_found():
    found = judging.different(run(judging.opened(drift.reference, Threshold()), "L2-*"))
    assert found


class Quantised(gymnasium.Env):
    """Its state is in float32 already."""

    action_space = drift.ACTION
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action):
        turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)
        self.x = (turn @ self.x + np.float32(0.1) * action[0]).astype(np.float32)
        return self.x.copy(), float(self.x.sum()), False, bool(abs(self.x[0]) > 4), {}


class QuantisedPort:
    action_space, observation_space = Quantised.action_space, Quantised.observation_space

    def __init__(self, turn=0.6):
        self._turn = turn

    def reset(self, key):
        x = jax.random.uniform(key, (2,), minval=-1.0)
        return {"x": x}, x

    def step(self, state, action):
        turn = jnp.array([[0.8, -self._turn], [self._turn, 0.8]])
        x = turn @ state["x"] + 0.1 * action[0]
        return {"x": x}, x, x.sum(), jnp.zeros((), bool), jnp.abs(x[0]) > 4


def test_a_reference_in_single_precision():
    assert judging.words(run(judging.opened(Quantised, QuantisedPort()), "L1-reset-*", "L2-*", "L3-resync*")) == {}
    assert "L2-play-x" in judging.different(run(judging.opened(Quantised, QuantisedPort(0.6001)), "L2-play-*"))


def test_what_the_contract_allows_is_allowed():
    allowed = '[tolerance.v]\natol = 1e-3\nreason = "the wind is not modelled"\n'
    judge = judging.of("drift", "wrong constant", contract=allowed)
    assert one(judge, "L2-play-v").word == EQUAL
    assert one(judging.of("drift", "wrong constant"), "L2-play-v").word == DIFFERENT


def test_an_overflow_is_not_hidden_by_the_targets_type():
    """The reference's value is not squeezed into eight bits before it is compared."""
    found = one(judging.of("maze", "integer overflow"), "L2-play-coins").divergence
    assert found.expected > 127 > found.actual


def test_hidden_state_of_the_reference_is_injected(equal):
    rows = equal.bench.step("boundary").rows
    assert equal.pair.inject(rows).fields["tank"].tolist() == rows.state.fields["fuel"].tolist()
    ours, theirs = equal.pair.ask(rows)
    assert not any(f.rows.any() for f in compare(equal.pair, rows, ours, theirs).values())


def test_rows_of_a_source_depend_on_the_seed_alone(equal):
    again = judging.of("drift", "reward sign")
    other = judging.of("drift", seed=1)
    for source in ("play", "limit"):
        first, second, third = (j.bench.rows(source) for j in (equal, again, other))
        assert np.array_equal(first.state.fields["position"], second.state.fields["position"])
        assert not np.array_equal(first.state.fields["position"], third.state.fields["position"])


def test_a_clock_that_is_moved_is_the_targets_clock_too(equal):
    rows = states.before_limit(equal.pair, equal.bench.played, 64, 0)
    assert equal.pair.inject(rows).fields["time"].tolist() == rows.clock.tolist()


def test_whole_number_states_have_no_boundary():
    ids = {c.subject for c in judging.of("maze").checks if c.level == "L2"}
    assert ids == {"play", "limit", "coverage", "branches"}  # what must not be moved is gone to
    assert maze.LIMIT - 1 in judging.of("maze").bench.step("limit").rows.clock
