"""Which failures belong together, and which to mend first: level first, then data flow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from repair_agent.findings import OPEN, RUNS, SHUT, Finding, Run


@dataclass(frozen=True)
class Group:
    """Checks that fail for one reason, as far as the report can tell.

    key        "L2 velocity": level and field, as people say it
    checks     ids of the checks that must turn EQUAL: the root first; followers: those that only follow
    """

    key: str
    level: str
    field: str
    checks: tuple[str, ...]
    followers: tuple[str, ...] = ()


def groups(run: Run) -> list[Group]:
    """The failures of a run, the first to mend first; empty if there are none.

    What keeps the pair from opening or running comes before all else. Then levels in their order; within one, what is
    DIFFERENT before what is undecided, then what the target computes first (``run.order``; what is in no data flow,
    such as bounds and conventions, before that), then names. A run without findings is one group: the pair must open.
    """
    if run.trouble and not run.findings:
        return [Group("the pair opens", "L1", "pair", (OPEN,))]
    wrong = {check: finding for check, finding in run.findings.items() if finding.word != "EQUAL"}
    roots: dict[tuple[str, str], list[Finding]] = {}
    followers: dict[str, list[str]] = {}
    for check, finding in wrong.items():
        root = _root(check, wrong)
        if root == check:
            roots.setdefault((finding.level, finding.field), []).append(finding)
        else:
            followers.setdefault(root, []).append(check)
    ranks = {_plain(name): rank for rank, name in enumerate(run.order)}
    ordered = sorted(roots.items(), key=lambda entry: _place(entry[0], entry[1], ranks))
    return [_group(level, name, found, followers) for (level, name), found in ordered]


def _group(level: str, name: str, found: list[Finding], followers: dict[str, list[str]]) -> Group:
    checks = tuple(finding.check for finding in sorted(found, key=lambda f: _gravity([f])))
    key = "the pair opens" if OPEN in checks else "the pair runs" if RUNS in checks else f"{level} {name}"
    return Group(key, level, name, checks, tuple(dict.fromkeys(f for c in checks for f in followers.get(c, ()))))


def _root(check: str, wrong: dict[str, Finding]) -> str:
    """What a check follows in the end. One whose cause is not among the failures stands for itself."""
    way = [check]
    while (above := wrong[way[-1]].follows) and above in wrong:
        if above in way:
            return min(way[way.index(above) :])
        way.append(above)
    return way[-1]


def _place(about: tuple[str, str], found: list[Finding], ranks: dict[str, int]) -> tuple[bool, str, int, int, str]:
    level, name = about
    return all(f.check not in SHUT for f in found), level, _gravity(found), ranks.get(_plain(name), -1), name


def _gravity(found: Iterable[Finding]) -> int:
    """DIFFERENT, then INCONCLUSIVE, then MISSING."""
    words = ("DIFFERENT", "INCONCLUSIVE", "MISSING")
    return min(words.index(finding.word) for finding in found)


def _plain(name: str) -> str:
    """An output of the data flow, "state.theta_dot", as checks call it."""
    return re.sub(r"[^\w.]", "_", name.removeprefix("state."))
