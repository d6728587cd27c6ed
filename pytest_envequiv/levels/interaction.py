"""L2: one step from the same state, field by field.

Sources of states: "play" (met in play, with new actions), "boundary" (fields at and near where something may
change), "limit" (the last steps before the time limit). Where draws cannot be shared, many next states from one
state and action are compared as distributions instead.
"""

from __future__ import annotations

import numpy as np

from pytest_envequiv.backends.protocol import State
from pytest_envequiv.bench import Bench
from pytest_envequiv.compare import statistics
from pytest_envequiv.levels.finding import judged_step, said
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Rows, seeds_for
from pytest_envequiv.verdict import DIFFERENT, INCONCLUSIVE, Check, Progress, Verdict

SOURCES = ("play", "boundary", "limit")
WIDEST = 16  # elements of one field looked at by one statistical comparison


def checks(bench: Bench) -> list[Check]:
    pair = bench.pair
    if pair.step_mode == "distribution":
        return [Check(f"L2-distribution-{f.name}", "L2", "distribution", f.name, "costly") for f in pair.fields]
    return [Check(f"L2-{s}-{f.name}", "L2", s, f.name) for s in _sources(bench) for f in pair.fields]


def _sources(bench: Bench) -> list[str]:
    """Sources the pair has rows for, told from its spec and sample alone."""
    pair = bench.pair
    if not pair.injectable():
        return ["play"]
    found = ["play"]
    if any(np.dtype(leaf.dtype).kind == "f" for leaf in pair.ref.spec.fields.values()):
        found.append("boundary")
    if pair.time_limit is not None and states.clocks(pair, pair.sample):
        found.append("limit")
    return found


def comparisons(bench: Bench) -> int:
    """How many statistical comparisons this level may make."""
    pair = bench.pair
    return len(pair.fields) * bench.sizes.cells if pair.step_mode == "distribution" else 0


def run(bench: Bench, check: Check, progress: Progress) -> Verdict:
    if check.subject == "distribution":
        return _distribution(bench, check, progress)
    step = bench.step(check.subject)
    if step is None:
        return said(check, INCONCLUSIVE, _why_none(bench, check.subject))
    return judged_step(bench, check, step, check.field)


def _why_none(bench: Bench, source: str) -> str:
    pair = bench.pair
    if not pair.injectable():
        return f"states cannot be injected ({pair.map.said or 'no map'}), and no histories can be shared"
    return f"no live {source} state was found"


# -- conditional distributions ---------------------------------------------------------------------------------------


def cells(bench: Bench) -> Rows | None:
    """The states and actions whose next states are compared as distributions; None if they cannot be injected."""
    if not bench.pair.injectable():
        return None
    rows = states.from_play(bench.pair, bench.played, bench.sizes.cells, bench.settings.seed)
    return rows.take(slice(0, bench.sizes.cells))


def _distribution(bench: Bench, check: Check, progress: Progress) -> Verdict:
    pair, sizes = bench.pair, bench.sizes
    rows = cells(bench)
    if rows is None:
        return said(check, INCONCLUSIVE, f"states cannot be injected ({pair.map.said or 'no map'}), and draws cannot be shared")
    field = next(f for f in pair.fields if f.name == check.field)
    alpha = bench.share
    columns = min(WIDEST, len(field.scale))
    # The same for every field, so that all look at the same draws.
    widest = min(WIDEST, max(len(f.scale) for f in pair.fields))
    needed = statistics.pairs_needed(sizes.margin, alpha, statistics.most_payoffs(widest))
    units = min(sizes.units, needed)
    verdicts = []
    for cell in range(len(rows)):
        progress(f"drawing next states of cell {cell + 1} of {len(rows)}", cell, len(rows))
        x, y = bench.once(("drawn", cell, units), lambda cell=cell: draw_next(bench, cell, units))[field.name]
        plan = statistics.Plan(
            tuple(f"{field.name}[{i}]" for i in range(columns)), alpha, sizes.margin, units, resolution=_grain(field, x)
        )
        verdicts.append(statistics.compare(plan, x[:, :columns], y[:, :columns]))
        if verdicts[-1].word == DIFFERENT:
            break
    worst = next((v for v in verdicts if v.word == DIFFERENT), None) or next((v for v in verdicts if v.word == INCONCLUSIVE), verdicts[-1])
    evidence = {
        "transitions": units * len(verdicts),
        "cells": len(verdicts),
        "alpha": alpha,
        "detectable_effect": f"{worst.detectable:.2g} in a probability of one next state, {units:,} draws from each of {len(rows)} states",
        "statistics": worst.as_json(),
    }
    if worst.word == DIFFERENT:
        evidence["row"] = len(verdicts) - 1
    return said(check, worst.word, worst.text, (), evidence)


def _grain(field: object, values: np.ndarray) -> float:
    """Values this close are one value: the sides may compute them in other precisions."""
    exact = getattr(field, "exact", False)
    with np.errstate(all="ignore"):
        size = float(np.nan_to_num(np.nanmax(np.abs(np.where(np.isfinite(values), values, 0)), initial=0.0)))
    return 0.0 if exact else 1e-5 * max(size, 1e-6)


def draw_next(bench: Bench, cell: int, units: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """``units`` next states of one cell on both sides, with independent draws: field -> (ours, theirs)."""
    pair = bench.pair
    rows = cells(bench)
    assert rows is not None
    many = rows.take(np.full(units, cell))
    seeds = seeds_for(bench.settings.seed, 21, cell, count=2 * units)
    copies = Rows(State(many.state.fields), many.seen, many.clock, many.action, seeds[:units], many.episode, many.step)
    ours = pair.ref.step(copies.state, copies.action, copies.seeds)
    other = Rows(copies.state, copies.seen, copies.clock, copies.action, seeds[units:], copies.episode, copies.step)
    theirs = pair.target_step(pair.inject(other), other.action, other.seeds, None)
    found = {}
    for field in pair.fields:
        x, y = (v.astype(float) for v in pair.values(field, ours, theirs, copies.clock))
        if field.live_only:  # past the end nothing is compared; both sides say so in the same way
            x, y = np.where(ours.done[:, None], np.nan, x), np.where(theirs.done[:, None], np.nan, y)
        found[field.name] = (x, y)
    return found

