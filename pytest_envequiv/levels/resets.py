"""L1 checks of how episodes begin: with shared draws the same, with their own draws alike in distribution."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from pytest_envequiv.backends.protocol import Outcome
from pytest_envequiv.bench import Bench
from pytest_envequiv.comparison import statistics
from pytest_envequiv.levels.beginnings import reset_fields, shared
from pytest_envequiv.levels.finding import said
from pytest_envequiv.pair import Field
from pytest_envequiv.stimuli.play import reset_many, seeds_for
from pytest_envequiv.verdict import DIFFERENT, EQUAL, Check, Divergence, Verdict, plain


def _reset_values(bench: Bench, field: Field, ours: Outcome, theirs: Outcome) -> tuple[np.ndarray, np.ndarray]:
    return bench.pair.values(field, ours, theirs, np.full(len(ours.state), -1))


def _own_resets(bench: Bench, sample: int) -> tuple[Outcome, Outcome]:
    """Independent resets of both sides with their own randomness."""

    def build() -> tuple[Outcome, Outcome]:
        units = _reset_units(bench)
        first, second = (seeds_for(bench.settings.seed, n, sample, count=units) for n in (38, 39))
        return reset_many(bench.pair.ref, first), reset_many(bench.pair.target, second)

    found: tuple[Outcome, Outcome] = bench.once(("own resets", sample), build)
    return found


def _reset_units(bench: Bench) -> int:
    needed = statistics.pairs_needed(bench.sizes.margin, bench.share, statistics.most_payoffs(16))
    return min(bench.sizes.units, max(needed, bench.sizes.resets))


def reset(bench: Bench, check: Check) -> Verdict:
    if check.field == "joint":
        return _joint(bench, check)
    field = next(f for f in reset_fields(bench) if f.name == check.field)
    notes: tuple[str, ...] = ()
    begun = shared(bench)
    if begun is not None:
        here = begun.found[field.name]
        error, bound, x, y, wrong = here.error, here.tolerance, here.expected, here.actual, here.wrong
        if wrong.any():
            row = int(np.flatnonzero(wrong.any(1))[0])
            element = int(np.argmax(np.where(wrong[row], np.nan_to_num(error[row], posinf=np.inf), -1)))
            found = Divergence(
                field.name, (element,) if x.shape[1] > 1 else (), plain(x[row, element]), plain(y[row, element]),
                None if field.exact else plain(float(error[row, element])),
                None if field.exact else float(bound[row, element]),
                "both sides were reset with the same draws", {}, {}, step=0, source="reset",
            )  # fmt: skip
            text = f"{field.name}: {int(wrong.any(1).sum())} of {len(x)} beginnings differ"
            return said(check, DIFFERENT, text, (), {"episodes": len(x)}, found)

    def compared(sample: int) -> statistics.Comparison:
        ours, theirs = _own_resets(bench, sample)
        x, y = (v[:, :16].astype(float) for v in _reset_values(bench, field, ours, theirs))
        if field.role == "state" and np.isnan(x).all():  # None in the reference until the first step
            x, y = np.zeros_like(x), np.zeros_like(y)
        names = [f"{field.name}[{i}]" if x.shape[1] > 1 else field.name for i in range(x.shape[1])]
        return _compared(bench, names, x, y)

    result = statistics.twice(compared)
    units = _reset_units(bench)
    evidence = {
        "episodes": 2 * units + (0 if begun is None else len(begun.rows)),
        "statistics": result.as_json(),
        "detectable_effect": f"{result.detectable:.2g} in a probability over {result.units:,} resets",
    }
    text = f"with shared draws the same; {result.text}" if begun is not None and result.word == EQUAL else result.text
    return said(check, result.word, text, notes, evidence)


def _compared(bench: Bench, names: list[str], x: np.ndarray, y: np.ndarray) -> statistics.Comparison:
    grain = tuple(1e-5 * max(float(np.nanmax(np.abs(np.where(np.isfinite(c), c, 0)), initial=0)), 1e-6) for c in x.T)
    plan = statistics.Plan(tuple(names), bench.share, bench.sizes.margin, len(x), resolution=grain)
    return statistics.compare(plan, x, y)


def varying(bench: Bench) -> list[tuple[Field, int]]:
    """Float elements that differ from reset to reset, at most five."""
    found = []
    for field in reset_fields(bench):
        if field.exact or (field.role != "state" and any(f.role == "state" for f in bench.pair.fields)):
            continue
        values = bench.pair.reference_values(field, bench.pair.sample.resets, np.full(bench.pair.sample.episodes, -1))
        found += [(field, i) for i, v in enumerate(values.T) if len(np.unique(v[~np.isnan(v)])) > 1]
    return found[:5]


def _joint(bench: Bench, check: Check) -> Verdict:
    """Products of what a reset draws: a reused key makes elements move together that should not."""

    def compared(sample: int) -> statistics.Comparison:
        ours, theirs = _own_resets(bench, sample)
        columns: list[list[np.ndarray]] = []
        names = []
        for (a, i), (b, j) in combinations(varying(bench), 2):
            sides = [
                [v[:, k].astype(float) for v in _reset_values(bench, f, ours, theirs)] for f, k in ((a, i), (b, j))
            ]
            centre = [np.nanmean(values[0]) for values in sides]
            columns.append([(sides[0][side] - centre[0]) * (sides[1][side] - centre[1]) for side in (0, 1)])
            names.append(f"{a.name}[{i}] x {b.name}[{j}]")
        x, y = (np.stack([c[side] for c in columns], 1) for side in (0, 1))
        return _compared(bench, names, x, y)

    result = statistics.twice(compared)
    evidence = {
        "episodes": 2 * _reset_units(bench),
        "statistics": result.as_json(),
        "detectable_effect": f"{result.detectable:.2g} in a probability",
    }
    return said(check, result.word, result.text, (), evidence)
