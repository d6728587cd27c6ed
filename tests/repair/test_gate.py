"""Steps that are accepted and refused, by what the suite is made to say; and one repair of a real port, to the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from repair_agent import gate
from repair_agent.canary import Canary
from repair_agent.findings import OPEN, RUNS, Finding, Run
from repair_agent.groups import Group, groups
from repair_agent.question import Question
from repair_agent.suite import judged
from repair_agent.tree import guard, worktree
from repair_agent.tree.worktree import Worktree, open_worktree

CHEATS = Path(__file__).parent.parent / "cheats"
pytestmark = pytest.mark.usefixtures("checkout_at_rest")
CARTPOLE = Question("gymnasium:CartPole-v1", "cheats.port:Port")
PORT = "from cheats.pole import Pole\n\n\nclass Port(Pole):\n    gravity = 3.7\n"


@dataclass(frozen=True)
class Step:
    question: Question
    tree: Worktree
    group: Group
    run: Run
    tell = staticmethod(lambda _: None)


def run_of(trouble="", exit=None, **words) -> Run:
    """``L2_play_v="D"``: D, I and M stand for the words, E for EQUAL."""
    long = {"E": "EQUAL", "D": "DIFFERENT", "I": "INCONCLUSIVE", "M": "MISSING"}
    findings = {}
    for name, letter in words.items():
        check = OPEN if name == "OPEN" else name.replace("_", "-", 2)
        level, subject, field = check.split("-", 2)
        findings[check] = Finding(f"envequiv::{check}", check, level, subject, field, long[letter], f"{field} is off")
    code = int(any(letter != "E" for letter in words.values())) if exit is None else exit
    return Run(findings, tuple(findings), exit=code, trouble=trouble)


@pytest.fixture
def scripted(repository, monkeypatch):
    """A step on port/env.py, with what the suite says of it in turn; the checks it was asked for are recorded."""
    tree = open_worktree(repository.top, ("port/env.py",), "port")
    question = Question("A", "port.env:Env")
    frozen = guard.frozen(question, tree)
    asked = []

    def rule(before: Run, *says: Run, text="GRAVITY = 9.8\n", group=None, act=gate.ruled, **more):
        told = iter(says)

        def judged_(question, root, checks=(), **how):
            asked.append((tuple(checks or how.get("first", ())), how.get("seed")))
            # Seeds are judged side by side, in no order of their own.
            return says[how["seed"] - 7] if how.get("seed") else next(told)

        monkeypatch.setattr(gate, "judged", judged_)
        if text is not None:
            (tree.root / "port" / "env.py").write_text(text)
        if act is gate.final:
            return gate.final(question, tree, frozen, **more)
        return gate.ruled(Step(question, tree, group or groups(before)[0], before), frozen)

    rule.tree, rule.asked = tree, asked
    return rule


WRONG = run_of(L1_reset_v="E", L2_play_v="D", L2_pairs_v="D", L3_lockstep_x="D")


def test_a_step_that_mends_its_group_is_accepted(scripted):
    whole = run_of(L1_reset_v="E", L2_play_v="E", L2_pairs_v="D", L3_lockstep_x="E")
    ruling = scripted(WRONG, whole)
    assert ruling.accepted and ruling.run is whole
    assert ruling.improved == ("L2-play-v", "L3-lockstep-x") and ruling.regressed == ()
    assert scripted.asked == [(("L2-play-v", "L2-pairs-v"), None)]


def test_a_step_that_mends_nothing_costs_the_group_s_checks_only(scripted):
    half = run_of(trouble="the others were not run", L2_play_v="I", L2_pairs_v="D", L1_reset_v="M")
    ruling = scripted(WRONG, half)
    assert not ruling.accepted and ruling.run is None
    assert ruling.why == "no check of the group turned EQUAL: L2-play-v is INCONCLUSIVE: v is off (and 1 more)"


@pytest.mark.parametrize("after", ["D", "I", "M", ""])
def test_what_was_equal_must_stay_so(scripted, after):
    words = {"L1_reset_v": after} if after else {}
    whole = run_of(**words, L2_play_v="E", L2_pairs_v="E", L3_lockstep_x="E")
    ruling = scripted(WRONG, whole)
    assert not ruling.accepted and ruling.regressed == ("L1-reset-v",)
    assert "what was EQUAL is not any more: L1-reset-v is " in ruling.why


def test_half_a_run_is_no_ground(scripted):
    whole = replace(run_of(L1_reset_v="E", L2_play_v="E"), trouble="the suite was ended after 300 s")
    ruling = scripted(WRONG, whole)
    assert not ruling.accepted and ruling.why == "the suite was ended after 300 s"
    other = run_of(L1_reset_v="E", L2_play_v="D", L2_pairs_v="D", L3_lockstep_x="E")  # another group's turned
    assert not scripted(WRONG, other).accepted
    gone = run_of(L1_reset_v="E", L3_lockstep_x="E")  # the checks of the group are not there any more
    assert not scripted(WRONG, gone).accepted


def test_a_pair_that_opens_now_is_a_step(scripted):
    shut = run_of(OPEN="D")
    ruling = scripted(shut, run_of(L1_reset_v="D", L2_play_v="E"))
    assert ruling.accepted and ruling.improved == (OPEN,) and scripted.asked == [((), None)]
    ruling = scripted(shut, run_of(OPEN="D"), text="GRAVITY = 1\n")
    assert not ruling.accepted and "still does not open" in ruling.why
    assert scripted(Run({}, (), trouble="exit code 3"), run_of(L2_play_v="D"), text="GRAVITY = 2\n").accepted


def test_a_pair_that_runs_again_is_a_step_though_the_check_is_gone(scripted):
    """The check of a target whose first calls fail is there only as long as they do."""
    fails = run_of(L1_runs_step="D", L1_spec_action="E")
    ruling = scripted(fails, run_of(L1_spec_action="E", L2_play_v="D"))
    assert ruling.accepted and ruling.improved == (RUNS,) and scripted.asked[-1] == ((), None)
    ruling = scripted(fails, fails, text="GRAVITY = 1\n")
    assert not ruling.accepted and f"still does not open and run: {RUNS} is DIFFERENT" in ruling.why
    ruling = scripted(fails, run_of(L1_spec_action="D", L2_play_v="E"), text="GRAVITY = 2\n")
    assert not ruling.accepted and ruling.regressed == ("L1-spec-action",)


def test_the_guard_comes_first(scripted):
    """Nothing is run of what reaches for what it may not, nor beside an edited test."""
    ruling = scripted(WRONG, text="import os\nos._exit(0)\n")
    assert not ruling.accepted and ruling.why.startswith("port/env.py:1 uses os, ")
    (scripted.tree.root / "other.py").write_text("")
    ruling = scripted(WRONG)
    assert not ruling.accepted and ruling.why == "other.py was changed: not on the list, which may not be edited"
    worktree.revert(scripted.tree)
    assert scripted(WRONG, text=None).why == "nothing was changed"
    assert scripted.asked == []


GREEN = run_of(L1_reset_v="E", L2_play_v="E")


def last(scripted, monkeypatch, *says, caught=True, **more):
    monkeypatch.setattr(gate, "canary", lambda *_, **__: Canary(caught, "the bird"))
    text = more.pop("text", None)
    seeds = more.pop("seeds", range(7, 7 + len(says)))
    return scripted(GREEN, *says, text=text, act=gate.final, seeds=seeds, **more)


def test_the_last_word(scripted, monkeypatch):
    ruling = last(scripted, monkeypatch, GREEN, GREEN)
    assert ruling.accepted and sorted(scripted.asked) == [((), 7), ((), 8)]
    assert ruling.why == "every check is EQUAL on 2 unseen seeds, and the bird" and ruling.run.green
    ruling = last(scripted, monkeypatch, GREEN, run_of(L1_reset_v="E", L2_play_v="D"))
    assert not ruling.accepted and ruling.why == "seed 8: L2-play-v is DIFFERENT: v is off"
    assert not ruling.run.green and ruling.regressed == ("L2-play-v",) and ruling.seed == 8
    assert last(scripted, monkeypatch, replace(GREEN, exit=1)).why == "seed 7: pytest ended with exit code 1"
    assert last(scripted, monkeypatch, replace(GREEN, trouble="it died")).why == "seed 7: it died"
    ruling = last(scripted, monkeypatch, GREEN, expected=("L2-play-gone",))
    assert ruling.why == "seed 7: L2-play-gone is MISSING: it is not there any more"
    ruling = last(scripted, monkeypatch, GREEN, GREEN, caught=False)
    assert not ruling.accepted and ruling.why == "the bird" and ruling.seed is None
    assert not last(scripted, monkeypatch, seeds=()).accepted
    assert "not accepted" in last(scripted, monkeypatch, text="GRAVITY = 1\n").why


def test_the_first_refusal_ends_what_is_still_asked(scripted, monkeypatch):
    """The other seed and the seeded bug are told to stop, and what they say afterwards counts no more."""

    def waits(stop):
        until = time.monotonic() + 60
        while not stop():
            assert time.monotonic() < until
            time.sleep(0.01)

    def judged(question, root, **how):
        if how["seed"] == 7:
            waits(how["stop"])
        return GREEN if how["seed"] == 7 else run_of(L2_play_v="D")

    def canary(*_, stop, **__):
        waits(stop)
        return Canary(False, "ended")

    tree, question = scripted.tree, Question("A", "port.env:Env")
    monkeypatch.setattr(gate.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(gate, "judged", judged)
    monkeypatch.setattr(gate, "canary", canary)
    ruling = gate.final(question, tree, guard.frozen(question, tree), [7, 8])
    assert not ruling.accepted and ruling.why == "seed 8: L2-play-v is DIFFERENT: v is off"


# -- a real port -------------------------------------------------------------------------------------------------------


@pytest.fixture
def port(repository):
    """A port of CartPole with the gravity of another planet, in a worktree."""
    (repository.top / "cheats").mkdir()
    for name in ("__init__", "pole", "equals_everything"):
        (repository.top / "cheats" / f"{name}.py").write_text((CHEATS / f"{name}.py").read_text())
    repository.write(cheats__port=PORT)
    repository.commit()
    return open_worktree(repository.top, ("cheats/port.py",), "port")


@pytest.mark.parametrize(
    ("name", "its", "check", "options"),
    [
        ("arrays", "views", "L1-honest-arrays", ()),
        ("reuses_buffer", "Reuses", "L1-honest-arrays", ()),
        ("eats", "Eats", "L2-play-x", ("--envequiv-isolate", "--envequiv-memory=2")),
    ],
)
def test_a_cheat_that_reaches_for_nothing_is_refused_by_the_suite(port, name, its, check, options):
    """The honest checks are EQUAL of the port as it was: one that is not any more refuses the step."""
    (port.root / "cheats" / "port.py").write_text(f"{(CHEATS / f'{name}.py').read_text()}\n\nPort = {its}\n")
    run = judged(replace(CARTPOLE, options=options), port.root, (check,))
    assert run.findings[check].word == "DIFFERENT" and len(run.expected) > 40


def test_a_port_is_mended_to_the_end(port, tmp_path):
    """Its gravity: the group turns, the suite is EQUAL on an unseen seed, and a seeded bug is caught. L2 will do."""
    question = replace(CARTPOLE, options=("--envequiv-levels=L2",))
    frozen = guard.frozen(question, port)
    before = judged(question, port.root)
    first = groups(before)[0]
    assert first.key == "L2 theta_dot" and "L2-play-x_dot" in first.followers
    step = Step(question, port, first, before)
    with gate.ready(step) as begun:  # before the edit: what it judges is what is there when it is asked
        (port.root / "cheats" / "port.py").write_text(PORT.replace("3.7", "9.8"))
        ruling = gate.ruled(step, frozen, begun)
    assert ruling.accepted and ruling.run.green, ruling.why
    assert {f"L2-{s}-theta_dot" for s in ("play", "boundary", "pairs", "limit")} <= set(ruling.improved)
    worktree.commit(port, "gravity")
    last = gate.final(question, port, frozen, [1001], expected=before.expected)
    assert last.accepted and "catches the seeded bug cheats/port.py:5" in last.why, last.why
    assert worktree.land(port).done
