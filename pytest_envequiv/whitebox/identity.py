"""Which elements of a step's outputs are one and the same value, whatever it is: an observation that lists fields."""

from __future__ import annotations

from itertools import count

import numpy as np

from pytest_envequiv.whitebox.jaxprs import Traced
from pytest_envequiv.whitebox.program import STRUCTURAL, Constant, Op, Program, flat

KEPT = {"stop_gradient", "copy", "convert_element_type"}
LARGEST = 1 << 16  # elements of one value that are told apart


def shown(traced: Traced) -> dict[str, dict[int, tuple[str, int]]]:
    """Output -> element -> (state field, its element) that it repeats, cast at most. State outputs are left out."""
    program = flat(traced.closed)
    ids = _numbered(traced, program)
    found: dict[int, tuple[str, int]] = {}
    for name, atom in zip(traced.outputs, program.outputs, strict=True):
        if name.startswith("state.") and not isinstance(atom, Constant):
            for element, number in enumerate(ids[atom].ravel().tolist()):
                if number >= 0:
                    found.setdefault(number, (name.removeprefix("state."), element))
    shows = {}
    for name, atom in zip(traced.outputs, program.outputs, strict=True):
        if not name.startswith("state.") and not isinstance(atom, Constant):
            numbers = ids[atom].ravel().tolist()
            shows[name] = {e: found[n] for e, n in enumerate(numbers) if n in found}
    return shows


def _numbered(traced: Traced, program: Program) -> dict[int, np.ndarray]:
    """A number for every element of every value; elements that only changed places keep theirs."""
    fresh = count()

    def new(shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape, dtype=int))
        if size > LARGEST:
            return np.broadcast_to(np.array(-1), shape)  # nobody knows which is which
        return np.array([next(fresh) for _ in range(size)], int).reshape(shape)

    ids = {p: new(tuple(v.aval.shape)) for p, v in zip(program.inputs, traced.closed.jaxpr.invars, strict=True)}
    ids |= {place: new(np.shape(value)) for place, value in program.constants.items()}
    for op in program.ops:
        moved = _moved(op, [new(np.shape(a.value)) if isinstance(a, Constant) else ids[a] for a in op.inputs])
        for number, (place, shape) in enumerate(zip(op.outputs, op.shapes, strict=True)):
            kept = moved is not None and moved[number].shape == shape
            ids[place] = moved[number] if moved is not None and kept else new(shape)
    return ids


def _moved(op: Op, numbers: list[np.ndarray]) -> list[np.ndarray] | None:
    if op.name in KEPT:
        return numbers[:1]
    return [np.asarray(n) for n in op.run(numbers)] if op.name in STRUCTURAL else None
