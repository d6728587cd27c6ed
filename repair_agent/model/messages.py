"""What is asked of a model and what it answers, as the Messages API has it: request, marks for the cache, events.

No network here, and no SDK: plain dicts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repair_agent.budget import Usage
from repair_agent.prices import Keep

EXTRA = 4_000  # tokens that the API may add to a request for tools, at most

Block = dict[str, Any]
Message = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How the API is called.

    effort   "low" to "max"; None: the model's default
    keep     how long the cache keeps a prompt: five minutes, or an hour for twice the price
    tries    of one call; wait: seconds before the second, doubled up to ``longest``
    silence  seconds without a byte after which a try has failed
    """

    model: str = "claude-sonnet-5-5"
    effort: str | None = None
    base_url: str | None = None
    max_tokens: int = 16_000
    keep: Keep = "5m"
    stream: bool = True
    tries: int = 6
    wait: float = 1.0
    longest: float = 60.0
    silence: float = 300.0


@dataclass(frozen=True)
class Prompt:
    """What is asked, most stable first: tools, system, messages. Without marks for the cache."""

    tools: Sequence[Mapping[str, Any]]
    system: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class Reply:
    """An answer that was finished. ``content`` goes back verbatim.

    stop       "end_turn", "tool_use", "max_tokens", "pause_turn", "refusal", "model_context_window_exceeded", ...
    why        of a refusal
    malformed  tool_use id -> an input that is no JSON object
    """

    content: list[Block]
    stop: str
    usage: Usage
    why: str = ""
    malformed: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n".join(b["text"] for b in self.content if b["type"] == "text").strip()

    @property
    def uses(self) -> list[Block]:
        return [b for b in self.content if b["type"] == "tool_use"]


# -- the request -----------------------------------------------------------------------------------------------------


def body(prompt: Prompt, options: Options) -> dict[str, Any]:
    """The request, without max_tokens and stream.

    Marks for the cache: the end of the system prompt (tools and system are shared by all groups), of the first message
    (by all calls of a group), of the last message, and of the user's message before it, which is where the last call
    wrote: from there it is found again however many blocks came after it.
    """
    mark = {"type": "ephemeral"} if options.keep == "5m" else {"type": "ephemeral", "ttl": options.keep}
    users = [n for n, m in enumerate(prompt.messages) if m["role"] == "user"]
    marked = {users[0], *users[-2:]} if users else set()
    request: dict[str, Any] = {
        "model": options.model,
        "system": [{"type": "text", "text": prompt.system, "cache_control": mark}],
        "tools": [dict(tool) for tool in prompt.tools],
        "messages": [_marked(m, mark) if n in marked else dict(m) for n, m in enumerate(prompt.messages)],
    }
    if options.effort is not None:
        request["output_config"] = {"effort": options.effort}
    return request


def _marked(message: Message, mark: dict[str, str]) -> Message:
    *before, last = message["content"]
    return {**message, "content": [*before, {**last, "cache_control": mark}]}


def fingerprint(prompt: Prompt, options: Options) -> list[tuple[str, str]]:
    """(part, hash) of everything that decides an answer, in order."""
    parts: list[tuple[str, Any]] = [
        ("model and effort", [options.model, options.effort]),
        ("tools", list(prompt.tools)),
        ("system", prompt.system),
        *((f"message {n + 1} ({m['role']})", m) for n, m in enumerate(prompt.messages)),
    ]
    return [(name, hashlib.sha256(_text(value).encode()).hexdigest()[:16]) for name, value in parts]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def bound(request: Mapping[str, Any]) -> int:
    """Tokens of a prompt at most, without asking: none is shorter than a byte."""
    return len(_text(request).encode("utf-8", "replace")) + EXTRA


# -- the answer ------------------------------------------------------------------------------------------------------


class Gathered:
    """A message from the events of its stream, kept as they came: thinking and signatures go back verbatim."""

    def __init__(self, keep: Keep):
        self._keep = keep
        self._blocks: dict[int, Block] = {}
        self._inputs: dict[int, str] = {}
        self._usage: dict[str, Any] = {}
        self._started = self._ended = False
        self._stop: str | None = None
        self._why = ""

    def take(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "message_start":
            self._started = True
            self._usage.update(event["message"].get("usage") or {})
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
        elif kind == "content_block_delta":
            self._add(event["index"], event["delta"])
        elif kind == "message_delta":
            self._usage.update({k: v for k, v in (event.get("usage") or {}).items() if v is not None})
            self._stopped(event["delta"])
        elif kind == "message_stop":
            self._ended = True

    def _add(self, index: int, delta: Mapping[str, Any]) -> None:
        block = self._blocks[index]
        kind = delta["type"]
        if kind == "input_json_delta":
            self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        else:  # text_delta, thinking_delta, signature_delta
            name = kind.removesuffix("_delta")
            block[name] = block.get(name, "") + delta.get(name, "")

    def _stopped(self, told: Mapping[str, Any]) -> None:
        self._stop = told.get("stop_reason")
        details = told.get("stop_details") or {}
        self._why = ": ".join(str(details[k]) for k in ("category", "explanation") if details.get(k))

    def whole(self, message: Mapping[str, Any]) -> None:
        """A message that came in one piece."""
        self._started = self._ended = True
        self._usage.update(message.get("usage") or {})
        self._blocks = dict(enumerate(dict(block) for block in message.get("content") or []))
        self._stopped(message)

    @property
    def stop(self) -> str | None:
        """None if the message is not whole."""
        return self._stop if self._ended else None

    def begun(self, max_tokens: int) -> Usage | None:
        """What an answer that broke off may have cost: its prompt as it said, and all of the answer."""
        return self._counted(max_tokens) if self._started else None

    def _counted(self, output: int) -> Usage:
        told = self._usage
        written = told.get("cache_creation_input_tokens") or 0
        split = told.get("cache_creation") or {}
        hour = split.get("ephemeral_1h_input_tokens", 0) if split else written if self._keep == "1h" else 0
        read = told.get("cache_read_input_tokens") or 0
        return Usage(told.get("input_tokens") or 0, output, written - hour, hour, read)

    def reply(self) -> Reply:
        malformed = {}
        content = []
        for index, block in sorted(self._blocks.items()):
            if block["type"] == "tool_use" and index in self._inputs:
                block["input"] = _object(self._inputs[index])
                if block["input"] is None:  # what goes back must be an object; its answer says what was wrong
                    block["input"], malformed[block["id"]] = {}, self._inputs[index]
            content.append(block)
        usage = self._counted(self._usage.get("output_tokens") or 0)
        return Reply(content, self._stop or "", usage, self._why, malformed)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
