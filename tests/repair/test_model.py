"""One call of the API: what goes out, what comes back, and what each way of failing costs."""

from __future__ import annotations

import itertools
import json
import os

import pytest
from messages_server import Server, breaks, fails, malformed, refuses, says, thought, use, uses

from repair_agent import journal as journals
from repair_agent.budget import Budget, Exhausted, Limits
from repair_agent.journal import Journal
from repair_agent.model.api import Differs, Live, Recorded, Unanswered, Unusable
from repair_agent.model.messages import Options, Prompt, bound
from repair_agent.prices import PICO, price_of, table

SONNET = price_of("claude-sonnet-5-5")
TOOL = {
    "name": "look",
    "description": "Looks.",
    "strict": True,
    "input_schema": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
}
QUICK = {"wait": 0.0, "longest": 0.0}


def user(*blocks) -> dict:
    return {"role": "user", "content": [{"type": "text", "text": b} if isinstance(b, str) else b for b in blocks]}


def prompt(*messages) -> Prompt:
    return Prompt([TOOL], "a system prompt " * 300, messages or (user("hello"),))


class Asking:
    """A model on a server, with a budget and a journal."""

    def __init__(self, server: Server, tmp_path, limits: Limits | None = None, **options):
        self.budget = Budget(limits or Limits(), table())
        self.path = tmp_path / "journal.jsonl"
        self.journal = Journal(self.path)
        self.lines: list[str] = []
        self.live = Live(Options(**{**QUICK, **options}), server.client())

    def __call__(self, *messages):
        return self.live.ask(prompt(*messages), self.budget, self.journal, self.lines.append)

    def events(self, kind: str) -> list[dict]:
        return [e for e in journals.read(self.path) if e["kind"] == kind]


@pytest.fixture
def asking(tmp_path, serving):
    """A server with a script and a model on it."""

    def begin(script, limits=None, counts=True, **options):
        server = serving(script, counts=counts)
        made = Asking(server, tmp_path, limits, **options)
        made.server = server
        return made

    return begin


# -- what goes out, what comes back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_charged_as_the_api_counted_it(asking, stream):
    ask = asking([says("well")], stream=stream)
    reply = ask()
    assert (reply.text, reply.stop) == ("well", "end_turn")
    told = ask.server.usages[0]
    dollars = told["cache_creation_input_tokens"] * 2.5e-6 + told["input_tokens"] * 2e-6 + told["output_tokens"] * 1e-5
    assert told["cache_creation_input_tokens"] > 1000
    assert ask.budget.spent.dollars == pytest.approx(dollars)
    assert ask.server.requests[0].get("stream", False) is stream


def test_the_request_has_nothing_that_was_not_asked_for(asking):
    ask = asking([says("well")], effort="low", max_tokens=5000)
    ask()
    sent = ask.server.requests[0]
    assert set(sent) == {"model", "max_tokens", "system", "tools", "messages", "output_config", "stream"}
    assert sent["output_config"] == {"effort": "low"}
    assert sent["max_tokens"] == 5000


def test_thinking_and_tool_use_come_back_as_they_were_given(asking):
    content = [thought("a long thought " * 20), {"type": "text", "text": "I look."}, use("look")]
    ask = asking([type(says(""))(content, "tool_use")])
    reply = ask()
    assert reply.content == content
    assert reply.uses == content[2:]


def test_marks_are_at_the_system_prompt_the_first_message_and_the_last_two(asking):
    answers = [uses("look") for _ in range(4)]
    ask = asking(answers)
    messages = [user("begin")]
    for _ in range(4):
        reply = ask(*messages)
        result = {"type": "tool_result", "tool_use_id": reply.uses[0]["id"], "content": "seen " * 50}
        messages += [{"role": "assistant", "content": reply.content}, user(result)]
    last = ask.server.requests[-1]
    assert "cache_control" in last["system"][0]
    assert [n for n, m in enumerate(last["messages"]) if "cache_control" in m["content"][-1]] == [0, 4, 6]
    reads = [u["cache_read_input_tokens"] for u in ask.server.usages]
    assert reads[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(reads[1:]))
    assert all(u["input_tokens"] == 0 for u in ask.server.usages)


