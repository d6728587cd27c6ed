"""L1, beyond the table of bugs: what is strict, what a contract adds, what is only a note, and what is unknown."""

from __future__ import annotations

import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import drift, judging, maze, odd, stones
from ports.judging import one, run

from pytest_envequiv.backends import suspect
from pytest_envequiv.errors import ContractError
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE


@pytest.fixture(scope="module")
def equal():
    return judging.of("drift")


# -- specs and settings ----------------------------------------------------------------------------------------------


class Four(maze.PlainMaze):
    action_space = gymnasium.spaces.Discrete(4)


def test_another_number_of_actions_blocks_everything_else():
    judge = judging.opened(maze.reference, Four())
    assert [c.id for c in judge.checks] == ["L1-spec-action", "L1-spec-observation"]
    verdict = one(judge, "L1-spec-action")
    assert verdict.word == DIFFERENT
    assert "Discrete(0..2" in verdict.summary and "Discrete(0..3" in verdict.summary


class FromOne(maze.PlainMaze):
    """The same actions, numbered from one."""

    action_space = gymnasium.spaces.Discrete(3, start=1)

    def step(self, state, action):
        return super().step(state, action - 1)


def test_actions_that_are_numbered_from_one_are_the_same_actions():
    judge = judging.opened(maze.reference, FromOne())
    assert judging.words(run(judge, "L1-spec-*", "L2-*")) == {}


def test_conventions_are_notes_and_failures_if_strict():
    verdict = one(judging.of("drift"), "L1-conventions-notes")
    assert verdict.word == EQUAL and "auto-reset" in verdict.notes[0]
    assert one(judging.of("drift", strict=True), "L1-conventions-notes").word == DIFFERENT
    assert one(judging.of("plain", strict=True), "L1-conventions-notes").word == EQUAL


def test_other_defaults_are_a_hint_and_a_failure_if_strict():
    verdict = one(judging.of("drift", "default goal"), "L1-constants-defaults")
    assert verdict.word == EQUAL and verdict.notes == ("goal is 0.5 in the reference, 0.45 in the target",)
    assert one(judging.of("drift", "default goal", strict=True), "L1-constants-defaults").word == DIFFERENT
    assert one(judging.of("drift", strict=True), "L1-constants-defaults").word == EQUAL


# -- the map ---------------------------------------------------------------------------------------------------------


class Lucky(maze.PlainMaze):
    """Has something in its state that the reference has not, and it matters."""

    def reset(self, key):
        state, seen = super().reset(key)
        return {"runner": state, "luck": jnp.float32(1) + jax.random.uniform(key)}, seen

    def step(self, state, action):
        after, seen, reward, terminated, truncated = super().step(state["runner"], action)
        return {"runner": after, "luck": state["luck"]}, seen, reward * state["luck"], terminated, truncated


class Idle(Lucky):
    """The same, but it does not matter."""

    def step(self, state, action):
        after, *rest = super().step({"runner": state["runner"], "luck": jnp.float32(1)}, action)
        return {"runner": after["runner"], "luck": state["luck"]}, *rest


def test_a_field_without_counterpart_is_not_guessed():
    judge = judging.opened(maze.reference, Lucky())
    verdict = one(judge, "L1-map-state")
    assert verdict.word == INCONCLUSIVE and "luck" in verdict.summary
    assert '# "luck" = "?"' in verdict.evidence["proposal"]
    assert one(judge, "L2-play-reward").word == DIFFERENT  # histories are shared all the same


def test_a_field_that_changes_nothing_needs_no_counterpart():
    judge = judging.opened(maze.reference, Idle())
    assert judging.words(run(judge, "L1-map-state", "L2-*")) == {}
    assert any("luck" in note for note in judge.notes)


def test_fuel_that_only_matters_when_it_is_gone_is_not_taken_for_idle():
    judge = judging.of("vector", "beginning by the clock")  # no shared histories: nothing shows where the fuel is
    assert judge.pair.map.text()["tank"].startswith("?")
    assert one(judge, "L1-map-state").word == INCONCLUSIVE
    assert judging.different(run(judge, "L2-*", "L3-*")) == []


# -- draws -----------------------------------------------------------------------------------------------------------


def test_bounds_of_a_draw_are_shown():
    verdict = one(judging.of("drift", "range off by one"), "L1-draws-reset")
    assert "[8, 19)" in verdict.summary and "[8, 20)" in verdict.summary


@pytest.mark.parametrize("ref, target, who", [({"slip": 0.1}, {}, "reference"), ({}, {"wind": 0.01}, "target")])
def test_chance_on_one_side_only(ref, target, who):
    judge = judging.opened(lambda: drift.reference(**ref), drift.GymnaxDrift(**target))
    verdict = one(judge, "L1-draws-step")
    assert verdict.word == DIFFERENT and verdict.summary.startswith(f"only the {who} draws")
    assert one(judge, "L2-play-v").word == DIFFERENT


# -- one side at a time ----------------------------------------------------------------------------------------------


class Confined(drift.Drift):
    """A reference that promises less than it does."""

    def __init__(self):
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(-drift.TOP / 2, drift.TOP / 2, (4,), np.float32)


