"""State is called ``fields`` only if writing it back really restores it.

Environments whose state can be written are stepped from injected states beside one that is stepped in place; those
whose state is hidden must not be called ``fields``.
"""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
import tiny
from gymnasium import wrappers
from tiny import Common, Global, Own, Shared, Tiny

from pytest_envequiv import compare
from pytest_envequiv.backends.discovery import clone
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import State
from pytest_envequiv.errors import Limitation

WRITTEN = {
    tiny.Lists: {"grid", "n"},
    tiny.Nested: {"world.ball.at", "world.ball.speed", "world.score"},
    tiny.Replaced: {"spot.x", "spot.t"},
    tiny.Named: {"spot.x", "spot.t"},
    tiny.Mixed: {"mood", "word", "maybe", "v", "x"},
    tiny.Queue: {"x", "t", "waiting"},
    tiny.Objects: {"walkers.0.at", "walkers.1.at", "turn", "slotted.x", "slotted.v"},
    tiny.Numbered: {"cells.0", "cells.1", "cells.2", "at.0.1", "t"},
    tiny.Board: {"bits", "t"},
    tiny.Late: {"x", "t", "bonus", "kept", "flag"},
    tiny.Stamped: {"x"},
}
UNWRITTEN = {tiny.Forgetful: "snapshot", tiny.Growing: "snapshot", tiny.Counted: "snapshot", tiny.Delayed: "snapshot"}
UNCOPIED = {tiny.Enclosed: "none", tiny.Generated: "none"}


def made(kind: type) -> Any:
    return open_backend(kind)


def played(backend, rows=5, steps=60):
    """(states, actions, outcomes) of play in place, while all rows live."""
    rng = np.random.default_rng(0)
    outcome = backend.reset(np.arange(rows))
    for _ in range(steps):
        action = {k: rng.integers(s.low, s.high + 1, rows) for k, s in backend.spec.action.items()}
        before, outcome = outcome.state, backend.step(outcome.state, action, np.arange(rows))
        yield before, action, outcome
        if outcome.done.any():
            return


def assert_same(a, b):
    for kind, x, y in (("output", a.outputs, b.outputs), ("field", a.state.fields, b.state.fields)):
        assert x.keys() == y.keys()
        for name in x:
            assert np.array_equal(x[name], y[name], equal_nan=x[name].dtype.kind == "f"), f"{kind} {name}"


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.__name__)
def test_state_is_found_and_restored(kind):
    backend = made(kind)
    assert backend.spec.state == "fields", backend.spec.notes
    assert set(backend.spec.fields) == WRITTEN[kind]
    for before, action, after in list(played(backend))[::3]:
        tape = after.draws
        assert_same(backend.step(State(before.fields), action, np.zeros(5, int), tape), after)


@pytest.mark.parametrize("kind", UNWRITTEN | UNCOPIED, ids=lambda kind: kind.__name__)
def test_state_that_cannot_be_written_is_not_called_fields(kind):
    backend = made(kind)
    assert backend.spec.state == (UNWRITTEN | UNCOPIED)[kind], backend.spec.notes
    assert not backend.spec.fields
    assert backend.spec.notes, "why it is so is said"


@pytest.mark.parametrize("kind", UNWRITTEN, ids=lambda kind: kind.__name__)
def test_a_snapshot_is_a_value(kind):
    """A state can be stepped again and again, in any order, however far the episode has gone on."""
    backend = made(kind)
    record = list(played(backend, steps=20))
    for before, action, after in record[::-4]:
        assert_same(backend.step(before, action, np.zeros(5, int)), after)
    with pytest.raises(Limitation, match="not edited"):
        backend.step(record[0][0].edited(), record[0][1], np.zeros(5, int))


def test_a_dict_that_is_gone_is_put_back_before_a_state_is_written_into_it():
    """As PettingZoo's wrapper against illegal moves keeps what was last seen between two steps only."""
    backend = made(tiny.Nested)
    before, action, after = list(played(backend))[3]
    backend.step(State(before.fields), action, np.zeros(5, int), after.draws)  # lanes to be written to are made
    assert backend._spare
    for lane in backend._spare:
        lane.environment.unwrapped.world["ball"] = None
    assert_same(backend.step(State(before.fields), action, np.zeros(5, int), after.draws), after)


def test_what_has_moved_on_is_not_stepped_from_elsewhere():
    backend = made(tiny.Enclosed)
    first, action, _ = next(played(backend, rows=2))
    with pytest.raises(Limitation, match="moved on"):
        backend.step(first, action, np.zeros(2, int))


def test_what_only_moves_once_in_a_while_is_noticed_when_it_does():
    """An attribute that never moved while state was looked for, and does later, is an error and not silence."""

    class Odd(Tiny):
        def start(self):
            self.x, self.t, self.odd = 0.0, 0, 0

        def move(self, action):
            self.t += 1
            self.odd += self.t == 700
            self.x = self.t % 5 + action + self.odd
            return 0, self.t > 900

    backend = made(Odd)
    assert "odd" not in backend.spec.fields
    outcome = backend.reset(np.arange(2))
    for _ in range(800):
        outcome = backend.step(outcome.state, {"action": np.zeros(2, int)}, np.arange(2))
    with pytest.raises(Limitation, match="'odd' changed"):
        for _ in range(200):  # the lanes are taken again when enough others have been
            backend.reset(np.arange(2))


