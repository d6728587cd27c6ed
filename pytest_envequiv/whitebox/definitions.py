"""Numbers that a port sets where nothing is traced: constants of a module or a class, defaults of arguments, attributes
that are given in ``__init__``, what is computed in Python. By the time a step is traced they are numbers in its jaxpr;
which ones is found by setting each a little otherwise, importing the port anew, and looking what has moved.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Constant, Op, Program

CALL = "_envequiv_instead"  # what an expression is handed to in the changed text
NEAR = 1 / 64  # of its size, by which a number is moved to see what moves with it


@dataclass(frozen=True)
class Definition:
    """An expression that gives a number when it is run in Python, as ``text[start:end]``.

    name    what it is given to ("" where it has no name); ``beside``: the same for all that stand in one statement
    """

    name: str
    place: Site
    start: int
    end: int
    beside: int


@dataclass(frozen=True)
class Moved:
    """What another number changes in a program: numbers that stand in operations, and those that are its constants.

    ops         operation -> {operand: (value before, value after)}
    constants   place -> (value before, value after)
    """

    ops: dict[int, dict[int, tuple[Any, Any]]]
    constants: dict[int, tuple[Any, Any]]

    def __bool__(self) -> bool:
        return bool(self.ops or self.constants)


def definitions(text: str, file: str, busy: Container[int], names: bool = False) -> list[Definition]:
    """The definitions in a module's text: all outside of functions; in functions those on whose lines nothing is traced
    (``busy`` lines have operations). [] if it cannot be parsed. ``names``: also names in lists and calls, with a sign
    or without, if they stand for a number."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    span = offsets(text)
    found = []
    for number, parts in enumerate(_statements(tree, busy)):
        for inner, node in (found for name, value in parts for found in _numbers(name, value, bool(name), names)):
            place = Site(file, node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0)
            found.append(Definition(inner, place, *span(node), number))
    return found


def offsets(text: str) -> Callable[[ast.expr], tuple[int, int]]:
    """Where an expression of a text begins and ends in it."""
    lines = text.splitlines(True)
    starts = np.cumsum([0, *map(len, lines)])

    def offset(line: int, column: int) -> int:  # columns count bytes
        return int(starts[line - 1]) + len(lines[line - 1].encode()[:column].decode(errors="ignore"))

    return lambda node: (
        offset(node.lineno, node.col_offset),
        offset(node.end_lineno or node.lineno, node.end_col_offset or 0),
    )


def _statements(tree: ast.Module, busy: Container[int]) -> Iterator[list[tuple[str, ast.expr]]]:
    """Of each statement, (name, expression) of what it assigns, returns or gives to an argument as its default."""
    properties: dict[ast.AST, str] = {}  # what returns an attribute -> the function it is in
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            returned = (n for n in ast.walk(node) if isinstance(n, ast.Return) and isinstance(n.value, ast.Attribute))
            properties |= dict.fromkeys(returned, node.name)
            given = node.args
            positional = [*given.posonlyargs, *given.args][-len(given.defaults) or None :]
            yield [(a.arg, d) for a, d in zip(positional, given.defaults, strict=False)]
            yield [(a.arg, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None]
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.Return) or node.value is None:
            continue
        if any(line in busy for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        names, values = getattr(target, "elts", []), getattr(node.value, "elts", [])
        if names and len(names) == len(values):
            yield [(_named(t), v) for t, v in zip(names, values, strict=True)]
        else:
            yield [(_named(target) or properties.get(node, ""), node.value)]


def _named(target: Any) -> str:
    return str(getattr(target, "id", getattr(target, "attr", "")))


def _numbers(name: str, node: ast.expr, whole: bool = False, names: bool = False) -> Iterator[tuple[str, ast.expr]]:
    """(name, expression) of the parts of an expression that may be numbers. ``whole``: it is all that has the name."""
    parts: list[tuple[str, ast.expr]] = []
    if isinstance(node, ast.Tuple | ast.List):
        parts = [(name, part) for part in node.elts]
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        parts = [(str(key.value) if isinstance(key, ast.Constant) else name, part) for key, part in pairs]
    elif isinstance(node, ast.Call):
        given = [(k.arg or name, k.value) for k in node.keywords if k.arg != "dtype"]
        parts = [*((name, part) for part in node.args), *given]
    elif _gives_number(node, whole or names or name.isupper(), names):
        yield name, node
    if isinstance(node, ast.BinOp) and any(isinstance(inner, ast.List | ast.Tuple) for inner in ast.walk(node)):
        parts = [(name, node.left), (name, node.right)]  # it gives an array
    for inner, part in parts:
        yield from _numbers(inner, part, False, names)


def _gives_number(node: ast.expr, names: bool, signed: bool) -> bool:
    """Whether an expression may give a number: what is computed and numbers themselves; ``names`` and what stands under
    a key, as one constant may be another; names with a sign."""
    if isinstance(node, ast.UnaryOp):
        return signed or isinstance(node.operand, ast.Constant)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float)
    keyed = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
    return isinstance(node, ast.BinOp) or (names and (keyed or isinstance(node, ast.Name | ast.Attribute)))


