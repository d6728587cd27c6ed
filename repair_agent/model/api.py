"""One call of the Messages API through the SDK, with its traps; or a recorded reply in its place.

The SDK's own retries are off: each try is reserved in the budget, charged and written down, also the ones that fail.
What is known not to be billed (a request refused at the door: 4xx, 429, 529) costs nothing but counts as a call; a
try that may have been billed is charged its worst case: the prompt if no answer began, prompt and answer if one did.
"""

from __future__ import annotations

import difflib
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from repair_agent.budget import Budget, Exhausted, Usage
from repair_agent.journal import Journal
from repair_agent.model.messages import Gathered, Message, Options, Prompt, Reply, body, bound, fingerprint
from repair_agent.prices import price_of

LEAST = 2_000  # tokens of answer for which a call is still worth making
COUNTED = 1.05, 256  # the API calls its count an estimate: it is taken this many times, and this many tokens more
REFUSED = {408, 409, 429, 529}  # not begun, not billed, and to be tried again
WRITE_FIELDS = {"5m": "write_5m", "1h": "write_1h"}


class Unusable(Exception):
    """The API cannot be used at all: no key, a refused key, an unknown model, a request it does not take."""


class Unanswered(Exception):
    """This one call could not be answered: too many failures, or no room left in the context window."""


class Differs(Unusable):
    """A replay asks something else than what was recorded, or asks more."""


class Model(Protocol):
    """Raises Exhausted, Unusable or Unanswered."""

    def ask(self, prompt: Prompt, budget: Budget, journal: Journal, tell: Callable[[str], None]) -> Reply: ...


# -- the API ---------------------------------------------------------------------------------------------------------


@dataclass
class _Failed(Exception):
    """One try that gave no answer. ``usage``: what it may have cost; None: its prompt, at worst."""

    why: str
    usage: Usage | None
    then: Literal["again", "too long", "stop"]
    after: float | None = None  # seconds the API asks to wait


