"""What a model is told: everything that is known, the most stable first, and the same words every time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repair_agent import stub
from repair_agent.budget import Budget, Limits
from repair_agent.case import Case
from repair_agent.findings import Finding, Run
from repair_agent.groups import Group
from repair_agent.journal import Journal
from repair_agent.model import prompt
from repair_agent.model.prompt import Material, fenced, filled, first_message, gathered, parts, system_prompt, whole
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.tree.worktree import Worktree

QUESTION = Question("gymnasium:Probe-v0", "port")
PORT = "".join(f"line_{n} = {n}\n" for n in range(1, 301))


def divergence(x: float) -> dict:
    return {
        "field": "speed", "index": [0], "expected": 1.5, "actual": 2.5, "error": 1.0, "tolerance": 1e-6, "why": "64x",
        "state": {"x": x}, "action": {"action": 1}, "draws": [], "episode": 1, "step": 2, "source": "play",
    }  # fmt: skip


def finding(subject: str, word: str = "DIFFERENT", field: str = "speed", **more) -> Finding:
    check = f"L2-{subject}-{field}"
    return Finding(f"envequiv::{check}", check, "L2", subject, field, word, f"{field} differs", **more)


@pytest.fixture
def case(tmp_path) -> Case:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "port.py").write_text(PORT)
    blame = ({"file": "/somewhere/port.py", "line": 200, "code": "line_200 = 200", "score": 1.0, "why": "200 -> 2"},)
    found = [
        finding("play", divergence=divergence(1.0), blame=blame),
        finding("boundary", divergence=divergence(1.0)),  # the same transition again
        finding("pairs", divergence=divergence(2.0)),
        finding("limit", divergence=divergence(3.0)),
        finding("coverage", divergence=divergence(4.0)),
        finding("play", "EQUAL", "height"),
        finding("lockstep", follows="L2-play-speed", field="x"),
    ]
    describe = {
        "dataflow": {"order": ["speed", "height"], "reads": {"speed": ["state.speed", "action.action"]}},
        "map": {"speed": "velocity", "steps": "clock"},
        "draws": "reset: tape; step: none needed",
    }
    run = Run({f.check: f for f in found}, tuple(f.check for f in found), ("speed", "height"), describe)
    group = Group("L2 speed", "L2", "speed", tuple(f.check for f in found[:5]), ("L2-lockstep-x",))
    return Case(
        question=QUESTION,
        tree=Worktree(root, root, "branch", "base", ("port.py",), tmp_path),
        group=group,
        run=run,
        budget=Budget(Limits(dollars=2.0, seconds=60.0), table()),
        journal=Journal(tmp_path / "journal.jsonl"),
        tries=1,
        history=("model: halved it; refused: L2-play-height regressed",),
    )


def material(**more) -> Material:
    return Material(QUESTION, ("port.py",), **more)


# -- the template ----------------------------------------------------------------------------------------------------


def test_the_template_has_a_part_for_each_workflow_and_each_target():
    found = parts()
    assert set(found) == {
        "system", "material", "group",
        *(f"task {workflow}" for workflow in prompt.WORKFLOWS),
        *(f"target {kind}" for kind in ("jax", "rust", "other")),
    }  # fmt: skip
    assert set(stub.WORKFLOWS) < set(prompt.WORKFLOWS)


@pytest.mark.parametrize("workflow", prompt.WORKFLOWS)
@pytest.mark.parametrize("kind", ["jax", "rust", "other"])
def test_every_system_prompt_is_whole(workflow, kind):
    text = system_prompt(material(workflow=workflow, kind=kind))
    assert not re.search(r"\{\{|\}\}|<!--|-->", text)
    assert "gymnasium:Probe-v0" in text and "port.py" in text
    assert not re.search(r"\n{3}", text)


def test_the_template_is_plain_prose():
    text = prompt.TEMPLATE.read_text()
    assert not re.search(r"\b(MUST|NEVER|ALWAYS|IMPORTANT|CRITICAL|please)\b", text)
    assert max(map(len, text.splitlines())) <= 120


def test_a_section_without_a_value_is_left_out():
    text = "a\n\n<!-- with b -->\n# B\n\n{{b}}\n<!-- end -->\n\nc {{c}}\n"
    assert filled(text, {"b": "", "c": "1"}) == "a\n\nc 1\n"
    assert filled(text, {"b": "x\n\n\n{{c}}", "c": "1"}) == "a\n\n# B\n\nx\n\n\n{{c}}\n\nc 1\n"


def test_an_unknown_name_in_the_template_is_an_error():
    with pytest.raises(KeyError):
        filled("{{nobody}}", {})


def test_a_fence_is_longer_than_any_in_the_text():
    assert fenced("a.py", "x = '```'\n") == "a.py:\n````python\nx = '```'\n````"


# -- the system prompt -----------------------------------------------------------------------------------------------


def test_what_is_given_is_in_the_system_prompt():
    text = system_prompt(
        material(
            workflow="verify",
            reference=fenced("reference/probe.py", "the reference"),
            readable={"reference/probe.py": Path("/x/probe.py"), "fast/port.py": Path("/x/port.py")},
            contract="the contract",
            fast="gymnax:Probe",
            fast_source="the fast port",
        )
    )
    for part in ("the reference", "the contract", "the fast port", "gymnax:Probe", "viewed as reference/probe.py."):
        assert part in text
    assert "It is not at hand" not in text
    assert "/x/" not in text


def test_a_reference_that_cannot_be_read_is_said_to_be_unseen():
    assert "It is not at hand. Use `evaluate`" in system_prompt(material())


def test_the_system_prompt_does_not_depend_on_the_group(case):
    assert "L2 speed" not in system_prompt(material())
    assert whole(case, material()).startswith(system_prompt(material()))


@pytest.mark.parametrize(
    "files, target, kind",
    [
        (("port.py",), "port", "jax"),
        (("src/lib.rs", "port.py"), "port", "rust"),
        (("port.mjs",), "process:node port.mjs", "other"),
        (("port.py",), "process:python port.py", "other"),
    ],
)
def test_what_a_target_is_written_in(files, target, kind):
    assert prompt.kind_of(files, target) == kind


# -- the first message -----------------------------------------------------------------------------------------------


def test_the_first_message_has_all_that_is_known_of_the_group(case):
    text = first_message(case, material())
    for part in (
        "200\tline_200 = 200",
        "# To be mended now: L2 speed",
        "only follow, and will probably turn with them: L2-lockstep-x.",
        "blamed        port.py:200  line_200 = 200  (200 -> 2)",
        "speed <- state.speed, action.action\nheight",
        "state speed <- velocity",
        "draws reset: tape; step: none needed",
        "1 of 7 checks are EQUAL. Fields of which all checks are: height.",
        "1. model: halved it; refused: L2-play-height regressed",
        "$2.00 for the whole repair. This is try 2 at this group.",
    ):
        assert part in text, part
    assert not re.search(r"\{\{|<!--", text)


def test_at_most_three_counterexamples_are_shown_and_none_twice(case):
    text = first_message(case, material())
    assert re.findall(r"state before  x = (\S+)", text) == ["1.0", "2.0", "3.0"]
    assert all(check in text for check in case.group.checks)


def test_no_times_and_no_places_are_told(case, tmp_path):
    text = whole(case, material())
    assert str(tmp_path) not in text
    assert "/somewhere" not in text
    assert not re.search(r"\b\d+(\.\d+)? ?s\b", text)


def test_the_volatile_comes_last(case):
    order = [first_message(case, material()).index(part) for part in ("line_1 =", "<- state", "To be mended", "try 2")]
    assert order == sorted(order)


def test_a_pair_that_does_not_open_says_why(case):
    run = Run({}, (), trouble="port.py: SyntaxError")
    broken = Case(
        case.question,
        case.tree,
        Group("the pair opens", "L1", "pair", ("L1-open-pair",)),
        run,
        case.budget,
        case.journal,
    )
    text = first_message(broken, material())
    assert "The suite does not open the pair: port.py: SyntaxError" in text
    assert "What passes" not in text


def test_of_a_very_long_source_what_is_blamed_is_shown(case, monkeypatch):
    monkeypatch.setattr(prompt, "LONGEST_SOURCE", 1000)
    text = first_message(case, material())
    assert "200\tline_200 = 200" in text and "1\tline_1 = 1" in text
    assert "100\tline_100" not in text
    assert "(119 lines: view them with the editor)" in text
    assert "(61 lines: view them with the editor)" in text


def test_an_empty_file_and_one_that_is_missing_are_named(case):
    tree = Worktree(case.tree.root, case.tree.root, "branch", "base", ("port.py", "more.py"), case.tree.origin)
    text = first_message(Case(QUESTION, tree, case.group, case.run, case.budget, case.journal), material())
    assert "more.py: (empty)" in text


# -- gathering -------------------------------------------------------------------------------------------------------


def test_the_material_is_gathered_by_name(tmp_path):
    (tmp_path / "probe.py").write_text(
        "class Env:\n    def reset(self, seed=None, options=None):\n        return 0, {}\n"
    )
    (tmp_path / "port.py").write_text("x = 1\n")
    (tmp_path / "envequiv.toml").write_text("[pair]\ntime_limit = 7\n")
    (tmp_path / "spec.md").write_text("A probe falls.\n")
    found = gathered(
        Question("probe", "port"), tmp_path, ["port.py"], "specification", specification=tmp_path / "spec.md"
    )
    assert found.readable == {"reference/probe.py": tmp_path / "probe.py"}
    assert "def reset" in found.reference
    assert "time_limit = 7" in found.contract
    assert "A probe falls." in system_prompt(found)


def test_an_unknown_workflow_is_told(tmp_path):
    with pytest.raises(ValueError, match="there are repair, translate"):
        gathered(QUESTION, tmp_path, ["port.py"], "invent")
