"""The state machine, with engines and rulings that are made up: what is tried, kept, taken back and given up."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import toy_judge

from repair_agent import gate, loop
from repair_agent.budget import Budget, Exhausted, Limits
from repair_agent.case import Attempt
from repair_agent.findings import Finding, Run
from repair_agent.gate import Ruling
from repair_agent.journal import Journal, read
from repair_agent.question import Question
from repair_agent.tree import worktree
from repair_agent.tree.guard import Frozen
from repair_agent.tree.worktree import Worktree


def run_of(**words: str) -> Run:
    """L2-play-x=... as keywords x=EQUAL."""
    findings = {}
    for name, word in words.items():
        check = f"L2-play-{name}"
        findings[check] = Finding(f"envequiv::{check}", check, "L2", "play", name, word, f"{name} is {word}")
    return Run(findings, tuple(findings), exit=int(any(w != "EQUAL" for w in words.values())))


class Script:
    """An engine whose attempts are written down beforehand, and which remembers what it was given."""

    def __init__(self, name: str, *attempts):
        self.name, self.attempts, self.cases = name, list(attempts), []

    def attempt(self, case):
        self.cases.append(case)
        told = self.attempts.pop(0)
        if isinstance(told, BaseException):
            raise told
        return told


EDIT = Attempt(True, "changed a line")
IDLE = Attempt(False, "found nothing")
BAD, GOOD = run_of(x="DIFFERENT", y="DIFFERENT"), run_of(x="EQUAL", y="EQUAL")
HALF = run_of(x="EQUAL", y="DIFFERENT")
YES = Ruling(True, "1 check turned EQUAL", HALF, ("L2-play-x",))
ALL = Ruling(True, "turned", GOOD, ("L2-play-y",))
NO = Ruling(False, "no check of the group turned EQUAL", None)
PROVEN = Ruling(True, "every check is EQUAL on 2 unseen seeds", GOOD)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Runs the loop on made-up rulings. What git would do is noted."""
    done: list[str] = []
    tree = Worktree(tmp_path, tmp_path, "b", "base", ("port.py",), tmp_path)

    def begin(engines, rulings, finals=(PROVEN,), run=BAD, limits=None, tries=2, clock=lambda: 0.0):
        rulings, finals = list(rulings), list(finals)
        monkeypatch.setattr(gate, "ruled", lambda case, frozen, begun: rulings.pop(0))
        monkeypatch.setattr(gate, "Begun", toy_judge.unready)
        monkeypatch.setattr(gate, "final", lambda *a: (done.append(f"last word {a[3]}"), finals.pop(0))[1])
        monkeypatch.setattr(worktree, "commit", lambda tree, text: (done.append("commit"), f"sha{len(done)}")[1])
        monkeypatch.setattr(worktree, "revert", lambda tree: done.append("revert"))
        budget = Budget(limits or Limits(), {}, clock)
        path = tmp_path / "state.json"
        plan = loop.Plan(
            tuple(engines),
            Frozen({}),
            budget,
            Journal(tmp_path / "t.jsonl"),
            lambda p: p.save(path),
            lambda _: None,
            tries=tries,
        )
        point = loop.Checkpoint(Question("A", "B"), tree, run, run)
        point.save(path)
        try:
            return loop.repaired(plan, point)
        finally:
            assert rulings == []

    begin.done, begin.tree, begin.path = done, tree, tmp_path
    return begin


def test_groups_are_mended_in_order_and_the_last_word_is_asked(scene):
    engine = Script("model", EDIT, EDIT)
    point, ended = scene([engine], [YES, ALL])
    assert [c.group.key for c in engine.cases] == ["L2 x", "L2 y"]
    assert scene.done == ["commit", "commit", f"last word {[loop.HELD_OUT, loop.HELD_OUT + 1]}"]
    assert point.proven and ended == PROVEN.why
    assert [s.turned for s in point.steps] == [("L2-play-x",), ("L2-play-y",)]


def test_what_the_gate_refuses_is_taken_back_and_told_to_the_next_attempt(scene):
    engine = Script("model", EDIT, EDIT, EDIT)
    scene([engine], [NO, YES, ALL])
    assert scene.done[:3] == ["revert", "commit", "commit"]
    assert [c.tries for c in engine.cases] == [0, 1, 0]
    assert engine.cases[1].history == ("model: changed a line; refused: no check of the group turned EQUAL",)
    assert engine.cases[2].history == ()


