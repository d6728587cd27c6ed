"""From comparisons to verdicts: what all levels say in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.fields import Found, terminated
from pytest_envequiv.comparison.roots import roots
from pytest_envequiv.levels.beginnings import shared
from pytest_envequiv.pair import Field
from pytest_envequiv.stimuli.play import Rows
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Verdict, Word, plain


def said(
    check: Check,
    word: Word,
    summary: str,
    notes: tuple[str, ...] = (),
    evidence: Mapping[str, Any] | None = None,
    divergence: Divergence | None = None,
    follows: str | None = None,
) -> Verdict:
    """A verdict whose evidence is safe to send anywhere."""
    return Verdict(check, word, summary, divergence, follows, notes, plain(dict(evidence or {})))


def judged_step(bench: Bench, check: Check, step: Step, name: str) -> Verdict:
    """The verdict on one field over one source of rows."""
    found = step.found[name]
    evidence = dict(step.evidence)
    ties = int(found.ties.sum())
    if ties:
        evidence["ties"] = ties
    notes = (f"{ties} rows lie where rounding decides; they are not counted",) if ties else ()
    if found.rows.any():
        return _different(bench, check, step, found, evidence, notes)
    if found.unsure.any():
        why = "the reference's state cannot be pushed" if bench.pair.ref.spec.state != "fields" else "they are too many"
        text = f"{int(found.unsure.sum())} errors could not be calibrated: {why}"
        return said(check, INCONCLUSIVE, text, notes, evidence)
    lacking = _lacking(bench, name, evidence)
    if lacking:
        return said(check, INCONCLUSIVE, lacking, notes, evidence)
    return said(check, EQUAL, f"{len(step.rows):,} transitions agree", notes, evidence)


def _lacking(bench: Bench, name: str, evidence: Mapping[str, Any]) -> str:
    """What the contract wants to have been exercised and was not."""
    for key, field in (("terminations", "terminated"), ("truncations", "truncated")):
        floor = bench.pair.contract.coverage.get(key, 0)
        if name in (field, "done") and evidence.get(key, 0) < floor:
            return f"coverage: {evidence.get(key, 0)} {key}, the contract asks for {floor}"
    return ""


def _different(
    bench: Bench, check: Check, step: Step, found: Found, evidence: dict[str, Any], notes: tuple[str, ...]
) -> Verdict:
    causes = roots(step.found, terminated(step.ours), bench.flow)
    name = found.field.name
    evidence["diverging"] = int(found.rows.sum())
    place = first(found, step.rows)
    shown = divergence(bench, found, step, place)
    root = causes[name]
    begun = shared(bench) if step.rows.paired is not None else None
    first_apart = next((n for n, f in begun.found.items() if f.rows.any()), None) if begun is not None else None
    if first_apart is not None:  # histories that begin apart go on apart
        text = f"follows from {first_apart} of the reset"
        return said(check, DIFFERENT, text, notes, evidence, shown, f"L1-reset-{first_apart}")
    if root != name:
        follows = f"{check.level}-{check.subject}-{root}"
        return said(check, DIFFERENT, f"follows from {root}", notes, evidence, shown, follows)
    evidence["followers"] = sorted(n for n, r in causes.items() if r == name and n != name)
    evidence["row"] = place[0]
    count, total = evidence["diverging"], len(step.rows)
    return said(check, DIFFERENT, f"{name}: {count:,} of {total:,} transitions differ", notes, evidence, shown)


def first(found: Found, rows: Rows) -> tuple[int, int]:
    """(row, element) to show: the earliest in play; among made-up states the plainest large error."""
    where = np.flatnonzero(found.rows)
    order = np.lexsort((where, rows.step[where]))
    row = int(where[order[0]])
    return row, int(np.argmax(np.where(found.wrong[row], np.nan_to_num(found.error[row], posinf=np.inf), -1)))


def divergence(bench: Bench, found: Found, step: Step, place: tuple[int, int]) -> Divergence:
    """One diverging element as a person reads it."""
    row, element = place
    rows = step.rows.take(slice(row, row + 1))
    draws = [
        {"kind": d.kind, "site": d.site, "value": plain(d.value[row])} for d in step.ours.draws or () if d.present[row]
    ]
    return Divergence(
        field=found.field.name,
        index=index_of(bench, found.field, element),
        expected=plain(found.expected[row, element]),
        actual=plain(found.actual[row, element]),
        error=None if found.field.exact else plain(float(found.error[row, element])),
        tolerance=None if found.field.exact else float(found.tolerance[row, element]),
        why=found.why(bench.pair.contract.tolerance(found.field.name)),
        state={k: plain(v[0]) for k, v in rows.state.fields.items()},
        action={k: plain(v[0]) for k, v in rows.action.items()},
        draws=draws,
        episode=int(rows.episode[0]) if rows.episode[0] >= 0 else None,
        step=int(rows.step[0]) if rows.step[0] >= 0 else None,
        source=step.source,
    )


def index_of(bench: Bench, field: Field, element: int) -> tuple[int, ...]:
    """The element's place in the field's own shape; () for a scalar."""
    spec = bench.pair.target.spec
    if field.role == "state":
        shape = spec.fields[field.target].shape
    else:
        space = spec.observation.get(field.target)
        shape = space.shape if space else ((spec.seats,) if field.name == "reward" and spec.seats > 1 else ())
    if not shape:
        return () if element == 0 else (element,)
    return tuple(int(i) for i in np.unravel_index(element, shape))
