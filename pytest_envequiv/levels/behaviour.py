"""L1 checks of one step: what each side promises of it, tried on rows of play.

The reference is looked at too; where it breaks a promise itself, the target is not blamed.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Outcome, State
from pytest_envequiv.backends.suspect import EAGER, eager_rows, faults
from pytest_envequiv.bench import Bench
from pytest_envequiv.contract import called, holds
from pytest_envequiv.levels.finding import said
from pytest_envequiv.pair import Field
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Rows, seeds_for, shown, told
from pytest_envequiv.stimuli.policies import Portfolio, uniform
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Verdict, plain

ROWS = 64  # rows of play most checks look at


def outcomes(bench: Bench) -> tuple[Rows, Outcome, Outcome]:
    """A few hundred rows of play with both sides' outcomes, shared by the checks below."""

    def build() -> tuple[Rows, Outcome, Outcome]:
        step = bench.step("play")
        if step is not None and bench.pair.step_mode != "distribution":
            return step.rows, step.ours, step.theirs
        pair = bench.pair
        seeds = seeds_for(bench.settings.seed, 31, count=ROWS)
        ours, theirs = pair.reset_both(seeds)
        rng = np.random.default_rng([bench.settings.seed, 32])
        action = {k: uniform(s, ROWS, rng) for k, s in pair.ref.spec.action.items()}
        none = np.zeros(ROWS, int)
        rows = Rows(ours.state, shown(ours.outputs), none, action, seeds, np.arange(ROWS), none, theirs.state)
        rows = rows.doing(states.legal(action, rows, pair, rng))
        return (
            rows,
            pair.ref.step(ours.state, rows.action, seeds),
            pair.target_step(theirs.state, rows.action, seeds, None),
        )

    found: tuple[Rows, Outcome, Outcome] = bench.once("outcomes", build)
    return found


def contains(bench: Bench, check: Check) -> Verdict:
    pair = bench.pair
    rows, ours, theirs = outcomes(bench)
    notes: list[str] = []
    for side, outcome in ((pair.ref, ours), (pair.target, theirs)):
        for name, space in side.spec.observation.items():
            value = outcome.outputs.get(name)
            if value is None or value.shape[1:] != space.shape:
                text = f"{name} has shape {None if value is None else value.shape[1:]}, its space says {space.shape}"
            else:
                slack = 1e-6 * np.maximum(1, np.abs(np.nan_to_num(value.astype(float), posinf=0, neginf=0)))
                inside = (value >= space.low - slack) & (value <= space.high + slack)
                out = ~inside.reshape(len(value), -1).all(1)
                if not out.any():
                    continue
                text = f"{name} leaves its own space {space} on {int(out.sum())} of {len(value)} transitions"
            if side is pair.target and not notes:
                return said(check, DIFFERENT, f"the target's {text}", (), {"transitions": len(rows)})
            notes.append(f"the {'reference' if side is pair.ref else 'target'}'s {text}")
    return said(check, EQUAL, f"{len(rows)} observations lie in their spaces", tuple(notes), {"transitions": len(rows)})


