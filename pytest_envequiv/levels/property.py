"""L1: each side against what it promises, and the two sides' promises against each other.

One function a subject; ``SUBJECTS`` lists them with the fields they are about. A check is only listed where it has
something to look at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pytest_envequiv.backends.protocol import MASK
from pytest_envequiv.bench import Bench
from pytest_envequiv.contract import Invariant
from pytest_envequiv.levels import actions, behaviour, endings, honesty, resets
from pytest_envequiv.levels.finding import said
from pytest_envequiv.pair import Pair
from pytest_envequiv.spaces import bounds_apart, constants_apart, constants_shared, matched_spaces
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Progress, Verdict, plain


def checks(bench: Bench) -> list[Check]:
    pair = bench.pair
    found = [Check(f"L1-spec-{f}", "L1", "spec", f) for f in ("action", "observation")]
    found += [Check("L1-runs-step", "L1", "runs", "step")] if any(p.subject == "runs" for p in pair.problems) else []
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
    found += [Check(f"L1-reset-{f.name}", "L1", "reset", f.name) for f in resets.reset_fields(bench)]
    if len(resets.varying(bench)) > 1:
        found.append(Check("L1-reset-joint", "L1", "reset", "joint"))
    found += honesty.checks(pair)
    found += [Check(f"L1-invariant-{i.name}", "L1", "invariant", i.name) for i in _invariants(pair)]
    return found


def _invariants(pair: Pair) -> list[Invariant]:
    """Those that can be tried: code that a contract names may be an isolated target's own."""
    declared = pair.contract.invariants
    kept = [i for i in declared if i.rule or not pair.suspect.isolated]
    left = [i.name for i in declared if i not in kept]
    if left:
        pair.notes.append(f"isolated: invariants that call code were left out ({', '.join(left)})")
    return kept


def _comparable(pair: Pair) -> bool:
    """Whether both sides can be put in the same state and given the same draws, so that one step can be compared."""
    if pair.step_mode == "distribution" or "none" in (pair.ref.spec.state, pair.target.spec.state):
        return False
    return pair.injectable() or pair.reset_mode != "none"


def comparisons(bench: Bench) -> int:
    return 0 if bench.pair.blocked else len(resets.reset_fields(bench)) + 1


def run(bench: Bench, check: Check, progress: Progress) -> Verdict:
    if bench.pair.blocked is None:
        bench.once("begun", lambda: honesty.begin(bench.pair))
    return SUBJECTS[check.subject](bench, check)


def _spec(bench: Bench, check: Check) -> Verdict:
    problems = [p for p in bench.pair.problems if p.subject == check.field]
    if problems:
        return said(check, DIFFERENT, problems[0].text, tuple(p.text for p in problems[1:]))
    for name, ours, theirs in matched_spaces(bench.pair):
        if name.split(".")[0] == check.field and ours.kind == theirs.kind == "box":
            apart = bounds_apart(ours, theirs)
            if len(apart):
                where = f" (element {apart[0]})" if np.prod(ours.shape, dtype=int) > 1 else ""
                return said(check, DIFFERENT, f"{name}: the reference's is {ours}, the target's {theirs}{where}")
    for name, _, theirs in matched_spaces(bench.pair):
        seen = check.field == "observation" and bench.pair.blocked is None
        given = bench.pair.example_outcome.outputs.get(name) if seen else None
        if given is not None and not _declared_as(given.dtype, np.dtype(theirs.dtype)):
            return said(check, DIFFERENT, f"the target's {name} is {given.dtype}, its own space says {theirs.dtype}")
    matched = [f"{name} {a}" for name, a, _ in matched_spaces(bench.pair) if name.split(".")[0] == check.field]
    return said(check, EQUAL, "; ".join(matched) or "no spaces")


def _declared_as(given: np.dtype, declared: np.dtype) -> bool:
    """Whether values of one dtype are what a space of another promises: the same kind, and no more precise. What JAX
    narrows to 32 bits was meant to have 64."""
    kinds = ("f", "biu")
    return any(given.kind in k and declared.kind in k for k in kinds) and (
        given.kind != "f" or declared.itemsize >= given.itemsize
    )


def _runs(bench: Bench, check: Check) -> Verdict:
    """Listed only where a side fails as soon as it is played."""
    problem = next(p for p in bench.pair.problems if p.subject == "runs")
    return said(check, DIFFERENT if problem.different else INCONCLUSIVE, problem.text)


def _conventions(bench: Bench, check: Check) -> Verdict:
    notes = tuple(bench.pair.conventions)
    if bench.settings.strict and notes:
        return said(check, DIFFERENT, f"{len(notes)} differences of convention, and strict is on: {notes[0]}", notes)
    return said(check, EQUAL, f"{len(notes)} differences of convention, understood and bridged", notes)


def _constants(bench: Bench, check: Check) -> Verdict:
    """Settings of the same name with other values: a hint where to look, a failure only if strict."""
    shared, apart = constants_shared(bench.pair), constants_apart(bench.pair)
    notes = tuple(f"{ours} is {plain(x)} in the reference, {plain(y)} in the target" for ours, x, y in apart.values())
    word = DIFFERENT if apart and bench.settings.strict else EQUAL
    return said(
        check,
        word,
        f"{len(shared)} settings of the same name, {len(apart)} with other values",
        notes,
    )


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
    if match is not None and (apart := (*match.moved, *match.coarse)):
        return said(check, DIFFERENT, apart[0], apart[1:])
    if check.field == "step" and pair.one_sided:
        return said(check, DIFFERENT, pair.one_sided)
    if check.field == "step" and pair.doubt:
        return said(check, INCONCLUSIVE, f"it is not known whether draws are used alike: {pair.doubt}")
    if match is not None and mode == "tape":
        free = (f"{len(match.free)} draws of the target have no counterpart and stay its own",) if match.free else ()
        return said(check, EQUAL, f"{len(match.links)} draws matched by kind, shape and bounds", free)
    texts = {
        "seed": "the same seed gives the same on both sides",
        "none needed": "no draw is made",
        "none": "draws cannot be shared; resets are compared as distributions",
        "distribution": "draws cannot be shared; next states are compared as distributions",
    }
    return said(check, EQUAL, texts[mode])


SUBJECTS: dict[str, Callable[[Bench, Check], Verdict]] = {
    "spec": _spec,
    "runs": _runs,
    "conventions": _conventions,
    "constants": _constants,
    "map": _map,
    "draws": _draws,
    "contains": behaviour.contains,
    "finite": behaviour.finite,
    "deterministic": behaviour.deterministic,
    "seeds": behaviour.seeds,
    "inputs_kept": behaviour.inputs_kept,
    "jit": behaviour.jit,
    "batch": behaviour.batch,
    "round_trip": behaviour.round_trip,
    "auto_reset": endings.auto_reset,
    "after_done": endings.after_done,
    "time_limit": endings.time_limit,
    "action_range": actions.action_range,
    "illegal_action": actions.illegal_action,
    "reset": resets.reset,
    "invariant": behaviour.invariant,
    "honest": honesty.honest,
}
