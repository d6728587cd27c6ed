"""Counterexamples: the smallest input that still shows a divergence, as one file that replays.

A "step" is a state and an action; a "path" is a reset's seed and the actions from there, used where states cannot be
injected, and carried along with a step where play can reach the divergence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv import whole
from pytest_envequiv.backends.protocol import Arrays, State
from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.fields import compare
from pytest_envequiv.errors import ContractError
from pytest_envequiv.levels import rollout
from pytest_envequiv.levels.finding import judged_step
from pytest_envequiv.pair import Pair
from pytest_envequiv.stimuli.play import Play, Rows, join_outcomes, shown
from pytest_envequiv.verdict import Check, Verdict, pair_name, plain

VERSION = 1


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


def array_json(value: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(value.dtype), "value": plain(value)}


def _readarray_json(data: dict[str, Any]) -> np.ndarray:
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
        "state": None if rows is None else arrays_json(rows.state.fields),
        "seen": None if rows is None else arrays_json(rows.seen),
        "clock": None if rows is None else int(rows.clock[0]),
        "draw_seed": None if rows is None else int(rows.seeds[0]),
        "action": None if rows is None else arrays_json(rows.action),
        "target_state": arrays_json(example.target_state),
        "target_action": arrays_json(example.target_action),
        "divergence": example.divergence,
        "shown": example.shown,
        "from_reset": example.path,
        "versions": example.versions,
        "contract": example.contract,
    }


def arrays_json(values: Arrays) -> dict[str, Any]:
    """The first row of each."""
    return {k: array_json(v[0]) for k, v in values.items()}


def arrays_of(data: dict[str, Any]) -> Arrays:
    return {k: _readarray_json(v)[None] for k, v in data.items()}


def save(example: Counterexample, path: Path) -> None:
    """Write it whole or not at all."""
    whole.write(path, json.dumps(as_json(example), indent=1))


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
            arrays_of(data["target_state"]),
            arrays_of(data["target_action"]),
            data["shown"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(f"counterexample {path}: incomplete: {error}") from error


def _row_of(data: dict[str, Any]) -> Rows:
    none = np.array([-1])
    return Rows(
        State(arrays_of(data["state"])),
        arrays_of(data["seen"]),
        np.array([data["clock"]]),
        arrays_of(data["action"]),
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
    actions = {k: _readarray_json(v) for k, v in path["actions"].items()}
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
    actions = {k: _readarray_json(v) for k, v in path["actions"].items()}
    length = len(next(iter(actions.values())))
    none = np.array([-1])
    for t in range(length):
        action = {k: v[t : t + 1] for k, v in actions.items()}
        draws = np.array([path["draw_seeds"][t]])
        rows = Rows(ours.state, shown(ours.outputs), np.array([t]), action, draws, none, np.array([t]), theirs.state)
        ours = pair.ref.step(rows.state, action, draws)
        theirs = pair.target_step(theirs.state, action, draws, ours.draws)
    return Step("replay", rows, ours, theirs, compare(pair, rows, ours, theirs))
