"""Causes and followers where the target's data flow is known. Without one: test_fields.py."""

from __future__ import annotations

import numpy as np
import pytest
from ports import drift, judging

from pytest_envequiv.backends.protocol import DONE
from pytest_envequiv.comparison.fields import Found
from pytest_envequiv.comparison.roots import roots
from pytest_envequiv.pair import Field
from pytest_envequiv.whitebox.dataflow import Flow

ROWS = 40


def found(name, rows, role="output", error=0.01):
    wrong = np.zeros((ROWS, 1), bool)
    wrong[list(rows)] = True
    field = Field(name, role, name, name, False, 1e-7, np.ones(1))
    zero, nothing = np.zeros((ROWS, 1)), np.zeros(ROWS, bool)
    return Found(field, zero, zero, np.where(wrong, error, 0.0), zero + 1e-6, wrong, nothing, nothing)


def following(shows, kin=()):
    """A flow of outputs: ``shows`` {"b": "a"}: b is computed from a; ``kin`` pairs that share something."""
    names = {*shows, *" ".join(shows.values()).split(), *(k for pair in kin for k in pair)}
    related = {n: frozenset({b for a, b in kin if a == n} | {a for a, b in kin if b == n}) for n in names}
    above = {n: frozenset(shows.get(n, "").split()) for n in names}
    return Flow((), tuple(sorted(names)), dict.fromkeys(names, frozenset()), above, {}, {}, related)


def causes(fields, flow=None, done=()):
    """``fields``: name -> rows in which it diverges; "state." names are state fields."""
    ends = np.zeros(ROWS, bool)
    ends[list(done)] = True
    given = {
        name.removeprefix("state."): found(name.removeprefix("state."), rows, "state" if "." in name else "output")
        for name, rows in fields.items()
    }
    return roots(given, ends, flow)


SOME, FEWER, OTHER = range(20), range(5), range(20, 40)
CHAIN = {"state.x": "state.v", "seen": "state.x state.v", "reward": "state.x"}

CASES = {
    "what is computed from the root folds": (
        {"state.v": SOME, "state.x": SOME, "seen": SOME, "reward": FEWER},
        following(CHAIN),
        {"v": "v", "x": "v", "seen": "v", "reward": "v"},
    ),
    "however far down": (
        {"state.v": SOME, "last": SOME},
        following({"state.x": "state.v", "middle": "state.x", "last": "middle"}),
        {"v": "v", "last": "v"},
    ),
    "two causes on the same rows": (
        {"state.v": SOME, "state.fuel": SOME},
        following({"state.x": "state.v", "seen": "state.fuel"}),
        {"v": "v", "fuel": "fuel"},
    ),
    "siblings of one wrong value": (
        {"state.v": SOME, "state.w": SOME},
        following({}, [("state.v", "state.w")]),
        {"v": "v", "w": "v"},
    ),
    "siblings on other rows": (
        {"state.v": SOME, "state.w": OTHER},
        following({}, [("state.v", "state.w")]),
        {"v": "v", "w": "w"},
    ),
    "upstream first, though on fewer rows": (
        {"seen": SOME, "state.x": FEWER},
        following({"seen": "state.x"}),
        {"x": "x", "seen": "seen"},
    ),
    "an output before the state computed from it": (
        {"state.score": SOME, "paid": range(21)},
        following({"state.score": "paid"}),
        {"paid": "paid", "score": "paid"},
    ),
    "more rows than the root's: a cause of its own": (
        {"state.v": FEWER, "reward": SOME},
        following({"reward": "state.v"}),
        {"v": "v", "reward": "reward"},
    ),
    "what the flow does not know may follow": (
        {"state.v": SOME, "elsewhere": SOME},
        following({"state.x": "state.v"}),
        {"v": "v", "elsewhere": "v"},
    ),
    "the end by its parts": (
        {"state.x": SOME, DONE: FEWER},
        following({"terminated": "state.x"}),
        {"x": "x", DONE: "x"},
    ),
    "without a flow the rows decide": ({"state.v": SOME, "state.fuel": SOME}, None, {"fuel": "fuel", "v": "fuel"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_roots(name):
    fields, flow, expected = CASES[name]
    assert causes(fields, flow) == expected


def test_what_is_upstream_is_the_root_though_the_last_steps_give_it_fewer_rows():
    flow, fields = following({"reward": "seen"}), {"seen": FEWER, "reward": range(8)}
    assert causes(fields, flow, done=range(5, 8)) == {"seen": "seen", "reward": "seen"}
    assert causes(fields, None, done=range(5, 8)) == {"seen": "reward", "reward": "reward"}
    assert causes(fields, flow) == {"seen": "seen", "reward": "reward"}


class Two(drift.GymnaxDrift):
    """Two slips that show in every row: of the velocity, and of the clock, which shares nothing with it."""

    def step_env(self, key, state, action, params):
        seen, after, *rest = super().step_env(key, state, action, params.replace(power=0.03))
        return seen, after.replace(time=after.time + 1), *rest


def test_two_slips_of_one_port_are_two_roots():
    judge = judging.opened(drift.reference, Two())
    verdicts = judging.run(judge, "L2-play-*")
    assert set(judging.different(verdicts)) == {"L2-play-time", "L2-play-v"}
    assert verdicts["L2-play-observation"].follows == "L2-play-v"
