"""L2: one step from the same state, field by field.

Sources of states: "play" (met in play, with new actions), "boundary" (fields at and near where something may
change), "pairs" (two inputs that meet in one output, moved together), "limit" (the last steps before the time limit),
"coverage" (found by a search that follows the target's branches). How much of the target's branches all of them have
exercised is a check of its own.
Where draws cannot be shared, many next states from one state and action are compared as distributions instead.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pytest_envequiv import legality
from pytest_envequiv.backends.protocol import MASK, Outcome, State
from pytest_envequiv.bench import LANES, Bench, TargetView
from pytest_envequiv.comparison import statistics
from pytest_envequiv.comparison.roots import output_name
from pytest_envequiv.levels.covering import branches_covered
from pytest_envequiv.levels.finding import judged_step, said
from pytest_envequiv.pair import Field, Pair
from pytest_envequiv.side import Side
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.meetings import exercised
from pytest_envequiv.stimuli.play import Rows, join_outcomes, seeds_for, told
from pytest_envequiv.stimuli.policies import uniform
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Progress, Verdict

SOURCES = ("play", "boundary", "pairs", "limit", "coverage")
WIDEST = 16  # elements of one field looked at by themselves; of a wider one, also PROJECTIONS of all its elements
PROJECTIONS = 3
LONGEST_HISTORY = 12  # steps of an action sequence, where states cannot be injected


def checks(bench: Bench) -> list[Check]:
    pair = bench.pair
    if pair.step_mode == "distribution":
        return [Check(f"L2-distribution-{f.name}", "L2", "distribution", f.name, "costly") for f in pair.fields]
    found = [Check(f"L2-{s}-{f.name}", "L2", s, f.name) for s in sources(bench) for f in pair.fields]
    return [*found, Check("L2-branches-covered", "L2", "branches", "covered")] if bench.covered else found


def sources(bench: Bench) -> list[str]:
    """Sources the pair has rows for, told from its spec and sample alone."""
    pair = bench.pair
    if not pair.injectable():
        return ["play"]
    found = ["play"]
    if not pair.sample.alive().any():  # episodes of one step: no state can be stepped into
        return found
    movable = any(states.movable(pair, pair.sample, name) for name in pair.ref.spec.fields)
    if movable:
        found.append("boundary")
    if bench.meetings.pairs:
        found.append("pairs")
    if pair.time_limit is not None and states.clocks(pair, pair.sample):
        found.append("limit")
    if bench.covered and (movable or states.walked(pair, pair.sample)):
        found.append("coverage")
    return found


def comparisons(bench: Bench) -> int:
    """How many statistical comparisons this level may make."""
    pair = bench.pair
    return len(pair.fields) * bench.sizes.cells if pair.step_mode == "distribution" else 0


def run(bench: Bench, check: Check, progress: Progress) -> Verdict:
    if check.subject == "distribution":
        return _distribution(bench, check, progress)
    if check.subject == "branches":
        return branches_covered(bench, check, sources(bench))
    step = bench.step(check.subject)
    if step is None and check.subject == "coverage":
        return said(check, EQUAL, "the search met no live state that leads anywhere new in the target's code")
    if step is None:
        return said(check, INCONCLUSIVE, _why_none(bench, check.subject))
    verdict = judged_step(bench, check, step, check.field)
    if check.subject == "pairs":
        verdict.evidence.update(_met(bench, step.rows, check.field))
    return verdict


def _met(bench: Bench, rows: Rows, name: str) -> dict[str, Any]:
    """How well the rows exercise the pairs of inputs that meet in one field."""
    field = next(f for f in bench.pair.fields if f.name == name)
    share = bench.once("pairs exercised", lambda: exercised(bench.pair, bench.played, bench.meetings, rows))
    mine = list(bench.meetings.by_output.get(output_name(field), ()))
    pairs = [bench.meetings.pairs[n] for n in mine]
    least = min(mine, key=lambda n: share[n], default=None)
    found: dict[str, Any] = {"pairs": [f"{a} x {b}" for a, b in pairs]}
    if least is not None:
        found["pair_cells"] = round(float(share[mine].mean()), 3)
        found["least_exercised"] = " x ".join(map(str, bench.meetings.pairs[least]))
    return found


def _why_none(bench: Bench, source: str) -> str:
    pair = bench.pair
    if not pair.injectable():
        return f"states cannot be injected ({pair.map.said or 'no map'}), and no histories can be shared"
    return f"no live {source} state was found"


# -- conditional distributions ---------------------------------------------------------------------------------------


def cells(bench: Bench) -> Rows:
    """The states and actions whose next states are compared as distributions."""
    rows = states.from_play(bench.pair, bench.played, bench.sizes.cells, bench.settings.seed)
    return rows.take(slice(0, bench.sizes.cells))


def _distribution(bench: Bench, check: Check, progress: Progress) -> Verdict:
    pair, sizes = bench.pair, bench.sizes
    draw = draw_next if pair.injectable() else draw_history
    field = next(f for f in pair.fields if f.name == check.field)
    alpha = bench.share
    # The same for every field, so that all look at the same draws.
    widest = min(WIDEST + PROJECTIONS, max(len(f.scale) for f in pair.fields))
    needed = statistics.pairs_needed(sizes.margin, alpha, statistics.most_payoffs(widest))
    units = min(sizes.units, needed)
    verdicts = []
    for cell in range(sizes.cells):
        progress(f"drawing next states of cell {cell + 1} of {sizes.cells}", cell, sizes.cells)

        def compared(sample: int, cell: int = cell) -> statistics.Comparison:
            x, y = bench.once(("drawn", cell, units, sample), partial(draw, bench, cell, units, sample))[field.name]
            names, x, y = _columns(field, x, y)
            plan = statistics.Plan(names, alpha, sizes.margin, units, resolution=_grain(field, x))
            return statistics.compare(plan, x, y)

        verdicts.append(statistics.twice(compared))
        if verdicts[-1].word == DIFFERENT:
            break
    worst = next((v for v in verdicts if v.word == DIFFERENT), None) or next(
        (v for v in verdicts if v.word == INCONCLUSIVE), verdicts[-1]
    )
    where = "states" if pair.injectable() else "action sequences"
    evidence = {
        "transitions": units * len(verdicts),
        "cells": len(verdicts),
        "alpha": alpha,
        "detectable_effect": f"{worst.detectable:.2g} in a probability, {units:,} draws from {sizes.cells} {where}",
        "statistics": worst.as_json(),
    }
    if worst.word == DIFFERENT:
        evidence["row"] = len(verdicts) - 1
    return said(check, worst.word, worst.text, (), evidence)


def _columns(field: Field, x: np.ndarray, y: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names and columns to look at. A wide field is looked at through its first moving elements and through random
    projections of all of them, in which any difference of joint distribution shows (Cramer and Wold 1936)."""
    if x.shape[1] <= WIDEST:
        return tuple(f"{field.name}[{i}]" if x.shape[1] > 1 else field.name for i in range(x.shape[1])), x, y
    moving = np.flatnonzero(field.scale > 0)[:WIDEST]
    weights = np.random.default_rng(17).normal(size=(x.shape[1], PROJECTIONS)) / np.maximum(field.scale, 1e-12)[:, None]
    weights[field.scale == 0] = 1.0
    names = (*(f"{field.name}[{i}]" for i in moving), *(f"projection {i} of {field.name}" for i in range(PROJECTIONS)))
    return names, *(np.concatenate([v[:, moving], v @ weights], 1) for v in (x, y))  # type: ignore[return-value]


