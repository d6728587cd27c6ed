"""L1: each side against what it promises, and the two sides' promises against each other.

One function a subject; ``SUBJECTS`` lists them with the fields they are about. A check is only listed where it has
something to look at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import MASK, Arrays, Outcome, State
from pytest_envequiv.bench import Bench, TargetView
from pytest_envequiv.comparison import statistics
from pytest_envequiv.comparison.fields import compare
from pytest_envequiv.contract import holds
from pytest_envequiv.errors import BackendError
from pytest_envequiv.levels.finding import said
from pytest_envequiv.pair import Field, Pair
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Rows, resets, seeds_for, shown
from pytest_envequiv.stimuli.policies import uniform
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Progress, Verdict, plain

ROWS = 64  # rows of play most checks look at
EAGER = 4  # rows stepped operation by operation
LONGEST_WAIT = 1_200  # steps in which some episode is hoped to end
BEYOND = 1.7  # how far outside its bounds an action is tried


def checks(bench: Bench) -> list[Check]:
    pair = bench.pair
    found = [Check(f"L1-spec-{f}", "L1", "spec", f) for f in ("action", "observation")]
    if pair.blocked is not None:
        return found
    found += [
        Check("L1-conventions-notes", "L1", "conventions", "notes"),
        Check("L1-constants-defaults", "L1", "constants", "defaults"),
        Check("L1-map-state", "L1", "map", "state"),
        Check("L1-draws-reset", "L1", "draws", "reset"),
        Check("L1-draws-step", "L1", "draws", "step"),
        Check("L1-contains-observation", "L1", "contains", "observation"),
        Check("L1-finite-outputs", "L1", "finite", "outputs"),
        Check("L1-deterministic-step", "L1", "deterministic", "step"),
        Check("L1-seeds-reset", "L1", "seeds", "reset"),
        Check("L1-inputs_kept-step", "L1", "inputs_kept", "step"),
        Check("L1-after_done-step", "L1", "after_done", "step"),
    ]
    if hasattr(pair.target.backend, "step_as"):
        found.append(Check("L1-jit-step", "L1", "jit", "step"))
    if pair.target.spec.state != "none":
        found.append(Check("L1-batch-step", "L1", "batch", "step"))
    if pair.target.spec.state == "fields":
        found.append(Check("L1-round_trip-state", "L1", "round_trip", "state"))
    if getattr(getattr(pair.target.backend, "functional", None), "auto", None):
        found.append(Check("L1-auto_reset-step", "L1", "auto_reset", "step"))
    if pair.time_limit is not None:
        found.append(Check("L1-time_limit-truncated", "L1", "time_limit", "truncated", "costly"))
    if _comparable(pair) and any(s.kind == "box" and s.bounded for s in pair.ref.spec.action.values()):
        found.append(Check("L1-action_range-step", "L1", "action_range", "step"))
    if MASK in pair.sample.outcome.outputs:
        found.append(Check("L1-illegal_action-step", "L1", "illegal_action", "step"))
    found += [Check(f"L1-reset-{f.name}", "L1", "reset", f.name) for f in _reset_fields(bench)]
    if len(_varying(bench)) > 1:
        found.append(Check("L1-reset-joint", "L1", "reset", "joint"))
    found += [Check(f"L1-invariant-{i.name}", "L1", "invariant", i.name) for i in pair.contract.invariants]
    return found


def _comparable(pair: Pair) -> bool:
    """Whether both sides can be put in the same state and given the same draws, so that one step can be compared."""
    if pair.step_mode == "distribution" or "none" in (pair.ref.spec.state, pair.target.spec.state):
        return False
    return pair.injectable() or pair.reset_mode != "none"


def comparisons(bench: Bench) -> int:
    return 0 if bench.pair.blocked else len(_reset_fields(bench)) + 1


def run(bench: Bench, check: Check, progress: Progress) -> Verdict:
    return SUBJECTS[check.subject](bench, check)


# -- specs -----------------------------------------------------------------------------------------------------------


def _spec(bench: Bench, check: Check) -> Verdict:
    problems = [p for p in bench.pair.problems if p.subject == check.field]
    if problems:
        return said(check, DIFFERENT, problems[0].text, tuple(p.text for p in problems[1:]))
    spaces = [f"{name} {a}" for name, a, _ in bench.pair._matched_spaces() if name.split(".")[0] == check.field]
    return said(check, EQUAL, "; ".join(spaces) or "no spaces")


def _conventions(bench: Bench, check: Check) -> Verdict:
    notes = tuple(bench.pair.conventions)
    if bench.settings.strict and notes:
        return said(check, DIFFERENT, f"{len(notes)} differences of convention, and strict is on: {notes[0]}", notes)
    return said(check, EQUAL, f"{len(notes)} differences of convention, understood and bridged", notes)


def _constants(bench: Bench, check: Check) -> Verdict:
    """Settings of the same name with other values: a hint where to look, a failure only if strict."""
    ours, theirs = (
        {_bare(k): (k, v) for k, v in s.spec.constants.items()} for s in (bench.pair.ref, bench.pair.target)
    )
    apart = [
        f"{ours[k][0]} is {plain(ours[k][1])} in the reference, {plain(theirs[k][1])} in the target"
        for k in sorted(ours.keys() & theirs.keys())
        if ours[k][1].shape == theirs[k][1].shape
        and not np.allclose(ours[k][1], theirs[k][1], rtol=1e-6, atol=0, equal_nan=True)
    ]
    word = DIFFERENT if apart and bench.settings.strict else EQUAL
    return said(
        check,
        word,
        f"{len(ours.keys() & theirs.keys())} settings of the same name, {len(apart)} with other values",
        tuple(apart),
    )


def _bare(name: str) -> str:
    return name.split(".")[-1].lower().strip("_")


def _map(bench: Bench, check: Check) -> Verdict:
    pair = bench.pair
    found = pair.map
    evidence = {"map": found.text(), "proposal": found.toml()}
    if found.usable:
        notes = tuple(f"only in the reference: {name}" for name in found.unread)
        return said(check, EQUAL, ", ".join(f"{k} = {v}" for k, v in found.text().items())[:400], notes, evidence)
    why = found.said or "the map is incomplete"
    hint = (
        "; write the proposal with --envequiv-propose FILE, complete it and give it as --envequiv-contract"
        if found.links or found.missing
        else ""
    )
    return said(check, INCONCLUSIVE, f"state cannot be injected: {why}{hint}", (), evidence)


def _draws(bench: Bench, check: Check) -> Verdict:
    pair = bench.pair
    mode, match = (pair.reset_mode, pair.reset_match) if check.field == "reset" else (pair.step_mode, pair.step_match)
    if match is not None and match.moved:
        return said(check, DIFFERENT, match.moved[0], match.moved[1:])
    if match is not None:
        free = (f"{len(match.free)} draws of the target have no counterpart and stay its own",) if match.free else ()
        return said(check, EQUAL, f"{len(match.links)} draws matched by kind, shape and bounds", free)
    texts = {
        "seed": "the same seed gives the same on both sides",
        "none needed": "no draw is made",
        "none": "draws cannot be shared; resets are compared as distributions",
        "distribution": "draws cannot be shared; next states are compared as distributions",
    }
    return said(check, EQUAL, texts[mode])


# -- one side at a time ----------------------------------------------------------------------------------------------


def _outcomes(bench: Bench) -> tuple[Rows, Outcome, Outcome]:
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


def _contains(bench: Bench, check: Check) -> Verdict:
    pair = bench.pair
    rows, ours, theirs = _outcomes(bench)
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


def _finite(bench: Bench, check: Check) -> Verdict:
    rows, ours, theirs = _outcomes(bench)
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


def _deterministic(bench: Bench, check: Check) -> Verdict:
    """The same state, action and seed twice."""
    pair = bench.pair
    rows, _, _ = _outcomes(bench)
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


def _seeds(bench: Bench, check: Check) -> Verdict:
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


def _inputs_kept(bench: Bench, check: Check) -> Verdict:
    """Neither side changes the arrays it is given."""
    pair = bench.pair
    rows, _, _ = _outcomes(bench)
    rows = rows.take(slice(0, ROWS))
    for side in (pair.ref, pair.target):
        if side.spec.state == "none" or (side is pair.target and rows.paired is None and not pair.injectable()):
            continue
        state = rows.state if side is pair.ref else pair.inject(rows)
        action = rows.action if side is pair.ref else pair.target_action(rows.action)
        before = copy.deepcopy((state.fields, action))
        side.step(state, action, rows.seeds)
        for kept, now in zip(before, (state.fields, action), strict=True):
            for name in kept:
                if not np.array_equal(kept[name], now[name], equal_nan=kept[name].dtype.kind == "f"):
                    return said(
                        check,
                        DIFFERENT,
                        f"the {'reference' if side is pair.ref else 'target'} changes its input {name} in place",
                    )
    return said(check, EQUAL, "inputs are as they were", (), {"transitions": len(rows)})


def _jit(bench: Bench, check: Check) -> Verdict:
    """Operation by operation, compiled, and batched: the target must not depend on how it is run."""
    pair = bench.pair
    rows, _, _ = _outcomes(bench)
    few = rows.take(np.unique(np.linspace(0, len(rows) - 1, EAGER).astype(int)))
    if few.paired is None and not pair.injectable():
        begun = pair.target.reset(few.seeds)
        few = Rows(few.state, few.seen, few.clock, few.action, few.seeds, few.episode, few.step, begun.state)
    state, action = pair.inject(few), pair.target_action(few.action)
    batched = pair.target.step(state, action, few.seeds)
    backend: Any = pair.target.backend
    for how in ("jit", "eager"):
        alone = pair.target.call(f"step ({how})", lambda how=how: backend.step_as(how, state, action, few.seeds))
        apart = _beyond_rounding(alone, batched)
        if apart:
            return said(check, DIFFERENT, f"the target's {apart} depends on how it is run: {how} against jit(vmap)")
    return said(check, EQUAL, "eager, jit and jit(vmap) agree", (), {"transitions": 3 * len(few)})


def _beyond_rounding(a: Outcome, b: Outcome) -> str | None:
    """The first difference between two ways of running the same program that fusing operations does not explain."""
    for kind, x, y in (("output", a.outputs, b.outputs), ("state field", a.state.fields, b.state.fields)):
        for name in x:
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


def _batch(bench: Bench, check: Check) -> Verdict:
    """Rows do not see each other: reversed, and alone among copies, each gives what it gave."""
    pair = bench.pair
    rows, _, _ = _outcomes(bench)
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
        apart = _beyond_rounding(x, y)
        if apart:
            return said(check, DIFFERENT, f"the target's {apart} of one row of a batch depends on {text}")
    return said(check, EQUAL, "rows of a batch do not see each other", (), {"transitions": 3 * len(rows)})


def _round_trip(bench: Bench, check: Check) -> Verdict:
    """A state that was read and written back steps as the state itself."""
    pair = bench.pair
    seeds = seeds_for(bench.settings.seed, 34, count=ROWS)
    rng = np.random.default_rng([bench.settings.seed, 35])
    tried = []
    for side in (pair.ref, pair.target):
        if side.spec.state != "fields":
            continue
        state = side.reset(seeds).state
        action = {k: uniform(s, ROWS, rng) for k, s in side.spec.action.items()}
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


def _auto_reset(bench: Bench, check: Check) -> Verdict:
    """The target's own auto-resetting step: the plain step while an episode lives, a fresh episode when it ends."""
    pair = bench.pair
    backend: Any = pair.target.backend
    parts = [bench.step(s) for s in ("play", "limit", "boundary")]
    rows = Rows.join(
        [_ends_first(p.rows, p.theirs.done) for p in parts if p is not None and p.rows.paired is None]
        or [_outcomes(bench)[0].take(slice(0, ROWS))]
    )
    if rows.paired is None and not pair.injectable():
        return said(check, INCONCLUSIVE, "no state of the target to step from")
    state, action = pair.inject(rows), pair.target_action(rows.action)
    plain_step = pair.target.step(state, action, rows.seeds)
    auto = pair.target.call("auto-resetting step", lambda: backend.auto_step(state, action, rows.seeds))
    done = auto.done
    evidence = {"transitions": len(rows), "terminations": int(done.sum())}
    if backend.labels["step"] == ():  # the auto-resetting step draws from another key than the plain one
        apart = _auto_apart(auto, plain_step)
        if apart:
            return said(check, DIFFERENT, apart, (), evidence)
    if done.any():
        fresh = pair.target.reset(seeds_for(bench.settings.seed, 36, count=1_000))
        stale = _not_fresh(auto.take(np.flatnonzero(done)), fresh)
        if stale:
            return said(check, DIFFERENT, f"after auto-reset {stale}", (), evidence)
    return said(
        check, EQUAL, f"{int(done.sum())} of {len(rows)} transitions ended and began a new episode", (), evidence
    )


