"""The state machine: baseline, choose a group, attempt, gate, commit or revert, next; the last word; land.

Everything that a later session needs is on disk before the next step is taken: ``state.json`` for ``--resume``, the
trajectory for people and for ``--replay``. A limit or Ctrl-C leaves the best checkpoint on its branch.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_envequiv import whole
from repair_agent import gate
from repair_agent.budget import Budget, Exhausted
from repair_agent.case import Attempt, Case, Engine
from repair_agent.findings import Finding, Run
from repair_agent.groups import Group, groups
from repair_agent.journal import Journal
from repair_agent.question import Question
from repair_agent.suite import silent
from repair_agent.tree import worktree
from repair_agent.tree.guard import Frozen
from repair_agent.tree.worktree import Worktree

HELD_OUT = 1_000_000_007  # the last word's seeds begin here: no run of an engine has one of them


@dataclass(frozen=True)
class Step:
    """One attempt and what became of it."""

    group: str
    engine: str
    why: str
    accepted: bool
    ruling: str
    turned: tuple[str, ...] = ()  # checks that are EQUAL now and were not
    commit: str = ""
    dollars: float = 0.0
    seconds: float = 0.0
    wrong: str = ""  # what the first check of the group found


@dataclass(frozen=True)
class Checkpoint:
    """Where a repair stands, as it is kept on disk. ``asked``: the options it was begun with."""

    question: Question
    tree: Worktree
    baseline: Run
    run: Run  # of what is committed
    steps: tuple[Step, ...] = ()
    given_up: tuple[str, ...] = ()  # keys of groups
    trials: int = 0  # how many times the last word was asked
    proven: bool = False
    workflow: str = "repair"
    asked: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        whole.write(path, json.dumps(dataclasses.asdict(self), default=str))


def load(path: Path) -> Checkpoint:
    """Raises ValueError if the file is no checkpoint."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        tree = told["tree"]
        return Checkpoint(
            question=Question(**_tuples(told["question"])),
            tree=Worktree(**{**_tuples(tree), **{k: Path(tree[k]) for k in ("root", "top", "origin")}}),
            baseline=_run(told["baseline"]),
            run=_run(told["run"]),
            steps=tuple(Step(**_tuples(s)) for s in told["steps"]),
            given_up=tuple(told["given_up"]),
            trials=told["trials"],
            proven=told["proven"],
            workflow=told["workflow"],
            asked=dict(told["asked"]),
        )
    except FileNotFoundError:
        raise ValueError(f"there is nothing to go on from ({path}): begin without --resume") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be resumed from: {error!r}; begin anew without --resume") from None


def _run(told: dict[str, Any]) -> Run:
    findings = {k: Finding(**_tuples(f)) for k, f in told["findings"].items()}
    return Run(**{**_tuples(told), "findings": findings})


def _tuples(told: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}


@dataclass(frozen=True)
class Plan:
    """How a repair is done. ``tries``: attempts at a group by each engine before it is given up."""

    engines: tuple[Engine, ...]
    frozen: Frozen
    budget: Budget
    journal: Journal
    keep: Callable[[Checkpoint], None]
    tell: Callable[[str], None]  # what stays
    now: Callable[[str], None] = silent  # what passes
    tries: int = 3
    held_out: Sequence[int] = (0, 1)  # seeds of one trial, counted from HELD_OUT


def repaired(plan: Plan, point: Checkpoint) -> tuple[Checkpoint, str]:
    """(the last checkpoint, why it ended): ``proven`` says whether the last word was spoken.

    Raises KeyboardInterrupt with the checkpoint kept.
    """
    try:
        while True:
            if plan.budget.seconds_left <= 0 or not point.run.green:  # the last word costs nothing but time
                plan.budget.check()
            if point.run.green:
                ruling, point = _last_word(plan, point)
                if ruling.accepted:
                    return point, ruling.why
                if ruling.run is None or ruling.run.green or ruling.seed is None:  # nothing that could be mended
                    return point, f"refused: {ruling.why}"
                # That seed is seen from now on: the repair goes on from what it showed, and others are kept unseen.
                point = replace(point, run=ruling.run, question=replace(point.question, seed=ruling.seed))
                plan.keep(point)
            group = next((g for g in groups(point.run) if g.key not in point.given_up), None)
            if group is None:
                return point, _stuck(point)
            point = _group(plan, point, group)
    except Exhausted as error:
        worktree.revert(point.tree)
        return point, f"stopped: {error}"
    except KeyboardInterrupt:
        worktree.revert(point.tree)
        plan.keep(point)
        raise