def _grain(field: Field, values: np.ndarray) -> float:
    """Values this close are one value: the sides may compute them in other precisions."""
    exact = field.exact and values.shape[1] <= WIDEST
    with np.errstate(all="ignore"):
        size = float(np.nan_to_num(np.nanmax(np.abs(np.where(np.isfinite(values), values, 0)), initial=0.0)))
    return 0.0 if exact else 1e-5 * max(size, 1e-6)


def draw_next(bench: Bench, cell: int, units: int, sample: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """``units`` next states of one cell on both sides, with independent draws: field -> (ours, theirs)."""
    pair = bench.pair
    many = cells(bench).take(np.full(units, cell))
    seeds = seeds_for(bench.settings.seed, 21, cell, sample, count=2 * units)
    copies = Rows(State(many.state.fields), many.seen, many.clock, many.action, seeds[:units], many.episode, many.step)
    ours = pair.ref.step(copies.state, copies.action, copies.seeds)
    other = Rows(copies.state, copies.seen, copies.clock, copies.action, seeds[units:], copies.episode, copies.step)
    theirs = pair.target_step(pair.inject(other), other.action, other.seeds, None)
    return {f.name: _live_values(pair, f, ours, theirs, copies.clock) for f in pair.fields}


def _live_values(
    pair: Pair, field: Field, ours: Outcome, theirs: Outcome, clock: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x, y = (v.astype(float) for v in pair.values(field, ours, theirs, clock))
    if field.live_only:  # past the end nothing is compared; both sides say so in the same way
        x, y = np.where(ours.done[:, None], np.nan, x), np.where(theirs.done[:, None], np.nan, y)
    return x, y


def draw_history(bench: Bench, cell: int, units: int, sample: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Where states cannot be injected: the outputs after a fixed sequence of actions from ``units`` resets.

    Episodes that end on the way are NaN. Where there is a mask, each step takes the first legal action of a fixed
    order of preference. Field -> (ours, theirs), (units, elements) each.
    """
    pair = bench.pair
    legality.same_actions(pair)
    ours, ours_alive = _history(bench, pair.ref, 23 + 2 * sample, cell, units)
    theirs, theirs_alive = _history(bench, TargetView(pair), 24 + 2 * sample, cell, units)
    # The view has given the target's observations the reference's names.
    back = {v: k for k, v in pair.observations.items()}
    theirs = Outcome(theirs.state, {back.get(k, k): v for k, v in theirs.outputs.items()})
    found = {}
    for field in pair.fields:
        x, y = _live_values(pair, field, ours, theirs, np.full(units, cell % LONGEST_HISTORY))
        found[field.name] = (np.where(ours_alive, x, np.nan), np.where(theirs_alive, y, np.nan))
    return found


def _history(bench: Bench, side: Side | TargetView, number: int, cell: int, units: int) -> tuple[Outcome, np.ndarray]:
    """The last outcome of ``units`` episodes of one side under the cell's actions; (units, 1) whether it came to it."""
    spaces = bench.pair.ref.spec.action
    rng = np.random.default_rng([bench.settings.seed, 22, cell])
    actions = [{k: uniform(s, 1, rng) for k, s in spaces.items()} for _ in range(1 + cell % LONGEST_HISTORY)]
    outcomes, alive = [], []
    for wave in range(-(-units // LANES)):
        words = (bench.settings.seed, number, cell, wave)
        outcome = side.reset(seeds_for(*words, count=LANES))
        on = np.ones(LANES, bool)
        for t, action in enumerate(actions):
            chosen = {k: np.repeat(v, LANES, 0) for k, v in action.items()}
            mask = told(side, outcome.outputs).get(MASK)
            if mask is not None and set(chosen) == {"action"} and chosen["action"].ndim == 1:
                order = np.random.default_rng([bench.settings.seed, cell, t]).random(mask.shape[1])
                first = np.where(mask, order, -1).argmax(1) + int(spaces["action"].low)
                chosen["action"] = first.astype(spaces["action"].dtype)
            on &= ~outcome.done
            if not on.any():
                break
            # A row that has ended repeats one that has not, and is not looked at any more.
            rows = np.where(on, np.arange(LANES), np.flatnonzero(on)[0])
            state, chosen = outcome.state.take(rows), {k: v[rows] for k, v in chosen.items()}
            outcome = side.step(state, chosen, seeds_for(*words, t, count=LANES))
        outcomes.append(Outcome(outcome.state, outcome.outputs))
        alive.append(on)
    return join_outcomes(outcomes).take(slice(0, units)), np.concatenate(alive)[:units, None]
