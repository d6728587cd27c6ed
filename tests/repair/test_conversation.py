"""Conversations with a scripted model: the real client, a real folder, and a suite that says what the files deserve."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from messages_server import Answer, Server, breaks, fails, malformed, refuses, says, thought, use, uses

from repair_agent import journal
from repair_agent.budget import Budget, Exhausted, Limits, Usage
from repair_agent.case import Case
from repair_agent.findings import Finding, Run
from repair_agent.groups import Group
from repair_agent.journal import Journal
from repair_agent.model import conversation, tools
from repair_agent.model.api import Differs, Live, Recorded, Unusable
from repair_agent.model.conversation import Conversation
from repair_agent.model.messages import Options, Reply
from repair_agent.model.prompt import Material, fenced
from repair_agent.model.tools import EDITOR
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.tree import guard, worktree
from repair_agent.tree.worktree import Worktree

ROOT = Path(__file__).parents[2]
BROKEN = "def step(state, action):\n    return state + 2 * action\n"
MENDED = BROKEN.replace("2 * ", "")
EDIT = {"command": "str_replace", "path": "port.py", "old_str": "2 * action", "new_str": "action"}
DIVERGENCE = {
    "field": "x", "index": [], "expected": 1.5, "actual": 2.5, "error": 1.0, "tolerance": 1e-6, "why": "rounding",
    "state": {"x": 0.5}, "action": {"action": 1}, "draws": [], "episode": None, "step": None, "source": "play",
}  # fmt: skip


def suite(root: Path) -> Run:
    right = (root / "port.py").read_text() == MENDED
    told = Finding(
        "envequiv::L2-play-x", "L2-play-x", "L2", "play", "x", "EQUAL" if right else "DIFFERENT", "x", None,
        None if right else DIVERGENCE, ({"file": "port.py", "line": 2, "code": "return", "score": 1.0, "why": "2"},),
    )  # fmt: skip
    return Run({"L2-play-x": told}, ("L2-play-x",), ("x",))


class Place:
    """A folder with a broken port, and a model on a server."""

    def __init__(self, folder: Path, server: Server, limits: Limits | None = None, **options):
        self.root = folder / "tree"
        self.root.mkdir(parents=True)
        (self.root / "port.py").write_text(BROKEN)
        self.path = folder / "journal.jsonl"
        self.lines: list[str] = []
        question = Question("reference", "port")
        self.material = Material(question, ("port.py",), reference=fenced("reference.py", "x = x + action\n" * 200))
        self.case = Case(
            question=question,
            tree=Worktree(self.root, self.root, "branch", "base", ("port.py",), folder),
            group=Group("L2 x", "L2", "x", ("L2-play-x",)),
            run=suite(self.root),
            budget=Budget(limits or Limits(), table()),
            journal=Journal(self.path),
            tell=self.lines.append,
        )
        self.live = Live(Options(**{"wait": 0.0, "longest": 0.0, **options}), server.client())

    def attempt(self, **more):
        return Conversation(self.live, self.material, **more).attempt(self.case)

    @property
    def source(self) -> str:
        return (self.root / "port.py").read_text()


@pytest.fixture
def place(tmp_path, monkeypatch, serving):
    monkeypatch.setattr(tools.suite, "judged", lambda question, root, checks, seconds: suite(root))
    folders = itertools.count(1)

    def begin(script, limits=None, **options) -> Place:
        server = serving(script)
        made = Place(tmp_path / str(next(folders)), server, limits, **options)
        made.server = server
        return made

    return begin


def results(server: Server) -> list[dict]:
    """All tool results of the last request."""
    last = server.requests[-1]["messages"]
    return [b for m in last if m["role"] == "user" for b in m["content"] if b["type"] == "tool_result"]


# -- what should happen ----------------------------------------------------------------------------------------------


def test_a_port_is_mended_in_a_short_conversation(place):
    at = place(
        [
            uses("check", what="group"),
            uses(EDITOR, **EDIT),
            uses("check", what="group"),
            says("The action was counted twice.\nI removed the factor."),
        ]
    )
    attempt = at.attempt()
    assert attempt.changed and not attempt.gave_up
    assert attempt.why == "The action was counted twice. I removed the factor."
    assert at.source == MENDED
    texts = [r["content"] for r in results(at.server)]
    assert [t.splitlines()[0] for t in texts] == [
        "0 of 1 checks are EQUAL.",
        "port.py was changed:",
        "1 of 1 checks are EQUAL.",
    ]
    assert any(line.startswith("L2 x: call 2: editor str_replace; $0.0") for line in at.lines)


def test_several_tools_in_one_answer_are_answered_once_each_in_order(place):
    blocks = [thought(), use("check", what="L2"), use(EDITOR, **EDIT), use("nonsense"), use("check", what="L2")]
    at = place([Answer(blocks, "tool_use"), says("done")])
    at.attempt()
    found = results(at.server)
    assert [r["tool_use_id"] for r in found] == [b["id"] for b in blocks[1:]]
    assert [r.get("is_error", False) for r in found] == [False, False, True, False]


def test_giving_up_says_why(place):
    attempt = place([uses("give_up", reason="It is\nnot in this file.")]).attempt()
    assert (attempt.changed, attempt.gave_up, attempt.why) == (False, True, "gave up: It is not in this file.")


def test_an_answer_without_an_edit_changes_nothing(place):
    attempt = place([says("I see nothing wrong.")]).attempt()
    assert (attempt.changed, attempt.why) == (False, "I see nothing wrong.")


def test_nothing_at_all_is_an_end_too(place):
    assert place([Answer([], "end_turn")]).attempt().why == "ended without an edit or a word"


def test_a_replay_does_the_same_without_the_api(place, tmp_path):
    at = place([uses(EDITOR, **EDIT), fails(529), uses("check", what="group"), breaks("cut"), says("mended")])
    attempt = at.attempt()
    again = place([])
    conversation = Conversation(Recorded(journal.read(at.path)), again.material)
    assert conversation.attempt(again.case) == attempt
    assert again.source == MENDED
    assert again.case.budget.spent.pico == at.case.budget.spent.pico
    assert not again.server.requests


def test_a_replay_on_other_files_says_where_it_differs(place):
    at = place([uses(EDITOR, **EDIT), says("mended")])
    at.attempt()
    again = place([])
    (again.root / "port.py").write_text(BROKEN.replace("2 *", "3 *"))
    with pytest.raises(Differs, match=r"message 1 .user.: .*2 \* action"):
        Conversation(Recorded(journal.read(at.path)), again.material).attempt(again.case)


# -- what may go wrong -----------------------------------------------------------------------------------------------


def test_an_edit_outside_the_list_is_refused_and_told(place, tmp_path):
    at = place([uses(EDITOR, command="create", path="../reference.py", file_text="x"), says("done")])
    attempt = at.attempt()
    assert not attempt.changed
    assert results(at.server)[0]["is_error"]
    assert not list(tmp_path.rglob("reference.py"))


def test_what_is_forbidden_is_edited_but_not_run(place, monkeypatch):
    ran = []
    monkeypatch.setattr(tools.suite, "judged", lambda *a, **k: ran.append(a))
    at = place(
        [uses(EDITOR, command="create", path="port.py", file_text="import os"), uses("check", what="group"), says("x")]
    )
    engine = Conversation(at.live, at.material)
    engine._forbidden = lambda case: "port.py:1 imports os" if "import os" in at.source else ""
    assert engine.attempt(at.case).changed
    assert not ran
    assert results(at.server)[1]["content"] == "the target is not run: port.py:1 imports os"


def test_what_the_gate_would_refuse_is_not_run_either(place, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "reference.py").write_text("def step(state, action):\n    return state + action\n")
    (home / "port.py").write_text(BROKEN)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "begun"]):
        worktree.git(home, *words)
    tree = worktree.open_worktree(home, ["port.py"], "test", tmp_path / "trees")
    cheats = {"import os": "import os\n", "the reference": "import reference\n"}
    steps = []
    for text in cheats.values():
        steps += [uses(EDITOR, command="create", path="port.py", file_text=text), uses("check", what="group")]
    at = place(
        [
            *steps,
            uses(EDITOR, command="create", path="port.py", file_text=MENDED),
            uses("check", what="group"),
            says("x"),
        ]
    )
    at.case = replace(at.case, tree=tree)
    assert at.attempt(before=guard.frozen(at.case.question, tree)).changed
    checks = [r["content"] for r in results(at.server)][1::2]
    assert checks[0].startswith("the target is not run: port.py") and "os" in checks[0]
    assert checks[1].startswith("the target is not run: port.py") and "reference" in checks[1]
    assert checks[2] == "1 of 1 checks are EQUAL."


def test_a_model_that_loops_is_told_and_then_ended(place):
    at = place([uses("check", what="group")] + [uses("check", what="group") for _ in range(20)])
    attempt = at.attempt()
    assert attempt.why == "went round in circles: check, 4 times the same"
    assert len(at.server.requests) == 4
    assert ["This is the same call" in r["content"] for r in results(at.server)] == [False, False, True]


def test_an_edit_that_never_matches_is_a_loop_too(place):
    at = place([uses(EDITOR, command="str_replace", path="port.py", old_str="zz", new_str="y") for _ in range(9)])
    assert at.attempt().why.startswith("went round in circles")


def test_the_same_check_after_each_edit_is_no_loop(place):
    steps = []
    for n in range(5):
        steps += [uses(EDITOR, command="insert", path="port.py", insert_line=0, insert_text=f"# {n}\n")]
        steps += [uses("check", what="group")]
    assert place([*steps, says("done")]).attempt().why == "done"


def test_a_conversation_has_so_many_calls(place):
    at = place(lambda _: uses("check", what=f"no such field {len(at.server.requests)}"))
    assert at.attempt(calls=5).why == "no end after 5 calls"
    assert len(at.server.requests) == 5


def test_a_refusal_ends_the_attempt(place):
    attempt = place([refuses("cyber")]).attempt()
    assert attempt.gave_up
    assert attempt.why == "the model refused: cyber: no"


@pytest.mark.parametrize("text", ['{"what": "L2', '{"what": "L2"}'])
def test_a_tool_use_that_was_cut_off_is_not_run(place, text):
    at = place([malformed("check", text, "max_tokens"), says("done")])
    assert at.attempt().why == "done"
    (result,) = results(at.server)
    assert result["is_error"]
    assert "cut off: the answer was too long" in result["content"]


def test_an_answer_that_was_cut_off_goes_on(place):
    at = place([says("First I", "max_tokens"), says("done")])
    assert at.attempt().why == "done"
    assert at.server.requests[1]["messages"][-1]["content"][0]["text"] == conversation.GO_ON


def test_thinking_that_was_cut_off_is_not_sent_back(place):
    content = [{"type": "text", "text": "So."}, thought()]
    assert conversation._sendable(Reply(content, "max_tokens", Usage())) == content[:1]
    assert conversation._sendable(Reply(content, "end_turn", Usage())) == content
    assert place([Answer([thought()], "max_tokens")]).attempt().why == "the model's answer did not fit max_tokens"


def test_a_paused_turn_goes_on(place):
    assert place([says("wait", "pause_turn"), says("done")]).attempt().why == "done"


def test_a_full_window_ends_the_attempt(place):
    at = place([uses(EDITOR, **EDIT), says("so", "model_context_window_exceeded")])
    attempt = at.attempt()
    assert attempt.changed
    assert "no longer fits" in attempt.why


def test_malformed_input_is_answered_and_the_conversation_goes_on(place):
    at = place([malformed("check", "{what"), malformed(EDITOR, "[]"), uses(EDITOR, **EDIT), says("done")])
    assert at.attempt().changed
    assert [r.get("is_error", False) for r in results(at.server)] == [True, True, False]


def test_an_api_that_keeps_failing_ends_the_attempt(place):
    at = place([uses(EDITOR, **EDIT), *[fails(529, "overloaded_error")] * 3], tries=3)
    attempt = at.attempt()
    assert attempt.changed
    assert attempt.why.startswith("the model did not answer: 3 tries failed, the last one: overloaded_error")


def test_an_api_that_cannot_be_used_is_no_attempt(place):
    with pytest.raises(Unusable):
        place([fails(401, "authentication_error")]).attempt()


def test_a_budget_of_cents_stops_before_it_is_overshot(place):
    at = place(lambda _: uses("evaluate", state="{", action="", seed=len(at.server.requests)), Limits(dollars=0.1))
    with pytest.raises(Exhausted, match="dollars"):
        at.attempt(calls=1000)
    assert 0.05 < at.case.budget.spent.dollars <= 0.1


def test_what_was_edited_before_the_money_was_out_is_put_to_the_gate(place):
    def answer(_):
        number = len(at.server.requests)
        return uses(EDITOR, **EDIT) if number == 1 else uses("replay", counterexample=f"none {number}")

    at = place(answer, Limits(dollars=0.06))
    attempt = at.attempt(calls=1000)
    assert attempt.changed
    assert attempt.why.startswith("edited until a limit came (dollars")
    assert at.case.budget.spent.dollars <= 0.06


def test_when_the_time_is_over_it_is_over(place):
    def answer(_):
        at.case.budget.limits = Limits(seconds=0.0)
        return uses(EDITOR, **EDIT)

    at = place(answer)
    with pytest.raises(Exhausted, match="time"):
        at.attempt()


# -- the cache -------------------------------------------------------------------------------------------------------


def test_after_the_first_call_nearly_all_of_a_prompt_is_read_from_the_cache(place):
    """On the source and the findings of a real pair, with answers as long as models give them."""
    text = (ROOT / "tests/cheats/pole_jax.py").read_text()
    long = "I compare the two along the way of the field. " * 30
    steps = [
        Answer([thought(long), use("check", what="group")], "tool_use"),
        Answer([thought(long), use(EDITOR, command="view", path="port.py", view_range=[1, 60])], "tool_use"),
        Answer([thought(long), use("evaluate", state="{", action="1", seed=1)], "tool_use"),
        Answer(
            [thought(long), use(EDITOR, command="insert", path="port.py", insert_line=0, insert_text="# a\n")],
            "tool_use",
        ),
        Answer([thought(long), use("check", what="group")], "tool_use"),
        Answer([thought(long), use("check", what="L2")], "tool_use"),
        says("done"),
    ]
    at = place([*steps, *steps])
    (at.root / "port.py").write_text(text)
    reference = (ROOT / "tests/cheats/pole.py").read_text() + text + "# " + "The reference's text. " * 300
    at.material = Material(at.case.question, ("port.py",), reference=fenced("reference.py", reference))
    at.attempt()
    first, *rest = at.server.usages
    prompt = sum(u["input_tokens"] + u["cache_creation_input_tokens"] + u["cache_read_input_tokens"] for u in rest)
    missed = sum(u["input_tokens"] + u["cache_creation_input_tokens"] for u in rest)
    print(
        f"first prompt {sum(first.values())} tokens, later ones {prompt / len(rest):.0f}; missed {missed / prompt:.1%}"
    )
    assert missed / prompt <= 0.15
    assert not any(u["input_tokens"] for u in rest)
    # The next group's first call reads what is shared: tools and system prompt.
    at.attempt()
    again = at.server.usages[len(steps)]
    assert again["cache_read_input_tokens"] >= 0.5 * sum(again.values())
    assert json.dumps(at.server.requests[len(steps)]["system"]) == json.dumps(at.server.requests[0]["system"])
