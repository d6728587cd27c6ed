"""Which space is which on the two sides, and differences of convention: what is understood, said and bridged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv.backends.protocol import AGENT, MASK, Outcome, Space

if TYPE_CHECKING:  # a pair is handed in
    from pytest_envequiv.pair import Pair


@dataclass(frozen=True)
class Problem:
    """Why something cannot be compared at all."""

    subject: str
    text: str
    different: bool  # True: it is a difference; False: it is merely unknown


def match_actions(pair: Pair) -> dict[str, str]:
    """Target action name -> reference action name."""
    ours, theirs = pair.ref.spec.action, pair.target.spec.action
    names = _renaming(ours, theirs)
    problem = None
    if names is None:
        problem = f"the reference acts by {_listed(ours)}, the target by {_listed(theirs)}"
    else:
        for target_name, name in names.items():
            a, b = ours[name], theirs[target_name]
            count = [np.asarray(s.high - s.low + 1).tolist() if s.kind == "discrete" else None for s in (a, b)]
            if (
                a.kind != b.kind
                or int(np.prod(a.shape)) != int(np.prod(b.shape))
                or np.any(np.ravel(count[0] or 0) != np.ravel(count[1] or 0))
            ):
                problem = f"{name}: the reference takes {a}, the target {b}"
            elif np.any(np.asarray(b.low) > np.asarray(b.high)):
                problem = f"{name}: the target's {b} is empty"
    if problem:
        pair.problems.append(Problem("action", f"action spaces cannot be matched: {problem}", True))
    return names or {}


def match_observations(pair: Pair) -> dict[str, str]:
    """Target observation name -> reference observation name, for those whose sizes agree."""
    ours, theirs = pair.ref.spec.observation, pair.target.spec.observation
    names = _renaming(ours, theirs)
    if names is None:
        shared = {n: n for n in theirs if n in ours}
        text = f"the reference shows {_listed(ours)}, the target {_listed(theirs)}"
        pair.problems.append(Problem("observation", f"observation spaces cannot be matched: {text}", True))
        names = shared
    matched = {}
    for target_name, name in names.items():
        a, b = ours[name], theirs[target_name]
        if int(np.prod(a.shape)) != int(np.prod(b.shape)):
            text = f"{name} has shape {a.shape} in the reference and {b.shape} in the target"
            pair.problems.append(Problem("observation", f"observation spaces cannot be matched: {text}", True))
            continue
        if a.shape != b.shape:
            pair.notes.append(f"{name}: shape {a.shape} in the reference, {b.shape} in the target (compared reshaped)")
        matched[target_name] = name
    return matched


def check_shapes(pair: Pair, begun: Outcome) -> None:
    """Observations of the target whose shape is not the one its space declares are a problem and not compared."""
    for name in list(pair.observations):
        declared = pair.target.spec.observation[name].shape
        value = begun.outputs.get(name)
        if value is None or value.shape[1:] != declared:
            given = "missing" if value is None else f"of shape {value.shape[1:]}"
            text = f"the target's {name} is {given}, its space says {declared}"
            pair.problems.append(Problem("observation", text, True))
            del pair.observations[name]


def conventions(pair: Pair) -> list[str]:
    """Differences of taste between the sides, one line each: what they are and how they are bridged."""
    ours, theirs = pair.ref.spec, pair.target.spec
    found: list[str] = []
    merged = [s for s in (ours, theirs) if s.conventions.get("done") == "merged"]
    if len(merged) == 1:
        which = "target" if merged[0] is theirs else "reference"
        found.append(f"the {which} has one done flag where the other has terminated and truncated (done is compared)")
    styles = ours.conventions.get("auto_reset", "none"), theirs.conventions.get("auto_reset", "none")
    if styles[0] != styles[1]:
        found.append(f"auto-reset: {styles[0]} in the reference, {styles[1]} in the target (compared without it)")
    for name, a, b in matched_spaces(pair):
        if a.dtype != b.dtype:
            found.append(f"{name}: dtype {a.dtype} in the reference, {b.dtype} in the target")
        if a.kind == "box" and not _same_bounds(a, b):
            ours_said, theirs_said = (
                s if np.isfinite([*np.ravel(s.low), *np.ravel(s.high)]).any() else "none" for s in (a, b)
            )
            found.append(f"{name}: bounds {ours_said} in the reference, {theirs_said} in the target")
    if pair.blocked is None:
        example = pair.example_outcome.outputs
        for name, text in ((MASK, "a mask of legal actions"), (AGENT, "whose turn it is")):
            if (name in pair.sample.outcome.outputs) != (name in example):
                which = "target" if name in example else "reference"
                kept = f", play keeps to it: {pair.refuses}" if pair.refuses else ", nor kept to"
                found.append(f"only the {which} says {text} (not compared{kept if name == MASK else ''})")
    found += [*ours.notes, *theirs.notes]
    if pair.blocked is None and pair.map.unread and pair.map.usable:
        found.append(f"state of the reference with no counterpart in the target: {', '.join(pair.map.unread)}")
    return found


def matched_spaces(pair: Pair) -> list[tuple[str, Space, Space]]:
    found = [(n, pair.ref.spec.action[n], pair.target.spec.action[t]) for t, n in pair.actions.items()]
    return found + [
        (n, pair.ref.spec.observation[n], pair.target.spec.observation[t]) for t, n in pair.observations.items()
    ]


def constants_shared(pair: Pair) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Settings that both sides have, by their bare name: (the reference's name, its value, the target's value)."""
    ours, theirs = ({bare(k): (k, v) for k, v in s.spec.constants.items()} for s in (pair.ref, pair.target))
    names = sorted(ours.keys() & theirs.keys())
    return {k: (*ours[k], theirs[k][1]) for k in names if ours[k][1].shape == theirs[k][1].shape}


