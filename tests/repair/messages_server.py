"""A Messages API on this machine, scripted per test, that minds the protocol like the real one and keeps its cache.

with Server([uses("check", what="L2"), says("done")]) as server:
    client = server.client()
    ...
assert not server.problems

A script is a list of answers, or a function from a request to an answer. What breaks the protocol is answered with 400
and stands in ``problems``. Prompts are cached as the API does it: the longest prefix that ends in a mark of an earlier
request, looked for from each mark over 20 blocks; shorter prompts than ``SHORTEST`` are not cached.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHORTEST = 512  # tokens
LOOK_BACK = 20  # blocks
MARKS = 4
KNOWN = {"model", "max_tokens", "system", "tools", "messages", "stream", "output_config", "thinking", "metadata"}

_numbers = itertools.count(1)


@dataclass
class Answer:
    """content and stop reason of a good one; ``fault`` of another: "status", "midway", "cut", "broken", "garbled"."""

    content: list[dict[str, Any]] = field(default_factory=list)
    stop: str | None = "end_turn"
    details: dict[str, Any] | None = None
    fault: str = ""
    status: int = 200
    kind: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # tool_use id -> the input as it is streamed
    output: int | None = None  # tokens


Script = Sequence[Answer] | Callable[[dict[str, Any]], Answer]


def thought(text: str = "a thought") -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": hashlib.sha256(text.encode()).hexdigest()}


def says(text: str, stop: str = "end_turn", **more: Any) -> Answer:
    return Answer([{"type": "text", "text": text}], stop, **more)


def use(name: str, **inputs: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{next(_numbers):04d}", "name": name, "input": inputs}


def uses(name: str, **inputs: Any) -> Answer:
    return Answer([thought(), use(name, **inputs)], "tool_use")


def malformed(name: str, text: str, stop: str = "tool_use") -> Answer:
    """A tool's input that is not JSON, or not all of it."""
    block = use(name)
    return Answer([block], stop, inputs={block["id"]: text})


def refuses(category: str = "cyber") -> Answer:
    return Answer([], "refusal", {"type": "refusal", "category": category, "explanation": "no"})


