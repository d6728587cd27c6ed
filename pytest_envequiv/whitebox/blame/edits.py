"""Small changes of one operation of a program: what a slip of the pen would have been, turned back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame import calls
from pytest_envequiv.whitebox.blame.solving import numbers_for, solved
from pytest_envequiv.whitebox.blame.trial import PASSING, Change, Others, Trial, scope
from pytest_envequiv.whitebox.program import ELEMENTWISE, Atom, Constant, Op

Function = Callable[..., Any]


@dataclass(frozen=True)
class Edit:
    """One change of an operation, or other operations in the place of some. ``weight``: how likely such a slip is, next
    to others that explain as much. ``elements``: of the list that the operation joins, those that are changed."""

    why: str
    change: Change | Others
    weight: float = 1.0
    elements: tuple[int, ...] = ()
    operand: int | None = None  # the one that is changed

    def tried(self, trial: Trial, group: Sequence[int]) -> Mapping[int, Any]:
        """All values with the change made at every operation of the group."""
        return trial.edited(group, self.change) if callable(self.change) else trial.replaced(self.change)


Kind = Callable[[Trial, Sequence[int]], Iterator[Edit]]

SWAPS: dict[str, tuple[str, ...]] = {
    "add": ("sub", "mul", "div"),
    "sub": ("add", "mul", "div"),
    "mul": ("div", "add", "sub"),
    "div": ("mul", "sub", "add"),
    "max": ("min",),
    "min": ("max",),
    "lt": ("le", "gt", "ge", "eq", "ne"),
    "le": ("lt", "ge", "gt", "eq", "ne"),
    "gt": ("ge", "lt", "le", "eq", "ne"),
    "ge": ("gt", "le", "lt", "eq", "ne"),
    "eq": ("ne", "le", "ge", "lt", "gt"),
    "ne": ("eq", "le", "ge", "lt", "gt"),
    "sin": ("cos", "tan"),
    "cos": ("sin", "tan"),
    "tan": ("sin", "cos", "tanh"),
    "tanh": ("tan",),
    "asin": ("acos", "atan"),
    "acos": ("asin", "atan"),
    "floor": ("ceil",),
    "ceil": ("floor",),
    "exp": ("log", "expm1"),
    "log": ("exp", "log1p"),
    "sqrt": ("square",),
    "square": ("sqrt",),
    "rem": ("div",),
    "and": ("or", "xor"),
    "or": ("and", "xor"),
    "xor": ("and", "or"),
}
BITS: dict[str, Function] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
TWO = {"add", "sub", "mul", "div", "max", "min", "and", "or", "rem", "pow", "atan2"}
REDUCED: dict[str, Function] = {
    "reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_and": np.all, "reduce_or": np.any,
}  # fmt: skip


FUNCTIONS: dict[str, Function] = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "minus": np.negative, "the square": np.square, "abs": np.abs,
    "the root": np.sqrt, "exp": np.exp, "half": lambda x: x / 2, "twice": lambda x: 2 * x,
    "the ceiling": np.ceil, "the floor": np.floor, "the nearest whole number": np.round,
}  # fmt: skip


def slips(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """Another operator, a comparison turned, branches exchanged, an operand forgotten, an index off by one."""
    op = trial.program.ops[group[0]]
    yield from _operators(op)
    yield from _structure(op)


def _made(op: Op, value: Any) -> list[Any]:
    """The value in the shape and dtype of the operation's output."""
    return [np.broadcast_to(np.asarray(value), op.shapes[0]).astype(op.dtypes[0])]


def _giving(function: Function) -> Change:
    """The operation gives ``function(*operands)`` instead."""
    return lambda op, values: _made(op, function(*values))


def _then(function: Function) -> Change:
    """The operation's own result goes through ``function``."""
    return lambda op, values: _made(op, function(np.asarray(op.run(values)[0])))


