"""Made-up states: whole numbers, which only a rule of the contract sets free; and what an episode leaves at its end."""

from __future__ import annotations

import numpy as np
import pytest
from ports import judging
from ports.judging import run
from ports.match import Match

from pytest_envequiv.stimuli import states
from pytest_envequiv.verdict import DIFFERENT

RULE = '[live]\nrule = "(points >= 0) & (points < wins) & (x >= 0) & (x < goal)"\n'
L2 = ("L2-play-*", "L2-boundary-*", "L2-coverage-*")


def match(bug=None, contract=RULE):
    return judging.opened(Match(), Match(bug), contract)


@pytest.fixture(scope="module")
def equal():
    return match()


# -- whole numbers ---------------------------------------------------------------------------------------------------


def test_numbers_that_are_whole_in_play_are_moved_where_the_rule_names_them(equal):
    pair, played = equal.pair, equal.bench.played
    assert not any(states.continuous(played, name) for name in ("x", "points", "streak"))
    movable = {name: states.movable(pair, played, name) for name in played.rows.state.fields}
    assert movable == {"x": True, "points": True, "streak": False, "strength": True}
    free = match(contract=None)
    assert not any(states.movable(free.pair, free.bench.played, name) for name in ("x", "points", "streak"))


def test_they_stay_whole_and_where_the_rule_lets_them_be(equal):
    assert 899 in states.places(equal.pair, equal.bench.played, "points", 0)  # one below a setting
    for source in ("boundary", "coverage", "pairs"):
        fields = equal.bench.step(source).rows.state.fields
        assert fields["points"].dtype == np.int32 and (fields["points"] >= 0).all() and (fields["points"] < 900).all()
        assert (fields["x"] == np.round(fields["x"])).all() and (fields["x"] < 4).all()
    assert (equal.bench.played.rows.state.fields["points"] < 800).all()
    assert equal.bench.step("coverage").ours.done.any()


def test_an_equal_pair_is_equal_at_the_end_that_play_never_sees(equal):
    assert judging.words(run(equal, *L2, "L3-resync-*")) == {}


def test_a_bug_at_the_end_that_play_never_sees_is_found_by_the_rule_alone():
    assert judging.different(run(match("ends late", None), *L2)) == []
    found = run(match("ends late"), *L2)
    assert found["L2-coverage-terminated"].word == DIFFERENT
    assert int(found["L2-coverage-terminated"].divergence.state["points"]) >= 899


# -- what both sides leave where an episode ends -----------------------------------------------------------------------


@pytest.mark.parametrize(("bug", "field"), [("keeps its points", "points"), ("keeps its streak", "streak")])
def test_the_next_episode_is_compared_where_both_steps_begin_it(bug, field):
    judge = match(bug)
    assert judge.pair.goes_on and not judge.pair.begins_anew
    assert f"L2-coverage-{field}" in judging.different(run(judge, *L2))


def test_a_side_that_does_not_begin_anew_is_compared_without_that():
    class Still(Match):
        """Its ``step`` is another than its ``step_env``."""

        def step(self, key, state, action, params):
            return self.step_env(key, state, action, params)

    judge = judging.opened(Match(), Still("keeps its streak"), RULE)
    assert judge.pair.begins_anew and not judge.pair.goes_on
    assert judging.different(run(judge, *L2)) == []