def test_a_reference_that_leaves_its_space_is_a_note():
    judge = judging.opened(Confined, drift.PlainDrift())
    verdict = one(judge, "L1-contains-observation")
    assert verdict.word == EQUAL and "the reference's observation leaves its own space" in verdict.notes[0]


def test_what_is_not_finite_on_both_sides_is_a_note():
    judge = judging.opened(lambda: odd.reference("Unknown"), odd.PlainOdd("Unknown"))
    verdict = one(judge, "L1-finite-outputs")
    assert verdict.word == EQUAL and "observation" in verdict.notes[0]


def test_not_finite_on_one_side_shows_both_values():
    verdict = one(judging.of("drift", "not a number"), "L1-finite-outputs")
    assert verdict.word == DIFFERENT and "nan" in verdict.divergence.actual
    assert "nan" not in verdict.divergence.expected


class Sloppy(drift.GymnaxDrift):
    """Pays in another type where it is not compiled."""

    def _reward(self, state, v, push, terminated):
        reward = super()._reward(state, v, push, terminated)
        return reward if isinstance(reward, jax.core.Tracer) else np.float64(reward).astype(np.float16)


def test_a_type_that_depends_on_how_it_is_run(equal):
    verdict = one(judging.opened(drift.reference, Sloppy()), "L1-jit-step")
    assert verdict.word == DIFFERENT and "dtype" in verdict.summary
    assert one(equal, "L1-jit-step").word == EQUAL


# -- endings ---------------------------------------------------------------------------------------------------------


class Firm(drift.Drift):
    """Refuses to go on past the end."""

    over = False

    def reset(self, **options):
        self.over = False
        return super().reset(**options)

    def step(self, action):
        if self.over:
            raise RuntimeError("the episode is over")
        result = super().step(action)
        self.over = bool(result[2])
        return result


def test_a_step_past_the_end_is_a_matter_of_taste():
    verdict = one(judging.opened(drift.Drift, Firm), "L1-after_done-step")
    assert verdict.word == EQUAL and "raises an error in the target" in verdict.notes[0]
    assert one(judging.opened(drift.Drift, Firm, strict=True), "L1-after_done-step").word == DIFFERENT
    assert one(judging.opened(Firm, Firm, strict=True), "L1-after_done-step").word == EQUAL


def test_a_time_limit_is_compared_where_no_clock_can_be_set():
    late = maze.PlainMaze()
    late.max_steps_in_episode = maze.LIMIT + 3
    verdict = one(judging.opened(maze.snapshot, late), "L1-time_limit-truncated")
    assert verdict.word == DIFFERENT
    assert verdict.summary == "the reference truncates after [20] steps, the target after [23]"
    assert one(judging.opened(maze.snapshot, maze.PlainMaze()), "L1-time_limit-truncated").word == EQUAL


def test_a_time_limit_names_the_step(equal):
    assert "both truncate at 30 steps" in one(equal, "L1-time_limit-truncated").summary
    verdict = one(judging.of("drift", "limit off by one"), "L1-time_limit-truncated")
    assert verdict.summary == "30 steps into an episode truncated is True in the reference, False in the target"


# -- actions ---------------------------------------------------------------------------------------------------------


def test_an_illegal_action_is_a_matter_of_taste():
    verdict = one(judging.of("stones", "illegal action forgiven"), "L1-illegal_action-step")
    assert verdict.word == EQUAL and "ends the episode" in verdict.notes[0]
    assert one(judging.of("stones", "illegal action forgiven", strict=True), "L1-illegal_action-step").word == DIFFERENT
    assert one(judging.of("stones", strict=True), "L1-illegal_action-step").word == EQUAL


class Strict(drift.Drift):
    def step(self, action):
        if abs(action[0]) > 1:
            raise ValueError("outside")
        return super().step(action)


def test_a_reference_that_refuses_actions_outside_its_space():
    verdict = one(judging.opened(Strict, drift.PlainDrift("action not clipped")), "L1-action_range-step")
    assert verdict.word == EQUAL and "refuses" in verdict.summary


def test_actions_are_not_compared_from_states_that_differ():
    """Neither histories nor states can be shared: there is nothing to compare, and nothing is."""
    judge = judging.of("vector", "beginning by the clock")
    assert not judge.pair.injectable() and judge.pair.reset_mode == "none"
    assert "L1-action_range-step" not in [c.id for c in judge.checks]


# -- invariants ------------------------------------------------------------------------------------------------------

RULE = '[[invariant]]\nname = "{}"\nrule = "{}"\n'


def test_an_invariant_is_tried_on_both_sides():
    contract = RULE.format("turn", "abs(heading) <= 3.1416") + RULE.format("still", "x > 0")
    verdicts = run(judging.of("drift", contract=contract), "L1-invariant-*")
    assert verdicts["L1-invariant-turn"].word == EQUAL
    # A rule that the reference breaks says nothing of the target.
    assert verdicts["L1-invariant-still"].word == INCONCLUSIVE
    broken = one(judging.of("drift", "angle not wrapped", contract=contract), "L1-invariant-turn")
    assert broken.word == DIFFERENT and "target" in broken.summary


