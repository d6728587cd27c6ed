"""The suite as the repair agent sees it: pytest in a process of its own, and what its JSON report says.

Nothing of the target is imported here. What a target does to its process (exits, hangs, prints) ends as
``Run.trouble``, never as an error of the agent.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Word = Literal["EQUAL", "DIFFERENT", "INCONCLUSIVE", "MISSING"]  # MISSING: expected, and not in the report


@dataclass(frozen=True)
class Question:
    """What pytest is asked. ``options``: more of its arguments, as typed (``--envequiv-strict``)."""

    ref: str
    target: str
    profile: str = "quick"
    contract: str | None = None  # path, relative to the folder the suite runs in
    seed: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One check of a run."""

    node: str  # pytest's node id
    check: str  # its last part: "L2-boundary-velocity"
    level: str
    subject: str
    field: str
    word: Word
    summary: str
    follows: str | None = None  # the check whose divergence explains this one
    divergence: dict[str, Any] | None = None
    blame: tuple[dict[str, Any], ...] = ()  # {"file", "line", "code", "score", "why"}, best first
    counterexample: str | None = None  # absolute path
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of the suite. ``expected``: ids of all checks of the pair; ``order``: outputs in data-flow order."""

    findings: dict[str, Finding]  # by check id
    expected: tuple[str, ...]
    order: tuple[str, ...] = ()
    describe: dict[str, Any] = dataclasses.field(default_factory=dict)
    contents: dict[str, Any] = dataclasses.field(default_factory=dict)
    exit: int = 0
    seconds: float = 0.0
    trouble: str = ""  # why there is no report, or only half of one

    @property
    def green(self) -> bool:
        """Every check that was expected is there and EQUAL, and pytest ended as it does then."""
        return (
            not self.trouble
            and self.exit == 0
            and bool(self.expected)
            and all(c in self.findings and self.findings[c].word == "EQUAL" for c in self.expected)
        )
