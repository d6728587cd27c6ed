"""What a run leaves and shows, with a made-up judge: reports, replays, exports, proposals, progress."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from test_plugin import IDS, ids_of, outcomes, said

from pytest_envequiv.verdict import DIFFERENT

pytest_plugins = "pytester"
pytestmark = pytest.mark.usefixtures("fake_judge")

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE.parent / "docs" / "report.schema.json").read_text())


# --- reports ---------------------------------------------------------------------------------------------------------


def validated(path: Path) -> dict:
    """The JSON report, once it was checked against the schema."""
    jsonschema = pytest.importorskip("jsonschema")
    report = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the report"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(report, SCHEMA)
    return report


@pytest.mark.parametrize("target", ["equal", "bounce", "unsure", "exit-velocity", "exit-opening", "raise-velocity"])
def test_json_report_is_as_the_schema_says(run, pytester, target):
    run(f"--envequiv ref=A target={target} --json-report --json-report-file=r.json")
    report = validated(pytester.path / "r.json")
    assert all("envequiv" in test["metadata"] for test in report["tests"])


def test_json_report_holds_the_evidence(run, pytester):
    run("--envequiv ref=A target=bounce --json-report --json-report-file=r.json")
    report = validated(pytester.path / "r.json")
    tests = {test["nodeid"]: test["metadata"]["envequiv"] for test in report["tests"]}
    found = tests["envequiv::L2-boundary-velocity"]
    assert found["word"] == DIFFERENT
    assert found["divergence"]["actual"] == -0.07
    assert found["evidence"]["nan"] == "nan"
    assert found["evidence"]["state"] == 2**100
    assert found["replay"] == "pytest --envequiv-replay .envequiv/wall.json"
    assert tests["envequiv::L2-boundary-position"]["follows"] == "L2-boundary-velocity"
    pair = report["envequiv"]["pairs"][0]
    assert pair["word"] == report["envequiv"]["word"] == DIFFERENT
    assert pair["roots"] == ["L2-boundary-velocity"]
    assert pair["describe"]["ref"]["versions"] == {"fake": "1.0"}
    assert pair["levels"]["L2"]["transitions"] == 2000


def test_json_report_counts_inconclusive(run, pytester):
    run("--envequiv ref=A target=unsure -k boundary --json-report --json-report-file=r.json")
    report = validated(pytester.path / "r.json")
    assert report["summary"]["inconclusive"] == 2
    assert not report["envequiv"]["pairs"][0]["complete"]


def test_junit_properties(run, pytester):
    run("--envequiv ref=A target=bounce --junitxml=j.xml")
    cases = {case.get("name"): case for case in ElementTree.parse(pytester.path / "j.xml").iter("testcase")}
    assert list(cases) == IDS
    found = {p.get("name"): p.get("value") for p in cases["L2-boundary-velocity"].iter("property")}
    assert found["envequiv.word"] == "DIFFERENT"
    assert json.loads(found["envequiv.divergence"])["expected"] == 0.0
    assert cases["L2-boundary-velocity"].find("failure").get("message").startswith("Failed: DIFFERENT: velocity")


def test_report_log(run, pytester):
    pytest.importorskip("pytest_reportlog")
    run("--envequiv ref=A target=bounce --report-log=l.jsonl")
    assert "wall.json" in (pytester.path / "l.jsonl").read_text()


def test_a_verdict_needs_no_other_plugin(run):
    assert outcomes(run("--envequiv ref=A target=bounce -p no:json-report -p no:xdist -p no:cacheprovider"))[0] == 1


# --- xdist -----------------------------------------------------------------------------------------------------------


def test_xdist(run, pytester):
    result = run("--envequiv ref=A target=bounce -n 2 --json-report --json-report-file=r.json --junitxml=j.xml")
    assert outcomes(result) == (1, "2 failed, 2 passed")
    result.stdout.fnmatch_lines(["DIFFERENT overall: 2 EQUAL, 2 DIFFERENT"])
    assert validated(pytester.path / "r.json")["envequiv"]["pairs"][0]["complete"]
    assert len(ElementTree.parse(pytester.path / "j.xml").findall(".//testcase")) == 4


def test_xdist_crash_and_inconclusive(run):
    result = run("--envequiv ref=exit-reward target=exit-velocity -n 2")
    assert outcomes(result) == (1, "1 failed, 2 passed, 1 inconclusive")


def test_xdist_with_a_node_id(run):
    assert outcomes(run("--envequiv ref=A target=equal -n 2 envequiv::L2-boundary-velocity")) == (0, "1 passed")


# --- replay, export, propose -----------------------------------------------------------------------------------------


def test_replay_fails_for_as_long_as_it_diverges(run, pytester):
    run("--envequiv ref=A target=bounce")
    result = run("--envequiv-replay .envequiv/wall.json -v")
    assert ids_of(result) == {"replay-wall": "FAILED"}
    result.stdout.fnmatch_lines(["DIFFERENT: velocity: expected 0.0, actual -0.07"])
    (pytester.path / "wall.json").write_text('{"envequiv": 1, "still": false}')
    assert outcomes(run("--envequiv-replay wall.json --json-report --json-report-file=r.json")) == (0, "1 passed")
    assert validated(pytester.path / "r.json")["envequiv"]["pairs"][0]["ref"] is None


@pytest.mark.parametrize("text", ['{"envequiv": 1, "sti', "nothing", "[]", ""])
def test_replay_of_what_is_no_counterexample(run, pytester, text):
    (pytester.path / "x.json").write_text(text)
    result = run("--envequiv-replay x.json")
    assert result.ret == 1
    assert "x.json is no counterexample: " in said(result)
    assert "Traceback" not in said(result)


def test_export(run, pytester):
    (pytester.path / "wall.json").write_text('{"envequiv": 1, "still": true}')
    result = run("--envequiv-replay wall.json --envequiv-export test_wall.py")
    assert "note: wall.json exported as test_wall.py" in said(result)
    assert "def test_wall" in (pytester.path / "test_wall.py").read_text()


def test_propose(run, pytester):
    result = run("--envequiv ref=A target=equal --envequiv-propose map.toml")
    assert outcomes(result) == (0, "1 passed")
    assert "the field map is in map.toml" in said(result)
    assert (pytester.path / "map.toml").read_text() == '[fields]\nposition = "x"\n'
    result = run("--envequiv ref=A target=refuse-opening --envequiv-propose other.toml")
    assert result.ret == 1
    assert "CartPol-v1 does not open" in said(result)


# --- progress --------------------------------------------------------------------------------------------------------


def screen(raw: str) -> str:
    """What a terminal shows in the end, for the few sequences that are used here."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", raw):
        line = lines[-1]
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = line[:column]
        elif part.startswith("\x1b"):
            column -= int(part[2:-1]) if part.endswith("D") else 0
        else:
            lines[-1] = line[:column].ljust(column) + part + line[column + len(part) :]
            column += len(part)
    return "\n".join(line.rstrip() for line in lines)


def test_progress_is_shown_on_a_terminal_and_leaves_no_trace(pytester):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", "--envequiv", "ref=A", "target=slow", "-v", "-k", "vel"]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    raw = b""
    try:
        while chunk := os.read(ours, 4096):
            raw += chunk
    except OSError:  # what Linux says when the other end closes
        pass
    assert child.wait() == 0
    os.close(ours)
    text = raw.decode()
    assert "envequiv: opening target slow" in text
    assert "L2-boundary-velocity: comparing 5/8" in text
    shown = screen(text)
    assert "comparing" not in shown
    assert "opening" not in shown
    assert re.search(r"^envequiv::L2-boundary-velocity PASSED +\[100%\]$", shown, re.MULTILINE)
    assert re.search(r"^collected 4 items / 3 deselected / 1 selected$", shown, re.MULTILINE)


def test_progress_is_not_shown_elsewhere(run):
    assert "comparing" not in said(run("--envequiv ref=A target=equal --color=yes -s"))
