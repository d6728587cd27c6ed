"""Counterexamples: the smallest input that still shows a divergence, as one file that replays.

A "step" is a state and an action; a "path" is a reset's seed and the actions from there, used where states cannot be
injected, and carried along with a step where play can reach the divergence.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from pytest_envequiv.backends.protocol import Arrays, State
from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.fields import Found, compare
from pytest_envequiv.contract import holds
from pytest_envequiv.errors import BackendError, ContractError, Limitation
from pytest_envequiv.levels import rollout
from pytest_envequiv.levels.finding import divergence, first, judged_step
from pytest_envequiv.pair import Pair
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Play, Rows, join_outcomes, play, shown
from pytest_envequiv.verdict import Check, Divergence, Verdict, pair_name, plain

VERSION = 1
TRIES = 300  # inputs Hypothesis may try while shrinking
MOST_FLOATS = 24  # state elements beyond which a state is not shrunk
WAYS_IN = 3  # transitions of play from whose neighbourhood a state is tried to be entered
NEWTON = 6  # iterations to find a state from which the reference steps into another


@dataclass(frozen=True)
class Counterexample:
    """What the file holds. ``rows`` is one row, or None for a path; ``path`` is {"seed", "actions"} or None.

    ``target_state`` and ``target_action`` are the same row as the target takes it; ``shown`` lists the outputs that
    differ: {"name", "tolerance"}. They are for people and for ``report/standalone.py``; a replay maps anew.
    """

    ref: str
    target: str
    check: Check
    contract: str
    rows: Rows | None
    path: dict[str, Any] | None
    divergence: dict[str, Any]
    versions: dict[str, Any]
    seed: int = 0
    target_state: Arrays = field(default_factory=dict)
    target_action: Arrays = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)


# -- files -----------------------------------------------------------------------------------------------------------


def folder(output: str, ref: str, target: str) -> Path:
    return Path(output) / "counterexamples" / pair_name(ref, target)


def _array(value: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(value.dtype), "value": plain(value)}


def _read_array(data: dict[str, Any]) -> np.ndarray:
    return np.array(_numbers(data["value"]), np.dtype(data["dtype"]))


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float(value) if isinstance(value, str) else value


def as_json(example: Counterexample) -> dict[str, Any]:
    """The file's content."""
    rows = example.rows
    return {
        "envequiv_counterexample": VERSION,
        "ref": example.ref,
        "target": example.target,
        "check": example.check.as_json(),
        "seed": example.seed,
        "state": None if rows is None else _arrays(rows.state.fields),
        "seen": None if rows is None else _arrays(rows.seen),
        "clock": None if rows is None else int(rows.clock[0]),
        "draw_seed": None if rows is None else int(rows.seeds[0]),
        "action": None if rows is None else _arrays(rows.action),
        "target_state": _arrays(example.target_state),
        "target_action": _arrays(example.target_action),
        "divergence": example.divergence,
        "shown": example.shown,
        "from_reset": example.path,
        "versions": example.versions,
        "contract": example.contract,
    }


def _arrays(values: Arrays) -> dict[str, Any]:
    """The first row of each."""
    return {k: _array(v[0]) for k, v in values.items()}


def _read_arrays(data: dict[str, Any]) -> Arrays:
    return {k: _read_array(v)[None] for k, v in data.items()}


def save(example: Counterexample, path: Path) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(as_json(example), indent=1), encoding="utf-8")
    part.replace(path)


