"""The same decision from Python: ``pytest_envequiv.compare(ref, target)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_envequiv.backends.opening import name_of
from pytest_envequiv.judge import Judge
from pytest_envequiv.report import document, terminal
from pytest_envequiv.verdict import (
    DIFFERENT,
    Progress,
    Settings,
    Verdict,
    Word,
    default_levels,
    overall,
    silent,
)


@dataclass(frozen=True)
class Report:
    """What ``compare`` found: all verdicts in the order they were reached, and the notes on convention."""

    settings: Settings
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    description: dict[str, Any]

    @property
    def word(self) -> Word:
        """DIFFERENT if any check is, else INCONCLUSIVE if any is, else EQUAL."""
        return overall(list(self.verdicts))

    @property
    def roots(self) -> tuple[Verdict, ...]:
        """The DIFFERENT verdicts that are nobody's consequence."""
        return tuple(v for v in self.verdicts if v.word == DIFFERENT and v.follows is None)

    def __str__(self) -> str:
        checks = [v.check for v in self.verdicts]
        pair = document.pair_document("envequiv", self.settings, checks, self.notes, self.description)
        levels = document.level_summary(self.verdicts)
        return "\n".join([terminal.title(pair), *terminal.summary(pair, list(self.verdicts), levels)])


def compare(
    ref: Any,
    target: Any,
    *,
    levels: Sequence[str] | None = None,
    profile: str = "quick",
    seed: int = 0,
    contract: str | None = None,
    output: str = ".envequiv",
    budget: float | None = None,
    strict: bool = False,
    isolate: bool = False,
    progress: Progress = silent,
) -> Report:
    """Decide whether ``target`` is the same environment as ``ref``, in this process.

    ``ref`` and ``target`` are names as on the command line, modules, classes, factories or environment objects.
    ``levels``: by default all that can be asked; L4 needs the extra ``learning``.
    ``budget`` is in seconds; checks not reached are INCONCLUSIVE. ``isolate``: the target, given by its name, runs in a
    process of its own. Raises EnvequivError, in one line, for what a user can mend; a side that fails while it is being
    run makes a verdict.
    """
    names = [thing if isinstance(thing, str) else name_of(thing) for thing in (ref, target)]
    settings = Settings(
        names[0],
        names[1],
        default_levels() if levels is None else tuple(levels),
        profile,
        seed,
        budget,
        contract=contract,
        output=output,
        strict=strict,
        isolate=isolate,
    )
    judge = Judge(
        settings,
        progress,
        ref=None if isinstance(ref, str) else ref,
        target=None if isinstance(target, str) else target,
    )
    try:
        verdicts = [judge.run(check.id, progress) for check in judge.checks]
        return Report(settings, tuple(verdicts), tuple(judge.notes), judge.describe())
    finally:
        judge.close()