def test_the_next_engine_is_asked_when_one_finds_nothing(scene):
    offline, model = Script("offline", IDLE, IDLE), Script("model", EDIT, EDIT)
    point, _ = scene([offline, model], [YES, ALL])
    assert [(s.engine, s.accepted) for s in point.steps] == [
        ("offline", False), ("model", True), ("offline", False), ("model", True),
    ]  # fmt: skip


def test_a_group_that_nobody_mends_is_given_up_and_the_others_go_on(scene):
    engine = Script("model", Attempt(False, "cannot", gave_up=True), EDIT)
    turned = Ruling(True, "turned", run_of(x="DIFFERENT", y="EQUAL"), ("L2-play-y",))
    point, ended = scene([engine], [turned])
    assert ended == "stuck: no engine mends L2 x" and not point.proven
    assert [s.accepted for s in point.steps] == [False, True]
    assert not any("last word" in d for d in scene.done)


def test_tries_are_counted_by_engine(scene):
    engine = Script("model", EDIT, EDIT, EDIT, EDIT)
    _, ended = scene([engine], [NO] * 4, tries=2)
    assert [c.group.key for c in engine.cases] == ["L2 x", "L2 x", "L2 y", "L2 y"]
    assert ended == "stuck: no engine mends L2 x, L2 y"


def test_an_unseen_seed_that_differs_becomes_the_one_to_mend(scene):
    late = Ruling(False, "seed 7: x is DIFFERENT", BAD, regressed=("L2-play-x",), seed=7)
    engine = Script("model", EDIT, EDIT)
    point, _ = scene([engine], [YES, ALL], finals=[late, PROVEN], run=GOOD)
    assert engine.cases[0].question.seed == 7
    assert scene.done[0] == f"last word {[loop.HELD_OUT, loop.HELD_OUT + 1]}"
    assert scene.done[-1] == f"last word {[loop.HELD_OUT + 2, loop.HELD_OUT + 3]}", "seen seeds are not unseen again"
    assert point.proven


def test_a_refusal_that_is_no_failure_ends_the_repair(scene):
    point, ended = scene([], [], finals=[Ruling(False, "conftest.py was changed", GOOD)], run=GOOD)
    assert ended == "refused: conftest.py was changed" and not point.proven


def test_a_limit_takes_back_what_was_not_accepted(scene):
    engine = Script("model", EDIT, Exhausted("dollars: the next call may cost $1"))
    point, ended = scene([engine], [YES])
    assert ended == "stopped: dollars: the next call may cost $1"
    assert scene.done == ["commit", "revert"]
    assert point.run == HALF and not point.proven


def test_time_that_is_over_ends_it_before_an_attempt(scene):
    ticks = iter(range(0, 1000, 100))
    engine = Script("model")
    _, ended = scene([engine], [], limits=Limits(seconds=50), clock=lambda: float(next(ticks)))
    assert ended.startswith("stopped: time") and engine.cases == []


def test_an_interruption_keeps_the_checkpoint(scene):
    engine = Script("model", EDIT, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        scene([engine], [YES])
    assert scene.done == ["commit", "revert"]
    kept = loop.load(scene.path / "state.json")
    assert kept.run == HALF and [s.accepted for s in kept.steps] == [True]


def test_a_checkpoint_comes_back_as_it_was(scene):
    point, _ = scene([Script("model", EDIT, EDIT)], [YES, ALL])
    assert loop.load(scene.path / "state.json") == point
    assert [e["kind"] for e in read(scene.path / "t.jsonl")] == ["group", "step", "group", "step", "last word"]


@pytest.mark.parametrize("text", ["{", "{}", '{"question": {}}'])
def test_what_is_no_checkpoint_is_said(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"state\.json cannot be resumed from: .*begin anew"):
        loop.load(path)


def test_a_torn_checkpoint_never_stands_in_the_place_of_a_whole_one(scene, monkeypatch):
    point, _ = scene([], [], run=GOOD)
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))  # once all is written
    with pytest.raises(OSError, match="disk full"):
        replace(point, proven=False).save(scene.path / "state.json")
    assert loop.load(scene.path / "state.json").proven
