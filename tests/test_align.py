"""Which of the reference's numbers a field of the target is, told from states with the same history."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pytest_envequiv import align, compare
from pytest_envequiv.backends.protocol import Leaf, State

STEPS = np.repeat(np.arange(8), 50)


def mapped(drift: float, wobble: float = 0.0):
    """The map of a port whose angle runs away by ``drift`` a step, of a reference that shows its sine."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-0.1, 0.1, len(STEPS))
    theirs = angle + drift * STEPS * rng.uniform(-1, 1, len(STEPS)) + wobble
    pairs = align.Pairs(State({"theta": angle}), {"observation": np.sin(angle)[:, None]}, STEPS, State({"phi": theirs}))
    return align.propose({"phi": Leaf((), "float32")}, {"theta": Leaf((), "float64")}, pairs, {}, {}).text()["phi"]


def test_a_small_angle_is_not_taken_for_its_sine():
    assert mapped(0.0) == "theta"
    assert all(mapped(drift) == "theta" for drift in np.geomspace(1e-6, 1e-2, 60)), "however little or much is wrong"


def test_what_is_shown_exactly_is_believed_before_what_is_near():
    angle = np.linspace(-0.5, 0.5, 200)
    pairs = align.Pairs(
        State({"theta": angle}),
        {"observation": np.sin(angle)[:, None]},
        np.zeros(200, int),
        State({"sine": np.sin(angle)}),
    )
    found = align.propose({"sine": Leaf((), "float32")}, {"theta": Leaf((), "float64")}, pairs, {}, {})
    assert found.text() == {"sine": "output:observation"}


def test_of_a_port_that_runs_away_the_beginning_tells_the_angle_from_its_sine():
    """Three steps on it moves with the sine rather than with the angle; where episodes begin it is the angle."""
    rng = np.random.default_rng(0)
    angle = np.where(STEPS == 0, 1.0, 1 + STEPS) * rng.uniform(-0.1, 0.1, len(STEPS))
    astray = np.where(STEPS > 3, rng.uniform(-1, 1, len(STEPS)), 0.0)
    for early in (np.sin(angle), angle):
        theirs = np.where(STEPS == 0, angle, early + 2e-3 * rng.uniform(-1, 1, len(STEPS))) + astray
        pairs = align.Pairs(
            State({"theta": angle}), {"observation": np.sin(angle)[:, None]}, STEPS, State({"phi": theirs})
        )
        found = align.propose({"phi": Leaf((), "float32")}, {"theta": Leaf((), "float64")}, pairs, {}, {})
        assert found.text() == {"phi": "theta"}


def test_a_counter_that_does_not_start_anew_is_not_taken_for_the_clock():
    steps = np.repeat(np.arange(40), 10)
    ours = np.where(steps < 37, steps, steps - 37)
    for name, expected in (("tick", "tick"), ("other", "clock")):
        pairs = align.Pairs(State({"tick": ours}), {"observation": steps[:, None] % 2}, steps, State({name: steps}))
        found = align.propose({name: Leaf((), "int32")}, {"tick": Leaf((), "int32")}, pairs, {}, {})
        assert found.text() == {name: expected}


def test_of_a_clock_no_code_is_learned_but_another_start():
    """A port that counts its steps wrongly does not number them otherwise."""
    steps = np.repeat(np.arange(40), 10)
    counted = {"time": steps, "later": steps + 7, "left": 200 - steps, "fast": 2 * steps, "kind": 3 - 2 * (steps % 3)}
    ours = {"elapsed_steps": steps, "kind": steps % 3}
    reference = {name: Leaf((), "int32") for name in ours}

    def of(field, name):
        pairs = align.Pairs(State(ours), {"seen": steps[:, None] % 2}, steps, State({field: counted[name]}))
        return align.propose({field: Leaf((), "int32")}, reference, pairs, {}, {}).text()[field]

    assert of("time", "time") == "elapsed_steps" == of("time", "fast")
    assert of("time", "later").startswith("elapsed_steps recoded") and of("t", "left").startswith("elapsed_steps rec")
    assert of("kind", "kind") == "kind recoded {0: 3, 1: 1, 2: -1}", "a numbering is"


def test_digits_of_a_whole_number_are_found_and_where_several_fit_the_one_that_begins_where_another_ends():
    rng = np.random.default_rng(0)
    row, column, rider, goal = (rng.integers(0, most, 300) for most in (5, 5, 5, 4))
    coded = ((row * 5 + column) * 5 + rider) * 4 + goal
    keep = coded < 480  # the last of the rows is never seen to its end: 99 would do as well as 100
    theirs = {"row": row, "column": column, "rider": rider, "goal": goal, "other": rng.integers(0, 5, 300)}
    theirs = {name: value[keep] for name, value in theirs.items()}
    pairs = align.Pairs(State({"s": coded[keep]}), {}, np.zeros(keep.sum(), int), State(theirs))
    leaves = {name: Leaf((), "int32") for name in theirs}
    found = align.propose(leaves, {"s": Leaf((), "int64")}, pairs, {}, {})
    assert {link.field: str(link) for link in found.links} == {
        "row": "s // 100", "column": "s // 20 % 5", "rider": "s // 4 % 5", "goal": "s % 4",
    }  # fmt: skip
    assert set(found.missing) == {"other"}
    after = found.apply(State({"s": np.array([0, 123, 499])}), {}, np.zeros(3), np.zeros(3), {}).fields
    assert [after[n].tolist() for n in ("row", "column", "rider", "goal")] == [
        [0, 1, 4],
        [0, 1, 4],
        [0, 0, 4],
        [0, 3, 3],
    ]
    given = {link.field: str(link) for link in found.links} | {"other": "s // 7"}
    again = align.propose(leaves, {"s": Leaf((), "int64")}, None, given, {})
    assert {link.field: str(link) for link in again.links} == given


class Hill:
    """Gymnasium's MountainCar-v0 as functions that nobody can trace, on a planet with another gravity."""

    gravity = 0.0035
    num_actions = 3

    @staticmethod
    def reset(rng: np.random.Generator) -> dict[str, Any]:
        return {"place": rng.uniform(-0.6, -0.4), "speed": 0.0, "clock": 0}

    def step(self, state: dict[str, Any], action: int) -> tuple[Any, ...]:
        speed = state["speed"] + (int(action) - 1) * 0.001 + math.cos(3 * state["place"]) * -self.gravity
        speed = min(max(speed, -0.07), 0.07)
        place = min(max(state["place"] + speed, -1.2), 0.6)
        speed = 0.0 if place == -1.2 and speed < 0 else speed
        new = {"place": place, "speed": speed, "clock": state["clock"] + 1}
        return new, np.array([place, speed], np.float32), -1.0, place >= 0.5 and speed >= 0, new["clock"] >= 200


def test_what_runs_away_in_a_port_that_cannot_be_traced_is_found_where_it_is_shown(tmp_path):
    """No speed of the target is like one of the reference's after the first steps; both show it in one place."""
    report = compare("gymnasium:MountainCar-v0", Hill(), levels=["L2"], output=str(tmp_path))
    wrong = {v.check.id for v in report.verdicts if v.word == "DIFFERENT"}
    assert "L2-play-speed" in wrong and report.roots[0].check.field == "speed", report