def _auto_apart(auto: Outcome, plain_step: Outcome) -> str | None:
    """How the auto-resetting step contradicts the plain one, or None."""

    def apart(a: np.ndarray, b: np.ndarray) -> bool:
        return not np.allclose(a.astype(float), b.astype(float), rtol=1e-4, atol=1e-5, equal_nan=True)

    live = ~plain_step.done
    for name, value in auto.outputs.items():
        expected = plain_step.outputs.get(name)
        if expected is None:
            continue
        if not name.startswith("observation"):
            if apart(value, expected):
                return f"the auto-resetting step returns another {name} than the plain one"
            continue
        if apart(value[live], expected[live]):
            return f"the auto-resetting step returns another {name} while the episode lives"
        final = auto.outputs.get(f"final_{name}")
        if final is not None and apart(final, expected):
            return f"the terminal {name} is lost: final_{name} is not what the last step showed"
    return None


def _ends_first(rows: Rows, done: np.ndarray) -> Rows:
    """Up to ROWS rows, those that end an episode first."""
    return rows.take(np.argsort(~done, kind="stable")[:ROWS])


def _not_fresh(begun: Outcome, fresh: Outcome) -> str | None:
    """How what an auto-reset gave differs from what many resets give: a field or observation outside their range, or
    always the same beginning where resets give many."""
    parts = [(f"the state field {n}", v, fresh.state.fields[n]) for n, v in begun.state.fields.items()]
    parts += [(f"the {n}", v, fresh.outputs[n]) for n, v in begun.outputs.items() if n in fresh.outputs]
    for name, value, usual in parts:
        low, high = usual.min(0).astype(float), usual.max(0).astype(float)
        slack = 0.05 * (high - low) + 1e-6
        if ((value.astype(float) < low - slack) | (value.astype(float) > high + slack)).any():
            return f"{name} is not one a reset gives"
    many, few = (
        np.unique(
            np.concatenate([np.asarray(v, float).reshape(len(v), -1) for v in o.state.fields.values()], 1),
            axis=0,
            return_counts=True,
        )[1]
        for o in (fresh, begun)
    )
    if len(few) == 1 and (many.max() / many.sum()) ** few[0] < 1e-6:
        return f"the state is always the same, where {many.sum()} resets give {len(many)}"
    return None


