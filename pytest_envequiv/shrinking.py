"""From a divergence to a counterexample: the plainest live input that still shows it, and the way there."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from pytest_envequiv.backends.protocol import Arrays, State
from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.fields import Found, compare
from pytest_envequiv.counterexample import Counterexample, array_json
from pytest_envequiv.errors import BackendError, Limitation
from pytest_envequiv.levels.finding import divergence, first
from pytest_envequiv.pair import Pair
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Rows, play
from pytest_envequiv.verdict import Divergence, Verdict, plain

TRIES = 300  # inputs Hypothesis may try until one is as wanted
MOST = 600  # inputs that are asked in all: its shrinking alone would go on for thousands, up to five minutes
MOST_FLOATS = 24  # state elements beyond which a state is not shrunk
WAYS_IN = 3  # transitions of play from whose neighbourhood a state is tried to be entered
NEWTON = 6  # iterations to find a state from which the reference steps into another
ASTRAY = 30.0  # standard deviations of play from a state at which none before it is looked for any more


def make(bench: Bench, verdict: Verdict, step: Step | None) -> tuple[Verdict, Counterexample | None]:
    """A counterexample for a root DIFFERENT, and the verdict with the shrunk inputs shown."""
    pair = bench.pair
    row = verdict.evidence.get("row")
    name = verdict.check.field
    if row is None or (step is None and verdict.check.subject != "lockstep"):
        return verdict, None
    rows, shown_at, path, outputs = None, verdict.divergence, None, []
    if verdict.check.subject == "lockstep":
        path = prefix(bench.played.rows, int(row), bench.played.reset_seeds)
    elif step is not None:
        if step.rows.paired is None and pair.injectable():
            rows, shown_at = shrunk(bench, step, name)
            outputs = _outputs_apart(pair, rows)
            path = reach(bench, name)
        elif step.rows.episode[row] >= 0 and step.source in ("play", "resync"):
            path = _extended(bench, step.rows, int(row))
    if rows is None and path is None:
        return verdict, None
    assert shown_at is not None
    example = Counterexample(
        ref=bench.settings.ref,
        target=bench.settings.target,
        check=verdict.check,
        contract=pair.contract.text,
        rows=rows,
        path=path,
        divergence=plain(shown_at.as_json()),
        versions={"ref": dict(pair.ref.spec.versions), "target": dict(pair.target.spec.versions)},
        seed=bench.settings.seed,
        target_state={} if rows is None else pair.inject(rows).fields,
        target_action={} if rows is None else pair.target_action(rows.action),
        shown=outputs,
    )
    evidence = dict(verdict.evidence)
    if path is not None:
        evidence["reached_from_reset"] = {"seed": path["seed"], "steps": len(path["draw_seeds"])}
    return replace(verdict, divergence=shown_at, evidence=evidence), example


def _outputs_apart(pair: Pair, rows: Rows) -> list[dict[str, Any]]:
    """The outputs in which a row differs, with the largest tolerance of their elements."""
    found = compare(pair, rows, *pair.ask(rows))
    return [
        {"name": f.field.ref, "tolerance": float(f.tolerance.max())}
        for f in found.values()
        if f.field.role == "output" and f.rows.any()
    ]


def prefix(rows: Rows, row: int, reset_seeds: np.ndarray) -> dict[str, Any]:
    """Reset seed, actions and draw seeds that lead to, and include, one row of play."""
    episode, last = int(rows.episode[row]), int(rows.step[row])
    mine = np.flatnonzero((rows.episode == episode) & (rows.step <= last))
    mine = mine[np.argsort(rows.step[mine])]
    return {
        "seed": int(reset_seeds[episode]),
        "actions": {k: array_json(v[mine]) for k, v in rows.action.items()},
        "draw_seeds": rows.seeds[mine].tolist(),
    }


def _extended(bench: Bench, rows: Rows, row: int) -> dict[str, Any]:
    """The path to a row that does something else than play did there."""
    record = bench.played.rows
    at = np.flatnonzero((record.episode == rows.episode[row]) & (record.step == rows.step[row]))[0]
    path = prefix(record, int(at), bench.played.reset_seeds)
    for name, data in path["actions"].items():
        data["value"][-1] = plain(rows.action[name][row])
    path["draw_seeds"][-1] = int(rows.seeds[row])
    return path


def reach(bench: Bench, name: str) -> dict[str, Any] | None:
    """The shortest way from a reset, in play, to a step at which the field diverges; None if play finds none."""
    pair = bench.pair
    step = bench.step("resync")
    if step is not None and step.found[name].rows.any():
        where = np.flatnonzero(step.found[name].rows)
        row = int(where[np.argmin(step.rows.step[where])])
        return prefix(step.rows, row, bench.played.reset_seeds)
    if pair.step_mode == "distribution":
        return None
    for wave in range(4):
        more = play(pair.ref, 64, bench.horizon, bench.settings.seed + 32_452_843 + wave, most=bench.sizes.most // 4)
        ours, theirs = pair.ask(more.rows, more.outcome)
        found = compare(pair, more.rows, ours, theirs)[name]
        if found.rows.any():
            where = np.flatnonzero(found.rows)
            return prefix(more.rows, int(where[np.argmin(more.rows.step[where])]), more.reset_seeds)
    return None


def shrunk(bench: Bench, step: Step, name: str) -> tuple[Rows, Divergence]:
    """The plainest diverging row, made plainer by Hypothesis while it stays live and still diverges."""
    pair = bench.pair
    found = step.found[name]
    place = first(found, step.rows)
    start = _bare(step.rows.take(slice(place[0], place[0] + 1)))
    slots = _slots(bench, start)

    def diverging(rows: Rows) -> tuple[Found, Step] | None:
        ours, theirs = pair.ask(rows)
        compared = compare(pair, rows, ours, theirs)
        if not compared[name].rows.any():
            return None
        return compared[name], Step(step.source, rows, ours, theirs, compared)

    asked: dict[tuple[int, ...], bool] = {}

    def good(choice: tuple[int, ...]) -> bool:
        if choice not in asked:
            asked[choice] = len(asked) < MOST and shows(choice)
        return asked[choice]

    def shows(choice: tuple[int, ...]) -> bool:
        rows = _chosen(start, slots, choice)
        try:
            return diverging(rows) is not None and (_untouched(slots, choice) or live(bench, rows))
        except (BackendError, Limitation):  # an input a side cannot bear is no better counterexample
            return False

    best = start
    if slots:
        strategy = st.tuples(*[st.integers(0, len(options) - 1) for _, _, _, options in slots])
        settings = hypothesis.settings(
            max_examples=TRIES,
            database=None,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        )
        with contextlib.suppress(hypothesis.errors.NoSuchExample):
            best = _chosen(start, slots, hypothesis.find(strategy, good, settings=settings))
    again = diverging(best)
    if again is None:  # the row only diverges among others: keep it as it was found
        return start, divergence(bench, found, step, place)
    compared, alone = again
    return best, divergence(bench, compared, alone, first(compared, best))


def _bare(rows: Rows) -> Rows:
    none = np.full(len(rows), -1)
    return replace(rows, state=State(rows.state.fields), episode=none, step=none)


Slot = tuple[str, str, int, list[float]]  # ("state" or "action", name, element, values from plain to as found)


def _slots(bench: Bench, start: Rows) -> list[Slot]:
    """What may be made plainer: every float element and clock of the state, every element of the action."""
    pair, resets = bench.pair, bench.played.resets.state.fields
    clocks = states.clocks(pair, bench.played)
    slots: list[Slot] = []
    floats = sum(int(np.prod(v.shape[1:], dtype=int)) for v in start.state.fields.values() if v.dtype.kind == "f")
    for name, value in start.state.fields.items():
        flat = value.reshape(-1)
        if name in clocks:
            slots.append(("state", name, 0, _plainer([1.0, 2.0, 10.0], float(flat[0]), whole=True)))
        elif value.dtype.kind == "f" and floats <= MOST_FLOATS:
            for i, x in enumerate(flat.tolist()):
                begun = resets[name].reshape(len(resets[name]), -1)[:, i]
                usual = float(np.nanmedian(begun)) if not np.isnan(begun).all() else x
                slots.append(("state", name, i, _plainer([0.0, usual], x)))
    for name, value in start.action.items():
        space = pair.ref.spec.action[name]
        whole = space.kind == "discrete"
        usual_values = (
            [float(v) for v in np.unique([0, *np.ravel(space.low), *np.ravel(space.high)])]
            if not whole
            else [float(np.min(space.low))]
        )
        usual_values = [v for v in usual_values if np.isfinite(v)]
        for i, x in enumerate(value.reshape(-1).tolist()):
            slots.append(("action", name, i, _plainer(usual_values, float(x), whole)))
    return slots


def _plainer(usual: list[float], x: float, whole: bool = False) -> list[float]:
    """Values from the plainest to ``x`` itself."""
    rounded = [] if whole or not np.isfinite(x) else [round(x, n) for n in (1, 2, 3, 4)]
    found: list[float] = []
    for value in [*usual, *rounded, x]:
        if value not in found and value == value:
            found.append(value)
    return found[: found.index(x) + 1] if x in found else [x]


def _chosen(start: Rows, slots: list[Slot], choice: tuple[int, ...]) -> Rows:
    fields = {k: v.copy() for k, v in start.state.fields.items()}
    action = {k: v.copy() for k, v in start.action.items()}
    clock = start.clock
    for (kind, name, i, options), index in zip(slots, choice, strict=True):
        array = (fields if kind == "state" else action)[name]
        array.reshape(-1)[i] = options[index]
    clocks = [name for kind, name, _, _ in slots if kind == "state" and start.state.fields[name].dtype.kind in "iu"]
    if clocks:
        clock = fields[clocks[0]].reshape(-1)[:1].astype(int)
    return replace(start, state=State(fields), action=action, clock=clock)


def _untouched(slots: list[Slot], choice: tuple[int, ...]) -> bool:
    return all(
        index == len(options) - 1 for (kind, _, _, options), index in zip(slots, choice, strict=True) if kind == "state"
    )


def live(bench: Bench, rows: Rows) -> bool:
    """Whether an episode of the reference can still be in the one state of ``rows``.

    The contract's rule decides, if there is one. Otherwise the reference is brought next to the state and has to
    step into it without ending: a state c with step(c) = state is looked for by Newton's method.
    """
    pair = bench.pair
    if pair.contract.live is not None:
        return bool(states.is_live(pair, rows)[0])
    floats = [(n, i) for n, v in rows.state.fields.items() if v.dtype.kind == "f" for i in range(v.reshape(-1).size)]
    if not floats or len(floats) > MOST_FLOATS:
        return False
    if not states.within(rows, bench.ends, slack=1e-5)[0]:
        return False
    clocks = states.clocks(pair, bench.played)
    goal = np.array([float(rows.state.fields[n].reshape(-1)[i]) for n, i in floats])
    scale = np.array(
        [
            max(float(np.nanstd(bench.played.rows.state.fields[n].reshape(len(bench.played.rows), -1)[:, i])), 1e-6)
            for n, i in floats
        ]
    )
    fixed = np.isnan(goal)  # None in the reference
    before = {n: rows.state.fields[n] - np.ones((), rows.state.fields[n].dtype) for n in clocks}
    if any((v < 0).any() for v in before.values()):
        return False

    def stepped(points: np.ndarray, action: Arrays) -> tuple[np.ndarray, np.ndarray]:
        count = len(points)
        fields = {n: np.repeat(before.get(n, v), count, 0) for n, v in rows.state.fields.items()}
        for place, (n, i) in enumerate(floats):
            fields[n].reshape(count, -1)[:, i] = points[:, place]
        repeated = {k: np.repeat(v, count, 0) for k, v in action.items()}
        outcome = pair.ref.step(State(fields), repeated, np.repeat(rows.seeds, count))
        after = [outcome.state.fields[n].reshape(count, -1)[:, i].astype(float) for n, i in floats]
        return np.stack(after, 1), outcome.done

    for point, action in _ways_in(bench, floats, goal, scale):
        for _ in range(NEWTON):
            push = scale * 1e-4
            moved = np.concatenate([point[None], point + np.diag(push)])
            value, done = stepped(moved, action)
            miss = np.where(fixed, 0, value[0] - goal)
            if np.all(np.abs(miss) <= 1e-5 * scale + 1e-6 * np.abs(goal)) and not done.any():
                return True
            slope = (value[1:] - value[0]).T / push
            if not np.isfinite(slope).all() or not np.isfinite(miss).all():
                break
            point = point - np.linalg.lstsq(slope, miss, rcond=None)[0]
            if not np.all((np.abs(point - goal) <= ASTRAY * scale) | fixed):
                break  # nor is it safe there: a reference may wrap an angle turn by turn
    return False


def _ways_in(
    bench: Bench, floats: list[tuple[str, int]], goal: np.ndarray, scale: np.ndarray
) -> list[tuple[np.ndarray, Arrays]]:
    """Where to look for the state before, and by which action: as the transitions of play that end nearest by."""
    played = bench.played
    on = np.flatnonzero(played.alive())
    before, after = (
        np.stack([np.nan_to_num(s.fields[n].reshape(len(played.rows), -1)[on, i].astype(float)) for n, i in floats], 1)
        for s in (played.rows.state, played.outcome.state)
    )
    distance = (np.abs(after - np.nan_to_num(goal)) / scale).max(1)
    nearest = np.argsort(distance, kind="stable")[:WAYS_IN]
    return [
        (before[k] + (goal - after[k]), {name: v[on[k] : on[k] + 1] for name, v in played.rows.action.items()})
        for k in nearest
    ]
