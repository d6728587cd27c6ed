"""Which sides of the target's branches the rows of L2 have exercised: a check of its own, and what it tells."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from pytest_envequiv.bench import Bench
from pytest_envequiv.levels.finding import said
from pytest_envequiv.verdict import EQUAL, INCONCLUSIVE, Check, Verdict
from pytest_envequiv.whitebox.branches import Branch
from pytest_envequiv.whitebox.coverage import Covered


def branches_covered(bench: Bench, check: Check, sources: Sequence[str]) -> Verdict:
    """INCONCLUSIVE if fewer sides were exercised than the contract asks for; else EQUAL, with what was missed."""
    covered = bench.covered
    assert covered is not None
    by_source = {source: went for source in sources if (went := bench.went(source)) is not None}
    times = np.sum([np.zeros(len(covered.sides), int), *by_source.values()], axis=0)
    asked, idle = asked_for(covered, bench.pair.contract.coverage.get("ignore", ()))
    seen, total = int((times[asked] > 0).sum()), int(asked.sum())
    ties = ~covered.wanted
    evidence: dict[str, Any] = {
        "branch_sides": total,
        "branch_covered": seen,
        "missed": [{**told(covered.branches[n]), "side": side} for n, side in missed(covered, times, asked)],
        "by_source": {source: int((went[asked] > 0).sum()) for source, went in by_source.items()},
        "thresholds_met": f"{int((times[ties] > 0).sum())} of {int(ties.sum())}",
    }
    notes = tuple(f"[coverage] ignore: {pattern!r} fits no branch of the target" for pattern in idle)
    summary = f"{seen} of {total} branch sides exercised"
    floor = bench.pair.contract.coverage.get("branches", 0)
    if seen < floor * total:
        return said(check, INCONCLUSIVE, f"coverage: {summary}, the contract asks for {floor:.0%}", notes, evidence)
    return said(check, EQUAL, summary, notes, evidence)


def asked_for(covered: Covered, ignore: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """bool[sides]: those that are to be exercised; and the patterns that fit no branch."""
    asked = covered.wanted
    idle = []
    for pattern in ignore:
        fits = np.array([fnmatch.fnmatchcase(place(covered.branches[n]), pattern) for n, _ in covered.sides], bool)
        asked &= ~fits
        if not fits.any():
            idle.append(pattern)
    return asked, idle


def missed(covered: Covered, times: np.ndarray, asked: np.ndarray) -> list[tuple[int, str]]:
    """(branch, side) of those that no row exercised."""
    return [covered.sides[k] for k in np.flatnonzero(asked & (times == 0))]


def place(branch: Branch) -> str:
    """ "file.py:12", as a contract names it."""
    return f"{PurePath(branch.site.file).name}:{branch.site.line}"


def told(branch: Branch) -> dict[str, Any]:
    """Where a branch stands, and nothing about the machine."""
    file, line = place(branch).rsplit(":", 1)
    return {"file": file, "line": int(line), "code": branch.code, "primitive": branch.primitive}


def table(covered: Covered, times: np.ndarray, asked: np.ndarray) -> list[dict[str, Any]]:
    """One entry a branch, in the order of the source: what, how often each side was seen, and its status."""
    entries = []
    for number, branch in enumerate(covered.branches):
        columns = [k for k, (n, _) in enumerate(covered.sides) if n == number]
        never = [covered.sides[k][1] for k in columns if asked[k] and not times[k]]
        status = "covered" if asked[columns].any() else "ignored"
        sides = {covered.sides[k][1]: int(times[k]) for k in columns}
        entries.append({**told(branch), "sides": sides, "status": f"never {', '.join(never)}" if never else status})
    return sorted(entries, key=lambda entry: (entry["file"], entry["line"]))
