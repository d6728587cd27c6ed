"""What should have stood in a place of the program: values for each row, or one number, solved for or guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame.trial import Trial
from pytest_envequiv.whitebox.program import read

MANY = 0.9  # of the rows in which some output is wrong: one that is wrong in so many can be solved for
SOLVING = 8  # iterations to find a value with which the outputs are right
MOST_ROOTS = 4  # numbers with which one row is right that are tried on the others


def solve_values(trial: Trial, place: int, value: np.ndarray) -> np.ndarray | None:
    """float[B]: values at ``place`` with which every row is right; None if none are found. Rows that were right keep
    theirs. Solved for on the output that is most off, and tried on all."""
    wanted = target_of(trial)
    if wanted is None:
        return None
    name, element = wanted
    goal = trial.case.expected[name].astype(float)[:, element]
    shape = trial.shape_of(place)

    def miss(at: np.ndarray) -> np.ndarray:
        values = trial.rerun({place: at.reshape(shape).astype(value.dtype)})
        return np.asarray(read(values, trial.outputs[name]), float).reshape(trial.rows, -1)[:, element] - goal

    start = np.broadcast_to(value.astype(float).ravel(), (trial.rows,))
    for solve in (_secant, _bracketed):
        best = np.where(trial.diverging, solve(miss, start), start)
        if trial.explains(trial.rerun({place: best.reshape(shape).astype(value.dtype)})):
            return best
    return None


Miss = Callable[[np.ndarray], np.ndarray]


def _secant(miss: Miss, start: np.ndarray) -> np.ndarray:
    """Roots of each row's miss, near ``start``: the best values met."""
    x0, x1 = start, start + np.maximum(np.abs(start), 1.0) * 1e-2
    y0, y1 = miss(x0), miss(x1)
    best, least = x0.copy(), np.abs(y0)
    with np.errstate(all="ignore"):
        for _ in range(SOLVING):
            slope = (y1 - y0) / (x1 - x0)
            x0, y0, x1 = x1, y1, np.where(np.isfinite(slope) & (slope != 0), x1 - y1 / slope, x1)
            y1 = miss(x1)
            better = np.abs(y1) < least
            best, least = np.where(better, x1, best), np.where(better, np.abs(y1), least)
    return best


FAR = np.array([-100, -10, -3, -1, -0.3, -0.1, -0.03, 0, 0.03, 0.1, 0.2, 0.4, 0.7, 0.9, 1, 1.1, 1.5, 3, 10, 30, 100.0])


def _bracketed(miss: Miss, start: np.ndarray) -> np.ndarray:
    """The same further off: of multiples of ``start`` the two neighbours, nearest to it, between which the sign of the
    miss changes."""
    points, misses, turns = _far(miss, start)
    at = np.where(turns, np.abs(points[1:] + points[:-1] - 2 * start), np.inf).argmin(0)
    rows = np.arange(len(start))
    return _closed_in(miss, points[at, rows], points[at + 1, rows], misses[at, rows], misses[at + 1, rows])


def _every_root(miss: Callable[[float], float], start: float, enough: float) -> np.ndarray:
    """Of one row, the multiples that miss by no more than ``enough``, and a root between any two such neighbours; the
    nearest first."""

    def each(at: np.ndarray) -> np.ndarray:
        return np.array([miss(float(x)) for x in at])

    points, misses, turns = (found[:, 0] for found in _far(each, np.array([start])))
    at = np.flatnonzero(turns)
    between = _closed_in(each, points[at], points[at + 1], misses[at], misses[at + 1])
    roots = np.concatenate([points[np.abs(misses) <= enough], between])
    return roots[np.argsort(np.abs(roots - start), kind="stable")]


def _far(miss: Miss, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points, their misses, whether the sign changes up to the next point): the first axis is the points."""
    points = np.sort(FAR[:, None] * np.where(start == 0, 1.0, start), axis=0)
    with np.errstate(all="ignore"):
        misses = np.stack([miss(p) for p in points])
    return points, misses, np.sign(misses[1:]) * np.sign(misses[:-1]) <= 0


def _closed_in(miss: Miss, a: np.ndarray, b: np.ndarray, fa: np.ndarray, fb: np.ndarray) -> np.ndarray:
    """Regula falsi with Illinois' weights (Dowell and Jarratt 1971): the best values met between a and b."""
    with np.errstate(all="ignore"):
        best = np.where(np.abs(fa) < np.abs(fb), a, b)
        least = np.minimum(np.abs(fa), np.abs(fb))
        for _ in range(3 * SOLVING):
            c = np.where(fb != fa, b - fb * (b - a) / (fb - fa), b)
            fc = miss(c)
            crossed = np.sign(fc) != np.sign(fb)
            a, fa = np.where(crossed, b, a), np.where(crossed, fb, fa / 2)
            b, fb = c, fc
            better = np.abs(fc) < least
            best, least = np.where(better, c, best), np.where(better, np.abs(fc), least)
    return best