def _group(plan: Plan, point: Checkpoint, group: Group) -> Checkpoint:
    """The checkpoint after one group: with a step accepted, or with the group given up."""
    plan.journal.write("group", key=group.key, checks=list(group.checks), followers=list(group.followers))
    wrong = _wrong(point.run, group)
    plan.tell(f"{group.key}: {wrong}")
    for engine in plan.engines:
        for number in range(plan.tries):
            plan.budget.check()
            plan.tell(f"{group.key}: {engine.name}, try {number + 1}")
            began, spent = time.monotonic(), plan.budget.spent.dollars
            case = Case(
                question=point.question, tree=point.tree, group=group, run=point.run, budget=plan.budget,
                journal=plan.journal, tries=number, history=_history(point, group), tell=plan.now,
            )  # fmt: skip
            with gate.ready(case) as begun:
                attempt = engine.attempt(case)
                ruling = gate.ruled(case, plan.frozen, begun) if attempt.changed else None
            step = _step(group, engine, attempt, ruling, time.monotonic() - began, plan.budget.spent.dollars - spent)
            step = replace(step, wrong=wrong)
            if ruling is not None and ruling.accepted:
                sha = worktree.commit(point.tree, _message(group, attempt, ruling))
                step = replace(step, accepted=True, commit=sha)
            elif attempt.changed:
                worktree.revert(point.tree)
            plan.journal.write("step", **dataclasses.asdict(step), budget=plan.budget.as_json())
            point = replace(point, steps=(*point.steps, step))
            if step.accepted and ruling is not None and ruling.run is not None:
                plan.tell(f"{group.key}: mended by {engine.name}; {_count(ruling.run)}")
                point = replace(point, run=ruling.run)
                plan.keep(point)
                return point
            plan.keep(point)
            said = f"refused: {step.ruling}" if attempt.changed else attempt.why
            plan.tell(f"{group.key}: {engine.name}: {said}")
            if attempt.gave_up or not attempt.changed:
                break
    point = replace(point, given_up=(*point.given_up, group.key))
    plan.keep(point)
    return point


def _wrong(run: Run, group: Group) -> str:
    """What the group is about, in one line."""
    found = [run.findings[check] for check in group.checks if check in run.findings]
    said = found[0].summary or found[0].word if found else run.trouble
    more = len(group.followers)
    follow = f"; {more} more follow{'s' * (more == 1)} from it" if more else ""
    return " ".join(said.split()) + follow


def _history(point: Checkpoint, group: Group) -> tuple[str, ...]:
    """What was tried on a group and refused, before a kill as well."""
    mine = [s for s in point.steps if s.group == group.key and s.ruling and not s.accepted]
    return tuple(f"{s.engine}: {s.why}; refused: {s.ruling}" for s in mine)


def _step(
    group: Group, engine: Engine, attempt: Attempt, ruling: gate.Ruling | None, seconds: float, dollars: float
) -> Step:
    turned = () if ruling is None or not ruling.accepted else ruling.improved
    said = "" if ruling is None else ruling.why
    return Step(group.key, engine.name, attempt.why, False, said, turned, "", round(dollars, 6), round(seconds, 1))


def _message(group: Group, attempt: Attempt, ruling: gate.Ruling) -> str:
    turned = "\n".join(f"  {check}" for check in ruling.improved)
    return f"{group.key}: {attempt.why}\n\nTurned EQUAL:\n{turned}\n"


def _last_word(plan: Plan, point: Checkpoint) -> tuple[gate.Ruling, Checkpoint]:
    first = HELD_OUT + point.trials * len(plan.held_out)
    seeds = [first + s for s in plan.held_out]
    plan.tell(f"every check is EQUAL; the last word, on {len(seeds)} unseen seeds and with a seeded bug")
    ruling = gate.final(point.question, point.tree, plan.frozen, seeds, _expected(point), plan.now, point.run.seconds)
    plan.journal.write("last word", accepted=ruling.accepted, why=ruling.why, seeds=seeds)
    point = replace(point, trials=point.trials + 1, proven=ruling.accepted)
    plan.keep(point)
    return ruling, point


def _expected(point: Checkpoint) -> tuple[str, ...]:
    """All checks that any run has had: a repair cannot pass by dropping what is compared."""
    had = () if point.baseline.shut else point.baseline.expected
    return tuple(dict.fromkeys((*had, *point.run.expected)))


def _stuck(point: Checkpoint) -> str:
    left = ", ".join(point.given_up)
    return f"stuck: no engine mends {left}" if left else "stuck: nothing to mend was found, and not all is EQUAL"


def _count(run: Run) -> str:
    equal = sum(run.findings[c].word == "EQUAL" for c in run.expected if c in run.findings)
    return f"{equal} of {len(run.expected)} EQUAL"