class Live:
    """The API. Raises Unusable at once if there is no SDK or no key; ``client`` is an anthropic.Anthropic."""

    def __init__(self, options: Options, client: Any = None, sleep: Callable[[float], None] = time.sleep):
        self.options = options
        self.client = _client(options) if client is None else client
        self._sleep = sleep
        self._counts = True
        self._told: set[str] = set()  # hashes of tools and system prompts that are in the journal

    def ask(self, prompt: Prompt, budget: Budget, journal: Journal, tell: Callable[[str], None]) -> Reply:
        request = body(prompt, self.options)
        budget.check()
        size = self._size(request)
        why = ""
        for number in range(self.options.tries):
            reservation = budget.reserve(self.options.model, size, self._room(budget, size), self.options.keep)
            journal.write("call", **self._call(prompt, size, reservation.max_tokens), budget=budget.as_json())
            try:
                reply = self._once(request, reservation.max_tokens, budget)
            except _Failed as failed:
                charged = budget.settle(reservation, failed.usage, failed=True)
                used = None if failed.usage is None else asdict(failed.usage)
                journal.write("failed", why=failed.why, usage=used, pico=charged, budget=budget.as_json())
                if failed.then != "again":
                    raise (Unanswered if failed.then == "too long" else Unusable)(failed.why) from failed
                why = failed.why
                if number + 1 < self.options.tries:
                    self._pause(number, failed, budget, tell)
            except BaseException as error:  # Ctrl-C, or the time is over: what it cost is not known
                whole = Usage(output=reservation.max_tokens, **{WRITE_FIELDS[self.options.keep]: size})
                charged = budget.settle(reservation, whole, failed=True)
                journal.write("failed", why=repr(error), usage=asdict(whole), pico=charged, budget=budget.as_json())
                raise
            else:
                charged = budget.settle(reservation, reply.usage)
                journal.write("reply", **asdict(reply), pico=charged, budget=budget.as_json())
                return reply
        raise Unanswered(f"{self.options.tries} tries failed, the last one: {why}")

    def _call(self, prompt: Prompt, size: int, max_tokens: int) -> dict[str, Any]:
        """What is written down of a request: hashes of all parts, and the parts that are new."""
        parts = fingerprint(prompt, self.options)
        last = max((n + 1 for n, m in enumerate(prompt.messages) if m["role"] == "assistant"), default=0)
        known = {f"{name} {digest}" for name, digest in parts if name in ("tools", "system")}
        new = {} if known <= self._told else {"tools": list(prompt.tools), "system": prompt.system}
        self._told |= known
        return {
            "model": self.options.model,
            "keep": self.options.keep,
            "parts": [list(part) for part in parts],
            "fresh": list(prompt.messages[last:]),
            "size": size,
            "max_tokens": max_tokens,
            **new,
        }

    def _size(self, request: dict[str, Any]) -> int:
        """Tokens of the prompt at most: as the API counts them, with a margin, or by its bytes."""
        most = bound(request)
        if not self._counts:
            return most
        anthropic = _sdk()
        try:
            counted = self.client.messages.count_tokens(**request).input_tokens
        except anthropic.APIStatusError as error:
            self._counts = error.status_code not in (404, 405, 501)  # a gateway that does not count
            return most
        except anthropic.APIError:
            return most
        times, more = COUNTED
        return min(most, math.ceil(counted * times) + more)

    def _room(self, budget: Budget, size: int) -> int:
        """max_tokens of a call: what was asked for, or what the budget and the window leave."""
        price = price_of(self.options.model, budget.prices)
        wanted = min(self.options.max_tokens, price.max_output)
        if price.context - size < min(LEAST, wanted):
            raise Unanswered(f"the prompt of {size:,} tokens leaves no room in the window of {price.context:,}")
        most = min(wanted, budget.affordable(self.options.model, size, self.options.keep))
        return wanted if most < min(LEAST, wanted) else most  # too little: reserving what was wanted says why

    def _pause(self, number: int, failed: _Failed, budget: Budget, tell: Callable[[str], None]) -> None:
        wait = min(self.options.longest, self.options.wait * 2**number) * random.uniform(0.75, 1.0)
        wait = max(wait, failed.after or 0.0)
        if wait >= budget.seconds_left:
            raise Exhausted(f"time: {failed.why}, and there is no time to wait {wait:.0f} s")
        tell(f"waiting {wait:.0f} s: {failed.why}")
        self._sleep(wait)

    def _once(self, request: dict[str, Any], max_tokens: int, budget: Budget) -> Reply:
        anthropic, gathered = _sdk(), Gathered(self.options.keep)
        timeout = min(self.options.silence, max(1.0, budget.seconds_left))
        try:
            if not self.options.stream:
                message = self.client.messages.create(**request, max_tokens=max_tokens, timeout=timeout)
                gathered.whole(message.to_dict())
            else:
                with self.client.messages.create(
                    **request, max_tokens=max_tokens, timeout=timeout, stream=True
                ) as stream:
                    for event in stream:
                        gathered.take(event.to_dict())
                        budget.check()
        except anthropic.APIStatusError as error:
            raise _status(error, gathered.begun(max_tokens)) from error
        except (anthropic.APIError, _transport(), ValueError, KeyError) as error:  # the last two: an event is garbled
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise _Failed(why, gathered.begun(max_tokens), "again") from error
        except anthropic.AnthropicError as error:  # a key that cannot be fetched
            raise _Failed(" ".join(str(error).split())[:300], Usage(), "stop") from error
        if gathered.stop is None:
            raise _Failed("the answer broke off: it ends without a stop reason", gathered.begun(max_tokens), "again")
        return gathered.reply()


def _sdk() -> Any:
    try:
        import anthropic
    except ImportError as error:
        raise Unusable("the model engine needs the anthropic SDK: pip install 'pytest-envequiv[repair]'") from error
    return anthropic


def _transport() -> type[Exception]:
    """What the SDK's HTTP library raises itself when a stream breaks."""
    import httpx2

    return httpx2.HTTPError


def _client(options: Options) -> Any:
    """The SDK's client, with its own way to a key. Raises Unusable if there is none."""
    anthropic = _sdk()
    try:
        client = anthropic.Anthropic(base_url=options.base_url, max_retries=0)
        found = client.api_key or client.auth_token or client.credentials
    except anthropic.AnthropicError as error:
        raise Unusable(f"no key: {error}") from error
    if not found:
        raise Unusable("no key for the API: set ANTHROPIC_API_KEY (or log in as the anthropic SDK describes)")
    return client


