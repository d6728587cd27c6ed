"""The end report: what was wrong, what changed, what it cost, which checks turned. JSON and terminal."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from repair_agent.budget import Budget
from repair_agent.loop import Checkpoint, Step
from repair_agent.suite import Run

SCHEMA_VERSION = 1


def document(point: Checkpoint, budget: Budget, ended: str, diff: str, landed: str) -> dict[str, Any]:
    """JSON-safe. ``groups`` holds what was done for each group of failures, in the order in which it was tried."""
    keys = list(dict.fromkeys(s.group for s in point.steps))
    return {
        "schema": SCHEMA_VERSION,
        "ref": point.question.ref,
        "target": point.question.target,
        "proven": point.proven,
        "ended": ended,
        "baseline": words(point.baseline),
        "now": words(point.run),
        "left": sorted(c for c in point.run.expected if _word(point.run, c) != "EQUAL"),
        "groups": [_group(k, [s for s in point.steps if s.group == k], point.baseline) for k in keys],
        "spent": {
            "dollars": round(budget.spent.dollars, 6),
            "calls": budget.spent.calls,
            "tokens": budget.spent.tokens,
            "seconds": round(budget.spent.seconds, 1),
        },
        "branch": point.tree.branch,
        "base": point.tree.base,
        "landed": landed,
        "diff": diff,
    }


def _group(key: str, steps: list[Step], baseline: Run) -> dict[str, Any]:
    level, _, field = key.partition(" ")
    wrong = [
        f.summary for f in baseline.findings.values() if f.word != "EQUAL" and (f.level, f.field) == (level, field)
    ]
    return {
        "group": key,
        "wrong": wrong[:3],
        "mended": any(s.accepted for s in steps),
        "changed": [s.why for s in steps if s.accepted],
        "turned": sorted({c for s in steps for c in s.turned}),
        "commits": [s.commit for s in steps if s.commit],
        "refused": [f"{s.engine}: {s.why}: {s.ruling}" for s in steps if s.ruling and not s.accepted],
        "gave_up": [f"{s.engine}: {s.why}" for s in steps if not s.ruling and not s.accepted],
        "dollars": round(sum(s.dollars for s in steps), 4),
        "seconds": round(sum(s.seconds for s in steps), 1),
    }


def words(run: Run) -> dict[str, int]:
    """How many of the expected checks came to each word; {"trouble": 1} where the suite could not say."""
    counts: dict[str, int] = {}
    for check in run.expected:
        word = _word(run, check)
        counts[word] = counts.get(word, 0) + 1
    return {**counts, **({"trouble": 1} if run.trouble else {})}


def _word(run: Run, check: str) -> str:
    return run.findings[check].word if check in run.findings else "MISSING"


def show(told: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    if told["groups"]:
        table = Table("group", "what was wrong", "what changed", "turned", "cost", box=None, padding=(0, 2, 0, 0))
        for group in told["groups"]:
            change = (
                "; ".join(group["changed"]) or "not mended: " + "; ".join(group["gave_up"] + group["refused"])[:200]
            )
            cost = f"${group['dollars']:.2f}, {group['seconds']:.0f} s"
            table.add_row(group["group"], "\n".join(group["wrong"][:1]), change, str(len(group["turned"])), cost)
        console.print(table)
    if told["diff"]:
        console.print(Syntax(told["diff"], "diff", background_color="default", word_wrap=True))
    spent = told["spent"]
    console.print(f"before: {_counted(told['baseline'])}; now: {_counted(told['now'])}")
    console.print(
        f"spent: ${spent['dollars']:.4f}, {spent['calls']} calls, {spent['tokens']:,} tokens, {spent['seconds']:.0f} s"
    )
    for check in told["left"][:10]:
        console.print(f"  not EQUAL: {check}", highlight=False)
    if len(told["left"]) > 10:
        console.print(f"  and {len(told['left']) - 10} more")
    console.print(told["landed"], highlight=False)
    colour = "green" if told["proven"] else "red"
    console.print(f"[{colour}]{'REPAIRED' if told['proven'] else 'NOT REPAIRED'}[/]: {told['ended']}", highlight=False)


def _counted(words: dict[str, int]) -> str:
    if "trouble" in words:
        return "the suite could not run"
    return ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "nothing"


def by_hand(point: Checkpoint) -> str:
    """How to go on, and where the best checkpoint is."""
    pair = f"ref={shlex.quote(point.question.ref)} target={shlex.quote(point.question.target)}"
    return f"the best checkpoint is on branch {point.tree.branch}; go on with: envequiv-repair {pair} --resume"


def _not(group: dict[str, Any]) -> str:
    return "not mended: " + "; ".join(group["gave_up"] + group["refused"])[:200]
