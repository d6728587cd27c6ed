"""The engine without an API: a real search in processes of its own, and what it says when it cannot."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cars
import pytest

from repair_agent.budget import Budget, Exhausted, Limits
from repair_agent.case import Case
from repair_agent.findings import Finding, Run
from repair_agent.groups import Group
from repair_agent.journal import Journal, read
from repair_agent.offline import engine as offline
from repair_agent.offline.engine import Found, Offline, Search
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.tree.worktree import Worktree


@pytest.fixture
def case(tmp_path):
    """``case(right, wrong)``: the port with a slip, in a folder that stands for the worktree, and the blamed line."""

    def make(right="", wrong="", line=None, files=("port.py",), limits=None, check="L2-play-velocity"):
        root = tmp_path / "tree"
        root.mkdir()
        (root / "car_reference.py").write_text(cars.REFERENCE)
        (root / "port.py").write_text(cars.PORT.replace(right, wrong, 1) if right else cars.PORT)
        level, subject, name = check.split("-", 2)
        line = cars.line_of(right) if line is None else line
        blame = ({"file": "port.py", "line": line, "code": "", "score": 1.0, "why": ""},) if line else ()
        finding = Finding(f"x::{check}", check, level, subject, name, "DIFFERENT", "", blame=blame)
        return Case(
            Question("car_reference", "port"),
            Worktree(root, root, "branch", "base", files, root),
            Group(f"{level} {name}", level, name, (check,)),
            Run({check: finding}, (check,)),
            Budget(limits or Limits(dollars=0), table()),
            Journal(tmp_path / "trajectory.jsonl"),
        )

    return make


def text_of(case) -> str:
    return (case.tree.root / "port.py").read_text()


def test_a_slip_is_mended_and_what_was_refused_is_not_tried_again(case):
    mine = case("(action - 1) * 0.004", "(action + 1) * 0.004")
    broken = text_of(mine)
    attempt = Offline(100, parts=2).attempt(mine)
    assert attempt.changed and text_of(mine) == cars.PORT
    line = cars.line_of("(action - 1)")
    assert attempt.why.startswith(f"port.py line {line}: + -> -") and "saved transitions agree" in attempt.why
    (event,) = [e for e in read(mine.journal.path) if e["kind"] == "offline"]
    assert event["found"] >= 1 and event["change"] in attempt.why
    # Refused, and the engine is another one after --resume: the trajectory tells it what was tried.
    (mine.tree.root / "port.py").write_text(broken)
    second = Offline(100, parts=1).attempt(mine)
    assert text_of(mine) not in (cars.PORT, broken) if second.changed else second.gave_up


def test_what_was_begun_is_what_searches_and_is_ended(case, monkeypatch):
    mine = case("(action - 1) * 0.004", "(action + 1) * 0.004")
    with closing(Offline(100, parts=1)) as engine:
        engine.begin(mine.question, mine.tree.root)
        (waiting,) = engine._waiting.processes
        monkeypatch.setattr(offline, "Searchers", None)  # no others are started
        assert waiting.poll() is None and engine.attempt(mine).changed
    assert waiting.poll() is not None


def test_what_was_begun_and_not_needed_is_ended(case):
    mine = case(line=0)
    engine = Offline(parts=2)
    engine.begin(mine.question, mine.tree.root)
    waiting = engine._waiting.processes
    engine.close()
    assert len(waiting) == 2 and all(process.poll() is not None for process in waiting)


def test_it_says_that_it_can_search_in_python_only(case):
    attempt = Offline().attempt(case(line=0, files=("src/lib.rs",)))
    assert not attempt.changed and attempt.gave_up and "Python" in attempt.why


def test_it_says_that_a_target_that_is_not_traced_cannot_be_searched(case):
    mine = case(line=0)
    (mine.tree.root / "port.py").write_text(cars.REFERENCE)
    attempt = Offline(60, parts=2).attempt(mine)
    assert not attempt.changed and attempt.gave_up and "cannot be traced" in attempt.why


def test_it_says_that_nothing_was_found_and_how_many_were_tried(case, monkeypatch, tmp_path):
    told = [{"kind": "saved", "why": "wrong: step.x 7"}, {"kind": "at", "number": 41, "line": 3}, {"kind": "done"}]
    ended(monkeypatch, tmp_path, *told)
    attempt = Offline(5, parts=1).attempt(case(line=0))
    assert not attempt.changed and attempt.gave_up
    assert (
        attempt.why.startswith("none of 42 candidates makes the saved transitions agree") and "step.x 7" in attempt.why
    )


def ended(monkeypatch, folder, *told):
    """The next search's one process has told these events and ended."""
    (folder / "part-0.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    process = SimpleNamespace(poll=lambda: 0)
    searchers = SimpleNamespace(folder=folder, processes=[process], give=lambda job: None, close=lambda: None)
    monkeypatch.setattr(offline, "Searchers", lambda *_: searchers)


def test_no_file_is_written_but_those_that_are_listed(case, monkeypatch, tmp_path):
    """What is told comes from a process in which the target's code runs."""
    victim = tmp_path / "victim.py"
    victim.write_text("untouched")

    event = {"kind": "found", "number": 0, "file": str(victim), "text": "x", "change": "line 1: a -> b", "clean": True}
    event["strays"] = 0
    ended(monkeypatch, tmp_path, {"kind": "saved", "why": ""}, event)
    attempt = Offline(5, parts=1).attempt(case(line=0))
    assert not attempt.changed and victim.read_text() == "untouched"


def test_of_two_edits_the_one_that_agrees_elsewhere_too_is_written(case, monkeypatch, tmp_path):
    mine = case(line=0)
    path = (mine.tree.root / "port.py").resolve()

    def told(number, strays):
        return {"kind": "found", "number": number, "file": str(path), "text": f"x = {number}\n", "change": f"{number}",
                "clean": True, "strays": strays}  # fmt: skip

    ended(monkeypatch, tmp_path, {"kind": "saved", "why": ""}, told(3, 2), told(8, 0), told(9, 0), {"kind": "done"})
    attempt = Offline(5, parts=1).attempt(mine)
    assert attempt.changed and path.read_text() == "x = 8\n" and "others do not" not in attempt.why
    ended(monkeypatch, tmp_path, {"kind": "saved", "why": ""}, told(4, 2), {"kind": "done"})
    assert "saved transitions agree; 2 others do not" in Offline(5, parts=1).attempt(mine).why


def test_a_limit_in_time_ends_the_search_and_its_processes(case, monkeypatch):
    started = []
    real = offline.subprocess.Popen
    monkeypatch.setattr(offline.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])
    mine = case("(action - 1) * 0.004", "(action + 1) * 0.004", limits=Limits(dollars=0, seconds=0.5))
    with pytest.raises(Exhausted):
        Offline(parts=2).attempt(mine)
    searching = [process for process in started if "repair_agent.offline.screening" in process.args]
    assert len(searching) == 2 and all(process.poll() is not None for process in searching)