def otherwise(expression: str, names: Mapping[str, Any]) -> dict[float, str]:
    """Numbers that an expression would give if it were written otherwise: another operator, one operand alone, another
    of some names (those that stand for a number), one more of them -> as it would be written."""
    found: dict[float, str] = {}
    known = [name for name, value in names.items() if isinstance(value, int | float) and not name.startswith("_")]
    for text in _written_otherwise(f"({expression})", known):
        with suppress(Exception):  # a division by nothing, a name that is not there yet
            value = float(eval(compile(text, "<otherwise>", "eval"), dict(names)))
            found.setdefault(value, text[1:-1])
    return found


def _written_otherwise(text: str, known: Sequence[str]) -> Iterator[str]:
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return
    spans = offsets(text)

    def own(node: ast.expr) -> str:
        return text[slice(*spans(node))]

    def put(node: ast.expr, other: str) -> str:
        start, end = spans(node)
        return text[:start] + other + text[end:]

    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            left, right = own(node.left), own(node.right)
            yield from (put(node, f"({left}) {sign} ({right})") for sign in "+-*/")
            yield from (put(node, part) for part in (left, right))
        elif isinstance(node, ast.Name):
            yield from (put(node, name) for name in known if name != node.id)
    yield from (f"({text} {sign} {name})" for name in known for sign in "+*-/")


def changed(text: str, chosen: Sequence[Definition]) -> str:
    """The text with the values of some definitions handed to what ``instead`` puts there."""
    for number, definition in sorted(enumerate(chosen), key=lambda entry: -entry[1].start):
        expression = text[definition.start : definition.end]
        text = f"{text[: definition.start]}{CALL}({number}, {expression}){text[definition.end :]}"
    return text


@contextmanager
def instead(values: Sequence[float | None]) -> Iterator[dict[int, tuple[float, float]]]:
    """While it lasts, a changed text has ``values`` in the place of the numbers that are defined there, or one next to
    it where that is None. Gives a dict that fills with which of them was met: (number, what it was replaced by)."""
    seen: dict[int, tuple[float, float]] = {}

    def call(number: int, old: Any) -> Any:
        value = values[number]
        if not isinstance(old, bool | int | float | np.number | np.bool_) and np.shape(old) != ():
            return old
        try:
            new = _next(old) if value is None else type(old)(value) if isinstance(old, int | float) else old * 0 + value
            pair = float(old), float(new)
        except Exception:  # no number
            return old
        seen[number] = pair
        return new

    setattr(builtins, CALL, call)
    try:
        yield seen
    finally:
        delattr(builtins, CALL)


def _next(old: Any) -> Any:
    if isinstance(old, bool | np.bool_):
        return not old
    if isinstance(old, int | np.integer):
        return old + 1
    return old * (1 + NEAR) if float(old) else old + NEAR


def moved(before: Program, after: Program) -> Moved | None:
    """What differs between two programs in numbers alone; None if more does."""
    if (
        len(before.ops) != len(after.ops)
        or before.inputs != after.inputs
        or before.constants.keys() != after.constants.keys()
    ):
        return None
    ops: dict[int, dict[int, tuple[Any, Any]]] = {}
    for number, (a, b) in enumerate(zip(before.ops, after.ops, strict=True)):
        if (a.name, a.shapes, a.dtypes, len(a.inputs)) != (b.name, b.shapes, b.dtypes, len(b.inputs)) or not _alike(
            a, b
        ):
            return None
        for slot, (x, y) in enumerate(zip(a.inputs, b.inputs, strict=True)):
            if isinstance(x, Constant) != isinstance(y, Constant) or (not isinstance(x, Constant) and x != y):
                return None
            if isinstance(x, Constant) and isinstance(y, Constant) and not _same(x.value, y.value):
                ops.setdefault(number, {})[slot] = x.value, y.value
    pairs = ((place, value, after.constants[place]) for place, value in before.constants.items())
    constants = {place: (x, y) for place, x, y in pairs if not _same(x, y)}
    if any(np.shape(x) != np.shape(y) for x, y in constants.values()):
        return None
    return Moved(ops, constants)


def _alike(a: Op, b: Op) -> bool:
    """Whether two operations do the same, as far as their parameters are numbers and texts."""
    simple = (bool, int, float, str, tuple)
    return all(b.params.get(k) == v for k, v in a.params.items() if isinstance(v, simple) and _plain(v))


def _plain(value: Any) -> bool:
    return not isinstance(value, tuple) or all(isinstance(v, bool | int | float | str) for v in value)


def _same(x: Any, y: Any) -> bool:
    try:
        return bool(np.shape(x) == np.shape(y) and np.array_equal(np.asarray(x), np.asarray(y)))
    except Exception:  # a key
        return True


# Definitions with other values (None: one next to it) -> the program that this gives, and (number before, number there
# now) of each; None if it cannot be traced so.
Retraced = Callable[[Sequence[tuple[Definition, float | None]]], tuple[Program, list[tuple[float, float]]] | None]