def _operators(op: Op) -> Iterator[Edit]:
    kind = op.dtypes[0].kind
    for name in SWAPS.get(op.name, ()):
        if kind not in "iu" or name != "div":
            yield Edit(f"{name} in the place of {op.name}", _giving(BITS.get(name) or ELEMENTWISE[name]))
    if op.name in TWO:
        yield Edit("the first operand alone", _giving(lambda a, b: a), 0.97)
        yield Edit("the second operand alone", _giving(lambda a, b: b), 0.97)
    if op.name in ("sub", "div", "pow", "atan2", "rem"):
        function = ELEMENTWISE[op.name]
        yield Edit("operands the other way round", _giving(lambda a, b: function(b, a)))
    if op.name == "integer_pow":
        for power in {1, 2, 3, 4, -1} - {op.params["y"]}:
            yield Edit(f"to the power of {power}", _giving(lambda a, p=power: np.asarray(a, float) ** p))
    if op.name in REDUCED:
        axes = tuple(op.params["axes"])
        for name in sorted(REDUCED.keys() - {op.name}):
            yield Edit(f"{name} here", _giving(lambda a, r=REDUCED[name]: r(a, axis=axes)), 0.95)
    if op.name == "neg":
        yield Edit("no minus", _giving(lambda a: a))
    elif kind == "f" and op.name not in PASSING:
        yield Edit("the other sign", _then(np.negative), 0.96)
    if kind == "b" and op.name not in PASSING:
        yield Edit("negated", _then(np.logical_not), 0.96)
        yield Edit("always true", _giving(lambda *_: True), 0.9)
        yield Edit("always false", _giving(lambda *_: False), 0.9)


def _structure(op: Op) -> Iterator[Edit]:
    if op.name in ("select_n", "choose"):
        cases = len(op.inputs) - 1
        if cases == 2:
            yield Edit("branches exchanged", lambda o, v: o.run([v[0], v[2], v[1]]))
        for a, b in combinations(range(min(cases, 6)), 2) if cases > 2 else ():
            yield Edit(f"branches {a} and {b} exchanged", _exchanging(1 + a, 1 + b), 1.0, (a, b))
        for case in range(min(cases, 4)):
            yield Edit(f"always case {case}", _giving(lambda *v, c=case: v[1 + c]), 0.95)
    if op.name == "clamp":
        yield Edit("without the clamp", _giving(lambda low, x, high: x))
        yield Edit("without the lower bound", _giving(lambda low, x, high: np.minimum(x, high)), 0.98)
        yield Edit("without the upper bound", _giving(lambda low, x, high: np.maximum(x, low)), 0.98)
    if op.name in ("concatenate", "stack") and len(op.inputs) <= 12:
        for a, b in combinations(range(len(op.inputs)), 2):
            yield Edit(f"elements {a} and {b} exchanged", _exchanging(a, b), 1.0, (a, b))
    if op.name == "rev":
        yield Edit("not reversed", _giving(lambda a: a))
    if op.name == "slice":
        for axis in range(1, len(op.shapes[0])):
            for shift in (-2, -1, 1, 2):
                yield Edit(f"index {shift:+d}", _shifting(axis, shift), 0.98)