def _after_done(bench: Bench, check: Check) -> Verdict:
    """One step past the end of an episode. Nobody promises anything there: a difference is one of convention."""
    texts = [_past_the_end(bench, side) for side in (bench.pair.ref, TargetView(bench.pair))]
    if None in texts:
        return said(check, EQUAL, "no episode ended within reach; a step past the end was not tried")
    if texts[0] == texts[1]:
        return said(check, EQUAL, f"a step past the end {texts[0]} on both sides")
    note = f"a step past the end {texts[0]} in the reference, {texts[1]} in the target"
    return said(check, DIFFERENT if bench.settings.strict else EQUAL, note, (note,))


def _past_the_end(bench: Bench, side: Any) -> str | None:
    """What a side does when it is stepped once more after an episode has ended; None if none ended."""
    seeds = seeds_for(bench.settings.seed, 42, count=ROWS)
    rng = np.random.default_rng([bench.settings.seed, 43])
    outcome = side.reset(seeds)
    for _ in range(LONGEST_WAIT):
        action = {k: uniform(s, ROWS, rng) for k, s in bench.pair.ref.spec.action.items()}
        mask = outcome.outputs.get(MASK)
        if mask is not None and set(action) == {"action"} and action["action"].ndim == 1:
            legal = np.where(mask, rng.random(mask.shape), -1).argmax(1)
            action["action"] = legal.astype(action["action"].dtype) + bench.pair.ref.spec.action["action"].low
        outcome = side.step(outcome.state, action, seeds)
        over = np.flatnonzero(outcome.done)
        if len(over):
            rows = outcome.take(over[:1])
            try:
                again = side.step(rows.state, {k: v[over[:1]] for k, v in action.items()}, seeds[:1])
            except BackendError:
                return "raises an error"
            return "is still over" if again.done.all() else "goes on"
    return None