def found(number, clean=True, strays=0) -> Found:
    return Found(number, "port.py", "", f"line {number}", clean, strays)


@pytest.mark.parametrize(
    "edits, at, done, expected",
    [
        ([found(4)], {0: 4, 1: 5}, (), 4),
        ([found(4)], {0: 4, 1: 1}, (), None),  # the other part may still find a likelier one
        ([found(4)], {0: 4, 1: 1}, (1,), 4),
        ([found(4), found(3)], {0: 4, 1: 3}, (), 3),
        ([found(2, clean=False), found(6)], {0: 6, 1: 7}, (), 6),
        ([found(2, clean=False)], {0: 6, 1: 7}, (), None),
        ([found(2, strays=3)], {0: 6, 1: 7}, (), None),  # it is likely to be by chance that the saved rows agree
        ([found(2, strays=3), found(6)], {0: 6, 1: 7}, (), 6),
    ],
)
def test_the_likeliest_edit_is_waited_for(edits, at, done, expected):
    best = Search(edits, dict(at), set(done)).clean
    assert (best and best.number) == expected


def test_blame_is_taken_in_turns_the_groups_own_first(case):
    """What a check of a bound blames is where the bound is, and the cause may be what another group blames first."""
    mine = case("(action - 1) * 0.004", "(action + 1) * 0.004", line=24)
    [(check, own)] = mine.run.findings.items()
    own = replace(own, blame=(*own.blame, {"file": "port.py", "line": 30}))
    other = Finding("x::b", "L2-play-reward", "L2", "play", "reward", "DIFFERENT", "", blame=(
        {"file": "elsewhere/port.py", "line": 3}, {"file": "port.py", "line": 24}, {"file": "port.py", "line": 9},
        {"file": "jax/core.py", "line": 1},
    ))  # fmt: skip
    run = Run({check: own, other.check: other}, ())
    job = offline._job(Case(**{**vars(mine), "run": run}), ["port.py"], [], 2, 10.0)
    path = str((mine.tree.root / "port.py").resolve())
    assert job["blamed"] == [[path, 24], [path, 3], [path, 30], [path, 9]]
    assert job["fields"] == ["velocity"] and Path(job["files"][0]) == Path(path)
