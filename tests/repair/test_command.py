"""Another agent's command in the worktree: its time, its end, what it leaves, and what is told of it."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest

from repair_agent import journal
from repair_agent.budget import Budget, Exhausted, Limits
from repair_agent.case import Case
from repair_agent.command import Command
from repair_agent.findings import Run
from repair_agent.groups import Group
from repair_agent.journal import Journal
from repair_agent.model.prompt import Material
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.tree import worktree

QUESTION = Question("reference", "port")
MATERIAL = Material(QUESTION, ("port.py",))


@pytest.fixture
def case(tmp_path) -> Case:
    home = tmp_path / "home"
    home.mkdir()
    (home / "port.py").write_text("x = 1\n")
    worktree.git(home, "init", "--quiet")
    worktree.git(home, "add", "--all")
    worktree.git(home, "commit", "--quiet", "--message", "begun")
    tree = worktree.open_worktree(home, ["port.py"], "test", tmp_path / "trees")
    return Case(
        question=QUESTION,
        tree=tree,
        group=Group("L2 x", "L2", "x", ("L2-play-x",)),
        run=Run({}, (), trouble="it does not open"),
        budget=Budget(Limits(), table()),
        journal=Journal(tmp_path / "records" / "journal.jsonl"),
    )


def python(script: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {{prompt_file}}"


def test_it_works_in_the_tree_with_the_prompt_in_a_file(case):
    script = (
        "import sys, os; t = open(sys.argv[1]).read(); open('port.py', 'a').write(f'y = {len(t)}\\n'); print('hello')"
    )
    attempt = Command(python(script), MATERIAL).attempt(case)
    assert attempt.changed
    assert attempt.why.endswith("ended with exit code 0 and changed files; what it cost is not known")
    assert (case.tree.root / "port.py").read_text().startswith("x = 1\ny = ")
    folder = case.journal.path.parent / "command"
    assert (folder / "output-1.txt").read_text() == "hello\n"
    text = (folder / "prompt-1.md").read_text()
    assert "The suite does not open the pair: it does not open" in text
    assert "pytest --envequiv ref=reference target=port" in text
    (event,) = journal.read(case.journal.path)
    assert (event["kind"], event["exit"], event["cost"]) == ("command", 0, "not known")


def test_nothing_changed_is_told(case):
    attempt = Command(python("raise SystemExit(3)"), MATERIAL).attempt(case)
    assert not attempt.changed
    assert "ended with exit code 3 and changed nothing" in attempt.why


def test_a_change_outside_the_list_is_a_change(case):
    """The gate refuses it; it must not go unseen."""
    assert Command(python("open('conftest.py', 'w')"), MATERIAL).attempt(case).changed


def test_what_it_commits_itself_is_seen_too(case):
    script = (
        "import subprocess; open('port.py', 'w').write('x = 2'); subprocess.run('git commit -qam mine', shell=True)"
    )
    assert Command(python(script), MATERIAL).attempt(case).changed


def test_one_that_takes_too_long_is_gone_with_its_children(case, tmp_path):
    note = tmp_path / "pid"
    script = f"""
import subprocess, time
child = subprocess.Popen(["sleep", "60"])
open({str(note)!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    attempt = Command(python(script), MATERIAL, seconds=2.0).attempt(case)
    assert "was ended after 2 s and changed nothing" in attempt.why
    child = Path(f"/proc/{note.read_text()}/status")
    for _ in range(50):
        if not child.exists() or "State:\tZ" in child.read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_it_has_no_more_time_than_is_left(case):
    case.budget.limits = Limits(seconds=case.budget.spent.seconds + 1.0)
    with pytest.raises(Exhausted, match="time"):
        Command(python("import time; time.sleep(60)"), MATERIAL).attempt(case)


def test_each_attempt_has_its_own_files(case):
    engine = Command(python("print(1)"), MATERIAL)
    engine.attempt(case)
    engine.attempt(case)
    names = sorted(p.name for p in (case.journal.path.parent / "command").iterdir())
    assert names == ["output-1.txt", "output-2.txt", "prompt-1.md", "prompt-2.md"]


@pytest.mark.parametrize("command", ["", "agent", "agent --file prompt.md"])
def test_a_command_without_a_place_for_the_prompt_is_refused(command):
    with pytest.raises(ValueError, match=r"it must hold \{prompt_file\}"):
        Command(command)


def test_a_command_that_is_not_there_is_an_error(case):
    with pytest.raises(OSError):
        Command("no-such-agent-anywhere {prompt_file}", MATERIAL).attempt(case)
