"""L1 checks of how episodes end: auto-reset, the terminal observation, the time limit, a step past the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import betabinom

from pytest_envequiv.backends.protocol import MASK, Outcome
from pytest_envequiv.bench import Bench, TargetView
from pytest_envequiv.errors import BackendError
from pytest_envequiv.levels import behaviour
from pytest_envequiv.levels.finding import said
from pytest_envequiv.stimuli.play import Rows, seeds_for, told
from pytest_envequiv.stimuli.policies import uniform
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Verdict

ROWS = 64  # rows of play most checks look at
RARE = 1e-6  # probability below which something is no accident
LONGEST_WAIT = 1_200  # steps in which some episode is hoped to end


def auto_reset(bench: Bench, check: Check) -> Verdict:
    """The target's own auto-resetting step: the plain step while an episode lives, a fresh episode when it ends."""
    pair = bench.pair
    backend: Any = pair.target.backend
    parts = [bench.step(s) for s in ("play", "limit", "boundary")]
    rows = Rows.join(
        [_ends_first(p.rows, p.theirs.done) for p in parts if p is not None and p.rows.paired is None]
        or [behaviour.outcomes(bench)[0].take(slice(0, ROWS))]
    )
    if rows.paired is None and not pair.injectable():
        return said(check, INCONCLUSIVE, "no state of the target to step from")
    state, action = pair.inject(rows), pair.target_action(rows.action)
    plain_step = pair.target.step(state, action, rows.seeds)
    try:
        auto = pair.target.call("auto-resetting step", lambda: backend.auto_step(state, action, rows.seeds))
    except BackendError as error:  # the plain step has just run: it is how the two are joined, for which there is blame
        return said(check, DIFFERENT, str(error), (), {"error": str(error)})
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
        if out_of_range(value, usual):
            return f"{name} is not one a reset gives"
    many, few = (
        np.unique(
            np.concatenate([np.asarray(v, float).reshape(len(v), -1) for v in o.state.fields.values()], 1),
            axis=0,
            return_counts=True,
        )[1]
        for o in (fresh, begun)
    )
    if len(few) == 1 and (many.max() / many.sum()) ** few[0] < RARE:
        return f"the state is always the same, where {many.sum()} resets give {len(many)}"
    return None


def out_of_range(values: np.ndarray, usual: np.ndarray) -> bool:
    """Whether ``values`` (B, ...) are no draws of what ``usual`` (N, ...) is drawn from, judged by its range.

    One that lies outside by the width of that range is none, nor is a whole number that lies outside at all.
    Others may lie just outside: of values drawn alike, each does so with probability 2 / (N + 1), whatever the
    distribution, and the number of those that do is beta-binomial.
    """
    inside, own = (np.asarray(v, float).reshape(len(v), -1) for v in (usual, values))
    low, high = inside.min(0), inside.max(0)
    width = high - low if values.dtype.kind == "f" else np.zeros(inside.shape[1])
    beyond = np.maximum(low - own, own - high)
    counts = (beyond > 0.05 * width + 1e-6).sum(0)
    by_chance = betabinom.sf(counts - 1, len(own), 2, len(inside) - 1) * len(counts)
    return bool((beyond > width + 1e-6).any() or ((counts > 0) & (by_chance < RARE)).any())


def after_done(bench: Bench, check: Check) -> Verdict:
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
        mask = told(side, outcome.outputs).get(MASK)
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


def time_limit(bench: Bench, check: Check) -> Verdict:
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
