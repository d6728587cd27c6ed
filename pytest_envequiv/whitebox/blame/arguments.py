"""Vectors that should have been made of others: operands of sums of vectors, and what a call is handed.

A call ``f(y)`` where ``f(y + h * k)`` was meant leaves no operation on its own line. The operations inside of it are
known by the calls that led to them, and so is what they read from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame.edits import Edit
from pytest_envequiv.whitebox.blame.names import Programs
from pytest_envequiv.whitebox.blame.trial import PASSING, Trial
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Constant, Op

SUMS = {"add", "sub", "mul", "div"}
MOST_VECTORS = 12
MOST_SCALARS = 8
Function = Callable[..., Any]
Named = tuple[str, int]  # what to call a value, its place


@dataclass(frozen=True)
class Form:
    """A value made of another that stood there, and of what is known: ``function(own, *values of places)``."""

    why: str
    function: Function
    places: tuple[int, ...] = ()


def vectors(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """Another vector in the place of an operand, or something done to it."""
    op = trial.program.ops[group[0]]
    if (
        len(group) > 1
        or op.site is None
        or not _vector(trial, op.outputs[0])
        or op.name not in ("add", "sub", "mul", "div")
    ):
        return
    known, numbers = _known(trial, group[0], op.outputs[0], op.site)
    for slot, atom in enumerate(op.inputs):
        for form in _forms(known, numbers):
            if atom not in form.places or len(form.places) > 1:
                yield Edit(form.why, {group[0]: given_otherwise(op, slot, form)}, 0.92)


def handed(trial: Trial) -> Programs:
    """(line of a call, why, weight, all values) of programs in which a call is handed something else. Only calls on
    whose lines nothing is computed: elsewhere it is the operation that is changed."""
    ops = trial.program.ops
    busy = {(op.site.file, line) for op in ops if op.site for line in range(op.site.line, op.site.end_line + 1)}
    inside: dict[tuple[Site, ...], list[int]] = {}
    for number in sorted(trial.suspected):
        path = ops[number].callers
        for depth in range(len(path)):
            if (path[depth].file, path[depth].line) not in busy:
                inside.setdefault(path[depth:], []).append(number)
    for path, numbers in inside.items():
        made = {place for n in numbers for place in ops[n].outputs}
        read = {a: None for n in numbers for a in ops[n].inputs if not isinstance(a, Constant) and a not in made}
        for place in [a for a in read if _vector(trial, a)]:
            known, scalars = _known(trial, numbers[0], place, path[0])
            for form in _forms(known, scalars):
                others = {}
                for n in numbers:
                    op = ops[n]
                    for slot, atom in enumerate(op.inputs):
                        if atom == place:
                            op = given_otherwise(op, slot, form)
                    if op is not ops[n]:
                        others[n] = op
                try:
                    yield path[0], f"{form.why}, where it is handed over", 0.95, trial.replaced(others)
                except (ValueError, TypeError):
                    continue


def _vector(trial: Trial, place: int) -> bool:
    value = trial.values[place]
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and value.ndim > 1
        and value.shape[0] == trial.rows < value.size
    )


def _known(trial: Trial, number: int, like: int, here: Site) -> tuple[list[Named], list[Named]]:
    """(vectors of the same shape, numbers) that are there when an operation runs, in the function of a site."""
    ops = trial.program.ops
    shape = np.shape(trial.values[like])
    found: list[Named] = []
    numbers: list[Named] = []
    own = [op for op in ops if op.site is not None and _same(op.site, here)]
    read = {atom for op in own for atom in op.inputs if not isinstance(atom, Constant)}
    for name, place in trial.named_inputs():
        if np.size(trial.values[place]) == 1 and trial.values[place].dtype.kind == "f" and place in read:
            numbers.append((name, place))
    for op in ops[:number]:
        if op.site is None or op.name in PASSING:
            continue
        place = op.outputs[0]
        value, name = trial.values[place], f"what line {op.site.line} computes"
        if np.shape(value) == shape and value.dtype.kind == "f":
            # What a call gave, or what is used on other lines: it has a name.
            users = [ops[u].site for u in trial.users.get(place, ())]
            if not _same(op.site, here) or any(u is None or u.line != op.site.line for u in users):
                found.append((name, place))
        elif np.size(value) == 1 and _same(op.site, here) and op.dtypes[0].kind == "f":
            numbers.append((name, place))
    return found[-MOST_VECTORS:], numbers[:MOST_SCALARS]


def _same(site: Site, other: Site) -> bool:
    return (site.file, site.function) == (other.file, other.function)


def _forms(vectors: Sequence[Named], numbers: Sequence[Named]) -> Iterator[Form]:
    for name, place in vectors:
        yield Form(f"{name} is right", lambda own, z: z, (place,))
        yield Form(f"times {name}", lambda own, z: own * z, (place,))
        yield Form(f"plus {name}", lambda own, z: own + z, (place,))
        yield Form(f"minus {name}", lambda own, z: own - z, (place,))
    for name, place in numbers:
        yield Form(f"times {name}", lambda own, s: own * s, (place,))
        yield Form(f"over {name}", lambda own, s: own / s, (place,))
        yield Form(f"plus {name}", lambda own, s: own + s, (place,))
        for other, vector in vectors:
            yield Form(f"plus {name} times {other}", lambda own, s, z: own + s * z, (place, vector))
            yield Form(f"minus {name} times {other}", lambda own, s, z: own - s * z, (place, vector))
    for times in (2.0, 3.0, 0.5):
        yield Form(f"times {times:g}", lambda own, times=times: own * times)


def given_otherwise(op: Op, slot: int, form: Form) -> Op:
    """The operation, one of its operands made something else of."""
    count = len(op.inputs)

    def run(values: Sequence[Any]) -> list[Any]:
        given = list(values[:count])
        own = np.asarray(given[slot])
        given[slot] = np.asarray(form.function(own, *values[count:])).astype(own.dtype)
        made = op.run(given)
        if np.shape(made[0]) != op.shapes[0]:
            raise ValueError("another shape")
        return made

    return replace(op, inputs=(*op.inputs, *form.places), run=run)