def load(path: str | Path) -> Counterexample:
    """Raises ContractError in one line for a file that is missing, truncated or something else."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(f"counterexample {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"counterexample {path}: not whole, or not JSON: {error}") from error
    if not isinstance(data, dict) or "envequiv_counterexample" not in data:
        raise ContractError(f"counterexample {path}: this JSON is not a counterexample of envequiv")
    if data["envequiv_counterexample"] != VERSION:
        raise ContractError(
            f"counterexample {path}: format {data['envequiv_counterexample']}, this version reads {VERSION}"
        )
    try:
        rows = None if data["state"] is None else _row_of(data)
        return Counterexample(
            data["ref"],
            data["target"],
            Check(**data["check"]),
            data["contract"],
            rows,
            data["from_reset"],
            data["divergence"],
            data["versions"],
            data["seed"],
            _read_arrays(data["target_state"]),
            _read_arrays(data["target_action"]),
            data["shown"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(f"counterexample {path}: incomplete: {error}") from error


def _row_of(data: dict[str, Any]) -> Rows:
    none = np.array([-1])
    return Rows(
        State(_read_arrays(data["state"])),
        _read_arrays(data["seen"]),
        np.array([data["clock"]]),
        _read_arrays(data["action"]),
        np.array([data["draw_seed"]]),
        none,
        none,
    )


# -- replaying -------------------------------------------------------------------------------------------------------


def replayed(pair: Pair, example: Counterexample) -> Step:
    """The saved inputs asked of both sides again. Raises ContractError if they no longer fit the pair."""
    rows = example.rows
    if rows is not None and pair.injectable():
        missing = set(pair.ref.spec.fields) - set(rows.state.fields)
        if missing:
            raise ContractError(f"the counterexample has no value for the state field {sorted(missing)[0]!r}")
        ours, theirs = pair.ask(rows)
        return Step("replay", rows, ours, theirs, compare(pair, rows, ours, theirs))
    if example.path is None:
        raise ContractError("the counterexample holds a state, but states of this pair cannot be injected")
    return walked(pair, example.path)


def still_apart(bench: Bench, example: Counterexample) -> Verdict | None:
    """The verdict on the saved inputs, or None if they show no divergence any more. Raises ContractError.

    A lockstep is judged as a lockstep: along the saved actions, against the reference's own drift.
    """
    check = example.check
    if check.subject == "lockstep" and example.path is not None:
        return rollout.along(bench, check, _played(bench.pair, example.path))
    step = replayed(bench.pair, example)
    if check.field not in step.found:
        raise ContractError(f"the pair no longer has the field {check.field!r}")
    return judged_step(bench, check, step, check.field) if step.found[check.field].rows.any() else None


def _played(pair: Pair, path: dict[str, Any]) -> Play:
    """The reference's episode along a path, as play."""
    resets = pair.ref.reset(np.array([path["seed"]]))
    actions = {k: _read_array(v) for k, v in path["actions"].items()}
    outcome, rows, outcomes = resets, [], []
    for t, draw in enumerate(path["draw_seeds"]):
        action = {k: v[t : t + 1] for k, v in actions.items()}
        first = np.zeros(1, int)
        rows.append(Rows(outcome.state, shown(outcome.outputs), first + t, action, np.array([draw]), first, first + t))
        outcome = pair.ref.step(outcome.state, action, np.array([draw]))
        outcomes.append(outcome)
    return Play(Rows.join(rows), join_outcomes(outcomes), resets, np.array([path["seed"]]), np.full(len(rows), "saved"))


def walked(pair: Pair, path: dict[str, Any]) -> Step:
    """Both sides run from the path's reset under its actions; the last step is compared."""
    seeds = np.array([path["seed"]])
    ours, theirs = pair.reset_both(seeds)
    actions = {k: _read_array(v) for k, v in path["actions"].items()}
    length = len(next(iter(actions.values())))
    none = np.array([-1])
    for t in range(length):
        action = {k: v[t : t + 1] for k, v in actions.items()}
        draws = np.array([path["draw_seeds"][t]])
        rows = Rows(ours.state, shown(ours.outputs), np.array([t]), action, draws, none, np.array([t]), theirs.state)
        ours = pair.ref.step(rows.state, action, draws)
        theirs = pair.target_step(theirs.state, action, draws, ours.draws)
    return Step("replay", rows, ours, theirs, compare(pair, rows, ours, theirs))


# -- making ----------------------------------------------------------------------------------------------------------


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
        "actions": {k: _array(v[mine]) for k, v in rows.action.items()},
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

    def good(choice: tuple[int, ...]) -> bool:
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
        return bool(holds(pair.contract.live, {**rows.state.fields, **rows.seen}, "[live] rule")[0])
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
