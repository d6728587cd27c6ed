"""What a model may do, and that it can do nothing else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from pytest_envequiv.counterexample import Counterexample, save
from pytest_envequiv.verdict import Check
from repair_agent import journal
from repair_agent.budget import Budget, Exhausted, Limits
from repair_agent.case import Case
from repair_agent.groups import Group
from repair_agent.journal import Journal
from repair_agent.model import aside, editor, tools, wording
from repair_agent.model.editor import Files, Refused
from repair_agent.model.evaluate import relevant
from repair_agent.model.tools import DEFINITIONS, EDITOR, Tools
from repair_agent.prices import table
from repair_agent.suite import Finding, Question, Run
from repair_agent.tree.worktree import Worktree

HANDWRITTEN = Path(__file__).parents[2] / "examples" / "handwritten"
TEXT = "def a():\n    return 1\n\n\ndef b():\n    return 1\n"


def finding(check: str, word: str = "DIFFERENT", **more) -> Finding:
    level, subject, name = check.split("-", 2)
    return Finding(f"envequiv::{check}", check, level, subject, name, word, f"{name} differs", **more)


DIVERGENCE = {
    "field": "speed", "index": [0], "expected": 0.15, "actual": 0.25, "error": 0.1, "tolerance": 1e-6,
    "why": "64 x the spread", "state": {"height": 8.5, "speed": 0.0}, "action": {"action": 1},
    "draws": [{"kind": "uniform", "value": 0.5, "site": "port.py:3"}], "episode": 2, "step": 7, "source": "play",
}  # fmt: skip


@pytest.fixture
def case(tmp_path) -> Case:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "port.py").write_text(TEXT)
    findings = {
        f.check: f
        for f in (
            finding("L2-play-speed", divergence=DIVERGENCE, counterexample=str(tmp_path / "speed.json")),
            finding("L2-boundary-speed", follows="L2-play-speed"),
            finding("L2-play-height", "EQUAL"),
            finding("L1-opens-target", "EQUAL"),
        )
    }
    return Case(
        question=Question("reference", "port"),
        tree=Worktree(root, root, "branch", "base", ("port.py", "crate/**/*.rs"), tmp_path),
        group=Group("L2 speed", "L2", "speed", ("L2-play-speed",), ("L2-boundary-speed",)),
        run=Run(findings, tuple(findings)),
        budget=Budget(Limits(), table()),
        journal=Journal(tmp_path / "journal.jsonl"),
    )


def use(name: str, **asked) -> dict:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": asked}


def edit(case: Case, command: str, path: str = "port.py", **asked) -> tuple[str, bool]:
    answer = Tools(case).answer(use(EDITOR, command=command, path=path, **asked))
    return answer["content"], "is_error" in answer


def source(case: Case) -> str:
    return (case.tree.root / "port.py").read_text()


# -- the editor ------------------------------------------------------------------------------------------------------


def test_a_view_has_numbered_lines(case):
    assert edit(case, "view")[0].splitlines()[1] == "2\t    return 1"
    assert edit(case, "view", view_range=[5, -1]) == ("5\tdef b():\n6\t    return 1", False)


@pytest.mark.parametrize("span", [[0, 2], [3, 2], [9, 9], [1], "1-2", [1, True]])
def test_a_range_that_does_not_fit_is_told(case, span):
    text, wrong = edit(case, "view", view_range=span)
    assert wrong and "view_range" in text


def test_a_long_view_is_cut_at_a_line(case):
    (case.tree.root / "port.py").write_text("x = 1  # a line\n" * 5000)
    text, _ = edit(case, "view")
    assert len(text) <= editor.LONGEST + 100
    assert text.endswith("(port.py has 5000 lines: view the rest with view_range)")


def test_an_edit_is_made_and_shown(case):
    text, wrong = edit(case, "str_replace", old_str="def b():\n    return 1", new_str="def b():\n    return 2\n# end")
    assert source(case) == TEXT[:-9] + "return 2\n# end\n"
    assert "6\t    return 2" in text and not wrong


def test_an_edit_that_matches_nowhere_shows_the_nearest_lines(case):
    text, wrong = edit(case, "str_replace", old_str="def bb():\n    return 1\n", new_str="x")
    assert wrong
    assert "the lines that come nearest" in text
    assert "5\tdef b():\n6\t    return 1" in text
    assert source(case) == TEXT


def test_an_edit_that_is_only_indented_otherwise_says_so(case):
    text, wrong = edit(case, "str_replace", old_str="def b():\n  return  1", new_str="x")
    assert wrong
    assert "differ from it only in white space:\n\n5\tdef b():" in text


def test_an_edit_like_nothing_says_so(case):
    assert "nor does anything like it" in edit(case, "str_replace", old_str="zzzzzzzz(qqqqqqqqqqq)", new_str="")[0]


def test_an_edit_that_matches_twice_says_where(case):
    text, wrong = edit(case, "str_replace", old_str="    return 1", new_str="    return 2")
    assert wrong
    assert "occurs 2 times in port.py, at lines 2, 6" in text
    assert source(case) == TEXT


def test_line_ends_of_windows_stay(case):
    (case.tree.root / "port.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    edit(case, "str_replace", old_str="a = 1", new_str="a = 3")
    assert (case.tree.root / "port.py").read_bytes() == b"a = 3\r\nb = 2\r\n"


@pytest.mark.parametrize(
    "line, text, lines", [(0, "x\n", "x def"), (2, "x", "return x"), (6, "x", "return x"), (6, "x\n", "return x")]
)
def test_inserting_keeps_every_line_whole(case, line, text, lines):
    edit(case, "insert", insert_line=line, insert_text=text)
    found = source(case).splitlines()
    assert found[line] == "x"
    assert [*found[:line], *found[line + 1 :]] == TEXT.splitlines()
    assert lines.split()[0] in (found[line - 1] if line else found[0]) + " x"


def test_a_file_without_a_last_newline_can_be_added_to(case):
    (case.tree.root / "port.py").write_text("a = 1")
    edit(case, "insert", insert_line=1, insert_text="b = 2")
    assert source(case) == "a = 1\nb = 2"


@pytest.mark.parametrize("line", [-1, 7, "1", None, True])
def test_inserting_nowhere_is_told(case, line):
    assert edit(case, "insert", insert_line=line, insert_text="x")[1]


def test_creating_replaces_the_whole_file(case):
    assert edit(case, "create", file_text="a = 1\n") == ("port.py was replaced: 1 lines.", False)
    assert (
        edit(case, "create", "crate/src/lib.rs", file_text="fn a() {}\n")[0] == "crate/src/lib.rs was created: 1 lines."
    )
    assert (case.tree.root / "crate/src/lib.rs").is_file()


@pytest.mark.parametrize(
    "path",
    [
        "other.py",
        "../tree2/port.py",
        "sub/../../outside.py",
        "/etc/passwd",
        "port.py/../conftest.py",
        "crate/src/test_lib.py",
        "link.py",
        "folder/port.py",
        "crate/inside/lib.rs",
        "",
        ".",
        "a\0b",
    ],
)
def test_nothing_else_is_written(case, tmp_path, path):
    root = case.tree.root
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "port.py").write_text("kept")
    (outside / "lib.rs").write_text("kept")
    (root / "link.py").symlink_to(root / "port.py")
    (root / "folder").symlink_to(outside)
    (root / "crate").mkdir()
    (root / "crate/inside").symlink_to(outside)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "journal.jsonl"}
    text, wrong = edit(case, "create", path, file_text="taken over")
    assert wrong
    assert "not among the files that may change" in text
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "journal.jsonl"}
    assert after == before


def test_a_listed_file_that_became_a_link_is_not_followed(case, tmp_path):
    (tmp_path / "secret").write_text("kept")
    (case.tree.root / "port.py").unlink()
    (case.tree.root / "port.py").symlink_to(tmp_path / "secret")
    assert edit(case, "create", file_text="x")[1]
    assert edit(case, "view")[1]
    assert (tmp_path / "secret").read_text() == "kept"


def test_tests_may_never_change_even_if_they_are_listed(tmp_path):
    files = Files(tmp_path, ("**/*.py",))
    for name in ("conftest.py", "a/test_x.py"):
        with pytest.raises(Refused):
            files.to_write(name)
    assert files.to_write("a/x.py") == tmp_path / "a/x.py"


def test_what_may_be_read_may_not_be_changed(case, tmp_path):
    (tmp_path / "cartpole.py").write_text("a = 1\n")
    desk = Tools(case, {"reference/cartpole.py": tmp_path / "cartpole.py"})
    assert desk.answer(use(EDITOR, command="view", path="reference/cartpole.py"))["content"] == "1\ta = 1"
    refused = desk.answer(use(EDITOR, command="create", path="reference/cartpole.py", file_text=""))
    assert refused["is_error"] and "may only be viewed" in refused["content"]
    assert "reference/cartpole.py (to read)" in desk.answer(use(EDITOR, command="view", path="/"))["content"]
    assert not desk.changed


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"command": "view"},
        {"command": 3, "path": "port.py"},
        {"command": "undo_edit", "path": "port.py"},
        {"command": "create", "path": "port.py"},
        {"command": "create", "path": "port.py", "file_text": None},
        {"command": "str_replace", "path": "port.py", "old_str": "", "new_str": "x"},
        {"command": "str_replace", "path": "port.py", "old_str": "def a", "new_str": "def a"},
        {"command": "insert", "path": "port.py", "insert_line": 1},
    ],
)
def test_a_malformed_use_is_answered_with_what_was_wrong(case, asked):
    answer = Tools(case).answer(use(EDITOR, **asked))
    assert answer["is_error"] and answer["content"]
    assert source(case) == TEXT


# -- the other tools -------------------------------------------------------------------------------------------------


def test_every_schema_is_strict():
    for tool in DEFINITIONS[1:]:
        schema = tool["input_schema"]
        assert tool["strict"] and schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])


@pytest.mark.parametrize("name", ["shell", "bash", "", "_check"])
def test_an_unknown_tool_is_answered(case, name):
    answer = Tools(case).answer(use(name))
    assert answer["is_error"]
    assert "there is no tool" in answer["content"]


@pytest.mark.parametrize(
    "used",
    [
        use("check"),
        use("check", what=3),
        use("evaluate", state="", action="", seed="1"),
        use("evaluate", state="{", action="", seed=1),
        use("evaluate", state="[1]", action="", seed=1),
        use("evaluate", state=None, action="", seed=-1),
        use("replay", counterexample="none of them"),
        use("give_up"),
    ],
)
def test_malformed_inputs_are_answered_and_nothing_is_run(case, used):
    answer = Tools(case).answer(used)
    assert answer["is_error"] and answer["tool_use_id"] == "toolu_1"


def test_an_input_that_is_not_json_is_answered_with_itself(case):
    answer = Tools(case).answer(use("check"), '{"what": "L')
    assert answer["is_error"]
    assert '{"what": "L' in answer["content"]


@pytest.mark.parametrize(
    "what, checks",
    [
        ("group", ("L2-play-speed",)),
        ("speed", ("L2-play-speed", "L2-boundary-speed")),
        ("L2-play-height", ("L2-play-height",)),
        ("l1", ("L1",)),
    ],
)
def test_a_check_is_asked_for_by_level_field_or_id(case, monkeypatch, what, checks):
    asked = []

    def judged(question, root, checks, seconds):
        asked.append((root, checks))
        return case.run

    monkeypatch.setattr(tools.suite, "judged", judged)
    text = Tools(case).answer(use("check", what=what))["content"]
    assert asked == [(case.tree.root, checks)]
    assert "EQUAL" in text


def test_a_check_that_is_not_there_is_told_with_the_nearest(case):
    answer = Tools(case).answer(use("check", what="sped"))
    assert answer["is_error"]
    assert "did you mean speed" in answer["content"]


def test_results_are_short_and_have_what_is_needed(case):
    text = wording.results(case.run, case.run.expected)
    assert text == (
        "2 of 4 checks are EQUAL.\n"
        "L2-play-speed: DIFFERENT: speed differs\n"
        "  field         speed[0]\n"
        "  state before  height = 8.5, speed = 0.0\n"
        "  action        action = 1\n"
        "  draws         uniform = 0.5 at port.py:3\n"
        "  expected      0.15\n"
        "  actual        0.25\n"
        "  distance      error 0.1, tolerance 1e-06 (64 x the spread)\n"
        "  met           episode 2, step 7, by play\n"
        "L2-boundary-speed: DIFFERENT, follows L2-play-speed: speed differs\n"
        "EQUAL: L2-play-height, L1-opens-target"
    )


def test_the_same_inputs_are_shown_once():
    found = [finding(f"L2-{s}-speed", divergence=DIVERGENCE) for s in ("play", "boundary")]
    found += [finding("L2-limit-speed", divergence={**DIVERGENCE, "state": {"height": 1.0}})]
    run = Run({f.check: f for f in found}, tuple(f.check for f in found))
    text = wording.results(run, run.expected)
    assert text.count("state before") == 2
    assert "L2-boundary-speed: DIFFERENT: speed differs\nL2-limit-speed" in text


def test_what_differs_from_run_to_run_is_left_out(tmp_path):
    text = f"{tmp_path}/port.py:3 <object at 0x7f3a5c0b1d90> in {tmp_path}"
    assert wording.portable(text, tmp_path) == "port.py:3 <object at 0x...> in ."


def test_a_suite_that_does_not_run_says_why():
    assert wording.results(Run({}, (), trouble="exit 3"), ["a"]) == "The suite did not run: exit 3"


def test_every_answer_is_bounded(case, monkeypatch):
    many = {f"L2-play-f{n}": finding(f"L2-play-f{n}", divergence=DIVERGENCE) for n in range(900)}
    run = Run(many, tuple(many))
    monkeypatch.setattr(tools.suite, "judged", lambda *_, **__: run)
    content = Tools(case).answer(use("check", what="L2"))["content"]
    assert len(content) <= tools.LONGEST + 60
    assert "characters are left out" in content


def test_giving_up_is_noted(case):
    desk = Tools(case)
    assert desk.answer(use("give_up", reason="the field is not in these files"))["content"] == "Noted."
    assert desk.gave_up == "the field is not in these files"


@pytest.mark.parametrize(
    "used",
    [
        use("check", what="group"),
        use("evaluate", state="", action="", seed=1),
        use("replay", counterexample="L2-play-speed"),
        use("compile_check"),
    ],
)
def test_nothing_is_run_while_the_files_hold_what_is_forbidden(case, monkeypatch, used):
    def never(*_, **__):
        raise AssertionError("it was run")

    monkeypatch.setattr(tools.suite, "judged", never)
    monkeypatch.setattr(aside, "process", never)
    answer = Tools(case, {}, lambda _: "port.py imports os").answer(used)
    assert answer["is_error"]
    assert answer["content"] == "the target is not run: port.py imports os"


def test_no_tool_is_used_when_the_time_is_over(case):
    case.budget.limits = Limits(seconds=0.0)
    with pytest.raises(Exhausted):
        Tools(case).answer(use("give_up", reason="x"))


def test_what_was_asked_and_answered_is_in_the_journal(case, tmp_path):
    Tools(case).answer(use("give_up", reason="x"))
    (event,) = journal.read(tmp_path / "journal.jsonl")
    assert (event["name"], event["content"], event["wrong"]) == ("give_up", "Noted.", False)


# -- processes -------------------------------------------------------------------------------------------------------


def test_a_process_that_takes_too_long_is_gone_with_its_children(tmp_path):
    script = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    began = time.monotonic()
    code, out, _ = aside.process([sys.executable, "-c", script], tmp_path, os.environ, "", 2.0)
    assert code is None
    assert time.monotonic() - began < 20
    child = Path(f"/proc/{int(out)}/status")
    for _ in range(50):
        if not child.exists() or "State:\tZ" in child.read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child lives on")


def test_keys_are_not_handed_on():
    given = {
        "ANTHROPIC_API_KEY": "1",
        "MY_SECRET": "2",
        "GITHUB_AUTH_TOKEN": "3",
        "PATH": "4",
        "ANTHROPIC_PROFILE": "5",
    }
    assert aside.clean(given) == {"PATH": "4"}


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Path:
    """A folder with a reference and its ports, as a user has them."""
    root = tmp_path_factory.mktemp("probe")
    for name in ("reference.py", "port.py", "buggy.py"):
        shutil.copy(HANDWRITTEN / name, root / name)
    (root / "broken.py").write_text("import jax.numpy as jnp\n\n\ndef reset(key):\n    return jnp.zeros(3) + nothing\n")
    return root


def on(probe: Path, target: str, case: Case) -> Tools:
    tree = Worktree(probe, probe, "branch", "base", (f"{target}.py",), probe)
    return Tools(Case(Question("reference", target), tree, case.group, case.run, case.budget, case.journal))


def test_one_transition_of_both_sides(probe, case):
    used = use("evaluate", state='{"height": 0.05, "speed": -0.2, "fuel": 3}', action="1", seed=3)
    text = on(probe, "port", case).answer(used)["content"]
    assert "state before  height = 0.05, speed = -0.2, fuel = 3, steps = 0" in text
    assert "DIFFERENT" not in text
    lines = {line.split()[0]: line for line in text.splitlines()[2:]}
    assert "expected True, actual True" in lines["terminated"]


def test_a_field_that_is_not_there_is_told(probe, case):
    answer = on(probe, "port", case).answer(use("evaluate", state='{"hight": 1}', action="1", seed=3))
    assert "there is no state 'hight': the reference has height, speed, fuel, steps" in answer["content"]


def test_what_a_broken_target_raises_is_told_with_its_line(probe, case):
    text = on(probe, "broken", case).answer(use("compile_check"))["content"]
    assert "It failed:" in text
    assert str(probe) not in text


def test_a_target_that_works_is_said_to_work(probe, case):
    text = on(probe, "port", case).answer(use("compile_check"))["content"]
    assert text.splitlines()[0] == "It opens (plain), resets and steps; it can be traced."
    assert "speed = 'float32[]'" in text


@pytest.mark.parametrize("target, word", [("port", "EQUAL"), ("buggy", "DIFFERENT")])
def test_a_counterexample_is_tried_again_on_the_files_as_they_are(probe, case, tmp_path, target, word):
    path = {"seed": 3, "actions": {"action": {"dtype": "int64", "value": [1] * 60}}, "draw_seeds": list(range(60))}
    check = Check("L2-play-truncated", "L2", "play", "truncated")
    save(Counterexample("reference", target, check, "", None, path, {}, {}), tmp_path / "speed.json")
    text = on(probe, target, case).answer(use("replay", counterexample="L2-play-speed"))["content"]
    assert text.startswith(f"L2-play-speed: {word}")
    assert ("expected" in text) is (word == "DIFFERENT")


def test_where_a_side_is_written(probe):
    told = aside.ask(Question("reference", "port"), probe, {"what": "source", "name": "reference"})
    (file,) = told["files"]
    assert Path(file["path"]).name == "reference.py"
    assert "def step" in file["text"]


def test_what_decides_no_step_is_left_out_of_a_source():
    text = '''"""About the module."""

import math

G = 9.8


class Env:
    def step(self):
        return G

    def render(self):
        draw()


class VectorEnv:
    def step(self):
        return 2


def _render_all():
    draw()
'''
    assert relevant(text, "Env") == "import math\nG = 9.8\nclass Env:\n    def step(self):\n        return G\n"
    assert "VectorEnv" in relevant(text, None)
    assert relevant("not python", None) == "not python"


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_rust_is_checked_by_cargo(case):
    root = case.tree.root
    (root / "crate/src").mkdir(parents=True)
    (root / "crate/Cargo.toml").write_text('[package]\nname = "port"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "crate/src/lib.rs").write_text("pub fn a() -> u32 { 1 }\n")
    tree = Worktree(root, root, "branch", "base", ("crate/src/lib.rs",), root)
    desk = Tools(Case(case.question, tree, case.group, case.run, case.budget, case.journal))
    assert desk.answer(use("compile_check"))["content"] == "cargo check: no errors."
    (root / "crate/src/lib.rs").write_text('pub fn a() -> u32 { "1" }\n')
    text = desk.answer(use("compile_check"))["content"]
    assert "src/lib.rs:1:21: error[E0308]: mismatched types" in text
    assert sorted(p.name for p in (root / "crate").iterdir()) == ["Cargo.toml", "src"]