def _status(error: Any, begun: Usage | None) -> _Failed:
    """An error with a status; 200 if the answer had begun."""
    status = error.status_code
    kind = error.type or "error"
    why = f"{kind} ({status}): {error.api_message or error.message}"[:400]
    told = error.response.headers.get("x-should-retry")
    again = status == 200 or status in REFUSED or status >= 500
    again = {"true": True, "false": False}.get(told, again)
    long = status == 413 or (status == 400 and "too long" in why)
    free = status != 200 and (status < 500 or status == 529)
    after = error.response.headers.get("retry-after", "")
    return _Failed(
        why,
        Usage() if free else begun,
        "again" if again else "too long" if long else "stop",
        float(after) if after.isdecimal() else None,
    )


# -- a recording -----------------------------------------------------------------------------------------------------


class Recorded:
    """The replies of a trajectory, in their order, charged as they were. Nothing is sent.

    Raises Differs where another request is made than the one that was answered then.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]], options: Options | None = None):
        self._events = [e for e in events if e["kind"] in ("call", "failed", "reply")]
        self._options = options
        self._next = self._asked = 0

    def ask(self, prompt: Prompt, budget: Budget, journal: Journal, tell: Callable[[str], None]) -> Reply:
        self._asked += 1
        while True:
            call = self._take("call")
            self._compare(call, prompt)
            reservation = budget.reserve(call["model"], call["size"], call["max_tokens"], call["keep"])
            journal.write("call", **{k: v for k, v in call.items() if k not in ("kind", "time", "budget")},
                          budget=budget.as_json())  # fmt: skip
            if self._next == len(self._events) or self._events[self._next]["kind"] == "call":
                whole = Usage(output=call["max_tokens"], **{WRITE_FIELDS[call["keep"]]: call["size"]})
                budget.settle(reservation, whole, failed=True)  # the run was killed here
                continue
            event = self._events[self._next]
            self._next += 1
            used = None if event["usage"] is None else Usage(**event["usage"])
            charged = budget.settle(reservation, used, failed=event["kind"] == "failed")
            kept = {k: v for k, v in event.items() if k not in ("kind", "time", "budget", "pico")}
            journal.write(event["kind"], **kept, pico=charged, budget=budget.as_json())
            if event["kind"] == "reply":
                assert used is not None
                return Reply(event["content"], event["stop"], used, event["why"], event["malformed"])

    def _take(self, kind: str) -> Mapping[str, Any]:
        while self._next < len(self._events):
            event = self._events[self._next]
            self._next += 1
            if event["kind"] == kind:
                return event
        raise Differs(f"the recording ends here: call {self._asked} was never answered")

    def _compare(self, call: Mapping[str, Any], prompt: Prompt) -> None:
        model, effort = call["model"], None
        if self._options is not None:
            model, effort = self._options.model, self._options.effort
        now = fingerprint(prompt, Options(model=model, effort=effort))
        then = [(name, digest) for name, digest in call["parts"]]
        start = 0 if self._options is not None else 1  # which model it was is the recording's business
        for ours, recorded in zip(now[start:], then[start:], strict=False):
            if ours != recorded:
                raise Differs(
                    f"call {self._asked} differs from the recorded one in {ours[0]}{_difference(call, prompt)}"
                )
        if len(now) != len(then):
            raise Differs(f"call {self._asked} has {len(now) - 3} messages, the recorded one {len(then) - 3}")


def _difference(call: Mapping[str, Any], prompt: Prompt) -> str:
    """The first lines that are not the same, where the recorded text is at hand."""
    was = _lines(call.get("system", ""), call["fresh"])
    new = _lines(prompt.system if "system" in call else "", prompt.messages[-len(call["fresh"]) :])
    for line in difflib.unified_diff(was, new, lineterm="", n=0):
        if line[:1] in "+-" and not line.startswith(("+++", "---")):
            return f": {'recorded' if line[0] == '-' else 'now'} {line[1:][:200]!r}"
    return ""


def _lines(system: str, messages: Iterable[Message]) -> list[str]:
    texts = [system]
    for message in messages:
        texts += [str(block.get("text") or block.get("content") or block.get("input")) for block in message["content"]]
    return "\n".join(texts).splitlines()
