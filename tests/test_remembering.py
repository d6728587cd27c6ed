"""A reference that remembers: within a process, from run to run, and what it must not remember."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ports import judging

from pytest_envequiv.backends import remembering
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import State
from pytest_envequiv.backends.remembering import Noted, Remembering, noted
from pytest_envequiv.judge import Judge
from pytest_envequiv.report import certificate
from pytest_envequiv.verdict import WITHOUT_LEARNING, Settings

PENDULUM = "gymnasium:Pendulum-v1"
PUSH = {"action": np.full((4, 1), 0.5, np.float32)}
SEEDS = np.arange(4)


class Counted:
    """A backend that counts what it is asked."""

    def __init__(self, name=PENDULUM):
        self.backend = open_backend(name, {})
        self.spec, self.asked = self.backend.spec, []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def reset(self, *question):
        self.asked.append("reset")
        return self.backend.reset(*question)

    def step(self, *question):
        self.asked.append("step")
        return self.backend.step(*question)


def same(a, b):
    """Whether two outcomes are, bit by bit: state, outputs, draws."""
    kept = [dict(a.state.fields, **a.outputs), dict(b.state.fields, **b.outputs)]
    for arrays, draws in zip(kept, (a.draws, b.draws), strict=True):
        arrays.update({f"draw {n}": draw.value for n, draw in enumerate(draws or ())})
    alike = (np.array_equal(v, kept[1].get(k), equal_nan=v.dtype.kind == "f") for k, v in kept[0].items())
    return kept[0].keys() == kept[1].keys() and all(alike)


# -- in one process ---------------------------------------------------------------------------------------------------


def test_the_same_question_is_asked_once_and_answered_alike():
    backend = Counted()
    kept = Remembering(backend)
    begun = kept.reset(SEEDS)
    first, second = kept.step(begun.state, PUSH, SEEDS), kept.step(begun.state, PUSH, SEEDS)
    assert backend.asked == ["reset", "step"] and same(first, second)
    kept.step(begun.state, {"action": -PUSH["action"]}, SEEDS)
    kept.step(State({k: v[::-1] for k, v in begun.state.fields.items()}), PUSH, SEEDS)
    kept.step(begun.state, PUSH, SEEDS + 1)
    assert backend.asked.count("step") == 4, "another action, state or seed is another question"


def test_a_reference_whose_state_is_hidden_cannot_be_remembered():
    backend = open_backend(PENDULUM, {})
    backend.spec = replace(backend.spec, state="snapshot")
    with pytest.raises(ValueError, match="fields"):
        Remembering(backend)


# -- from run to run --------------------------------------------------------------------------------------------------


def played(backend, action=PUSH):
    """What four lanes answer, of which each goes on from the answer before."""
    outcomes = [backend.reset(SEEDS)]
    for _ in range(3):
        outcomes.append(backend.step(outcomes[-1].state, action, SEEDS))
    return outcomes


@pytest.mark.parametrize(("name", "action"), [(PENDULUM, PUSH), ("gymnasium:CartPole-v1", {"action": SEEDS % 2})])
def test_the_next_run_is_answered_from_the_file(tmp_path, name, action):
    path = tmp_path / "kept" / "x.answers"
    first = Noted(Counted(name), path)
    told = played(first, action)
    assert not path.exists(), "nothing is written while it runs"
    first.close()
    second = Noted(Counted(name), path)
    assert all(map(same, told, played(second, action))) and second.backend.asked == []

    # What is new is asked, and goes on from an answer that was remembered.
    new = second.step(told[-1].state, action, SEEDS + 7)
    assert second.backend.asked == ["step"]
    assert same(new, open_backend(name, {}).step(State(told[-1].state.fields), action, SEEDS + 7))
    second.close()
    third = Noted(Counted(name), path)
    played(third, action)
    third.step(told[-1].state, action, SEEDS + 7)
    assert third.backend.asked == [], "the file has what both runs asked"


def test_what_runs_side_by_side_were_told_is_all_kept(tmp_path):
    """The workers of ``pytest -n`` begin together, and each asks its own checks' questions."""
    path, other = tmp_path / "x.answers", {"action": -PUSH["action"]}
    one, two = Noted(Counted(), path), Noted(Counted(), path)
    played(one)
    played(two, other)
    one.close()
    two.close()
    again = Noted(Counted(), path)
    played(again)
    played(again, other)
    assert again.backend.asked == []


def test_a_reference_that_does_not_repeat_itself_is_seen(tmp_path):
    backend = Noted(Counted(), tmp_path / "x.answers")
    for _ in range(3):
        backend.reset(SEEDS)
    assert backend.backend.asked == 3 * ["reset"]