def constants_apart(pair: Pair) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """The shared settings that differ by more than rounding."""
    return {
        k: (name, x, y)
        for k, (name, x, y) in constants_shared(pair).items()
        if not np.allclose(x, y, rtol=1e-6, atol=0, equal_nan=True)
    }


def bare(name: str) -> str:
    """The name of a setting without where it is kept, capitals and underscores around it."""
    return name.split(".")[-1].lower().strip("_")


def _renaming(ours: Mapping[str, Space], theirs: Mapping[str, Space]) -> dict[str, str] | None:
    """Target name -> reference name: the same names, or one on each side; None if they cannot be paired."""
    if set(ours) == set(theirs):
        return {n: n for n in theirs}
    if len(ours) == len(theirs) == 1:
        return {next(iter(theirs)): next(iter(ours))}
    return None


def _listed(spaces: Mapping[str, Space]) -> str:
    return ", ".join(f"{name} {space}" for name, space in spaces.items())


def _same_bounds(a: Space, b: Space) -> bool:
    low, high = _compared_bounds(a, b)
    return bool(low.all() and high.all())


def bounds_apart(a: Space, b: Space) -> np.ndarray:
    """int[n]: elements for which the sides declare other bounds; none where one side declares no bounds at all."""
    if any(not np.isfinite([_bound(s.low, s), _bound(s.high, s)]).any() for s in (a, b)):
        return np.zeros(0, int)
    low, high = _compared_bounds(a, b)
    return np.flatnonzero(~(low & high))


def _compared_bounds(a: Space, b: Space) -> tuple[np.ndarray, np.ndarray]:
    """bool[elements]: where the lower bounds are the same, and where the upper ones are."""
    low, high = (
        np.isclose(_bound(x, a), _bound(y, b), rtol=1e-5, atol=1e-6) for x, y in ((a.low, b.low), (a.high, b.high))
    )
    return low, high


def _bound(bound: np.ndarray, space: Space) -> np.ndarray:
    values = np.ravel(np.broadcast_to(bound, space.shape)).astype(float)
    values = np.where(values > 1e38, np.inf, values)  # the largest float is no bound
    return np.where(values < -1e38, -np.inf, values)
