"""A divergence laid out for many changes of the program: what was computed, what should have come out, what if."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from heapq import heappop, heappush
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.dataflow import slices
from pytest_envequiv.whitebox.jaxprs import Traced
from pytest_envequiv.whitebox.program import Atom, Constant, Op, Program, flat, read

EXPLAINED = 0.999  # share of rows mended, none broken, with which a change counts as an explanation
MANY = 0.9  # of the rows in which some output is wrong: one that is wrong in so many can be solved for
SOLVING = 8  # iterations to find a value with which the outputs are right
MOST_ROOTS = 4  # numbers with which one row is right that are tried on the others
MOST_SCOPE = 160  # values in scope that are tried in the place of another
PASSING = {"convert_element_type", "reshape", "squeeze", "broadcast_in_dim", "stop_gradient", "copy"}

MOST_WORK = 3_000_000  # operations that are run again for one divergence: some 20 s


class Spent(Exception):
    """As much was tried as one divergence is worth."""


Change = Callable[[Op, Sequence[Any]], list[Any]]  # what a changed operation gives for its inputs
Others = Mapping[int, Op]  # operation -> another that stands there instead; it reads only what is there by then


@dataclass(frozen=True)
class Case:
    """Rows of one step (B of them) as the target's jaxpr takes them, and what should have come out.

    arguments  one array (B, ...) per input of ``traced`` (constants without the batch axis)
    draws      values of its draws, in order; empty: it draws itself
    expected   output -> (B, elements); tolerance: the same shape, 0 for exact fields
    counts     output -> bool (B,): rows in which the output is compared
    wrong      outputs whose divergence is to be explained; all others in ``expected`` are right
    known      constant -> the value, or array, the reference has under that name
    """

    traced: Traced
    arguments: Sequence[np.ndarray]
    draws: Sequence[np.ndarray]
    expected: Mapping[str, np.ndarray]
    tolerance: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]
    wrong: frozenset[str]
    known: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Sequence[float] = ()  # other constants the reference has


class Trial:
    """A case laid out for many changes: what was computed, and what is computed from what."""

    def __init__(self, case: Case):
        self.case = case
        self.program: Program = flat(case.traced.closed)
        self.values = self.program.run(case.arguments, case.draws)
        self.rows = len(next(iter(case.expected.values())))
        self.outputs = dict(zip(case.traced.outputs, self.program.outputs, strict=True))
        behind = dict(zip(case.traced.outputs, slices(self.program), strict=True))
        self.behind = {name: behind[name] for name in case.expected if name in behind}
        self.suspected = frozenset().union(*(self.behind[n] for n in case.wrong if n in self.behind))
        self.makers = {place: number for number, op in enumerate(self.program.ops) for place in op.outputs}
        self.users: dict[int, list[int]] = {}
        for number, op in enumerate(self.program.ops):
            for atom in op.inputs:
                if not isinstance(atom, Constant):
                    self.users.setdefault(atom, []).append(number)
        self.work = 0  # operations that were run again
        self.before = self.misses(self.values)
        self.diverging = np.asarray(self.before.any(0))

    def groups(self) -> Iterator[list[int]]:
        """Suspected operations; those of one source expression that is run several times together.

        A function that is called k times has each of its operations k times: a slip in it is in all of them. An
        expression may also hold an operation several times by itself (a clip of a clip): then each is a group.
        """
        found: dict[Any, list[int]] = {}
        for number in sorted(self.suspected):
            op = self.program.ops[number]
            if op.site is not None and op.name != "draw":
                found.setdefault((op.site, op.name, len(op.inputs)), []).append(number)
        calls: dict[tuple[str, str], int] = {}
        for (site, _, _), numbers in found.items():
            function = (site.file, site.function)
            calls[function] = min(calls.get(function, len(numbers)), len(numbers))
        for (site, name, _), numbers in found.items():
            yield numbers
            times, rest = divmod(len(numbers), calls[site.file, site.function])
            if 1 < times <= 8 and not rest and name != "convert_element_type":
                yield from (numbers[first::times] for first in range(times))

    def constants(self) -> dict[str, int]:
        """Settings among the inputs from which a wrong output is computed."""
        used = {a for n in self.suspected for a in self.program.ops[n].inputs if not isinstance(a, Constant)}
        pairs = zip(self.case.traced.inputs, self.program.inputs, strict=True)
        return {name.partition(".")[2]: p for name, p in pairs if name.startswith("constants.") and p in used}

    def named_inputs(self) -> Iterator[tuple[str, int]]:
        """(what to call it, place) of inputs that are one number for each row, or one for all."""
        for name, place in zip(self.case.traced.inputs, self.program.inputs, strict=True):
            value = np.asarray(self.values[place])
            if name != "seed" and value.dtype.kind in "fiub" and value.size in (1, self.rows):
                yield name.partition(".")[2], place

    def source(self, atom: Atom) -> Atom:
        """A value before it was only converted to another type."""
        while not isinstance(atom, Constant) and atom in self.makers:
            op = self.program.ops[self.makers[atom]]
            if op.name != "convert_element_type":
                break
            atom = op.inputs[0]
        return atom

    def shape_of(self, place: int) -> tuple[int, ...]:
        """The shape in which another number for each row can stand in a place that may hold one number for all."""
        value = np.asarray(self.values[place])
        if value.size == self.rows:
            return value.shape
        queue, seen = [place], {place}
        while queue:
            for number in self.users.get(queue.pop(0), ()):
                op = self.program.ops[number]
                for shape, output in zip(op.shapes, op.outputs, strict=True):
                    if shape[:1] == (self.rows,):
                        return (self.rows, *(1,) * (len(shape) - 1))
                    if output not in seen:
                        seen.add(output)
                        queue.append(output)
        return (self.rows,)

    def after(self, number: int) -> set[int]:
        """The operation and all that are computed from it."""
        found, left = set(), [number] if number < len(self.program.ops) else []
        while left:
            found.add(here := left.pop())
            users = {n for place in self.program.ops[here].outputs for n in self.users.get(place, ())}
            left += users - found
        return found

    def rerun(self, changed: dict[int, Any]) -> dict[int, Any]:
        """All values after some were changed; only what is computed from them is computed again."""
        return self._forward(dict(changed), {})

    def edited(self, numbers: Sequence[int], change: Change) -> dict[int, Any]:
        """All values after the operations ``numbers`` were each changed in one way."""
        ops = self.program.ops
        return self.replaced({n: replace(ops[n], run=partial(change, ops[n])) for n in numbers})

    def replaced(self, others: Others) -> dict[int, Any]:
        """All values with other operations in the place of some."""
        return self._forward({}, others)

    def _forward(self, overlay: dict[int, Any], others: Others) -> dict[int, Any]:
        queue = sorted({*others, *(n for place in overlay for n in self.users.get(place, ()))})
        queued = set(queue)
        ops = self.program.ops
        values = _Layered(overlay, self.values)
        with np.errstate(all="ignore"):
            while queue:
                number = heappop(queue)
                op = others.get(number, ops[number])
                self.work += 1
                if self.work > MOST_WORK:
                    raise Spent
                if op.name == "draw" and self.case.draws:
                    continue  # what was drawn is given, whatever its bounds would be
                made = op.run([a.value if isinstance(a, Constant) else values[a] for a in op.inputs])
                for place, value in zip(op.outputs, made, strict=True):
                    values[place] = value
                    for user in self.users.get(place, ()):
                        if user > number and user not in queued:
                            queued.add(user)
                            heappush(queue, user)
        return values

    def misses(self, values: Mapping[int, Any]) -> np.ndarray:
        """bool (outputs, B): where an output is not as expected."""
        found = []
        for name, expected in self.case.expected.items():
            if name not in self.outputs:
                continue
            actual = np.asarray(read(values, self.outputs[name])).reshape(self.rows, -1)
            with np.errstate(all="ignore"):
                error = np.abs(actual.astype(float) - expected.astype(float))
                same = (actual == expected) | ((actual != actual) & (expected != expected))
                wrong = ~same & ~(error <= self.case.tolerance[name])
            found.append(np.asarray(wrong).any(1) & self.case.counts[name])
        return np.stack(found)

    def verdict(self, values: Mapping[int, Any]) -> tuple[float, float]:
        """(share of the diverging rows that are right now, share of the others that are wrong now)."""
        now = np.asarray(self.misses(values).any(0))
        mended = 1.0 - float(now[self.diverging].mean())
        broken = float(now[~self.diverging].mean()) if (~self.diverging).any() else 0.0
        return mended, broken

    def explains(self, values: Mapping[int, Any]) -> bool:
        mended, broken = self.verdict(values)
        return mended >= EXPLAINED and broken <= 1 - EXPLAINED


class _Layered(dict[int, Any]):
    """Changed values over those that stayed."""

    def __init__(self, overlay: dict[int, Any], under: Mapping[int, Any]):
        super().__init__(overlay)
        self.under = under

    def __missing__(self, key: int) -> Any:
        return self.under[key]


def scope(trial: Trial, number: int) -> list[tuple[str, Any]]:
    """What one number per row is known when an operation runs, or could be if lines stood in another order (it is not
    computed from the operation): (what to call it, values)."""
    found: list[tuple[str, Any]] = []
    found += [(name, trial.values[place]) for name, place in trial.named_inputs()]
    after = trial.after(number)
    for other, op in enumerate(trial.program.ops):
        if op.name in PASSING or other in after:
            continue
        for place in op.outputs:
            value = trial.values[place]
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size == trial.rows:
                found.append((f"what line {op.site.line if op.site else '?'} computes", value))
    return found[-MOST_SCOPE:]


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
    size = np.where(trial.diverging & trial.case.counts[name], np.abs(misses(old)), -1.0)
    order = np.argsort(size)[-max(int((size > 0).sum()), 1) :]
    row = int(order[len(order) // 2])

    def miss(at: float) -> float:
        return float(misses(at)[row])

    enough = float(trial.case.tolerance[name][row, element])
    near = float(_secant(lambda at: np.array([miss(float(at[0]))]), np.array([old]))[0])
    found = [near] if np.isfinite(near) and abs(miss(near)) <= enough else _every_root(miss, old, enough).tolist()
    return [root for root in found if np.isfinite(root) and abs(miss(root)) <= enough][:MOST_ROOTS]
