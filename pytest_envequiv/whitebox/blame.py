"""Which source lines of the target explain a divergence.

A line is suspected because the wrong field is computed by it (backward slice, Weiser 1981). It is convicted by what
would have happened otherwise: an operation is changed (another operator, a comparison turned, a constant solved for,
another variable in its place, a term added), everything behind it is computed again on rows that diverge and on rows
that do not, and what it mends and what it breaks is counted. Changing one place and looking at the outcome is
counterfactual fault localisation as in predicate switching (Zhang et al., ICSE 2006) and, for the values that would
have been right, angelic debugging (Chandra et al., ICSE 2011).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_envequiv.whitebox import edits
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.trial import (
    EXPLAINED,
    PASSING,
    Case,
    Trial,
    numbers_for,
    plausible,
    scope,
    solve_number,
    solve_values,
)

SUFFICIENT = 0.5  # score of a value that could have been right in every row, by a relation nobody knows
KNOWN = 0.9  # score of one whose relation to what is known at that point is simple
ENOUGH = 0.9  # score with which no costlier kind of change is tried any more

Groups = Sequence[Sequence[int]]  # numbers of operations that stand and fall together


@dataclass(frozen=True, order=True)
class Suspect:
    """A line, how well it explains the divergence (1: a single change of it mends every row), and why."""

    score: float
    site: Site
    why: str


def blame(case: Case, where: Mapping[str, Site]) -> list[Suspect]:
    """Suspected lines, the best first, each once. ``where``: constant -> the line that sets it."""
    trial = Trial(case)
    if not trial.diverging.any():
        return []
    groups = list(trial.groups())
    best: dict[tuple[str, int], Suspect] = {}
    for found in (
        _sliced(trial, groups),
        _settings(trial, where),
        _changed(trial, groups, edits.slips),
        _changed(trial, groups, edits.literals),
        _angelic(trial, groups),
        _changed(trial, groups, edits.variables),
    ):
        for suspect in found:
            key = (suspect.site.file, suspect.site.line)
            if key not in best or suspect.score > best[key].score:
                best[key] = suspect
        if max((s.score for s in best.values()), default=0.0) >= ENOUGH:
            break
    return sorted(best.values(), key=lambda s: (-round(s.score, 6), s.site))


def _sliced(trial: Trial, groups: Groups) -> Iterator[Suspect]:
    for group in groups:
        passing = trial.program.ops[group[0]].name in PASSING
        score = (0.05 if passing else 0.1) * _spectrum(trial, group)
        yield Suspect(score, _site(trial, group), "the wrong field is computed here")


def _changed(trial: Trial, groups: Groups, kind: edits.Kind) -> Iterator[Suspect]:
    """Every change of one kind, at every place."""
    for group in groups:
        for edit in kind(trial, group):
            score = _score(*trial.verdict(trial.edited(group, edit.change)))
            if score > 0:
                yield Suspect(score * edit.weight, _site(trial, group), edit.why)


def _settings(trial: Trial, where: Mapping[str, Site]) -> Iterator[Suspect]:
    """Other values of a setting: the reference's own where it has one, else usual slips, or one that is solved for."""
    for name, place in trial.constants().items():
        if name not in where:
            continue
        old = np.asarray(trial.values[place])
        before = float(old)
        known = trial.case.known.get(name)
        if known is not None and np.isclose(known, before, rtol=1e-6, atol=0):
            continue  # the reference says the same

        def run(value: float, place: int = place, old: np.ndarray = old) -> Mapping[int, np.ndarray]:
            return trial.rerun({place: np.asarray(value, old.dtype)})

        tried = list(numbers_for(trial, before))
        if known is not None:
            tried = [(known, f"{name} is {known:g} in the reference, {before:g} here", 1.0)]
        elif old.dtype.kind == "f":
            right = solve_number(trial, run, before)
            if right is not None:
                tried.append((right, f"{name} = {right:.6g} in the place of {before:.6g}", plausible(right)))
        for value, why, weight in tried:
            score = _score(*trial.verdict(run(value)))
            if score > 0:
                yield Suspect(score * weight, where[name], why)


def _site(trial: Trial, group: Sequence[int]) -> Site:
    found = trial.program.ops[group[0]].site
    assert found is not None  # only operations with a site are grouped
    return found


def _score(mended: float, broken: float) -> float:
    """1 for a change that mends all and breaks nothing; less than half of it for any other."""
    if mended >= EXPLAINED and broken <= 1 - EXPLAINED:
        return 1.0
    return 0.45 * max(0.0, mended - 2 * broken)


def _spectrum(trial: Trial, group: Sequence[int]) -> float:
    """Ochiai's coefficient of the operation being behind an output and the output being wrong (Abreu et al. 2006)."""
    wrong = [n for n in trial.behind if n in trial.case.wrong]
    right = [n for n in trial.behind if n not in trial.case.wrong]
    hit = sum(bool(trial.behind[n].intersection(group)) for n in wrong)
    clean = sum(bool(trial.behind[n].intersection(group)) for n in right)
    return float(hit / np.sqrt(max(len(wrong), 1) * max(hit + clean, 1)))


def _angelic(trial: Trial, groups: Groups) -> Iterator[Suspect]:
    """Places at which some value would have been right in every row; and if it is one we know, which."""
    for group in groups:
        op = trial.program.ops[group[0]]
        place = op.outputs[0]
        value = np.asarray(trial.values[place])
        if len(group) > 1 or op.name in PASSING or value.size not in (1, trial.rows):
            continue
        if value.dtype.kind == "b":
            if value.size != trial.rows:
                continue
            flipped = np.where(trial.diverging.reshape(value.shape), ~value, value)
            if trial.explains(trial.rerun({place: flipped})):
                yield Suspect(SUFFICIENT, _site(trial, group), "the other outcome is right in every row that differs")
        elif value.dtype.kind == "f":
            right = solve_values(trial, place, value)
            if right is not None:
                known = _relation(trial, group[0], value, right)
                why = known or "another value here is right in every row"
                yield Suspect(KNOWN if known else SUFFICIENT, _site(trial, group), why)


def _relation(trial: Trial, number: int, value: np.ndarray, right: np.ndarray) -> str:
    """In words, how the right values come from what is known at that point; "" if no simple way is found."""
    here = trial.diverging
    v, w = np.broadcast_to(value.astype(float).ravel(), (trial.rows,))[here], right[here]
    if not len(v):
        return ""
    size = 1e-4 * max(float(np.abs(w).max()), 1e-12)

    def near(guess: np.ndarray) -> bool:
        return bool(np.isfinite(guess).all() and np.abs(guess - w).max() <= size + 2e-3 * np.abs(w - v).max())

    with np.errstate(all="ignore"):
        if near(np.zeros_like(w)):
            return "0 is right"
        if near(-v):
            return "it has the other sign"
        for what, ratio in (("times", w / v), ("plus", w - v)):
            usual = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else np.nan
            if near(v * usual if what == "times" else v + usual):
                return f"it is right {what} {usual:.6g}"
        for name, other in scope(trial, number):
            z = np.broadcast_to(np.asarray(other, float).reshape(-1), (trial.rows,))[here]
            for text, guess in (
                ("is right", z), ("plus it is right", v + z), ("minus it is right", v - z),
                ("minus this is right", z - v), ("times it is right", v * z), ("over it is right", v / z),
            ):  # fmt: skip
                if near(guess):
                    return f"{name} {text}" if text == "is right" else f"this and {name}: {text}"
            if near(-z):
                return f"minus {name} is right"
    return ""