@pytest.mark.parametrize("text", [b"", b"\x80\x05no pickle", b"\x80\x05K\x01."])
def test_a_file_that_holds_no_answers_is_as_good_as_none(tmp_path, text):
    path = tmp_path / "x.answers"
    path.write_bytes(text)
    backend = Noted(Counted(), path)
    told = played(backend)
    backend.close()
    again = Noted(Counted(), path)
    assert all(map(same, told, played(again))) and again.backend.asked == []


def test_another_user_s_file_is_not_opened(tmp_path, monkeypatch):
    backend = Noted(Counted(), tmp_path / "x.answers")
    played(backend)
    backend.close()
    assert remembering._loaded(backend.path)
    monkeypatch.setattr(remembering.os, "getuid", lambda: backend.path.stat().st_uid + 1)
    assert remembering._loaded(backend.path) == {}


def test_a_full_disk_costs_nothing_but_the_head_start(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.answers"
    backend = Noted(Counted(), path)
    played(backend)
    monkeypatch.setattr(remembering.pickle, "dump", full)
    backend.close()
    assert list(tmp_path.iterdir()) == [], "nor is half a file left"


def test_what_does_not_fit_any_more_is_the_oldest(tmp_path, monkeypatch):
    path = tmp_path / "x.answers"
    backend = Noted(Counted(), path)
    told = played(backend)
    backend.close()
    monkeypatch.setattr(remembering, "MOST_SAVED", sum(map(remembering._size, told)))
    later = Noted(Counted(), path)
    for times in (-1, 0, 0.5):
        later.step(told[0].state, {"action": times * PUSH["action"]}, SEEDS)
    later.close()
    assert len(remembering._loaded(path)) == 3


# -- whose answers, and of what ---------------------------------------------------------------------------------------

WALK = """
import numpy as np

STEP = {step}


class Walk:
    def reset(self, seed=None):
        self.x = float(np.random.default_rng(seed).normal())
        return np.array([self.x]), {{}}
"""


def test_a_reference_that_was_changed_has_other_answers(tmp_path, monkeypatch):
    """Also where another option was given."""
    monkeypatch.syspath_prepend(tmp_path)
    paths = []
    for step, options in ((1, {}), (2, {}), (2, {"x": 1}), (1, {})):
        (tmp_path / "walk_of_test.py").write_text(WALK.format(step=step))
        paths.append(noted(open_backend(PENDULUM, {}), str(tmp_path), "walk_of_test", options).path)
    assert paths[0] == paths[3] and len(set(paths)) == 3


def test_what_is_compiled_or_hidden_or_unknown_is_asked_itself(tmp_path):
    compiled = open_backend("gymnax:Pendulum-v1", {})
    assert noted(compiled, str(tmp_path), "gymnax:Pendulum-v1", {}) is compiled
    hidden = open_backend(PENDULUM, {})
    assert noted(hidden, str(tmp_path), "a name without files", {}) is hidden
    hidden.spec = replace(hidden.spec, state="snapshot")
    assert noted(hidden, str(tmp_path), PENDULUM, {}) is hidden


# -- a whole suite ----------------------------------------------------------------------------------------------------


def test_the_verdicts_are_the_same(tmp_path):
    """Of gymnax's car, which a wall does not stop."""
    names = [f"{kind}:MountainCarContinuous-v0" for kind in ("gymnasium", "gymnax")]
    settings = Settings(*names, WITHOUT_LEARNING, output=str(tmp_path / "out"))
    told = []
    for answers in (None, str(tmp_path / "kept"), str(tmp_path / "kept")):
        judge = Judge(replace(settings, answers=answers), shrink=False)
        verdicts = judging.run(judge, "L1-reset-*", "L2-boundary-*", "L3-lockstep-*")
        judge.close()
        told.append({check: (v.word, v.summary, v.evidence.get("transitions")) for check, v in verdicts.items()})
    assert told[0] == told[1] == told[2]
    assert {word for word, *_ in told[0].values()} == {"EQUAL", "DIFFERENT"}
    assert len(list((tmp_path / "kept").glob("*.answers"))) == 1


def test_there_is_no_certificate_for_what_was_remembered():
    pair = {
        "checks": [],
        "contents": {},
        "settings": {"levels": ["L1", "L2", "L3", "L4"], "answers": ".envequiv/answers"},
    }
    assert certificate.missing(pair, [], set()) == ["the reference may have answered from memory"]
    pair["settings"]["answers"] = None
    assert certificate.missing(pair, [], set()) == []