def test_an_hour_in_the_cache_is_asked_for_and_paid_for(asking):
    ask = asking([says("well")], keep="1h")
    ask()
    assert ask.server.requests[0]["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    told = ask.server.usages[0]
    assert ask.budget.spent.pico == (
        told["cache_creation_input_tokens"] * SONNET.rates.write_1h + told["output_tokens"] * SONNET.rates.output
    )


def test_a_refusal_says_why(asking):
    reply = asking([refuses("cyber")])()
    assert (reply.stop, reply.why, reply.content) == ("refusal", "cyber: no", [])


@pytest.mark.parametrize("stop", ["max_tokens", "pause_turn", "model_context_window_exceeded"])
def test_other_ends_are_told(asking, stop):
    assert asking([says("half", stop)])().stop == stop


@pytest.mark.parametrize("text", ['{"a": [1, 2', "nonsense", "[1]"])
def test_a_tool_input_that_is_no_object_is_told_and_does_not_lose_the_answer(asking, text):
    reply = asking([malformed("look", text)])()
    assert reply.malformed == {reply.uses[0]["id"]: text}
    assert reply.uses[0]["input"] == {}


def test_no_tool_input_at_all_is_an_empty_one(asking):
    reply = asking([malformed("look", "")])()
    assert not reply.malformed
    assert reply.uses[0]["input"] == {}


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [fails(429, "rate_limit_error"), fails(529, "overloaded_error"), fails(409), fails(408)]
)
def test_what_is_refused_at_the_door_is_tried_again_and_costs_nothing_but_a_call(asking, failure):
    ask = asking([failure, failure, says("well")])
    assert ask().text == "well"
    spent = ask.budget.spent
    assert (spent.calls, spent.failed) == (3, 2)
    assert [e["pico"] for e in ask.events("failed")] == [0, 0]
    assert len(ask.lines) == 2


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_failing_server_is_tried_again_and_its_prompt_charged_at_worst(asking, status):
    ask = asking([fails(status), says("well")], counts=2000)
    assert ask().text == "well"
    (failed,) = ask.events("failed")
    assert failed["pico"] == (2000 * 105 // 100 + 256) * SONNET.rates.write_5m


@pytest.mark.parametrize("fault", ["cut", "broken", "midway", "garbled"])
def test_an_answer_that_breaks_off_is_asked_for_again_and_charged_in_full(asking, fault):
    ask = asking([breaks(fault), says("well")], max_tokens=3000)
    assert ask().text == "well"
    (failed,) = ask.events("failed")
    assert failed["usage"]["output"] == 3000
    assert failed["pico"] >= 3000 * SONNET.rates.output
    assert ask.budget.spent.calls == 2


def test_a_mid_stream_error_says_what_it_was(asking):
    ask = asking([breaks("midway", "overloaded_error"), says("well")])
    ask()
    assert "overloaded_error" in ask.events("failed")[0]["why"]


def test_after_so_many_tries_the_call_is_given_up(asking):
    ask = asking([fails(529, "overloaded_error")] * 3, tries=3)
    with pytest.raises(Unanswered, match="3 tries failed, the last one: overloaded_error"):
        ask()
    assert ask.budget.spent.calls == 3


@pytest.mark.parametrize(
    "status, kind", [(401, "authentication_error"), (403, "permission_error"), (404, "not_found_error"), (400, "other")]
)
def test_what_no_second_try_would_mend_ends_it(asking, status, kind):
    ask = asking([fails(status, kind)])
    with pytest.raises(Unusable, match=f"{kind} .{status}"):
        ask()
    assert ask.budget.spent.pico == 0


def test_the_api_may_forbid_a_second_try(asking):
    ask = asking([fails(500, x_should_retry="false")])
    with pytest.raises(Unusable):
        ask()


def test_a_prompt_that_is_too_long_ends_only_this_conversation(asking):
    with pytest.raises(Unanswered, match="too long"):
        asking([fails(400, "prompt is too long")])()
    with pytest.raises(Unanswered, match="no room in the window"):
        asking([], counts=999_000, model="claude-sonnet-5-5", limits=Limits(dollars=None))(user("x" * 2_000_000))


def test_the_wait_is_what_the_api_asks_for(asking):
    waited = []
    ask = asking([fails(429, retry_after="7"), says("well")])
    ask.live._sleep = waited.append
    ask()
    assert waited == [7.0]
    assert ask.lines == ["waiting 7 s: api_error (429): api_error"]


def test_no_wait_is_longer_than_the_time_that_is_left(asking):
    ask = asking([fails(429, retry_after="30")], Limits(seconds=20))
    with pytest.raises(Exhausted, match="no time to wait 30 s"):
        ask()


def test_no_answer_from_nobody(tmp_path):
    with Server([]) as server:
        ask = Asking(server, tmp_path, tries=2)
        ask.live._counts = False
    with pytest.raises(Unanswered, match="APIConnectionError"):
        ask()
    assert ask.budget.spent.failed == 2


def test_no_key_is_told_before_anything_is_asked(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unusable, match="no key for the API: set ANTHROPIC_API_KEY"):
        Live(Options())


# -- the budget ------------------------------------------------------------------------------------------------------


def test_the_worst_case_is_reserved_by_the_count_of_the_api(asking):
    ask = asking([says("well")], counts=1000)
    ask()
    (call,) = ask.events("call")
    assert call["size"] == 1000 * 105 // 100 + 256
    assert call["budget"]["pico"] == SONNET.worst(call["size"], 16_000)
    assert "stream" not in ask.server.counted[0]
    assert "max_tokens" not in ask.server.counted[0]


def test_without_a_count_the_bytes_are_the_bound(asking):
    ask = asking([says("well"), says("well")], counts=False)
    ask()
    ask()
    sizes = [call["size"] for call in ask.events("call")]
    sent = {k: v for k, v in ask.server.requests[0].items() if k not in ("stream", "max_tokens")}
    assert sizes == [bound(sent)] * 2
    assert sizes[0] > sum(ask.server.usages[0].values())
    assert len(ask.server.counted) == 1  # a gateway that does not count is not asked again


def test_the_answer_is_kept_short_where_little_is_left(asking):
    ask = asking([says("well")], Limits(dollars=0.05), counts=1000)
    ask()
    (call,) = ask.events("call")
    assert 4000 < call["max_tokens"] < 5000
    assert ask.server.requests[0]["max_tokens"] == call["max_tokens"]
    assert call["budget"]["pico"] <= 0.05 * PICO


def test_too_little_for_a_call_is_too_little(asking):
    ask = asking([], Limits(dollars=0.02), counts=1000)
    with pytest.raises(Exhausted, match=r"may cost \$0.1633, and \$0.0200 are left"):
        ask()
    assert not ask.server.requests


def test_a_budget_of_cents_is_never_overshot_however_the_calls_end(asking):
    endings = [says("x", output=16_000), breaks("cut"), fails(500), says("x", output=100), breaks("midway")] * 40
    ask = asking(endings, Limits(dollars=0.25), tries=2)
    with pytest.raises(Exhausted, match="dollars"):
        while True:
            try:
                ask()
            except Unanswered:
                continue
    assert 0.2 < ask.budget.spent.dollars <= 0.25


def test_time_that_runs_over_in_the_middle_of_an_answer_ends_it(asking):
    def slow(_):
        ask.budget.limits = Limits(seconds=0.0)
        return says("x " * 5000)

    ask = asking(slow)
    with pytest.raises(Exhausted, match="time"):
        ask()
    (failed,) = ask.events("failed")
    assert failed["usage"]["output"] == 16_000  # nobody knows how much of it was billed


# -- replaying -------------------------------------------------------------------------------------------------------


def test_a_recording_answers_and_charges_as_the_api_did(asking, tmp_path):
    ask = asking([fails(529), breaks("cut"), uses("look"), fails(500), says("done")])
    first = ask(user("begin"))
    result = user({"type": "tool_result", "tool_use_id": first.uses[0]["id"], "content": "seen"})
    messages = [user("begin"), {"role": "assistant", "content": first.content}, result]
    second = ask(*messages)

    again = Budget(Limits(), table())
    written = Journal(tmp_path / "again.jsonl")
    replay = Recorded(journals.read(ask.path))
    assert replay.ask(prompt(user("begin")), again, written, print) == first
    assert replay.ask(prompt(*messages), again, written, print) == second
    assert {k: v for k, v in again.as_json().items() if k != "seconds"} == {
        k: v for k, v in ask.budget.as_json().items() if k != "seconds"
    }
    # What a replay writes can itself be replayed.
    third = Recorded(journals.read(tmp_path / "again.jsonl"))
    assert third.ask(prompt(user("begin")), Budget(Limits(), table()), Journal(tmp_path / "x"), print) == first


def test_a_replay_that_asks_something_else_says_where(asking, tmp_path):
    ask = asking([says("well")])
    ask(user("begin\nwith 1.5"))
    replay = Recorded(journals.read(ask.path))
    with pytest.raises(Differs, match=r"call 1 differs from the recorded one in message 1 .user.: .*'with 1.5'"):
        replay.ask(prompt(user("begin\nwith 1.6")), ask.budget, Journal(tmp_path / "x"), print)


def test_a_replay_of_another_model_is_refused_if_one_was_named(asking, tmp_path):
    ask = asking([says("well")])
    ask(user("begin"))
    replay = Recorded(journals.read(ask.path), Options(model="claude-opus-5-5"))
    with pytest.raises(Differs, match="in model and effort"):
        replay.ask(prompt(user("begin")), ask.budget, Journal(tmp_path / "x"), print)


def test_a_replay_ends_where_the_recording_does(asking, tmp_path):
    replay = Recorded([])
    with pytest.raises(Differs, match="ends here: call 1 was never answered"):
        replay.ask(prompt(), Budget(Limits(), table()), Journal(tmp_path / "x"), print)


def test_a_call_that_was_killed_is_charged_in_full_in_a_replay_too(asking, tmp_path):
    ask = asking([says("well")])
    ask(user("begin"))
    events = journals.read(ask.path)
    call = events[0]
    again = Budget(Limits(), table())
    Recorded([call, *events]).ask(prompt(user("begin")), again, Journal(tmp_path / "x"), print)
    assert again.spent.pico == call["budget"]["pico"] + ask.budget.spent.pico


def test_the_journal_holds_the_prompt_once_and_what_is_new_of_it(asking):
    ask = asking([uses("look"), says("done")])
    first = ask(user("begin"))
    result = user({"type": "tool_result", "tool_use_id": first.uses[0]["id"], "content": "seen"})
    ask(user("begin"), {"role": "assistant", "content": first.content}, result)
    one, two = ask.events("call")
    assert "system" in one and "system" not in two
    assert two["fresh"] == [result]
    assert json.dumps(ask.events("reply")[0]["content"]) == json.dumps(first.content)
