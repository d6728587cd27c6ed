"""The variables of the source behind the operands of operations, and what if one of them held another value.

A line that only passes values on (``l1, l2 = settings.length1, settings.length2``) leaves no operation, and a setting
that two variables hold looks the same wherever it is read. Where an operation stands in the source, its operands are
written as well: so it is known which of them are the same variable, and all its uses are changed together.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame.edits import FUNCTIONS, reading
from pytest_envequiv.whitebox.blame.solving import numbers_for, solved
from pytest_envequiv.whitebox.blame.trial import Trial
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import ELEMENTWISE, Constant, Op
from pytest_envequiv.whitebox.sources import listed, nodes_in, operands_in, text_of

POWERS = {"integer_pow", "square"}
JOINED = {"concatenate", "stack"}  # of the elements of a list
# A number on the left of a comparison makes JAX turn it round.
COMPARED = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}
MOST_OTHERS = 24  # values that are tried in the place of a variable

PASSED = ast.Name | ast.Attribute | ast.Constant | ast.UnaryOp | ast.Subscript

Use = tuple[int, int]  # number of an operation and of its operand
Programs = Iterator[tuple[Site, str, float, Mapping[int, Any]]]  # line, why, weight, all values with the change made


@dataclass(frozen=True)
class Variable:
    """A local variable that one statement sets. ``uses``: in each call of its function, the operands that are it."""

    name: str
    place: Site
    uses: tuple[tuple[Use, ...], ...]


def variables(trial: Trial) -> list[list[Variable]]:
    """Variables that are read by suspected operations; those that one statement sets together."""
    found: dict[tuple[str, ast.FunctionDef], dict[str, dict[tuple[Site, int], list[Use]]]] = {}
    for number, op in enumerate(trial.program.ops):
        if op.site is None or not (op.name in ELEMENTWISE or op.name in POWERS or op.name in JOINED):
            continue
        site, text = op.site, text_of(op.site.file)
        span = (site.line, site.end_line, site.column, site.end_column)
        node, parts = operands_in(text).get(span, (None, ()))
        kind, names = _kind(node) if node else "", [p.id if isinstance(p, ast.Name) else "" for p in parts]
        function = function_at(text, site.function.rpartition(".")[2], site.line)
        if (
            function
            and len(names) == len(op.inputs)
            and (kind == "list" if op.name in JOINED else kind in ("", op.name))
        ):
            for slot, name in enumerate(names):
                uses = found.setdefault((site.file, function), {}).setdefault(name, {})
                uses.setdefault((site, slot), []).append((number, slot))
    return [
        group
        for (file, function), named in found.items()
        for names, place in _set_once(file, function)
        if (group := [v for name in names if (v := _variable(trial, name, place, list(named.get(name, {}).values())))])
    ]


def _variable(trial: Trial, name: str, place: Site, uses: Sequence[Sequence[Use]]) -> Variable | None:
    """``uses``: operands that are the variable; of each, one a call."""
    calls = min((len(u) for u in uses), default=0)
    if not calls or any(len(u) % calls for u in uses) or not any(n in trial.suspected for u in uses for n, _ in u):
        return None
    parts = [tuple(x for u in uses for x in u[c * len(u) // calls : (c + 1) * len(u) // calls]) for c in range(calls)]
    return _whole(trial, Variable(name, place, tuple(parts)))


def _whole(trial: Trial, variable: Variable) -> Variable:
    """With all uses of what its statement computes, those in functions it is handed to included."""
    ops = trial.program.ops
    uses = []
    for value in _places(trial, variable):
        maker = None if isinstance(value, Constant) or value not in trial.makers else ops[trial.makers[value]].site
        if maker is None or maker.line != variable.place.line:
            return variable
        users = sorted(set(trial.users.get(value, ())))
        uses.append(tuple((n, slot) for n in users for slot, atom in enumerate(ops[n].inputs) if atom == value))
    return replace(variable, uses=tuple(uses))


def renamed(trial: Trial) -> Programs:
    """(where it is set, why, weight, all values) of programs in which a variable holds another value."""
    groups = variables(trial)
    settings = list(trial.named_inputs())
    for group in groups:
        calls = len(group[0].uses)
        for a, b in combinations([v for v in group if len(v.uses) == calls], 2):
            both = _reading(trial, b, _places(trial, a), _reading(trial, a, _places(trial, b)))
            yield a.place, f"{a.name} and {b.name} exchanged", 0.96, trial.replaced(both)
        for variable in group:
            yield from _others(trial, variable, settings, groups)
            yield from _numbers(trial, variable)


def _others(
    trial: Trial, variable: Variable, settings: Sequence[tuple[str, int]], groups: Sequence[Sequence[Variable]]
) -> Programs:
    own = _value(trial, variable)
    calls = len(variable.uses)
    known: list[tuple[str, list[Any]]] = [(name, [place] * calls) for name, place in settings]
    for other in (v for group in groups for v in group):
        same = (other.place.file, other.place.function) == (variable.place.file, variable.place.function)
        if (
            same
            and other.name != variable.name
            and len(other.uses) == calls
            and other.place.line <= variable.place.line
        ):
            known.append((other.name, _places(trial, other)))
    seen = [own]
    for name, places in known:
        if any(isinstance(p, Constant) for p in places):
            continue
        value = np.asarray(trial.values[places[0]])
        fits = value.dtype.kind == own.dtype.kind and value.size in (1, own.size, trial.rows)
        if not fits or any(s.size == value.size and np.array_equal(s.ravel(), value.ravel()) for s in seen):
            continue
        seen.append(value)
        try:
            values = trial.replaced(_reading(trial, variable, places))
        except (ValueError, TypeError):  # of another shape
            continue
        yield variable.place, f"{name} in the place of {variable.name}", 0.95, values
        if len(seen) > MOST_OTHERS:
            return


def _numbers(trial: Trial, variable: Variable) -> Programs:
    """Another number where it holds a number, else a function of what it holds."""
    atoms = [trial.program.ops[n].inputs[slot] for uses in variable.uses for n, slot in uses]
    if not all(isinstance(a, Constant) and np.size(a.value) == 1 for a in atoms):
        if _value(trial, variable).dtype.kind == "f":
            for name, function in FUNCTIONS.items():
                yield variable.place, f"{name} of {variable.name} is right", 0.945, _changed(trial, variable, function)
        return
    old = float(_value(trial, variable).ravel()[0])

    def run(number: float) -> Mapping[int, Any]:
        return _changed(trial, variable, lambda own: np.full_like(own, number))

    whole = _value(trial, variable).dtype.kind != "f"
    for other, why, weight in numbers_for(trial, old):
        if not (whole and other % 1):
            yield variable.place, why, weight + 0.005, run(other)
    if not whole:
        for right, weight in solved(trial, run, old):
            yield variable.place, f"{variable.name} = {right:.6g} in the place of {old:.6g}", weight + 0.005, run(right)


def _changed(trial: Trial, variable: Variable, function: Callable[[Any], Any]) -> Mapping[int, Any]:
    """All values with a function of the variable wherever it is used."""
    others: dict[int, Op] = {}
    for number, slot in (use for uses in variable.uses for use in uses):
        op = others.get(number, trial.program.ops[number])
        others[number] = replace(op, run=partial(_run_with, op, slot, function))
    return trial.replaced(others)


def _run_with(op: Op, slot: int, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    given = list(values)
    given[slot] = np.asarray(function(np.asarray(given[slot]))).astype(np.asarray(given[slot]).dtype)
    return op.run(given)


def _reading(
    trial: Trial, variable: Variable, places: Sequence[int], others: dict[int, Op] | None = None
) -> dict[int, Op]:
    """The operations that use a variable, reading another place in each call."""
    found = dict(others or {})
    ops = trial.program.ops
    for uses, place in zip(variable.uses, places, strict=True):
        for number, slot in uses:
            atom = ops[number].inputs[slot]
            own = atom.value if isinstance(atom, Constant) else trial.values[atom]
            found[number] = reading(found.get(number, ops[number]), slot, place, own)
    return found


def _places(trial: Trial, variable: Variable) -> list[Any]:
    ops = trial.program.ops
    return [trial.source(ops[uses[0][0]].inputs[uses[0][1]]) for uses in variable.uses]


def _value(trial: Trial, variable: Variable) -> np.ndarray:
    atom = _places(trial, variable)[0]
    return np.asarray(atom.value if isinstance(atom, Constant) else trial.values[atom])


def _kind(node: ast.expr) -> str:
    """The primitive, if only that one has the operands in the order in which they are written."""
    if isinstance(node, ast.Compare):
        return COMPARED.get(type(node.ops[0]), "?")
    return "list" if listed(node) else ""


@lru_cache(maxsize=4096)
def function_at(text: str, name: str, line: int) -> ast.FunctionDef | None:
    """The innermost function of a name that a line is in."""
    named = [n for n in nodes_in(text) if isinstance(n, ast.FunctionDef) and n.name == name]
    inside = [n for n in named if n.lineno <= line <= (n.end_lineno or n.lineno)]
    return max(inside, key=lambda n: n.lineno, default=None)


def _folded(value: ast.expr) -> bool:
    """Whether an expression is made of numbers alone, so that nothing is left of it to run."""
    parts = ast.BinOp | ast.UnaryOp | ast.Constant | ast.operator | ast.unaryop
    return all(isinstance(node, parts) for node in ast.walk(value))


def _set_once(file: str, function: ast.FunctionDef) -> Iterator[tuple[list[str], Site]]:
    """(names, place) of the assignments of a function whose names nothing else in it sets, and that compute nothing."""
    given = function.args
    stored = Counter(a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs))
    nodes = list(ast.walk(function))
    stored.update(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    for node in nodes:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1):
            continue
        target, place = node.targets[0], Site(file, node.lineno, node.end_lineno or node.lineno, function=function.name)
        if isinstance(target, ast.Tuple):
            elements = target.elts
        elif isinstance(node.value, PASSED) or _folded(node.value):
            elements = [target]
        else:
            continue
        names = [e.id for e in elements if isinstance(e, ast.Name) and stored[e.id] == 1]
        if names:
            yield names, place