LAWS = """
import numpy as np

def turns_little(side, before, action, after):
    assert set(before) >= {"angle"} and len(action) == 1, (before, action)
    return np.abs(after["heading"]) <= 3.1416

def only_of_the_target(side, before, action, after):
    return np.full(len(after["heading"]), side == "reference")

def one_for_all(side, before, action, after):
    return np.array(True)

def fails(side, before, action, after):
    raise KeyError("hedding")
"""


@pytest.fixture
def laws(tmp_path, monkeypatch):
    (tmp_path / "laws.py").write_text(LAWS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "laws", raising=False)
    return lambda name: f'[[invariant]]\nname = "law"\ncall = "{name}"\n'


def test_an_invariant_may_be_a_function(laws):
    contract = laws("laws:turns_little")
    assert one(judging.of("drift", contract=contract), "L1-invariant-law").word == EQUAL
    broken = one(judging.of("drift", "angle not wrapped", contract=contract), "L1-invariant-law")
    assert broken.word == DIFFERENT and "laws:turns_little" in broken.summary and "target" in broken.summary
    assert one(judging.of("drift", contract=laws("laws:only_of_the_target")), "L1-invariant-law").word == DIFFERENT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_laws:turns", "No module named 'no_laws'"),
        ("laws:turns", "AttributeError.*turns"),
        ("laws:fails", "KeyError.*hedding"),
        ("laws:one_for_all", r"bool\(\), not bool"),
    ],
)
def test_a_function_that_says_nothing_is_an_error_of_the_contract(laws, name, said):
    with pytest.raises(ContractError, match=said):
        one(judging.of("drift", contract=laws(name)), "L1-invariant-law")


def test_an_isolated_target_s_code_is_not_called(laws):
    contract = laws("laws:turns_little") + RULE.format("turn", "abs(heading) <= 3.1416")
    judge = judging.opened("gymnax:CartPole-v1", "gymnax:CartPole-v1", contract=contract, isolate=True)
    try:
        assert [c.id for c in judge.checks if "invariant" in c.id] == ["L1-invariant-turn"]
        assert any("left out (law)" in note for note in judge.pair.notes)
    finally:
        judge.close()


def test_an_invariant_that_cannot_be_evaluated_says_what_it_may_use():
    judge = judging.of("drift", contract=RULE.format("turn", "abs(hedding) < 4"))
    with pytest.raises(ContractError, match=r"hedding.*may use.*heading"):
        one(judge, "L1-invariant-turn")


# -- beginnings ------------------------------------------------------------------------------------------------------


def test_a_reset_is_compared_with_shared_draws_and_as_a_distribution(equal):
    verdict = one(equal, "L1-reset-x")
    assert verdict.summary.startswith("with shared draws the same")
    assert "detectable_effect" in verdict.evidence


class Shifted(stones.PgxStones):
    """Begins with a stone on the board, in one game of eight."""

    def init(self, key):
        table = super().init(key)
        board = table.board.at[0].set(jnp.where(jax.random.bernoulli(key, 0.125), 1, -1))
        table = table.replace(board=board, legal_action_mask=board < 0)
        return table.replace(observation=self.observe(table, table.current_player))


def test_a_rare_beginning_is_found():
    judge = judging.opened(stones.Stones, Shifted())
    found = judging.different(run(judge, "L1-reset-*", "L1-seeds-reset"))
    assert {"L1-reset-observation", "L1-reset-mask"} <= set(found)


def test_the_widest_element_does_not_hide_the_others():
    """The tolerance of one element of an observation has nothing to do with the size of another."""
    judge = judging.opened(Mixed, MixedPort())
    assert "L1-reset-observation" in judging.different(run(judge, "L1-reset-observation"))


class Mixed(gymnasium.Env):
    """Shows something of a million beside something of one."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.big = float(self.np_random.uniform(-1e6, 1e6))
        self.small = float(self.np_random.uniform(-1.0, 1.0))
        return np.array([self.big, self.small], np.float32), {}

    def step(self, action):
        self.small *= 0.9
        return np.array([self.big, self.small], np.float32), 0.0, False, False, {}


class MixedPort:
    action_space, observation_space = Mixed.action_space, Mixed.observation_space

    def reset(self, key):
        one, two = jax.random.split(key)
        big, small = jax.random.uniform(one, (), minval=-1e6, maxval=1e6), jax.random.uniform(two, (), minval=-1.0)
        return {"big": big, "small": small}, jnp.stack([big, small + 0.01])

    def step(self, state, action):
        after = {**state, "small": state["small"] * 0.9}
        return after, jnp.stack([after["big"], after["small"]]), 0.0, jnp.zeros((), bool), jnp.zeros((), bool)


def test_of_a_large_program_one_row_is_stepped_operation_by_operation(monkeypatch: pytest.MonkeyPatch):
    assert judging.one(judging.of("drift"), "L1-jit-step").evidence["transitions"] == 4 + 4 + 4
    monkeypatch.setattr(suspect, "LARGE", 1)
    assert judging.one(judging.of("drift"), "L1-jit-step").evidence["transitions"] == 4 + 4 + 1
