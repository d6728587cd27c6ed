"""The suite in a process of its own, with a made-up judge (fake_judge.py), and the reading of its reports."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_judge

from repair_agent import suite
from repair_agent.findings import OPEN, read
from repair_agent.question import Question
from repair_agent.suite import Begun, judged

IDS = ("L1-bounds-position", "L2-boundary-position", "L2-boundary-velocity", "L3-lockstep-reward")


@pytest.fixture(autouse=True)
def fake(fake_judge):
    """The plugin as installed, with the fake judge."""


@pytest.fixture
def run(tmp_path):
    """Runs the suite on a made-up target in an empty folder."""
    root = tmp_path / "root"
    root.mkdir()

    def run_(target, *checks, **more):
        question = Question("A", target, options=more.pop("options", ()))
        return judged(question, root, checks, output=tmp_path / "out", **more)

    return run_


def words(found) -> dict[str, str]:
    return {check: finding.word for check, finding in found.findings.items()}


def test_an_equal_pair_is_green(run):
    lines = []
    found = run("slow", tell=lines.append)
    assert found.green and found.exit == 0 and not found.trouble
    assert words(found) == dict.fromkeys(IDS, "EQUAL") and found.expected == IDS
    assert found.describe["target"]["name"] == "slow" and found.seconds > 1
    assert "L2-boundary-position, 50 %" in lines


def test_what_a_failure_carries(run, tmp_path):
    found = run("bounce")
    assert not found.green and found.exit == 1
    assert words(found) | {"L1-bounds-position": "", "L3-lockstep-reward": ""} == {
        "L1-bounds-position": "",
        "L2-boundary-position": "DIFFERENT",
        "L2-boundary-velocity": "DIFFERENT",
        "L3-lockstep-reward": "",
    }
    root = found.findings["L2-boundary-velocity"]
    assert (root.level, root.subject, root.field) == ("L2", "boundary", "velocity")
    assert root.node == "envequiv::L2-boundary-velocity" and root.divergence["actual"] == -0.07
    assert root.counterexample == str(tmp_path / "out" / "wall.json") and Path(root.counterexample).is_file()
    assert found.findings["L2-boundary-position"].follows == "L2-boundary-velocity"


def test_a_narrowed_run_still_knows_all_checks(run):
    one = run("bounce", "L2-boundary-velocity")
    assert words(one) == {"L2-boundary-velocity": "DIFFERENT"} and one.expected == IDS
    level = run("bounce", "L1", "L3")
    assert words(level) == {"L1-bounds-position": "EQUAL", "L3-lockstep-reward": "EQUAL"} and level.expected == IDS
    assert not level.green and level.exit == 0
    unknown = run("equal", "L2-boundary-nothing")
    assert "no check of that name" in unknown.trouble and not unknown.findings
    with pytest.raises(ValueError, match="in one go"):
        run("equal", "L1", "L2-boundary-velocity")


def test_what_did_not_run_is_missing(run):
    found = run("bounce", options=("-x",))
    assert words(found)["L2-boundary-position"] == "DIFFERENT"
    assert words(found)["L3-lockstep-reward"] == "MISSING"


def test_a_pair_that_does_not_open(run):
    died = run("exit-opening")
    assert words(died) == {OPEN: "DIFFERENT"} and not died.green and not died.trouble
    assert words(run("refuse-opening", OPEN)) == {OPEN: "INCONCLUSIVE"}
    assert run("equal", OPEN).green  # mended: the check is gone, and the others are there


def test_a_limit_ends_the_whole_session(run, tmp_path):
    began = time.monotonic()
    found = run("hang-velocity", seconds=4)
    assert time.monotonic() - began < 20 and not found.green
    assert found.trouble == "the suite was ended after 4 s, the time it was given"
    here = str(tmp_path / "out")
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not [command for command in commands if here.encode() in command]


def test_checks_that_come_first(run):
    lines = []
    found = run("slow", first=("L3-lockstep-reward",), tell=lines.append)
    assert found.green and lines[0].startswith("L3-lockstep-reward") and list(found.findings) == list(IDS)


def test_the_others_are_not_run_if_none_that_comes_first_is_equal(tmp_path):
    """Of two that come first one is EQUAL: then all are run."""
    question, began = Question("hang-velocity", "raise-position"), time.monotonic()
    found = judged(question, tmp_path, output=tmp_path / "out", first=("L2-boundary-position",))
    assert time.monotonic() - began < 30 and "were not run" in found.trouble and not found.green
    assert words(found) == dict.fromkeys(IDS, "MISSING") | {
        "L2-boundary-position": "DIFFERENT", "L1-bounds-position": words(found)["L1-bounds-position"]
    }  # fmt: skip
    first = ("L2-boundary-position", "L3-lockstep-reward")
    whole = judged(Question("A", "raise-position"), tmp_path, output=tmp_path / "out", first=first)
    assert not whole.trouble and words(whole)["L2-boundary-velocity"] == "EQUAL"
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")  # it puts them first
    assert judged(Question("A", "equal"), tmp_path, output=tmp_path / "out", first=first).green


def test_a_run_that_nobody_waits_for_is_ended(tmp_path):
    began = time.monotonic()
    question, out = Question("hang-velocity", "equal"), tmp_path / "out"
    found = judged(question, tmp_path, output=out, stop=lambda: time.monotonic() - began > 2)
    assert time.monotonic() - began < 30 and "nobody waits for it" in found.trouble and not found.green


def test_what_is_begun_ahead_waits_until_it_is_asked(tmp_path):
    begun = Begun(Question("A", "equal"), tmp_path, output=tmp_path / "out")
    with contextlib.closing(begun):
        time.sleep(4)
        assert begun._process.poll() is None and "L1-" not in begun.said.read_text()
        found = judged(Question("A", "equal"), tmp_path, output=tmp_path / "out", begun=begun)
        assert found.green and found.expected == IDS, "of itself, and of no other process"
        assert "L1-" in begun.said.read_text()


def test_what_was_begun_and_never_asked_is_ended_without_a_trace(tmp_path):
    begun = Begun(Question("A", "equal"), tmp_path, output=tmp_path / "out")
    process, folder = begun._process, begun.said.parent
    begun.close()
    assert process.poll() is not None and not folder.exists()


def test_what_was_begun_ends_with_the_one_who_began_it(tmp_path):
    """As after a kill -9: the pipe it waits at is closed."""
    code = (
        "import sys, os; from pathlib import Path; from repair_agent.suite import Begun, Question\n"
        f"b = Begun(Question('A', 'equal'), Path({str(tmp_path)!r}), output=Path({str(tmp_path / 'out')!r}))\n"
        "print(b._process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid, end = int(told.stdout), time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_what_a_configuration_asks_for_does_not_narrow_the_run(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--envequiv-levels=L1")
    (tmp_path / "root" / "pytest.ini").write_text("[pytest]\naddopts = -x -k nothing -n 2 --lf -q -m L2\n")
    found = run("bounce")
    assert words(found)["L3-lockstep-reward"] == "EQUAL" and not found.trouble
    assert not (tmp_path / "root" / ".pytest_cache").exists()


def test_what_the_reference_answered_is_kept_but_for_fresh_runs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "_home", lambda: tmp_path / "home")
    kept, mine = tmp_path / "home" / "answers", tmp_path / "mine"
    (tmp_path / "root" / "pytest.ini").write_text(f"[pytest]\nenvequiv_answers = {mine}\n")
    assert run("equal", fresh=True).green and not kept.exists() and not mine.exists()
    assert run("equal").green and kept.is_dir() and not mine.exists()
    kept.rmdir()
    assert run("equal", options=(f"--envequiv-answers={mine}",)).green and mine.is_dir() and not kept.exists()


def test_a_run_that_is_not_begun_is_told(run, tmp_path):
    (tmp_path / "root" / "conftest.py").write_text("import nowhere_to_be_found\n")
    found = run("equal")
    assert found.exit == 4 and "nowhere_to_be_found" in found.trouble and not found.green


def test_python_finds_the_tree_s_files_first(tmp_path):
    root = tmp_path / "root"
    (root / "src").mkdir(parents=True)
    (root / "conftest.py").write_text(
        "import sys\nfolders = [p for p in sys.path if 'root' in p]\nraise ValueError(folders)"
    )
    found = judged(Question("A", "equal", search=("src",)), root, output=tmp_path / "out")
    assert found.trouble.index(f"'{root}'") < found.trouble.index(f"'{root / 'src'}'")


# -- reports -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path):
    """A report as pytest writes it, of a pair that differs; changed by hand where a test asks for it."""
    told = {
        "schema": 1, "pair": {"node": "envequiv", "ref": "A", "target": "B"}, "word": "DIFFERENT",
        "check": {"id": "L2-play-x", "level": "L2", "subject": "play", "field": "x", "cost": "cheap"},
        "summary": "x: 3 of 4", "divergence": None, "follows": None, "notes": [], "replay": None,
        "evidence": {"blame": [{"file": "b.py", "line": 3, "code": "x", "score": 1.0, "why": ""}]},
        "counterexample": ".envequiv/x.json",
    }  # fmt: skip
    pair = {
        "node": "envequiv", "ref": "A", "target": "B", "checks": ["L2-play-x", "L2-play-y"],
        "describe": {"dataflow": {"order": ["state.y", "state.x"]}}, "contents": {"target": "ab"},
    }  # fmt: skip
    tests = [{"nodeid": "envequiv::L2-play-x", "metadata": {"envequiv": told}}, {"nodeid": "test_other.py::test_it"}]
    document = {"exitcode": 1, "duration": 2.5, "tests": tests, "envequiv": {"schema": 1, "pairs": [pair]}}

    def write(change=lambda document: document):
        path = tmp_path / "report.json"
        path.write_text(json.dumps(change(document)))
        return path

    return write


def test_a_report_is_read(report, tmp_path):
    found = read(report(), Question("A", "B"), tmp_path)
    assert words(found) == {"L2-play-x": "DIFFERENT", "L2-play-y": "MISSING"}
    assert found.order == ("state.y", "state.x") and found.exit == 1 and found.seconds == 2.5
    assert found.findings["L2-play-x"].blame[0]["line"] == 3
    assert found.findings["L2-play-x"].counterexample == str(tmp_path / ".envequiv" / "x.json")
    assert found.findings["L2-play-y"].field == "y"


def test_a_report_that_is_of_no_use_says_why_and_what_to_do(report, tmp_path):
    def wrong(path, question=None):
        with pytest.raises(ValueError) as caught:
            read(path, question or Question("A", "B"), tmp_path)
        assert "pytest --envequiv ref=A target=" in str(caught.value) and "--json-report" in str(caught.value)
        return str(caught.value)

    assert "not about ref=A target=C" in wrong(report(), Question("A", "C"))
    assert "no pair of environments" in wrong(report(lambda d: {"tests": []}))
    assert "not of pytest --json-report" in wrong(report(lambda d: ["x"]))
    assert "report.schema.json" in wrong(report(lambda d: d | {"envequiv": {"pairs": [{"node": "envequiv"}]}}))
    assert "report.schema.json" in wrong(report(lambda d: d | {"tests": [{"metadata": {"envequiv": {"pair": {}}}}]}))
    whole = report()
    whole.write_text(whole.read_text()[:300])
    assert "was cut off" in wrong(whole)
    whole.write_bytes(b"\xff\xfe\x00")
    assert "is no JSON report" in wrong(whole)
    assert "No such file" in wrong(tmp_path / "nothing.json")


def test_the_toy_judge_of_the_other_tests_is_asked_as_this_one_is():
    asked = inspect.signature(judged).parameters
    assert list(inspect.signature(toy_judge.judged).parameters) == list(asked)