def _time_limit(bench: Bench, check: Check) -> Verdict:
    """Episodes end by truncation at the same step."""
    pair = bench.pair
    limit = pair.time_limit
    # The flag depends on the clock alone, whatever the draws.
    step = bench.step("limit") if pair.injectable() else None
    if step is not None:
        name = "truncated" if "truncated" in step.found else "done"
        found = step.found[name]
        ends = int(np.sum(step.ours.outputs.get("truncated", step.ours.done)))
        evidence = {**step.evidence, "limit": limit}
        if found.rows.any():
            row = int(np.flatnonzero(found.rows)[0])
            said_so = [bool(v[row, 0]) for v in (found.expected, found.actual)]
            when = f"{int(step.rows.clock[row]) + 1} steps into an episode"
            text = f"{when} {name} is {said_so[0]} in the reference, {said_so[1]} in the target"
            return said(check, DIFFERENT, text, (), evidence, None, f"L2-limit-{name}")
        if ends:
            return said(check, EQUAL, f"both truncate at {limit} steps ({ends} transitions reach it)", (), evidence)
    return _time_limit_by_play(bench, check)


def _time_limit_by_play(bench: Bench, check: Check) -> Verdict:
    """Where no clock can be moved, whole episodes have to be played to the limit."""
    from pytest_envequiv.levels.rollout import own_lengths

    ours, theirs = own_lengths(bench)
    evidence = {
        "episodes": len(ours) + len(theirs),
        "truncations": int(np.isfinite(ours).sum()),
        "limit": bench.pair.time_limit,
    }
    known = [x[np.isfinite(x)] for x in (ours, theirs)]
    if not len(known[0]) and not len(known[1]):
        return said(check, INCONCLUSIVE, f"no episode reached the limit of {bench.pair.time_limit} steps", (), evidence)
    if not (len(known[0]) and len(known[1])) or set(known[0]) != set(known[1]):
        text = [sorted(set(x.astype(int).tolist()))[:3] or "never" for x in known]
        return said(
            check, DIFFERENT, f"the reference truncates after {text[0]} steps, the target after {text[1]}", (), evidence
        )
    return said(check, EQUAL, f"both truncate after {int(known[0][0])} steps", (), evidence)