def target_of(trial: Trial) -> tuple[str, int] | None:
    """The float output, and its element, that values are solved for: of those that are wrong in about as many rows as
    any, the one that the least is computed for."""
    most: dict[str, tuple[int, int]] = {}  # output -> (rows, element)
    for name in sorted(trial.case.wrong & trial.outputs.keys()):
        if trial.case.expected[name].dtype.kind != "f":
            continue
        actual = np.asarray(read(trial.values, trial.outputs[name]), float).reshape(trial.rows, -1)
        error = np.abs(actual - trial.case.expected[name]) > trial.case.tolerance[name]
        counted = np.asarray(error & trial.case.counts[name][:, None]).sum(0)
        if counted.max() > 0:
            most[name] = int(counted.max()), int(counted.argmax())
    enough = MANY * max((rows for rows, _ in most.values()), default=0)
    names = [name for name, (rows, _) in most.items() if rows >= enough]
    if not names:
        return None
    best = min(names, key=lambda name: len(trial.behind[name]))
    return best, most[best][1]


def numbers_for(trial: Trial, old: float) -> Iterator[tuple[float, str, float]]:
    """(value, why, weight) of what a number of the program might rightly be."""
    plain = [0.0, 1.0, -old, old + 1, old - 1, 2 * old, old / 2, 10 * old, old / 10, old * 100, old / 100]
    for value in dict.fromkeys([*plain, *trial.case.numbers]):
        if value != old and np.isfinite(value):
            yield value, f"{value:g} in the place of {old:g}", 0.95


def written(number: float) -> list[float]:
    """Numbers near one that was solved for that somebody may have written: few digits, a small fraction, a part of
    pi."""
    found = []
    for unit in (1.0, float(np.pi)):
        x = number / unit
        for near in (float(f"{x:.3g}"), float(Fraction(x).limit_denominator(60))):
            if abs(x - near) <= 2e-5 * max(abs(x), 1e-12):
                found.append(near * unit)
    return list(dict.fromkeys(found))


WRITTEN, UNLIKELY = 0.93, 0.6  # how likely such a number is right, and one that nobody would have written


def solved(trial: Trial, run: Callable[[float], Mapping[int, Any]], old: float) -> list[tuple[float, float]]:
    """(number, weight): numbers in the place of ``old`` with which a row that diverges comes out right; those that
    somebody may have written first.

    ``run(value)`` gives all values of the program with the number in place.
    """
    roots = _roots(trial, run, old)
    return [(near, WRITTEN) for root in roots for near in written(root)] + [(root, UNLIKELY) for root in roots]


def _roots(trial: Trial, run: Callable[[float], Mapping[int, Any]], old: float) -> list[float]:
    wanted = target_of(trial)
    if wanted is None:
        return []
    name, element = wanted
    goal = trial.case.expected[name].astype(float)[:, element]

    def misses(at: float) -> np.ndarray:
        return np.asarray(read(run(at), trial.outputs[name]), float).reshape(trial.rows, -1)[:, element] - goal

    # A row in the middle of those that diverge: neither the dullest nor one that hits a clip.
    size = np.where(trial.diverging & trial.case.counts[name], np.nan_to_num(np.abs(misses(old)), nan=-1.0), -1.0)
    if not (size > 0).any():
        return []
    order = np.argsort(size)[-int((size > 0).sum()) :]
    row = int(order[len(order) // 2])

    def miss(at: float) -> float:
        return float(misses(at)[row])

    enough = float(trial.case.tolerance[name][row, element])
    near = float(_secant(lambda at: np.array([miss(float(at[0]))]), np.array([old]))[0])
    if not (np.isfinite(near) and abs(miss(near)) <= enough):
        found = _every_root(miss, old, enough).tolist()
    elif np.median(np.abs(misses(near))[size > 0]) <= enough:
        found = [near]
    else:  # this row has another root than the rest
        found = [near, _agreed(lambda at: misses(at)[size > 0], old)]
    return [root for root in found if np.isfinite(root) and abs(miss(root)) <= enough][:MOST_ROOTS]


def _agreed(misses: Callable[[float], np.ndarray], start: float) -> float:
    """One number near ``start`` for all rows: the secant method, with the step that half of the rows would exceed."""
    x0, x1 = start, start + max(abs(start), 1.0) * 1e-2
    y0, y1 = misses(x0), misses(x1)
    with np.errstate(all="ignore"):
        for _ in range(SOLVING):
            steps = y1 * (x1 - x0) / (y1 - y0)
            if not np.isfinite(steps).any():
                break
            x0, y0, x1 = x1, y1, x1 - float(np.median(steps[np.isfinite(steps)]))
            y1 = misses(x1)
    return x1
