"""L1 checks of actions nobody should take: outside their bounds, or masked out."""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import MASK
from pytest_envequiv.bench import Bench
from pytest_envequiv.comparison.fields import compare
from pytest_envequiv.errors import BackendError
from pytest_envequiv.levels import behaviour
from pytest_envequiv.levels.finding import said
from pytest_envequiv.verdict import DIFFERENT, EQUAL, Check, Verdict

ROWS = 64  # rows of play most checks look at
BEYOND = 1.7  # how far outside its bounds an action is tried


def action_range(bench: Bench, check: Check) -> Verdict:
    """Box actions outside their bounds: if the reference takes them, the target must take them alike."""
    pair = bench.pair
    rows, _, _ = behaviour.outcomes(bench)
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


def illegal_action(bench: Bench, check: Check) -> Verdict:
    """Masked-out actions: what follows is a matter of taste, so a difference is a note (a failure if strict)."""
    pair = bench.pair
    rows, _, _ = behaviour.outcomes(bench)
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