# -- actions ---------------------------------------------------------------------------------------------------------


def _action_range(bench: Bench, check: Check) -> Verdict:
    """Box actions outside their bounds: if the reference takes them, the target must take them alike."""
    pair = bench.pair
    rows, _, _ = _outcomes(bench)
    rows = rows.take(slice(0, 4 * ROWS))
    rng = np.random.default_rng([bench.settings.seed, 37])
    action = {}
    for name, space in pair.ref.spec.action.items():
        value = rows.action[name].astype(float)
        if space.kind == "box" and space.bounded:
            middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
            value = middle + half * rng.choice([-1, 1], value.shape) * rng.uniform(1.0, BEYOND, value.shape)
        action[name] = value.astype(space.dtype)
    rows = rows.doing(action)
    try:
        ours = pair.ref.step(rows.state, rows.action, rows.seeds)
    except BackendError as error:
        return said(check, EQUAL, "the reference refuses actions outside its space", (str(error),))
    if not all(np.isfinite(v).all() for k, v in ours.outputs.items() if v.dtype.kind == "f"):
        return said(check, EQUAL, "the reference does not bear actions outside its space")
    _, theirs = pair.ask(rows, ours)
    found = compare(pair, rows, ours, theirs)
    wrong = [n for n, f in found.items() if f.rows.any()]
    evidence = {"transitions": len(rows), "diverging": max((int(f.rows.sum()) for f in found.values()), default=0)}
    inside = bench.step("play")
    known = {n for n, f in inside.found.items() if f.rows.any()} if inside else set()
    new = [n for n in wrong if n not in known]
    if wrong:
        from pytest_envequiv.bench import Step
        from pytest_envequiv.levels.finding import divergence, first

        name = (new or wrong)[0]
        shown_at = divergence(
            bench, found[name], Step("outside bounds", rows, ours, theirs, found), first(found[name], rows)
        )
        text = f"{', '.join(new or wrong)} differ for actions outside their bounds, which the reference takes"
        return said(check, DIFFERENT, text, (), evidence, shown_at, None if new else f"L2-play-{name}")
    return said(check, EQUAL, "actions outside their bounds are taken alike", (), evidence)