def fails(status: int, kind: str = "api_error", **headers: str) -> Answer:
    return Answer(
        fault="status", status=status, kind=kind, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def breaks(fault: str, kind: str = "overloaded_error") -> Answer:
    """A stream that ends half way: "cut" as if it were whole, "broken" off, "midway" with an error, or "garbled"."""
    return Answer([{"type": "text", "text": "half of it"}], None, fault=fault, kind=kind)


class Server:
    """``requests``: bodies as they came, counts in ``counted``; ``usages``: what each good answer told."""

    def __init__(self, script: Script, counts: bool | int = True):
        self._answers: Iterator[Answer] | None = None if callable(script) else iter(script)
        self._script = script
        self.counts = counts  # False: 404; a number: that many tokens
        self.requests: list[dict[str, Any]] = []
        self.counted: list[dict[str, Any]] = []
        self.usages: list[dict[str, int]] = []
        self.problems: list[str] = []
        self._prefixes: set[str] = set()
        self._sent: dict[str, list[dict[str, Any]]] = {}  # first message -> the messages of the last request
        self._given: dict[str, list[dict[str, Any]]] = {}  # first message -> what was answered
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"server_": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def client(self) -> Any:
        import anthropic

        return anthropic.Anthropic(api_key="none", base_url=self.url, max_retries=0)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    # -- one request ---------------------------------------------------------------------------------------------

    def answer(self, body: dict[str, Any], headers: Any) -> Answer:
        with self._lock:
            self.requests.append(body)
            found = [*self._wrong(body, headers)]
            if found:
                self.problems += found
                return Answer(fault="status", status=400, kind="invalid_request_error", details={"message": found[0]})
            if self._answers is None:
                assert callable(self._script)
                answer = self._script(body)
            else:
                answer = next(self._answers, None) or fails(400, "the script is at its end")
            if not answer.fault:
                first = _text(_bare(body["messages"][0]))
                self._sent[first] = [_bare(m) for m in body["messages"]]
                self._given[first] = [{**b, **_input(answer.inputs.get(b.get("id", "")))} for b in answer.content]
            return answer

    def usage(self, body: dict[str, Any], answer: Answer) -> dict[str, int]:
        """Of one request, which is remembered in the cache."""
        blocks = list(_blocks(body))
        sizes = list(itertools.accumulate(_tokens(text) for text, _ in blocks))
        prefixes, running = [], hashlib.sha256()
        for text, _ in blocks:
            running.update(text.encode())
            prefixes.append(running.hexdigest())
        marks = [n for n, (_, marked) in enumerate(blocks) if marked]
        near = {n for mark in marks for n in range(max(0, mark - LOOK_BACK), mark + 1)}
        with self._lock:
            hits = [n for n in near if prefixes[n] in self._prefixes and sizes[n] >= SHORTEST]
            self._prefixes |= {prefixes[n] for n in marks if sizes[n] >= SHORTEST}
        read = sizes[max(hits)] if hits else 0
        last = sizes[marks[-1]] if marks and sizes[marks[-1]] >= SHORTEST else 0
        output = min(_tokens(_text(answer.content)) if answer.output is None else answer.output, body["max_tokens"])
        return {
            "input_tokens": sizes[-1] - max(last, read),
            "cache_creation_input_tokens": max(0, last - read),
            "cache_read_input_tokens": read,
            "output_tokens": output,
        }

    # -- the protocol --------------------------------------------------------------------------------------------

    def _wrong(self, body: dict[str, Any], headers: Any) -> Iterator[str]:
        if not (headers.get("authorization") or headers.get("x-api-key")) or not headers.get("anthropic-version"):
            yield "no key or no version"
        if unknown := set(body) - KNOWN:
            yield f"fields that are not taken: {sorted(unknown)}"
        if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
            yield "max_tokens is missing"
        marks = sum(marked for _, marked in _blocks(body))
        if marks > MARKS:
            yield f"{marks} marks for the cache, and {MARKS} are allowed"
        yield from _wrong_tools(body.get("tools", []))
        yield from _wrong_turns(body["messages"])
        first = _text(_bare(body["messages"][0]))
        if first in self._sent:
            sent, given = self._sent[first], self._given[first]
            now = [_bare(m) for m in body["messages"]]
            if now[: len(sent)] != sent:
                yield "the messages of the last request were changed"
            elif len(now) > len(sent) and given and now[len(sent)] != {"role": "assistant", "content": given}:
                yield "the last answer did not come back as it was given"


def _wrong_tools(tools: list[dict[str, Any]]) -> Iterator[str]:
    for tool in tools:
        if tool.get("type") == "text_editor_20250728":
            if tool["name"] != "str_replace_based_edit_tool":
                yield "the editor has another name"
            continue
        schema = tool.get("input_schema", {})
        if tool.get("strict") and schema.get("additionalProperties") is not False:
            yield f"{tool['name']}: a strict schema forbids what it does not name"
        if set(schema.get("required", [])) - set(schema.get("properties", {})):
            yield f"{tool['name']}: something required is not described"


def _wrong_turns(messages: list[dict[str, Any]]) -> Iterator[str]:
    roles = [m["role"] for m in messages]
    if not roles or roles[0] != "user" or roles[-1] != "user":
        yield "the first and the last message must be the user's"
    for message in messages:
        for block in message["content"]:
            if block["type"] == "text" and not block["text"].strip():
                yield "a text without text"
    asked: list[str] = []
    for before, message in itertools.pairwise([{"role": "", "content": []}, *messages]):
        if before["role"] == message["role"]:
            yield f"two messages of the {message['role']} in a row"
        answered = [b["tool_use_id"] for b in message["content"] if b["type"] == "tool_result"]
        if answered != asked:
            yield f"tools {asked} were used, and {answered} answered"
        kinds = [b["type"] for b in message["content"]]
        if kinds[: len(answered)] != ["tool_result"] * len(answered):
            yield "tool results come first"
        asked = [b["id"] for b in message["content"] if b["type"] == "tool_use"]


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(text, marked) of what the cache sees, in its order. What is answered with does not count."""
    head = {k: body.get(k) for k in ("model", "output_config", "thinking")}
    yield (
        _text([head, *(_bare_block(t) for t in body.get("tools", []))]),
        any("cache_control" in t for t in body["tools"]),
    )
    for block in body.get("system", []):
        yield _text(_bare_block(block)), "cache_control" in block
    for message in body["messages"]:
        for block in message["content"]:
            yield message["role"] + _text(_bare_block(block)), "cache_control" in block


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "content": [_bare_block(b) for b in message["content"]]}


def _bare_block(block: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in block.items() if k != "cache_control"}


def _input(streamed: str | None) -> dict[str, Any]:
    """The input of a tool_use as it has to come back, where it was streamed as another text."""
    try:
        value = json.loads(streamed or "")
    except ValueError:
        return {}
    return {"input": value} if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _tokens(text: str) -> int:
    return -(-len(text.encode()) * 2 // 7)  # 3.5 bytes a token


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            self._count(body)
        elif path == "/v1/messages":
            self._message(body)
        else:
            self._json(404, _error("not_found_error", path))

    def _count(self, body: dict[str, Any]) -> None:
        server = self.server_
        server.counted.append(body)
        if server.counts is False:
            self._json(404, _error("not_found_error", "no counting here"))
        else:
            tokens = sum(_tokens(text) for text, _ in _blocks(body)) if server.counts is True else server.counts
            self._json(200, {"input_tokens": tokens})

    def _message(self, body: dict[str, Any]) -> None:
        answer = self.server_.answer(body, self.headers)
        if answer.fault == "status":
            text = (answer.details or {}).get("message", answer.kind)
            self._json(answer.status, _error(answer.kind, text), answer.headers)
            return
        usage = self.server_.usage(body, answer)
        if not answer.fault:
            self.server_.usages.append(usage)
        message = {
            "id": f"msg_{next(_numbers)}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": answer.content,
            "stop_reason": answer.stop,
            "stop_sequence": None,
            "stop_details": answer.details,
            "usage": usage,
        }
        if body.get("stream"):
            self._stream(answer, message)
        else:
            self._json(200, message)

    def _stream(self, answer: Answer, message: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = list(_events(answer, message))
        if answer.fault:
            events = events[:3]
        for event in events:
            self._chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
        if answer.fault == "midway":
            self._chunk(f"event: error\ndata: {json.dumps(_error(answer.kind, 'midway'))}\n\n")
        if answer.fault == "garbled":
            self._chunk('event: content_block_delta\ndata: {"type": "content_bl\n\n')
        if answer.fault == "broken":
            self.wfile.write(b"ff\r\nhalf a chu")
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


def _error(kind: str, text: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}}


def _events(answer: Answer, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    start = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for n, block in enumerate(answer.content):
        deltas = []
        first = dict(block)
        if block["type"] == "text":
            first["text"] = ""
            deltas = [{"type": "text_delta", "text": part} for part in _parts(block["text"])]
        elif block["type"] == "thinking":
            first |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": part} for part in _parts(block["thinking"])]
            deltas += [{"type": "signature_delta", "signature": block["signature"]}]
        elif block["type"] == "tool_use":
            first["input"] = {}
            text = answer.inputs.get(block["id"], json.dumps(block["input"]))
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *_parts(text)]]
        yield {"type": "content_block_start", "index": n, "content_block": first}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": n, "delta": delta}
        yield {"type": "content_block_stop", "index": n}
    told = {"stop_reason": answer.stop, "stop_sequence": None, "stop_details": answer.details}
    yield {"type": "message_delta", "delta": told, "usage": {"output_tokens": message["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def _parts(text: str, size: int = 40) -> list[str]:
    return [text[n : n + size] for n in range(0, len(text), size)]
