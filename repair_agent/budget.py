"""Limits in dollars, seconds, calls and tokens that cannot be overshot: the worst case is reserved before a call.

    reservation = budget.reserve(model, input_tokens, max_tokens)   # raises Exhausted
    budget.settle(reservation, usage)                               # what it really was; None: it did not say

Spent is what was settled; what may be spent next also counts what is reserved and not yet settled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from repair_agent.prices import PICO, Keep, Price, Prices, price_of


class Exhausted(Exception):
    """A limit is reached, or the next call could overshoot it."""


@dataclass(frozen=True)
class Limits:
    """None: no limit. ``seconds`` is wall time, over all runs of one repair; ``tries`` are per group of failures."""

    dollars: float | None = 10.0
    seconds: float | None = None
    calls: int | None = None
    tokens: int | None = None
    tries: int = 3


@dataclass(frozen=True)
class Usage:
    """Tokens of one call as the API counts them: ``input`` are those neither written to nor read from the cache."""

    input: int = 0
    output: int = 0
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.write_5m + self.write_1h + self.read

    @property
    def tokens(self) -> int:
        return self.prompt + self.output


@dataclass(frozen=True)
class Spent:
    """What was spent. ``dollars`` is exact to a picodollar when it is made from ``pico``."""

    pico: int = 0
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    prompt: int = 0  # tokens of all prompts,
    read: int = 0  # and those of them that were read from the cache
    failed: int = 0  # calls that gave no answer

    @property
    def dollars(self) -> float:
        return self.pico / PICO

    def text(self) -> str:
        share = f", {self.read / self.prompt:.0%} of the prompts from the cache" if self.prompt else ""
        failed = f" ({self.failed} failed)" if self.failed else ""
        return f"${self.dollars:.4f}, {self.calls} calls{failed}, {self.tokens:,} tokens{share}"


@dataclass(frozen=True)
class Reservation:
    """What one call may cost at most."""

    number: int
    model: str
    input_tokens: int
    max_tokens: int
    keep: Keep
    pico: int

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.max_tokens


class Budget:
    """What may be spent, and what is.

    As long as a call's usage stays within its reservation, no limit in dollars, calls or tokens is overshot, whatever
    happens. A usage beyond it (the count before the call was wrong) is told truly, and nothing more is allowed then.
    Time cannot be reserved: ``check`` raises when it is over, and ``seconds_left`` is a call's time limit.
    """

    def __init__(self, limits: Limits, prices: Prices, clock: Callable[[], float] = time.monotonic):
        self.limits, self.prices = limits, prices
        self._clock = clock
        self._began = clock()
        self._before = Spent()  # all but the seconds since then
        self._open: dict[int, Reservation] = {}
        self._number = 0

    @property
    def spent(self) -> Spent:
        return replace(self._before, seconds=self._before.seconds + self._clock() - self._began)

    @property
    def dollars(self) -> float:
        return self._before.dollars

    # -- limits --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises Exhausted if the time is over or what may be spent is spent. Nothing spent is no reason: under a limit
        of 0 an engine that costs nothing may still work."""
        spent, limits = self.spent, self.limits
        if limits.seconds is not None and spent.seconds >= limits.seconds:
            raise Exhausted(f"time: {limits.seconds:g} s are over")
        if limits.calls is not None and spent.calls >= max(1, limits.calls):
            raise Exhausted(f"calls: {spent.calls} of {limits.calls} were made")
        if limits.tokens is not None and spent.tokens >= max(1, limits.tokens):
            raise Exhausted(f"tokens: {spent.tokens:,} of {limits.tokens:,} are used")
        if limits.dollars is not None and spent.pico >= max(1, self._pico_limit):
            raise Exhausted(f"dollars: ${spent.dollars:.4f} of ${limits.dollars:g} are spent")

    @property
    def seconds_left(self) -> float:
        """Infinite without a limit."""
        return math.inf if self.limits.seconds is None else max(0.0, self.limits.seconds - self.spent.seconds)

    @property
    def _pico_limit(self) -> float:
        return math.inf if self.limits.dollars is None else math.floor(self.limits.dollars * PICO)

    def _pico_left(self) -> float:
        return self._pico_limit - self._before.pico - sum(r.pico for r in self._open.values())

    def _tokens_left(self) -> float:
        if self.limits.tokens is None:
            return math.inf
        return self.limits.tokens - self._before.tokens - sum(r.tokens for r in self._open.values())

    def affordable(self, model: str, input_tokens: int, keep: Keep = "5m") -> int:
        """The most tokens of answer that a call with such a prompt may be allowed; below 1: none."""
        price = price_of(model, self.prices)
        left, rate = self._pico_left(), price.rates_of(input_tokens).output
        most = min(self._tokens_left() - input_tokens, price.context - input_tokens, price.max_output)
        if left != math.inf:
            rest = left - price.worst(input_tokens, 0, keep)
            most = min(most, rest // rate) if rate else (most if rest >= 0 else 0)
        return int(most)

    # -- a call --------------------------------------------------------------------------------------------------

    def worst(self, model: str, input_tokens: int, max_tokens: int, keep: Keep = "5m") -> float:
        """Dollars that one call may cost at most."""
        return price_of(model, self.prices).worst(input_tokens, max_tokens, keep) / PICO

    def reserve(self, model: str, input_tokens: int, max_tokens: int, keep: Keep = "5m") -> Reservation:
        """Set the worst case of a call aside. Raises Exhausted if it could overshoot a limit, UnknownPrice for a model
        without a price."""
        if input_tokens < 0 or max_tokens < 1:
            raise ValueError("a call has no fewer than 0 tokens of prompt and 1 of answer")
        price = price_of(model, self.prices)
        self.check()
        if self.limits.calls is not None and self._before.calls + len(self._open) >= self.limits.calls:
            raise Exhausted(f"calls: no more than {self.limits.calls} may be made")
        pico = price.worst(input_tokens, max_tokens, keep)
        if pico > self._pico_left():
            left = max(0.0, self._pico_left()) / PICO
            raise Exhausted(f"dollars: the next call may cost ${pico / PICO:.4f}, and ${left:.4f} are left")
        if input_tokens + max_tokens > self._tokens_left():
            left = max(0, int(self._tokens_left()))
            raise Exhausted(f"tokens: the next call may use {input_tokens + max_tokens:,}, and {left:,} are left")
        self._number += 1
        made = Reservation(self._number, model, input_tokens, max_tokens, keep, pico)
        self._open[made.number] = made
        return made

    def settle(self, reservation: Reservation, usage: Usage | None, failed: bool | None = None) -> int:
        """Charge a call, in picodollars. ``usage`` None: it failed without saying, and the worst case of its prompt is
        charged. ``failed`` counts it among those without an answer (default: those without a usage)."""
        if self._open.pop(reservation.number, None) is None:
            raise ValueError("this call was settled before")
        told = usage if usage is not None else _unsaid(reservation)
        pico = cost(price_of(reservation.model, self.prices), told)
        lost = usage is None if failed is None else failed
        before = self._before
        self._before = replace(
            before,
            pico=before.pico + pico,
            calls=before.calls + 1,
            tokens=before.tokens + told.tokens,
            prompt=before.prompt + (0 if lost else told.prompt),
            read=before.read + (0 if lost else told.read),
            failed=before.failed + lost,
        )
        return pico

    # -- resuming ------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """What ``from_json`` needs; calls that are under way count in full, since nobody knows what became of them."""
        spent = self.spent
        return {
            "pico": spent.pico + sum(r.pico for r in self._open.values()),
            "calls": spent.calls + len(self._open),
            "tokens": spent.tokens + sum(r.tokens for r in self._open.values()),
            "seconds": round(spent.seconds, 3),
            "prompt": spent.prompt,
            "read": spent.read,
            "failed": spent.failed + len(self._open),
        }

    @staticmethod
    def from_json(
        data: dict[str, Any], limits: Limits, prices: Prices, clock: Callable[[], float] = time.monotonic
    ) -> Budget:
        """A budget that goes on from there, under ``limits`` (which may be others than before)."""
        budget = Budget(limits, prices, clock)
        budget._before = Spent(**data)
        return budget

    def text(self) -> str:
        """What is left, for the model and for people; no times, so that a replay says the same."""
        limits, spent = self.limits, self._before
        parts = [] if limits.dollars is None else [f"${max(0.0, limits.dollars - spent.dollars):.2f}"]
        parts += [] if limits.calls is None else [f"{max(0, limits.calls - spent.calls)} calls"]
        parts += [] if limits.tokens is None else [f"{max(0, limits.tokens - spent.tokens):,} tokens"]
        return ", ".join(parts) or "no limit"


def cost(price: Price, usage: Usage) -> int:
    """Picodollars of a call."""
    r = price.rates_of(usage.prompt)
    prompt = usage.input * r.input + usage.write_5m * r.write_5m + usage.write_1h * r.write_1h + usage.read * r.read
    return prompt + usage.output * r.output


def _unsaid(reservation: Reservation) -> Usage:
    """The worst case of a prompt: all of it written to the cache."""
    write = {"write_1h" if reservation.keep == "1h" else "write_5m": reservation.input_tokens}
    return Usage(**write)