def _illegal_action(bench: Bench, check: Check) -> Verdict:
    """Masked-out actions: what follows is a matter of taste, so a difference is a note (a failure if strict)."""
    pair = bench.pair
    rows, _, _ = _outcomes(bench)
    mask = rows.seen.get(MASK)
    space = pair.ref.spec.action.get("action")
    if mask is None or space is None or mask.all() or pair.step_mode == "distribution":
        return said(check, EQUAL, "no illegal action was met")
    on = np.flatnonzero(~mask.all(1))[:ROWS]
    few = rows.take(on)
    few = few.doing({"action": ((~mask[on]).argmax(1) + int(space.low)).astype(space.dtype)})
    answers: dict[str, Any] = {}
    for side in (pair.ref, pair.target):
        try:
            outcome = (
                side.step(few.state, few.action, few.seeds)
                if side is pair.ref
                else pair.target_step(pair.inject(few), few.action, few.seeds, None)
            )
            answers[side.name] = (outcome.done, np.asarray(outcome.outputs["reward"], float).reshape(len(few), -1))
        except BackendError as error:
            answers[side.name] = str(error)
    texts = {name: _answer(a) for name, a in answers.items()}
    if texts["ref"] == texts["target"]:
        return said(check, EQUAL, f"an illegal action {texts['ref']} on both sides", (), {"transitions": len(few)})
    note = f"an illegal action {texts['ref']} in the reference, {texts['target']} in the target"
    return said(check, DIFFERENT if bench.settings.strict else EQUAL, note, (note,), {"transitions": len(few)})


def _answer(answer: Any) -> str:
    if isinstance(answer, str):
        return "raises an error"
    done, reward = answer
    rewards = np.unique(reward, axis=0)[:3].tolist()
    return f"{'ends the episode' if done.all() else 'does not always end the episode'} with rewards {rewards}"


# -- resets ----------------------------------------------------------------------------------------------------------


def _reset_fields(bench: Bench) -> list[Field]:
    return [
        f
        for f in bench.pair.fields
        if f.role == "state" or f.name.startswith("observation") or f.name in ("mask", "agent")
    ]


def _reset_values(bench: Bench, field: Field, ours: Outcome, theirs: Outcome) -> tuple[np.ndarray, np.ndarray]:
    return bench.pair.values(field, ours, theirs, np.full(len(ours.state), -1))


def _own_resets(bench: Bench, sample: int) -> tuple[Outcome, Outcome]:
    """Independent resets of both sides with their own randomness."""

    def build() -> tuple[Outcome, Outcome]:
        units = _reset_units(bench)
        first, second = (seeds_for(bench.settings.seed, n, sample, count=units) for n in (38, 39))
        return resets(bench.pair.ref, first), resets(bench.pair.target, second)

    found: tuple[Outcome, Outcome] = bench.once(("own resets", sample), build)
    return found


def _reset_units(bench: Bench) -> int:
    needed = statistics.pairs_needed(bench.sizes.margin, bench.share, statistics.most_payoffs(16))
    return min(bench.sizes.units, max(needed, bench.sizes.resets))


