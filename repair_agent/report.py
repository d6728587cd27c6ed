"""The end report: what was wrong, what changed, what it cost, which checks turned. JSON and terminal."""

from __future__ import annotations

import shlex
import textwrap
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from repair_agent.budget import Budget
from repair_agent.findings import Run
from repair_agent.loop import Checkpoint, Step

SCHEMA_VERSION = 1
LINES = 120  # of the diff that are shown; report.json has all of it
NAMES = 6  # checks that are named
INDENT = 11  # columns before the texts


def document(
    point: Checkpoint, budget: Budget, ended: str, diff: str, landed: str, path: str, go_on: str = ""
) -> dict[str, Any]:
    """JSON-safe. ``groups`` holds what was done for each group of failures, in the order in which it was tried;
    ``go_on`` the command that goes on from here, ``path`` where this is written."""
    keys = list(dict.fromkeys(s.group for s in point.steps))
    spent, limits = budget.spent, budget.limits
    return {
        "schema": SCHEMA_VERSION,
        "ref": point.question.ref,
        "target": point.question.target,
        "proven": point.proven,
        "ended": ended,
        "baseline": words(point.baseline),
        "now": words(point.run),
        "left": sorted(c for c in point.run.expected if _word(point.run, c) != "EQUAL"),
        "groups": [_group(k, [s for s in point.steps if s.group == k]) for k in keys],
        "spent": {
            "dollars": round(spent.dollars, 6),
            "calls": spent.calls,
            "failed": spent.failed,
            "tokens": spent.tokens,
            "cached": round(spent.read / spent.prompt, 3) if spent.prompt else None,
            "seconds": round(spent.seconds, 1),
        },
        "limits": {name: getattr(limits, name) for name in ("dollars", "seconds", "calls", "tokens", "tries")},
        "branch": point.tree.branch,
        "base": point.tree.base,
        "landed": landed,
        "go_on": go_on,
        "diff": diff,
        "path": path,
    }


def _group(key: str, steps: list[Step]) -> dict[str, Any]:
    return {
        "group": key,
        "wrong": steps[0].wrong,
        "mended": any(s.accepted for s in steps),
        "changed": [f"{s.engine}: {s.why}" for s in steps if s.accepted],
        "turned": list(dict.fromkeys(c for s in steps for c in s.turned)),
        "commits": [s.commit for s in steps if s.commit],
        "refused": [f"{s.engine}: {s.why.rstrip('.')}: {s.ruling}" for s in steps if s.ruling and not s.accepted],
        "gave_up": [f"{s.engine}: {s.why.removeprefix('gave up: ')}" for s in steps if not s.ruling],
        "dollars": round(sum(s.dollars for s in steps), 6),
        "seconds": round(sum(s.seconds for s in steps), 1),
    }


def words(run: Run) -> dict[str, int]:
    """How many of the expected checks came to each word; {"trouble": 1} where the suite could not say."""
    counts: dict[str, int] = {}
    for check in run.expected:
        word = _word(run, check)
        counts[word] = counts.get(word, 0) + 1
    return {**counts, **({"trouble": 1} if run.trouble else {})}


def stand(run: Run) -> str:
    """What is green, in a few words."""
    if run.trouble or run.shut:
        return "the pair does not open and run"
    return f"{words(run).get('EQUAL', 0)} of {len(run.expected)} EQUAL"


def _word(run: Run, check: str) -> str:
    return run.findings[check].word if check in run.findings else "MISSING"


def show(told: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    for group in told["groups"]:
        console.print()
        _show(_lines(group), console, group["group"], "mended" if group["mended"] else "not mended")
    if told["diff"]:
        console.print()
        _show_diff(told["diff"], console)
    console.print()
    spent, limit = told["spent"], told["limits"]["dollars"]
    calls = f"{spent['calls']} calls" + (f" ({spent['failed']} failed)" if spent["failed"] else "")
    cached = "" if spent["cached"] is None else f", {spent['cached']:.0%} of the prompts from the cache"
    of = "" if limit is None else f" of ${limit:g}"
    rows = [
        ("before", _counted(told["baseline"])),
        ("now", _counted(told["now"])),
        ("not EQUAL", _names(told["left"])),
        (
            "spent",
            f"${spent['dollars']:.4f}{of}, {calls}, {spent['tokens']:,} tokens{cached}, {spent['seconds']:.0f} s",
        ),
        ("result", told["landed"]),
        ("report", told["path"]),
    ]
    _show(rows, console)
    if told["go_on"]:  # not broken into lines: it is there to be copied
        console.print(f"to go on   {told['go_on']}", markup=False)
    done = told["proven"]
    console.print(Text("REPAIRED" if done else "NOT REPAIRED", "bold green" if done else "bold red"), end="")
    console.print(f": {told['ended']}", markup=False)


def _lines(group: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("was", group["wrong"])]
    rows += [("changed", line) for line in group["changed"]]
    rows += [("turned", _names(group["turned"]))]
    rows += [("refused", line) for line in group["refused"]]
    rows += [("no edit", line) for line in group["gave_up"]]
    money = f"${group['dollars']:.4f}" if group["dollars"] else "$0"
    return [*rows, ("cost", f"{money}, {group['seconds']:.0f} s")]


def _show(rows: list[tuple[str, str]], console: Console, title: str = "", word: str = "") -> None:
    """Names and texts in two columns, wrapped within the second. What is empty is left out."""
    if title:
        console.print(Text(title, "bold"), Text(word, "green" if word == "mended" else "red"), sep="  ")
    for name, text in rows:
        lines = textwrap.wrap(text, max(40, console.width - INDENT), break_on_hyphens=False, break_long_words=False)
        for number, line in enumerate(lines):
            console.print(Text(("" if number else name).ljust(INDENT), "dim"), Text(line), sep="")


def _show_diff(diff: str, console: Console) -> None:
    lines = diff.splitlines()
    shown = "\n".join(lines[:LINES])
    if console.is_terminal:
        console.print(Syntax(shown, "diff", background_color="default", word_wrap=True), soft_wrap=False)
    else:
        console.print(shown, markup=False)
    if len(lines) > LINES:
        console.print(f"({len(lines) - LINES} more lines are in the report)")


def _names(checks: list[str]) -> str:
    more = f" and {len(checks) - NAMES} more" if len(checks) > NAMES else ""
    return ", ".join(checks[:NAMES]) + more


def _counted(words: dict[str, int]) -> str:
    if "trouble" in words:
        return "the suite could not run"
    return ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "nothing"


def kept(point: Checkpoint) -> str:
    """Where the best checkpoint is."""
    accepted = sum(step.accepted for step in point.steps)
    steps = "no step was accepted" if not accepted else f"{accepted} step{'s' * (accepted > 1)}"
    return f"{steps}, on branch {point.tree.branch}"


def go_on(point: Checkpoint, output: str | None = None) -> str:
    """What to type to go on from there."""
    pair = f"ref={shlex.quote(point.question.ref)} target={shlex.quote(point.question.target)}"
    return f"envequiv-repair {pair}{f' --output {shlex.quote(output)}' if output else ''} --resume"
