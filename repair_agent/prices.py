"""What a call costs, by model: ``prices.toml`` and what the user gives. A model without a price is refused.

Money is counted in whole picodollars: a price per million tokens with six decimals is a whole number of them per
token, so that sums are exact and a limit is a limit.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

PICO = 10**12  # picodollars in a dollar
FILE = Path(__file__).with_name("prices.toml")
RATES = ("input", "output", "write_5m", "write_1h", "read")
UNKNOWN_CONTEXT, UNKNOWN_OUTPUT = 200_000, 64_000  # of a model whose price was typed: what every current one can

Keep = Literal["5m", "1h"]  # how long the cache keeps what is written


class UnknownPrice(Exception):
    """What a model costs is not known, or not said in a form that can be read. One line, with how to say it."""


@dataclass(frozen=True)
class Rates:
    """Picodollars per token."""

    input: int
    output: int
    write_5m: int
    write_1h: int
    read: int


@dataclass(frozen=True)
class Price:
    """A model's prices and sizes. ``long``: the rates of a request with a prompt of more than ``above`` tokens."""

    model: str
    rates: Rates
    context: int
    max_output: int
    as_of: str  # ISO date, or "given" by the user
    source: str
    above: int | None = None
    long: Rates | None = None

    def rates_of(self, prompt: int) -> Rates:
        """What applies to a request with ``prompt`` tokens, those read from the cache included."""
        return self.long if self.long is not None and self.above is not None and prompt > self.above else self.rates

    def worst(self, prompt: int, output: int, keep: Keep = "5m") -> int:
        """Picodollars of a call at most: nothing is in the cache, all of it is written, the answer is full."""
        choices = [self.rates] if self.long is None or prompt <= (self.above or 0) else [self.rates, self.long]
        return max(prompt * max(r.input, _write(r, keep), r.read) + output * r.output for r in choices)

    def text(self) -> str:
        """One line for people: "claude-x: $2 in, $10 out, ... per million tokens (2026-10-24)"."""
        r = self.rates
        parts = [(r.input, "in"), (r.output, "out"), (r.write_5m, "cache write"), (r.read, "cache read")]
        told = ", ".join(f"${rate / 10**6:g} {what}" for rate, what in parts)
        return f"{self.model}: {told} per million tokens ({self.as_of})"


Prices = Mapping[str, Price]


def _write(rates: Rates, keep: Keep) -> int:
    return rates.write_1h if keep == "1h" else rates.write_5m


def table(given: Iterable[str] = (), file: Path | None = None) -> dict[str, Price]:
    """Model -> price: those that come with the program, then those of ``file``, then ``MODEL=IN,OUT[,WRITE,READ]``.

    Raises UnknownPrice for what cannot be read.
    """
    found = read(FILE)
    if file is not None:
        found |= read(file)
    return found | {price.model: price for price in map(parsed, given)}


def price_of(model: str, prices: Prices | None = None) -> Price:
    """Raises UnknownPrice: it says how to give one."""
    known = table() if prices is None else prices
    if model in known:
        return known[model]
    near = difflib.get_close_matches(model, known, 1)
    raise UnknownPrice(
        f"what the model {model!r} costs is not known"
        + (f" (did you mean {near[0]!r}?)" if near else "")
        + f": give it in dollars per million tokens, --price {model}=IN,OUT[,WRITE,READ], or in a file like prices.toml"
    )


def parsed(text: str) -> Price:
    """The price in ``MODEL=IN,OUT[,WRITE,READ]``.

    Where WRITE and READ are left out, twice the input and the input are meant: too much rather than too little.
    """
    model, _, numbers = text.partition("=")
    try:
        values = [float(part) for part in numbers.split(",")]
    except ValueError:
        values = []
    if not model or len(values) not in (2, 4) or not all(0 <= v < math.inf for v in values):
        raise UnknownPrice(
            f"--price {text}: expected MODEL=IN,OUT or MODEL=IN,OUT,WRITE,READ, in dollars per million tokens"
        )
    write, back = values[2:] or (2 * values[0], values[0])
    rates = Rates(*(_pico(v) for v in (values[0], values[1], write, write, back)))
    return Price(model, rates, UNKNOWN_CONTEXT, UNKNOWN_OUTPUT, "given", "--price")


def read(file: Path) -> dict[str, Price]:
    """The prices in a TOML file, one table a model. Raises UnknownPrice in one line."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnknownPrice(f"prices in {file}: {error}") from error
    found: dict[str, Price] = {}
    for model, data in tables.items():
        try:
            price = _of(model, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnknownPrice(f"prices in {file}: {model}: {type(error).__name__}: {error}") from error
        found |= {name: replace(price, model=name) for name in (model, *data.get("also", ()))}
    return found


def _of(model: str, data: dict[str, Any]) -> Price:
    long = data.get("long")
    return Price(
        model,
        _rates(data),
        int(data["context"]),
        int(data["max_output"]),
        str(data["as_of"]),
        str(data["source"]),
        None if long is None else int(long["above"]),
        None if long is None else _rates(long),
    )


def _rates(data: dict[str, Any]) -> Rates:
    return Rates(*(_pico(float(data[name])) for name in RATES))


def _pico(dollars_per_million: float) -> int:
    """Picodollars per token, rounded up."""
    if not 0 <= dollars_per_million < math.inf:
        raise ValueError(f"{dollars_per_million} is no price")
    return math.ceil(round(dollars_per_million * 10**6, 3))