def _reset(bench: Bench, check: Check) -> Verdict:
    if check.field == "joint":
        return _joint(bench, check)
    pair = bench.pair
    field = next(f for f in _reset_fields(bench) if f.name == check.field)
    notes: tuple[str, ...] = ()
    shared = pair.reset_mode != "none"
    if shared:
        begun = bench.begun
        x, y = _reset_values(bench, field, begun.ours, begun.theirs)
        with np.errstate(all="ignore"):
            close = (
                (x == y)
                if field.exact
                else np.isclose(
                    x.astype(float),
                    y.astype(float),
                    rtol=64 * field.eps,
                    atol=64 * field.eps * float(field.scale.max() or 1),
                    equal_nan=True,
                )
            )
        if not field.exact and field.role == "state":
            close |= np.isnan(x.astype(float))  # None in the reference until the first step
        if not close.all():
            row, element = (int(i) for i in np.argwhere(~close)[0])
            found = Divergence(
                field.name, (element,) if x.shape[1] > 1 else (), plain(x[row, element]), plain(y[row, element]),
                None if field.exact else float(abs(float(x[row, element]) - float(y[row, element]))),
                None if field.exact else 64 * field.eps * float(field.scale.max() or 1),
                "both sides were reset with the same draws", {}, {}, step=0, source="reset",
            )  # fmt: skip
            count = int((~close).any(1).sum())
            return said(
                check,
                DIFFERENT,
                f"{field.name}: {count} of {len(x)} beginnings differ",
                (),
                {"episodes": len(x)},
                found,
            )

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
        "episodes": 2 * units + (len(bench.begun.rows) if shared else 0),
        "statistics": result.as_json(),
        "detectable_effect": f"{result.detectable:.2g} in a probability over {result.units:,} resets",
    }
    text = f"with shared draws the same; {result.text}" if shared and result.word == EQUAL else result.text
    return said(check, result.word, text, notes, evidence)


def _compared(bench: Bench, names: list[str], x: np.ndarray, y: np.ndarray) -> statistics.Comparison:
    grain = tuple(1e-5 * max(float(np.nanmax(np.abs(np.where(np.isfinite(c), c, 0)), initial=0)), 1e-6) for c in x.T)
    plan = statistics.Plan(tuple(names), bench.share, bench.sizes.margin, len(x), resolution=grain)
    return statistics.compare(plan, x, y)


def _varying(bench: Bench) -> list[tuple[Field, int]]:
    """Float elements that differ from reset to reset, at most five."""
    found = []
    for field in _reset_fields(bench):
        if field.exact or (field.role != "state" and any(f.role == "state" for f in bench.pair.fields)):
            continue
        values = bench.pair.reference_values(field, bench.pair.sample.resets, np.full(bench.pair.sample.episodes, -1))
        found += [(field, i) for i in range(values.shape[1]) if np.nanstd(values[:, i].astype(float)) > 0]
    return found[:5]


def _joint(bench: Bench, check: Check) -> Verdict:
    """Products of what a reset draws: a reused key makes elements move together that should not."""

    def compared(sample: int) -> statistics.Comparison:
        ours, theirs = _own_resets(bench, sample)
        columns: list[list[np.ndarray]] = []
        names = []
        for (a, i), (b, j) in combinations(_varying(bench), 2):
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


def _invariant(bench: Bench, check: Check) -> Verdict:
    """A rule of the contract, over live states and what was returned, on both sides."""
    pair = bench.pair
    rule = next(i.rule for i in pair.contract.invariants if i.name == check.field)
    rows, ours, theirs = _outcomes(bench)
    for side in (pair.ref, pair.target):
        values = {f.name: _own_value(pair, f, ours, theirs, rows, side is pair.ref) for f in pair.fields}
        kept = holds(rule, values, f"invariant {check.field}")
        if not kept.all():
            who = "reference" if side is pair.ref else "target"
            text = f"{rule!r} does not hold for the {who} on {int((~kept).sum())} of {len(rows)} transitions"
            return said(check, INCONCLUSIVE if side is pair.ref else DIFFERENT, text, (), {"transitions": len(rows)})
    return said(check, EQUAL, f"{rule!r} holds on both sides", (), {"transitions": len(rows)})


def _own_value(pair: Any, field: Field, ours: Outcome, theirs: Outcome, rows: Rows, first: bool) -> np.ndarray:
    value = pair.values(field, ours, theirs, rows.clock)[0 if first else 1]
    return value[:, 0] if value.shape[1] == 1 else value


SUBJECTS: dict[str, Callable[[Bench, Check], Verdict]] = {
    "spec": _spec,
    "conventions": _conventions,
    "constants": _constants,
    "map": _map,
    "draws": _draws,
    "contains": _contains,
    "finite": _finite,
    "deterministic": _deterministic,
    "seeds": _seeds,
    "inputs_kept": _inputs_kept,
    "jit": _jit,
    "batch": _batch,
    "round_trip": _round_trip,
    "auto_reset": _auto_reset,
    "after_done": _after_done,
    "time_limit": _time_limit,
    "action_range": _action_range,
    "illegal_action": _illegal_action,
    "reset": _reset,
    "invariant": _invariant,
}
