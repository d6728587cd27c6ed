"""The engine that asks a language model: one short conversation for one group of failures.

Call, run the tools that were used, answer each once and in order, until the model ends, gives up, goes round in circles
or has had its calls. What it edited stays in the tree, uncommitted; whether that is any good the gate decides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from repair_agent.budget import Exhausted
from repair_agent.case import Attempt, Case
from repair_agent.model.api import Model, Unanswered
from repair_agent.model.messages import Block, Message, Prompt, Reply
from repair_agent.model.prompt import Material, first_message, gathered, system_prompt
from repair_agent.model.tools import DEFINITIONS, EDITOR, Tools, nothing_forbidden
from repair_agent.tree import guard
from repair_agent.tree.guard import Frozen

CALLS = 24  # of one conversation
SAME = 3  # times that the very same call is answered; after that the conversation is over
LONGEST = 240  # characters of a reason
GO_ON = "Your answer was cut off because it was too long. Go on from there, in smaller steps."


class Conversation:
    """``material``: None to gather it at the first attempt. ``before``: what the guard saw before anything was edited;
    with it nothing of the target is run that the guard would refuse."""

    name = "model"

    def __init__(
        self, model: Model, material: Material | None = None, before: Frozen | None = None, calls: int = CALLS
    ):
        self._model, self._material, self._calls = model, material, calls
        self._forbidden = nothing_forbidden if before is None else guarded(before)

    def attempt(self, case: Case) -> Attempt:
        """Raises Exhausted if a limit came before anything was edited, model.Unusable if the API cannot be used."""
        if self._material is None:
            self._material = gathered(case.question, case.tree.root, case.tree.files)
        desk = Tools(case, self._material.readable, self._forbidden)
        try:
            return self._talk(case, self._material, desk)
        except Unanswered as error:
            return Attempt(desk.changed, _short(f"the model did not answer: {error}"))
        except Exhausted as error:
            if desk.changed and case.budget.seconds_left > 0:  # what was edited may be right, and the gate is free
                return Attempt(True, f"edited until a limit came ({error})")
            raise

    def _talk(self, case: Case, material: Material, desk: Tools) -> Attempt:
        system = system_prompt(material)
        messages: list[Message] = [{"role": "user", "content": [_text(first_message(case, material))]}]
        circles = Circles()
        for number in range(1, self._calls + 1):
            reply = self._model.ask(Prompt(DEFINITIONS, system, messages), case.budget, case.journal, case.tell)
            case.tell(f"{case.group.key}: call {number}: {_doing(reply)}; {case.budget.spent.text()}")
            if reply.stop == "refusal":
                return Attempt(
                    desk.changed, _short(f"the model refused: {reply.why or 'no reason given'}"), gave_up=True
                )
            if reply.stop == "model_context_window_exceeded":
                return Attempt(desk.changed, "the conversation no longer fits the model's context window")
            content = _sendable(reply)
            if not content:
                cut = reply.stop == "max_tokens"
                return Attempt(
                    desk.changed, "the model's answer did not fit max_tokens" if cut else _ended(reply, desk)
                )
            messages.append({"role": "assistant", "content": content})
            answers = self._answers(reply, content, desk, circles)
            if desk.gave_up is not None:
                return Attempt(desk.changed, _short(f"gave up: {desk.gave_up}"), gave_up=True)
            if circles.closed:
                return Attempt(desk.changed, f"went round in circles: {circles.closed}, {SAME + 1} times the same")
            if not answers and reply.stop not in ("max_tokens", "pause_turn"):
                return Attempt(desk.changed, _ended(reply, desk))
            messages.append(
                {"role": "user", "content": answers or [_text(GO_ON if reply.stop == "max_tokens" else "Go on.")]}
            )
        return Attempt(desk.changed, f"no end after {self._calls} calls")

    def _answers(self, reply: Reply, content: list[Block], desk: Tools, circles: Circles) -> list[Block]:
        """One tool_result for each tool_use, in order."""
        uses = [block for block in content if block["type"] == "tool_use"]
        answers = []
        for number, used in enumerate(uses):
            malformed = reply.malformed.get(used["id"])
            if reply.stop == "max_tokens" and number == len(uses) - 1 and content[-1] is used:
                malformed = f"{malformed or json.dumps(used['input'])} ... (cut off: the answer was too long)"
            before = desk.changed
            desk.changed = False
            answer = desk.answer(used, malformed)
            edited, desk.changed = desk.changed, desk.changed or before
            answers.append(circles.noted(used, answer, edited))
        return answers


class Circles:
    """Whether a model does the same thing over and over. After an edit, running something again is something else."""

    def __init__(self) -> None:
        self._edits: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        self.closed = ""  # what was done too often

    def noted(self, used: Block, answer: Block, edited: bool) -> Block:
        """The answer, with a word about it the third time."""
        call = json.dumps([used["name"], used["input"]], sort_keys=True)
        counted = self._edits if used["name"] == EDITOR and used["input"].get("command") != "view" else self._others
        if edited:
            self._others.clear()
        counted[call] += 1
        if counted[call] > SAME:
            self.closed = str(used["name"])
        if counted[call] != SAME:
            return answer
        said = (
            f"\n\nThis is the same call for the {SAME}rd time. Once more, and the conversation ends: do something else."
        )
        return {**answer, "content": answer["content"] + said}


def guarded(before: Frozen) -> Callable[[Case], str]:
    """Why the files as they are must not be run: what the gate would refuse them for."""

    def why(case: Case) -> str:
        now = guard.frozen(case.question, case.tree, sorted(before.more))
        return "; ".join([*guard.changed(before, now), *guard.refused(before, now)])

    return why


def _sendable(reply: Reply) -> list[Block]:
    """The content that can be sent back: a last block of thinking that was cut off cannot, nor can empty texts."""
    content = [b for b in reply.content if b["type"] != "text" or b["text"].strip()]
    while reply.stop == "max_tokens" and content and content[-1]["type"] in ("thinking", "redacted_thinking"):
        content.pop()
    return content


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _doing(reply: Reply) -> str:
    used = [f"{b['name']} {b['input'].get('command', '')}".strip().replace(EDITOR, "editor") for b in reply.uses]
    return ", ".join(used) or reply.stop


def _ended(reply: Reply, desk: Tools) -> str:
    """What it says it did, in one line."""
    return _short(reply.text) or ("edited, and said nothing" if desk.changed else "ended without an edit or a word")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."