def unrounded(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """No rounding to another type, neither here nor where it is only passed on."""
    ops = trial.program.ops
    if ops[group[0]].name != "convert_element_type":
        return
    left, same = list(group), set(group)
    while left:
        users = {n for place in ops[left.pop()].outputs for n in trial.users.get(place, ())} - same
        passing = {n for n in users if ops[n].name in PASSING and ops[n].shapes[0] == ops[group[0]].shapes[0]}
        same |= passing
        left += passing
    asis = {n: replace(ops[n], run=lambda values: [np.asarray(values[0])]) for n in same}
    yield Edit("no rounding to another type", asis, 0.94)


def _exchanging(a: int, b: int) -> Change:
    def change(op: Op, values: Sequence[Any]) -> list[Any]:
        order = list(values)
        order[a], order[b] = order[b], order[a]
        found = op.run(order)
        return found if np.shape(found[0]) == op.shapes[0] else op.run(values)

    return change


def _shifting(axis: int, by: int) -> Change:
    return lambda op, values: op.run([np.roll(np.asarray(values[0]), -by, axis)])


def clips(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """The two bounds of a clip, which are two operations, changed together."""
    parts = [_clip(trial, number) for number in group]
    for why, weight, function in (
        ("bounds exchanged", 0.99, lambda x, low, high: np.minimum(np.maximum(x, high), low)),
        ("without the clip", 0.98, lambda x, low, high: x),
        ("its lower bound is minus its upper one", 0.95, lambda x, low, high: np.minimum(np.maximum(x, -high), high)),
        ("its upper bound is minus its lower one", 0.95, lambda x, low, high: np.minimum(np.maximum(x, low), -low)),
    ):
        ops = {n: trial.program.ops[n] for n in group}
        change = _giving(function)
        others = {
            n: replace(op, inputs=part, run=partial(change, op))
            for (n, op), part in zip(ops.items(), parts, strict=True)
            if part is not None
        }
        if len(others) == len(group):
            yield Edit(why, others, weight)


def _clip(trial: Trial, number: int) -> tuple[Atom, Atom, Atom] | None:
    """(value, lower bound, upper bound), if the operation is the second of a clip."""
    ops = trial.program.ops
    outer = ops[number]
    inner_name = {"min": "max", "max": "min"}.get(outer.name)
    for slot, atom in enumerate(outer.inputs):
        inner = next((op for op in ops[:number] if atom in op.outputs), None)
        if inner is not None and inner.name == inner_name and inner.site == outer.site:
            bounds = inner.inputs[1 - slot], outer.inputs[1 - slot]  # clips are written the same way round twice
            low, high = bounds if outer.name == "min" else bounds[::-1]
            return inner.inputs[slot], low, high
    return None


def functions(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """A function of the result that was forgotten."""
    op = trial.program.ops[group[0]]
    if op.dtypes[0].kind == "f" and (op.name not in PASSING or op.name == "broadcast_in_dim"):  # an element of an array
        for name, function in FUNCTIONS.items():
            yield Edit(f"{name} of it is right", _then(function), 0.94)


def literals(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """Other numbers in the place of a number: the reference's, usual slips, and one that is solved for."""
    op = trial.program.ops[group[0]]
    for slot, atom in enumerate(op.inputs):
        value = np.asarray(atom.value) if isinstance(atom, Constant) else np.zeros(0)
        if value.size != 1 or value.dtype.kind not in "fiu":
            continue
        old = float(value.ravel()[0])
        for other, why, weight in numbers_for(trial, old):
            if value.dtype.kind == "f" or not other % 1:
                yield Edit(why, with_number(slot, other), weight, operand=slot)
        if value.dtype.kind == "f":
            for right, weight in solved(trial, partial(_run_with, trial, group, slot), old):
                why = f"{right:.6g} in the place of {old:.6g}"
                yield Edit(why, with_number(slot, right), weight, operand=slot)


def _run_with(trial: Trial, group: Sequence[int], slot: int, number: float) -> dict[int, Any]:
    return trial.edited(group, with_number(slot, number))


def with_number(slot: int, number: float) -> Change:
    def change(op: Op, values: Sequence[Any]) -> list[Any]:
        given = list(values)
        given[slot] = np.full_like(np.asarray(given[slot]), number)
        return op.run(given)

    return change


def inputs(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """Another input in the place of one, such as a setting: there are few, so that they are soon tried."""
    op = trial.program.ops[group[0]]
    for slot, atom in enumerate(op.inputs):
        if len(group) > 1 or isinstance(atom, Constant) or trial.source(atom) not in trial.program.inputs:
            continue
        for name, place in trial.named_inputs():
            if _stands_for(trial.values[atom], trial.values[place]):
                change = _with_value(slot, trial.values[place])
                yield Edit(f"{name} in the place of an operand", change, 0.945, operand=slot)


def variables(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """Another value of the same kind in the place of an operand."""
    op = trial.program.ops[group[0]]
    if len(group) > 1 and (op.name not in PASSING or op.name == "broadcast_in_dim"):  # an element of an array
        yield from _variables_of_calls(trial, group)
    if len(group) > 1 or (op.name in PASSING and op.name not in ("broadcast_in_dim", "squeeze")):
        return
    if int(np.prod(op.shapes[0], dtype=int)) != trial.rows:
        yield from _other_operands(trial, group[0])
        return
    known = scope(trial, group[0])
    for slot, atom in enumerate(op.inputs):
        own = np.asarray(atom.value if isinstance(atom, Constant) else trial.values[atom])
        for name, value in known:
            if _stands_for(own, value):
                yield Edit(f"{name} in the place of an operand", _with_value(slot, value), 0.92, operand=slot)
    if len(op.inputs) == 1 and op.dtypes[0].kind == "f" and not _solvable(trial):
        for name, value in known:
            if value.dtype.kind == "f" and value.size == trial.rows:
                for word, function in (("plus", np.add), ("minus", np.subtract)):
                    yield Edit(f"its operand {word} {name}", _joining(function, value), 0.91)


def _solvable(trial: Trial) -> bool:
    """Whether an output that is a fraction is wrong, so that what is missing can be solved for: of flags it cannot."""
    return any(trial.case.expected[name].dtype.kind == "f" for name in trial.case.wrong if name in trial.outputs)


def _joining(function: Function, value: np.ndarray) -> Change:
    """The operation of its operand joined with a value."""

    def change(op: Op, values: Sequence[Any]) -> list[Any]:
        own = np.asarray(values[0])
        return op.run([function(own, value.reshape(own.shape)).astype(own.dtype)])

    return change


def _other_operands(trial: Trial, number: int) -> Iterator[Edit]:
    """For vectors: inputs, and what other operations of the same function read, if it is there by then."""
    ops = trial.program.ops
    op, site = ops[number], ops[number].site
    assert site is not None  # only operations with a site are grouped
    makers = trial.makers
    near = [o for o in ops if o.site is not None and (o.site.file, o.site.function) == (site.file, site.function)]
    read = (a for o in near for a in o.inputs if not isinstance(a, Constant) and makers.get(a, -1) < number)
    known = dict.fromkeys((*trial.program.inputs, *read))
    for slot, atom in enumerate(op.inputs):
        if isinstance(atom, Constant):
            continue
        own = trial.values[atom]
        for place in known:
            value = trial.values[place]
            if _stands_for(own, value) and value.shape == own.shape:
                maker = ops[makers[place]].site if place in makers else None
                name = "an input" if maker is None else f"what line {maker.line} computes"
                yield Edit(f"{name} in the place of an operand", {number: reading(op, slot, place, own)}, 0.92)
    for place in known:
        if np.shape(trial.values[place]) == op.shapes[0] and op.dtypes[0].kind == "f":
            for name, function in (("plus", np.add), ("minus", np.subtract)):
                yield Edit(f"{name} another vector", {number: _joined(op, place, function)}, 0.93)


def _joined(op: Op, place: int, function: Function) -> Op:
    """The operation, whose result is joined with another value by a function."""

    def run(values: Sequence[Any]) -> list[Any]:
        return _made(op, function(op.run(values[:-1])[0], values[-1]))

    return replace(op, inputs=(*op.inputs, place), run=run)


def _variables_of_calls(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
    """The same for an expression that is run in several calls of its function: in each, another value of that call."""
    ops = [trial.program.ops[number] for number in group]
    site = ops[0].site
    assert site is not None  # only operations with a site are grouped
    makers = trial.makers
    known = [(name, [place] * len(ops)) for name, place in trial.named_inputs()]
    known += [(f"what line {line} reads", places) for line, places in calls.arguments(trial, site, len(ops))]
    known += [(f"what line {line} computes", places) for line, places in calls.named(trial, site, len(ops))]
    known = [
        (n, places) for n, places in known if all(makers.get(p, -1) < g for p, g in zip(places, group, strict=True))
    ]
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for slot, atom in enumerate(ops[0].inputs):
        source = trial.source(atom)
        maker = None if isinstance(source, Constant) or source not in makers else trial.program.ops[makers[source]].site
        if maker is not None and maker.line == site.line:
            continue  # part of the same expression: no variable
        own = np.asarray(atom.value) if isinstance(atom, Constant) else trial.values[atom]
        for name, places in known:
            number = isinstance(atom, Constant) or own.size == 1
            if (slot, tuple(places)) not in seen and _stands_for(own, trial.values[places[0]], number):
                seen.add((slot, tuple(places)))
                others = {
                    number: reading(op, slot, place, own) for number, op, place in zip(group, ops, places, strict=True)
                }
                yield Edit(f"{name} in the place of an operand", others, 0.92)


def _stands_for(own: Any, value: Any, number: bool = False) -> bool:
    """Whether a value is of the kind and size of an operand, and another. A key is no number; a ``number`` that stands
    in the program may stand for one of each row."""
    if not (isinstance(own, np.ndarray | np.generic) and isinstance(value, np.ndarray | np.generic)):
        return False
    if value.dtype.kind != own.dtype.kind or (value.size not in (1, own.size) and not number):
        return False
    return own.size != value.size or not np.array_equal(own.ravel(), value.ravel())


def _with_value(slot: int, value: np.ndarray) -> Change:
    def change(op: Op, values: Sequence[Any]) -> list[Any]:
        given = list(values)
        given[slot] = _like(value, given[slot])
        return op.run(given)

    return change


def reading(op: Op, slot: int, place: int, own: Any) -> Op:
    """The operation with an operand, now like ``own``, that is read from another place."""

    def run(values: Sequence[Any]) -> list[Any]:
        given = list(values)
        given[slot] = _like(given[slot], own)
        return op.run(given)

    return replace(op, inputs=(*op.inputs[:slot], place, *op.inputs[slot + 1 :]), run=run)


def _like(value: Any, own: Any) -> np.ndarray:
    """A value in the shape and dtype of another of its size, or of one number."""
    value, own = np.asarray(value), np.asarray(own)
    if own.size == 1 < value.size:
        return value.astype(own.dtype)
    return np.broadcast_to(value.ravel(), (own.size,)).reshape(own.shape).astype(own.dtype)
