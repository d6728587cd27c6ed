"""What a model may do, and that it can do nothing else."""

from __future__ import annotations

import pytest
from desk import DIVERGENCE, finding, use

from repair_agent import apart, journal
from repair_agent.budget import Exhausted, Limits
from repair_agent.findings import Run
from repair_agent.model import tools, wording
from repair_agent.model.tools import DEFINITIONS, Tools


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
    monkeypatch.setattr(apart, "process", never)
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