def finite(bench: Bench, check: Check) -> Verdict:
    rows, ours, theirs = outcomes(bench)
    for name, value in theirs.outputs.items():
        expected = ours.outputs.get(name)
        if expected is not None and not name.startswith("observation") and expected.shape[1:] != value.shape[1:]:
            text = f"the target's {name} has shape {value.shape[1:]}, the reference's {expected.shape[1:]}"
            return said(check, DIFFERENT, text, (), {"transitions": len(rows)})
    bad = {
        side: [k for k, v in o.outputs.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        for side, o in (("reference", ours), ("target", theirs))
    }
    only = [k for k in bad["target"] if k not in bad["reference"]]
    if only:
        value = theirs.outputs[only[0]].reshape(len(rows), -1)
        row = int(np.flatnonzero(~np.isfinite(value).all(1))[0])
        few = rows.take(slice(row, row + 1))
        found = Divergence(
            only[0], (), plain(ours.outputs.get(only[0], np.zeros(len(rows)))[row]), plain(value[row]), None, None,
            "NaN and infinity are never equal to a number",
            {k: plain(v[0]) for k, v in few.state.fields.items()}, {k: plain(v[0]) for k, v in few.action.items()},
            source="play",
        )  # fmt: skip
        return said(
            check,
            DIFFERENT,
            f"the target's {only[0]} is not finite where the reference's is",
            (),
            {"transitions": len(rows)},
            found,
        )
    notes = tuple(f"{k} is not finite on both sides at some transitions" for k in bad["target"])
    return said(check, EQUAL, "all outputs are finite", notes, {"transitions": len(rows)})


def _again(bench: Bench, side: Any, rows: Rows, state: State, action: Arrays) -> tuple[Outcome, Outcome]:
    return side.step(state, action, rows.seeds), side.step(state, action, rows.seeds)


def _same_outcome(a: Outcome, b: Outcome) -> str | None:
    """The first output or field that is not bitwise the same, or None."""
    for kind, x, y in (("output", a.outputs, b.outputs), ("state field", a.state.fields, b.state.fields)):
        for name in x:
            if not np.array_equal(x[name], y[name], equal_nan=x[name].dtype.kind == "f"):
                return f"{kind} {name}"
    return None


def deterministic(bench: Bench, check: Check) -> Verdict:
    """The same state, action and seed twice."""
    pair = bench.pair
    rows, _, _ = outcomes(bench)
    rows = rows.take(slice(0, ROWS))
    tried = []
    for side in (pair.ref, pair.target):
        if side.spec.state == "none":
            continue
        if side is pair.ref:
            state, action = (rows.state.edited() if side.spec.state == "fields" else rows.state), rows.action
        else:
            if rows.paired is None and not pair.injectable():
                continue
            state, action = pair.inject(rows), pair.target_action(rows.action)
        apart = _same_outcome(*_again(bench, side, rows, state, action))
        if apart:
            who = "reference" if side is pair.ref else "target"
            word = INCONCLUSIVE if side is pair.ref else DIFFERENT
            return said(check, word, f"the {who} gives another {apart} for the same state, action and seed")
        tried.append(side.name)
    return said(
        check,
        EQUAL,
        f"the same twice ({', '.join(tried) or 'no side can be stepped twice'})",
        (),
        {"transitions": len(rows)},
    )


def seeds(bench: Bench, check: Check) -> Verdict:
    """The same seed begins the same episode; other seeds begin others, if they do in the reference."""
    pair = bench.pair
    seeds = seeds_for(bench.settings.seed, 33, count=ROWS)
    varied = {}
    for side in (pair.ref, pair.target):
        first, second = side.reset(seeds), side.reset(seeds)
        apart = _same_outcome(first, second) if side.spec.state != "snapshot" else None
        if apart:
            who = "reference" if side is pair.ref else "target"
            return said(
                check,
                INCONCLUSIVE if side is pair.ref else DIFFERENT,
                f"the {who}'s reset gives another {apart} for the same seed",
            )
        values = [v.reshape(ROWS, -1).astype(float) for k, v in first.outputs.items() if k.startswith("observation")]
        values += [
            v.reshape(ROWS, -1).astype(float)
            for k, v in first.state.fields.items()
            if k not in getattr(side.backend, "free", {})
        ]
        varied[side.name] = len(np.unique(np.nan_to_num(np.concatenate(values, 1)), axis=0)) if values else 1
    if (varied["ref"] > 1) != (varied["target"] > 1):
        return said(
            check,
            DIFFERENT,
            f"{ROWS} seeds give {varied['ref']} beginnings in the reference, {varied['target']} in the target",
        )
    return said(
        check,
        EQUAL,
        f"the same seed, the same beginning; {ROWS} seeds give {varied['ref']} and {varied['target']}",
        (),
        {"episodes": 2 * ROWS},
    )


def inputs_kept(bench: Bench, check: Check) -> Verdict:
    """Neither side changes the arrays it is given."""
    pair = bench.pair
    rows, _, _ = outcomes(bench)
    rows = rows.take(slice(0, ROWS))
    for side in (pair.ref, pair.target):
        if side.spec.state == "none" or (side is pair.target and rows.paired is None and not pair.injectable()):
            continue
        state = rows.state if side is pair.ref else pair.inject(rows)
        action = rows.action if side is pair.ref else pair.target_action(rows.action)
        before = copy.deepcopy((state.fields, action))
        side.step(state, action, rows.seeds)
        if fault := faults(side.backend, changed=True):  # it was given copies
            return said(check, DIFFERENT, f"the {'reference' if side is pair.ref else 'target'} {fault['inputs']}")
        for kept, now in zip(before, (state.fields, action), strict=True):
            for name in kept:
                if not np.array_equal(kept[name], now[name], equal_nan=kept[name].dtype.kind == "f"):
                    return said(
                        check,
                        DIFFERENT,
                        f"the {'reference' if side is pair.ref else 'target'} changes its input {name} in place",
                    )
    return said(check, EQUAL, "inputs are as they were", (), {"transitions": len(rows)})


def jit(bench: Bench, check: Check) -> Verdict:
    """Operation by operation, compiled, and batched: the target must not depend on how it is run."""
    pair = bench.pair
    rows, _, _ = outcomes(bench)
    few = rows.take(np.unique(np.linspace(0, len(rows) - 1, EAGER).astype(int)))
    if few.paired is None and not pair.injectable():
        begun = pair.target.reset(few.seeds)
        few = Rows(few.state, few.seen, few.clock, few.action, few.seeds, few.episode, few.step, begun.state)
    state, action = pair.inject(few), pair.target_action(few.action)
    batched = pair.target.step(state, action, few.seeds)
    backend: Any = pair.target.backend
    steps = {"jit": len(few), "eager": min(len(few), eager_rows(backend))}
    for how, count in steps.items():
        some = np.arange(count)
        asked = (how, state.take(some), {name: value[some] for name, value in action.items()}, few.seeds[some])
        alone = pair.target.call(f"step ({how})", lambda asked=asked: backend.step_as(*asked))
        apart = beyond_rounding(alone, batched.take(some))
        if apart:
            return said(check, DIFFERENT, f"the target's {apart} depends on how it is run: {how} against jit(vmap)")
    return said(check, EQUAL, "eager, jit and jit(vmap) agree", (), {"transitions": len(few) + sum(steps.values())})


def beyond_rounding(a: Outcome, b: Outcome) -> str | None:
    """The first difference between two ways of running the same program that fusing operations does not explain, in
    what both tell (see ``Side.untold``)."""
    for kind, x, y in (("output", a.outputs, b.outputs), ("state field", a.state.fields, b.state.fields)):
        for name in (n for n in x if n in y):
            u, v = x[name], y[name]
            if u.dtype != v.dtype:
                return f"{kind} {name} (dtype {u.dtype} or {v.dtype})"
            if u.dtype.kind == "f":
                size = np.nanmax(np.abs(np.where(np.isfinite(v), v, 0)), initial=1e-30)
                if not np.allclose(u, v, rtol=1e-4, atol=1e-4 * float(size), equal_nan=True):
                    return f"{kind} {name}"
            elif not np.array_equal(u, v):
                return f"{kind} {name}"
    return None


def batch(bench: Bench, check: Check) -> Verdict:
    """Rows do not see each other: reversed, and alone among copies, each gives what it gave."""
    pair = bench.pair
    rows, _, _ = outcomes(bench)
    rows = rows.take(slice(0, ROWS))
    if rows.paired is None and not pair.injectable():
        return said(check, EQUAL, "rows are separate objects")
    state, action = pair.inject(rows), pair.target_action(rows.action)
    together = pair.target.step(state, action, rows.seeds)
    back = np.arange(len(rows))[::-1]
    turned = pair.target.step(state.take(back), {k: v[back] for k, v in action.items()}, rows.seeds[back])
    one = np.zeros(len(rows), int)
    copies = pair.target.step(state.take(one), {k: v[one] for k, v in action.items()}, rows.seeds[one])
    for text, x, y in (("their order", together, turned.take(back)), ("the others", together.take(one), copies)):
        apart = beyond_rounding(x, y)
        if apart:
            return said(check, DIFFERENT, f"the target's {apart} of one row of a batch depends on {text}")
    return said(check, EQUAL, "rows of a batch do not see each other", (), {"transitions": 3 * len(rows)})


def round_trip(bench: Bench, check: Check) -> Verdict:
    """A state that was read and written back steps as the state itself."""
    pair = bench.pair
    seeds = seeds_for(bench.settings.seed, 34, count=ROWS)
    tried = []
    for side in (pair.ref, pair.target):
        if side.spec.state != "fields":
            continue
        begun = side.reset(seeds)
        state, everyone = begun.state, np.arange(ROWS)
        portfolio = Portfolio.of(side.spec.action, ROWS, bench.settings.seed + 35, ("uniform",))
        action = portfolio.act(told(side, begun.outputs), everyone)
        # Written first, continued after: a lane that is stepped in place has moved on.
        written = side.step(state.edited(), action, seeds)
        kept = side.step(state, action, seeds)
        apart = _same_outcome(kept, written) if bench.pair.step_mode == "none needed" else None
        if apart:
            who = "reference" if side is pair.ref else "target"
            return said(
                check,
                INCONCLUSIVE if side is pair.ref else DIFFERENT,
                f"the {who}'s {apart} changes when its state is read and written back",
            )
        tried.append(side.name)
    return said(
        check, EQUAL, f"states survive being read and written ({', '.join(tried)})", (), {"transitions": 2 * ROWS}
    )


def invariant(bench: Bench, check: Check) -> Verdict:
    """A rule of the contract, over live states and what was returned, on both sides."""
    pair = bench.pair
    declared = next(i for i in pair.contract.invariants if i.name == check.field)
    where, said_so = f"invariant {check.field}", declared.rule or declared.call
    rows, ours, theirs = outcomes(bench)
    for who in ("reference", "target"):
        values = {f.name: _own_value(pair, f, ours, theirs, rows, who == "reference") for f in pair.fields}
        if declared.rule:
            kept = holds(declared.rule, values, where)
        else:
            kept = called(declared.call, who, rows.state.fields, rows.action, values, where)
        if not kept.all():
            text = f"{said_so!r} does not hold for the {who} on {int((~kept).sum())} of {len(rows)} transitions"
            return said(check, INCONCLUSIVE if who == "reference" else DIFFERENT, text, (), {"transitions": len(rows)})
    return said(check, EQUAL, f"{said_so!r} holds on both sides", (), {"transitions": len(rows)})


def _own_value(pair: Any, field: Field, ours: Outcome, theirs: Outcome, rows: Rows, first: bool) -> np.ndarray:
    value = pair.values(field, ours, theirs, rows.clock)[0 if first else 1]
    return value[:, 0] if value.shape[1] == 1 else value
