"""What an engine is given, and what it gives back: one group of failures, and whether files were edited for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from repair_agent.budget import Budget
from repair_agent.findings import Run
from repair_agent.groups import Group
from repair_agent.journal import Journal
from repair_agent.question import Question
from repair_agent.tree.worktree import Worktree


@dataclass(frozen=True)
class Case:
    """One group of failures to mend.

    run      the last run of the whole suite, on what the tree holds now
    tries    attempts at this group so far; history: what each was, and why it was refused
    tell     a live line for the person who waits
    """

    question: Question
    tree: Worktree
    group: Group
    run: Run
    budget: Budget
    journal: Journal
    tries: int = 0
    history: tuple[str, ...] = ()
    tell: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Attempt:
    """``changed``: files in the tree were edited, and not committed. ``why``: what was done, or why nothing was."""

    changed: bool
    why: str
    gave_up: bool = False  # it says it cannot mend this group; it need not be asked again


class Engine(Protocol):
    """Something that can edit a target. Raises ``budget.Exhausted`` at a limit; anything else is its own fault."""

    name: str

    def attempt(self, case: Case) -> Attempt: ...