def test_a_step_from_an_odd_state_leaves_nothing_behind_for_the_next():
    class Poisoned(Tiny):
        """Actions out of range, which nobody plays, spoil it for good."""

        def start(self):
            self.x, self.spoiled = 0.0, False

        def move(self, action):
            self.spoiled |= action > 2
            self.x += 0.0 if self.spoiled else action
            return 0, self.x > 50

    backend = made(Poisoned)
    state = State({"x": np.zeros(1)})

    def ask(action):
        return backend.step(state, {"action": np.array([action])}, np.zeros(1, int)).outputs["observation"][0, 0]

    assert [ask(2), ask(9), ask(2)] == [2.0, 0.0, 2.0]


# -- objects that get into each other's way ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Shared, Common])
def test_objects_that_share_something_are_used_one_at_a_time(kind):
    backend = made(kind)
    assert backend.found.alone
    if kind is Shared:
        states = State({"x": np.arange(5.0)})
        after = backend.step(states, {"action": np.ones(5, int)}, np.zeros(5, int))
        assert after.outputs["observation"][:, 0].tolist() == [1, 2, 3, 4, 5]


def test_objects_that_differ_are_not_taken_for_the_same_environment():
    class Unique(Tiny):
        """The layout is drawn when it is made."""

        def __init__(self):
            self.gain = np.random.default_rng().random()

        def start(self):
            self.x = 0.0

        def move(self, action):
            self.x += self.gain * action
            return 0, self.x > 30

    assert made(Unique).found.alone


# -- randomness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["default_rng", "RandomState", "Random", "global"])
def test_whatever_it_draws_from_follows_the_seed_of_the_row(kind):
    backend = made(Global) if kind == "global" else open_backend(lambda: Own(kind))
    assert (backend.spec.state, backend.spec.draws) == ("fields", "seed")
    assert set(backend.spec.fields) == {"x", "t"}
    assert_same(backend.reset(np.arange(4)), backend.reset(np.arange(4)))
    state, action = State(backend.reset(np.zeros(64, int)).state.fields), {"action": np.ones(64, int)}
    first = backend.step(state, action, np.arange(64))
    assert_same(first, backend.step(state, action, np.arange(64)))
    assert len(np.unique(first.outputs["observation"][:, 0])) == 64


def test_the_generators_everyone_has_are_left_as_they_were():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    backend = made(Global)
    backend.step(backend.reset(np.arange(3)).state, {"action": np.ones(3, int)}, np.arange(3))
    after = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert after == (random.random(), np.random.rand())  # noqa: NPY002


# -- wrappers --------------------------------------------------------------------------------------------------------

WRAPPED = {
    "TimeLimit": (lambda env: wrappers.TimeLimit(env, 20), {"_elapsed_steps"}),
    "FrameStack": (lambda env: wrappers.FrameStackObservation(env, 3), {"obs_queue", "stacked_obs", "padding_value"}),
    "Statistics": (wrappers.RecordEpisodeStatistics, {"episode_count", "episode_returns", "episode_lengths"}),
    "Sticky": (lambda env: wrappers.StickyAction(env, 0.25), {"last_action"}),
    "Scaled": (lambda env: wrappers.TransformReward(env, lambda r: 2 * r), set()),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_a_wrapper_keeps_is_state(name):
    wrap, kept = WRAPPED[name]
    backend = open_backend(lambda: wrap(gymnasium.make("CartPole-v1").unwrapped))
    assert backend.spec.state == "fields", backend.spec.notes
    assert set(backend.spec.fields) == {"state"} | kept


def test_a_wrapped_object_is_copied_with_its_episode():
    environment = gymnasium.make("CartPole-v1")
    environment.reset(seed=3)
    environment.step(1)
    twin = clone(environment)
    assert environment.step(0)[0].tolist() == twin.step(0)[0].tolist()
    assert twin.unwrapped is not environment.unwrapped


class Passed:
    """Functions that pass a state around, under names that an object has for other things."""

    num_actions = 2

    @staticmethod
    def reset(rng: np.random.Generator) -> dict[str, Any]:
        return {"clock": 0, "window": rng.uniform(0.0, 1.0), "spec": 1.0}

    @staticmethod
    def step(state: dict[str, Any], action: int) -> tuple[Any, ...]:
        new = {"clock": state["clock"] + 1, "window": state["window"] / 2 + int(action), "spec": -state["spec"]}
        return new, np.array([new["window"], new["spec"]], np.float32), new["spec"], False, new["clock"] >= 9


def test_what_is_passed_around_as_state_is_state_whatever_it_is_called():
    assert set(open_backend(Passed(), {}).spec.fields) == {"clock", "window", "spec"}


class Bandit:
    """Functions that pass a state around which never changes: there are rewards to be had, and no more."""

    num_actions = 3
    best = 2

    @staticmethod
    def reset(rng: np.random.Generator) -> dict[str, Any]:
        return {"arms": 3}

    def step(self, state: dict[str, Any], action: int) -> tuple[Any, ...]:
        return state, np.zeros(1, np.float32), float(action == self.best), True, False


class WorseBandit(Bandit):
    best = 1


@pytest.mark.parametrize(("target", "wrong"), [(Bandit, set()), (WorseBandit, {"reward"})])
def test_an_environment_without_state_is_judged_by_what_it_gives(tmp_path, target, wrong):
    report = compare(Bandit, target, levels=["L1", "L2"], output=str(tmp_path))
    assert {v.check.field for v in report.verdicts if v.word != "EQUAL"} == wrong, report
    assert sum(v.check.level == "L2" for v in report.verdicts) >= 4


class Timed(Tiny):
    """Keeps the time under the name that drawing code has for pygame's clock."""

    def start(self):
        self.clock, self.window, self.x = 0, None, 0.0

    def move(self, action):
        self.clock += 1
        self.x += action * (self.clock % 3)
        return self.x, self.clock >= 20


def test_a_number_called_clock_is_state():
    assert "clock" in open_backend(Timed, {}).spec.fields
