"""The words every part of the project shares: what was asked, what was checked, what was found.

Plain values; ``as_json`` of each is what the report, the worker's pipe and the repair agent read.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Word = Literal["EQUAL", "DIFFERENT", "INCONCLUSIVE"]
EQUAL: Word = "EQUAL"
DIFFERENT: Word = "DIFFERENT"
INCONCLUSIVE: Word = "INCONCLUSIVE"

LEVELS = ("L1", "L2", "L3", "L4")
WITHOUT_LEARNING = LEVELS[:3]  # levels for which no policy is trained
LEARNING = "optax"  # what L4 needs, of the extra "learning"
NEEDS_LEARNING = f"it needs {LEARNING}; install it with: pip install 'pytest-envequiv[learning]'"
PROFILES = ("quick", "standard", "thorough")
ALPHA = 1e-3  # the probability of a false alarm of statistics, for the whole suite


def default_levels() -> tuple[str, ...]:
    """What a run asks if it is not told: everything, but L4 only where what it needs is installed."""
    return LEVELS if importlib.util.find_spec(LEARNING) else WITHOUT_LEARNING


# Told while a check runs: what is being done, how much of it is done, out of how much (0: unknown).
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The progress display that shows nothing."""


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do. Everything a verdict may depend on is here, in the contract or in the pair."""

    ref: str
    target: str
    levels: tuple[str, ...] = field(default_factory=default_levels)
    profile: str = "quick"
    seed: int = 0
    budget: float | None = None  # seconds for the whole run; what is not reached is INCONCLUSIVE
    timeout: float = 300.0  # seconds one check may be silent before its backend counts as hung
    contract: str | None = None  # path of a TOML file
    output: str = ".envequiv"  # folder for counterexamples and proposals
    strict: bool = False  # differences of convention are failures
    isolate: bool = False  # the target runs in a process of its own
    memory: float = 8.0  # GiB that an isolated target may allocate
    answers: str | None = None  # folder in which the reference's answers are kept for later runs

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "levels": list(self.levels)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Settings:
        return Settings(**{**data, "levels": tuple(data["levels"])})


@dataclass(frozen=True)
class Check:
    """One generated test. ``id`` is "<level>-<subject>-<field>" in letters, digits, "_", "." and "-"."""

    id: str
    level: str
    subject: str
    field: str
    cost: Literal["cheap", "costly"] = "cheap"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Divergence:
    """The first place where the sides differ, in a form a person can read.

    ``expected`` and ``actual`` are the reference's and the target's value of ``field`` at ``index``; ``error``
    is their distance and ``tolerance`` what rounding explains (both None for exact fields); ``why`` says where
    the tolerance comes from. ``state``, ``action`` and ``draws`` are the inputs of the one step.
    """

    field: str
    index: tuple[int, ...]
    expected: Any
    actual: Any
    error: float | str | None  # text: "inf" or "nan"
    tolerance: float | str | None
    why: str
    state: dict[str, Any]
    action: dict[str, Any]
    draws: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    episode: int | None = None
    step: int | None = None
    source: str = ""  # the stimulus: "reset", "play", "boundary", "limit", "replay"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "index": list(self.index)}


@dataclass(frozen=True)
class Verdict:
    """What one check found. ``summary`` is one line; ``evidence`` is JSON-safe and holds the numbers behind it.

    Keys of ``evidence`` with a fixed meaning (all optional): "transitions", "episodes", "seconds",
    "terminations", "truncations", "ties" (exact mismatches at a rounding boundary, not counted), "diverging" (how
    many of the transitions), "detectable_effect" (the smallest a statistical check could have seen, as text).
    ``follows`` names the check whose divergence explains this one. ``counterexample`` is a path.
    """

    check: Check
    word: Word
    summary: str
    divergence: Divergence | None = None
    follows: str | None = None
    notes: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    counterexample: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check.as_json(),
            "word": self.word,
            "summary": self.summary,
            "divergence": None if self.divergence is None else self.divergence.as_json(),
            "follows": self.follows,
            "notes": list(self.notes),
            "evidence": self.evidence,
            "counterexample": self.counterexample,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Verdict:
        found = data["divergence"]
        return Verdict(
            check=Check(**data["check"]),
            word=data["word"],
            summary=data["summary"],
            divergence=None if found is None else Divergence(**{**found, "index": tuple(found["index"])}),
            follows=data["follows"],
            notes=tuple(data["notes"]),
            evidence=data["evidence"],
            counterexample=data["counterexample"],
        )


def side_named(word: str) -> tuple[str, str]:
    """("ref" or "target", name) of a word of a command line."""
    side, _, name = word.partition("=")
    if side not in ("ref", "target") or not name:
        raise argparse.ArgumentTypeError(f"{word!r}: write ref=NAME target=NAME")
    return side, name


def pair_name(ref: str, target: str) -> str:
    """What the files about a pair are called."""

    def short(name: str) -> str:
        return re.sub(r"[\W_]+", "_", name)[:60]

    return f"{short(ref)}__{short(target)}"


def overall(verdicts: list[Verdict]) -> Word:
    """One word for a set: DIFFERENT if any is, else INCONCLUSIVE if any is or there are none, else EQUAL."""
    words = {v.word for v in verdicts}
    if DIFFERENT in words:
        return DIFFERENT
    return EQUAL if words == {EQUAL} else INCONCLUSIVE


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it exactly: numpy becomes lists and numbers, NaN and infinities become text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars; float32 to float64 is exact
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value
