"""A divergence laid out for many changes of the program: what was computed, what should have come out, what if."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.dataflow import slices
from pytest_envequiv.whitebox.jaxprs import Traced
from pytest_envequiv.whitebox.program import Atom, Constant, Op, Program, flat, read

EXPLAINED = 0.999  # share of rows mended, none broken, with which a change counts as an explanation
MOST_SCOPE = 160  # values in scope that are tried in the place of another
PASSING = {"convert_element_type", "reshape", "squeeze", "broadcast_in_dim", "stop_gradient", "copy"}

MOST_WORK = 4_000_000  # operations that are run again for one divergence: some 20 s


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
    root       those of them that do not follow from another
    known      constant -> the value, or array, the reference has under that name
    """

    traced: Traced
    arguments: Sequence[np.ndarray]
    draws: Sequence[np.ndarray]
    expected: Mapping[str, np.ndarray]
    tolerance: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]
    wrong: frozenset[str]
    root: frozenset[str]
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

    def altered(self, changed: dict[int, Any], others: Others) -> dict[int, Any]:
        """All values after some were changed, and with other operations in the place of some."""
        return self._forward(dict(changed), others)

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

    def misses(self, values: Mapping[int, Any], outputs: Mapping[str, Atom] | None = None) -> np.ndarray:
        """bool (outputs, B): where an output is not as expected. ``outputs``: where they stand in another program."""
        outputs = outputs or self.outputs
        found = []
        for name, expected in self.case.expected.items():
            if name not in outputs:
                continue
            actual = np.asarray(read(values, outputs[name])).reshape(self.rows, -1)
            with np.errstate(all="ignore"):
                error = np.abs(actual.astype(float) - expected.astype(float))
                same = (actual == expected) | ((actual != actual) & (expected != expected))
                wrong = ~same & ~(error <= self.case.tolerance[name])
            found.append(np.asarray(wrong).any(1) & self.case.counts[name])
        return np.stack(found)

    def verdict(self, values: Mapping[int, Any], outputs: Mapping[str, Atom] | None = None) -> tuple[float, float]:
        """(share of the diverging rows that are right now, share of the others that are wrong now)."""
        now = np.asarray(self.misses(values, outputs).any(0))
        mended = 1.0 - float(now[self.diverging].mean())
        broken = float(now[~self.diverging].mean()) if (~self.diverging).any() else 0.0
        return mended, broken

    def explains(self, values: Mapping[int, Any], outputs: Mapping[str, Atom] | None = None) -> bool:
        mended, broken = self.verdict(values, outputs)
        return mended >= EXPLAINED and broken <= 1 - EXPLAINED

    def explained_by(self, program: Program) -> bool:
        """Whether everything is right in another program. Raises whatever it raises that takes or draws otherwise."""
        values = program.run(self.case.arguments, self.case.draws)
        return self.explains(values, dict(zip(self.case.traced.outputs, program.outputs, strict=True)))


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
