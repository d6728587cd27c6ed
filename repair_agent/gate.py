"""Accept or refuse: one step of a repair, and the repair as a whole. Nothing that an engine says counts here."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from repair_agent.canary import canary
from repair_agent.findings import OPEN, Run
from repair_agent.groups import Group
from repair_agent.question import Question
from repair_agent.suite import Begun, judged, place, silent
from repair_agent.tree import guard
from repair_agent.tree.extent import astray
from repair_agent.tree.guard import Frozen
from repair_agent.tree.worktree import Worktree, diff, tip

# A step may make the suite slower, but not without end.
LEAST, FACTOR = 300.0, 20.0  # seconds; times the last run


class Step(Protocol):
    """What is ruled on: a ``case.Case``, of which this is asked."""

    @property
    def question(self) -> Question: ...
    @property
    def tree(self) -> Worktree: ...
    @property
    def group(self) -> Group: ...
    @property
    def run(self) -> Run: ...
    @property
    def tell(self) -> Callable[[str], None]: ...


@dataclass(frozen=True)
class Ruling:
    """``why``: one line; ``run``: the whole suite on what the tree holds, if it came to that; ``improved``: checks
    that turned EQUAL; ``regressed``: checks that were EQUAL and are not."""

    accepted: bool
    why: str
    run: Run | None = None
    improved: tuple[str, ...] = ()
    regressed: tuple[str, ...] = ()
    seed: int | None = None  # the unseen one on which a check is not EQUAL


@contextmanager
def ready(case: Step) -> Iterator[Begun | None]:
    """The suite that ``ruled`` will ask, which loads while an engine works; None where no process can be begun."""
    begun = None
    with suppress(OSError):  # it is told of where it is asked
        begun = Begun(case.question, case.tree.root, first=_asked(case))
    try:
        yield begun
    finally:
        if begun is not None:
            begun.close()


def ruled(case: Step, frozen: Frozen, begun: Begun | None = None) -> Ruling:
    """Whether what lies uncommitted in the tree is a step: the guard, then the suite, the group's own checks first.

    ``begun``: what ``ready`` gave; it can be asked once.
    """
    before, root, tell = case.run, case.tree.root, case.tell
    if not diff(case.tree, since=tip(case.tree)):
        return Ruling(False, "nothing was changed")
    if forbidden := _forbidden(case.question, case.tree, frozen):
        return Ruling(False, forbidden)
    limit = _patience(before.seconds)
    opened = _opened(before)
    asked = _asked(case)
    tell(f"{case.group.key}: the suite, {len(asked)} checks of the group first" if asked else "the suite")
    run = judged(case.question, root, seconds=limit, tell=tell, first=asked, begun=begun)
    told = any(_word(run, c) != "MISSING" for c in asked)
    if told and not _turned(before, run, asked):  # cheap, as the rest was not run; most attempts end here
        return Ruling(False, f"no check of the group turned EQUAL: {_still(run, asked)}")
    improved = _turned(before, run, tuple(run.findings)) if opened else _let_in(before, run)
    regressed = tuple(c for c, f in before.findings.items() if f.word == "EQUAL" and _word(run, c) != "EQUAL")
    if run.trouble:
        return Ruling(False, run.trouble, run, improved, regressed)
    if regressed:
        return Ruling(False, f"what was EQUAL is not any more: {_still(run, regressed)}", run, improved, regressed)
    if opened and not set(improved) & {*case.group.checks}:
        return Ruling(False, f"no check of the group turned EQUAL: {_still(run, case.group.checks)}", run, improved)
    if not opened and not improved:
        return Ruling(False, f"the pair still does not open and run: {_still(run, run.shut)}", run)
    what = "the pair opens and runs" if not opened else f"{len(improved)} checks turned EQUAL"
    return Ruling(True, what, run, improved)


def final(
    question: Question,
    tree: Worktree,
    frozen: Frozen,
    seeds: Sequence[int],
    expected: Sequence[str] = (),
    tell: Callable[[str], None] = silent,
    took: float = 0.0,
) -> Ruling:
    """The last word on what was accepted: fresh processes, seeds that were never seen, and a bug that must be caught.

    ``expected``: checks that must be there besides those that the pair says it has, such as all of earlier runs;
    ``took``: seconds of the last run, by which it is known how long one with a seeded bug may take.
    """
    if left := diff(tree, since=tip(tree)):
        return Ruling(False, f"there are changes that were not accepted: {left.splitlines()[0]}")
    if forbidden := _forbidden(question, tree, frozen):
        return Ruling(False, forbidden)
    if elsewhere := astray(question, tree.root):
        return Ruling(False, f"Python would not take the target from the worktree: {', '.join(elsewhere[:3])}")
    if not seeds:
        return Ruling(False, "no seed was given to judge it by")
    ruling = _together([
        *(partial(_unseen, question, tree, seed, expected, tell) for seed in seeds),
        partial(_watched, question, tree, seeds[0], _patience(took), tell),
    ])  # fmt: skip
    if ruling.accepted and (forbidden := _forbidden(question, tree, frozen)):  # by the target, while it ran
        return Ruling(False, forbidden, ruling.run)
    return ruling


def _unseen(
    question: Question,
    tree: Worktree,
    seed: int,
    expected: Sequence[str],
    tell: Callable[[str], None],
    stop: Callable[[], bool],
) -> Ruling:
    """Whether everything is EQUAL on one unseen seed, in a folder of its own."""
    output = place(tree.root) / f"seed-{seed}"
    run = judged(question, tree.root, seed=seed, tell=lambda line: tell(f"seed {seed}: {line}"), fresh=True,
                 output=output, stop=stop)  # fmt: skip
    if run.trouble:
        return Ruling(False, f"seed {seed}: {run.trouble}", run)
    lacking = tuple(c for c in dict.fromkeys((*run.expected, *expected)) if _word(run, c) != "EQUAL")
    if lacking:
        return Ruling(False, f"seed {seed}: {_still(run, lacking)}", run, regressed=lacking, seed=seed)
    if not run.green:
        return Ruling(False, f"seed {seed}: pytest ended with exit code {run.exit}", run)
    return Ruling(True, "every check is EQUAL", run)


def _watched(
    question: Question,
    tree: Worktree,
    seed: int,
    seconds: float,
    tell: Callable[[str], None],
    stop: Callable[[], bool],
) -> Ruling:
    """Whether the suite catches a bug in what was repaired."""
    bird = canary(question, tree, seed=seed, seconds=seconds, tell=tell, stop=stop)
    return Ruling(bird.caught, bird.why)


def _together(parts: Sequence[Callable[[Callable[[], bool]], Ruling]]) -> Ruling:
    """The first refusal, which ends the others, or all acceptances in one; as many side by side as there are cores."""
    ended = threading.Event()
    with ThreadPoolExecutor(max(1, min(len(parts), os.cpu_count() or 1))) as pool:
        waiting = [pool.submit(part, ended.is_set) for part in parts]
        try:
            for future in as_completed(waiting):
                if not future.result().accepted:
                    return future.result()
        finally:  # Ctrl-C too
            ended.set()
    *unseen, bird = [future.result() for future in waiting]
    return Ruling(True, f"every check is EQUAL on {len(unseen)} unseen seeds, and {bird.why}", unseen[-1].run)


def _patience(seconds: float) -> float:
    """How long a suite may take whose last run took so long."""
    return max(LEAST, FACTOR * seconds)


def _forbidden(question: Question, tree: Worktree, before: Frozen) -> str:
    """What the guard has to say, in one line; "" if nothing."""
    after = guard.frozen(question, tree, tuple(before.more))
    lines = [*guard.changed(before, after), *guard.refused(before, after)]
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


def _asked(case: Step) -> tuple[str, ...]:
    """The checks that come first."""
    return tuple(c for c in case.group.checks if c in case.run.expected) if _opened(case.run) else ()


def _opened(run: Run) -> bool:
    return bool(run.findings) and not run.shut


def _let_in(before: Run, after: Run) -> tuple[str, ...]:
    """What kept other checks from being asked, and does no more."""
    return before.shut or (OPEN,) if _opened(after) else ()


def _word(run: Run, check: str) -> str:
    return run.findings[check].word if check in run.findings else "MISSING"


def _turned(before: Run, after: Run, checks: Sequence[str]) -> tuple[str, ...]:
    return tuple(c for c in checks if _word(after, c) == "EQUAL" and _word(before, c) != "EQUAL")


def _still(run: Run, checks: Sequence[str]) -> str:
    """The first of some checks that is not EQUAL, and how many others are not."""
    wrong = [c for c in checks if _word(run, c) != "EQUAL"]
    if not wrong:
        return run.trouble or "all are EQUAL"
    said = run.findings[wrong[0]].summary if wrong[0] in run.findings else run.trouble or "it is not there any more"
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{wrong[0]} is {_word(run, wrong[0])}: {said}{more}"
