"""What the reference's source offers a repair: its numbers, and its expressions in the target's words.

Nothing of the reference is run here. A translation is a guess by names: ``self.max_speed`` of the reference is whatever
is called ``max_speed`` where the expression is to stand, ``if c: x = y`` becomes ``jnp.where(c, y, x)``.
"""

from __future__ import annotations

import ast
import copy
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pytest_envequiv.power.syntax import callee, number

DEPTH = 3  # of names that are replaced by what the reference assigned to them
MOST_AROUND = 6  # expressions that one number stands in
SIMILAR = 0.6  # from which ratio on another name may mean the same
CASTS = {"bool", "float", "int", "float32", "float64", "asarray", "array"}
RENAMED = {"max": "maximum", "min": "minimum", "fabs": "abs", "pow": "power", "mod": "mod", "fmod": "fmod"}
NUMPY = {
    "sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "abs", "absolute", "sign", "floor", "ceil", "round", "clip",
    "where", "maximum", "minimum", "arctan2", "arcsin", "arccos", "arctan", "mod", "fmod", "remainder", "sum", "mean",
    "any", "all", "logical_and", "logical_or", "logical_not", "logical_xor", "dot", "cross", "hypot", "sinh", "cosh",
}  # fmt: skip


@dataclass(frozen=True)
class Mined:
    """What was found in one source.

    numbers    literals, by how often they occur; settings: name -> value
    assigned   name -> the expressions that are assigned to it, passed as it or returned by a function of that name
    conditions comparisons and what is made of them
    around     number -> what it stands in, the shortest first
    called     names of the functions that are called
    absent     of the numbers, those that the target has nowhere: the likeliest to be what a slip took away
    """

    numbers: tuple[float | int, ...] = ()
    settings: Mapping[str, float | int] = field(default_factory=dict)
    assigned: Mapping[str, tuple[ast.expr, ...]] = field(default_factory=dict)
    conditions: tuple[ast.expr, ...] = ()
    around: Mapping[float | int, tuple[ast.expr, ...]] = field(default_factory=dict)
    called: frozenset[str] = frozenset()
    absent: frozenset[float | int] = frozenset()

    def beside(self, tree: ast.Module) -> Mined:
        """The same, and what of it a target's source lacks."""
        there = set(map(number, ast.walk(tree)))
        absent = frozenset(self.numbers) - there
        return replace(self, numbers=tuple(sorted(self.numbers, key=lambda n: n not in absent)), absent=absent)


def mined(source: str, settings: Mapping[str, float] | None = None) -> Mined:
    """Everything of a source. ``settings``: values that are known otherwise. Raises SyntaxError."""
    tree = ast.parse(source)
    numbers: dict[float | int, int] = {}
    conditions: dict[str, ast.expr] = {}
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        value = number(node)
        if value is not None:
            numbers[value] = numbers.get(value, 0) + 1
        if isinstance(node, (ast.Compare, ast.BoolOp)):
            conditions.setdefault(ast.dump(node), node)
        if isinstance(node, ast.keyword) and node.arg:
            assigned.setdefault(node.arg, []).append(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            _statements(node.body, (), assigned, node.name)
    known = {bare(name): value for name, value in (settings or {}).items()}
    for name, values in assigned.items():
        found = [v for v in map(number, values) if v is not None]
        if len(found) == 1:
            known.setdefault(bare(name), found[0])
    return Mined(
        tuple(sorted(numbers, key=lambda n: -numbers[n])),
        known,
        {name: tuple({ast.dump(v): v for v in values}.values()) for name, values in assigned.items()},
        tuple(conditions.values()),
        _around(tree),
        frozenset(callee(n) for n in ast.walk(tree) if isinstance(n, ast.Call)),
    )


def _around(tree: ast.AST) -> dict[float | int, tuple[ast.expr, ...]]:
    found: dict[float | int, list[ast.expr]] = {}
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.BinOp)):
        for value in {v for v in map(number, ast.walk(node)) if v is not None}:
            found.setdefault(value, []).append(node)
    return {v: tuple(sorted(every, key=lambda n: len(ast.dump(n)))[:MOST_AROUND]) for v, every in found.items()}


def bare(name: str) -> str:
    """A name without where it is kept, capitals and underscores."""
    return name.split(".")[-1].lower().replace("_", "")


def _statements(
    body: list[ast.stmt], tests: tuple[ast.expr, ...], assigned: dict[str, list[ast.expr]], function: str
) -> None:
    """Fill ``assigned``; ``tests``: under which conditions a body runs."""
    for node in body:
        if isinstance(node, ast.If):
            _statements(node.body, (*tests, node.test), assigned, function)
            _statements(node.orelse, (*tests, ast.UnaryOp(ast.Not(), node.test)), assigned, function)
            _both(node, assigned)
        elif isinstance(node, (ast.For, ast.While, ast.With)):
            _statements(node.body, tests, assigned, function)
        elif isinstance(node, ast.Return) and node.value is not None:
            parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            assigned.setdefault(function, []).extend(parts)
        else:
            for name, value in _pairs(node):
                _note(name, value, tests, assigned)


def _both(node: ast.If, assigned: dict[str, list[ast.expr]]) -> None:
    """``if c: x = a; else: x = b`` is ``x = a if c else b``."""
    sides = [dict(p for s in part for p in _pairs(s)) for part in (node.body, node.orelse)]
    for name in sides[0].keys() & sides[1].keys():
        assigned.setdefault(name, []).append(ast.IfExp(node.test, sides[0][name], sides[1][name]))


def _pairs(node: ast.stmt) -> list[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            return [(_name(t), v) for t, v in zip(target.elts, value.elts, strict=True) if _name(t)]
        return [(_name(target), value)] if _name(target) else []
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return [(_name(node.target), node.value)] if _name(node.target) else []
    if isinstance(node, ast.AugAssign) and _name(node.target):
        before = copy.deepcopy(node.target)
        before.ctx = ast.Load()
        return [(_name(node.target), ast.BinOp(before, node.op, node.value))]
    return []


def _name(node: ast.AST) -> str:
    """What is named, or of what an element is."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return str(getattr(node, "id", None) or getattr(node, "attr", None) or "")


def _note(name: str, value: ast.expr, tests: tuple[ast.expr, ...], assigned: dict[str, list[ast.expr]]) -> None:
    known = assigned.setdefault(name, [])
    # What was assigned before and is changed now: also as one expression.
    previous = next((v for v in reversed(known) if not _uses(v, name)), None)
    # What is chosen by a word ("euler") is a variant, not a condition of the state.
    conditions = [t for t in tests if not any(isinstance(getattr(n, "value", 0), str) for n in ast.walk(t))]
    if conditions:
        value = ast.IfExp(conditions[-1], value, ast.Name(name, ast.Load()))
    known.append(value)
    if _uses(value, name) and previous is not None:
        known.append(_Replacing({name: previous}).visit(copy.deepcopy(value)))


def _uses(value: ast.expr, name: str) -> bool:
    return any(_name(n) == name for n in ast.walk(value))


class _Replacing(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, ast.expr]):
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return copy.deepcopy(self.values[node.id]) if node.id in self.values else node


# -- translating -----------------------------------------------------------------------------------------------------

Resolve = Callable[[str], str | None]  # a name of the reference -> an expression of the target, in text


class Untranslatable(Exception):
    """Something the target has no word for."""


@dataclass(frozen=True)
class Words:
    """The target's words at one place. ``resolve``: names; ``numpy``: its jax.numpy; ``own``: its functions."""

    resolve: Resolve
    numpy: str = "jnp"
    own: frozenset[str] = frozenset()


def translated(value: ast.expr, source: Mined, words: Words, depth: int = DEPTH) -> str | None:
    """An expression of the reference in the target's words, or None."""
    try:
        node = _Translator(source, words, depth).visit(copy.deepcopy(value))
        return ast.unparse(ast.fix_missing_locations(node))
    except (Untranslatable, RecursionError):
        return None


class _Translator(ast.NodeTransformer):
    def __init__(self, source: Mined, words: Words, depth: int):
        self.source, self.words, self.depth = source, words, depth

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Constant) and not isinstance(node.value, (int, float)):
            raise Untranslatable(repr(node.value))
        if isinstance(node, (ast.Lambda, ast.Starred, ast.JoinedStr, ast.Await, ast.ListComp, ast.Dict)):
            raise Untranslatable(ast.dump(node))
        return super().generic_visit(node)

    def _word(self, name: str) -> ast.AST:
        if name == "pi":
            return ast.parse(f"{self.words.numpy}.pi", mode="eval").body
        if name in ("True", "False"):
            return ast.Constant(name == "True")
        text = self.words.resolve(name)
        if text is not None:
            return ast.parse(text, mode="eval").body
        values = self.source.assigned.get(name, ())
        if self.depth > 0 and values:
            inner = _Translator(self.source, self.words, self.depth - 1)
            return inner.visit(copy.deepcopy(values[-1]))  # type: ignore[no-any-return]
        raise Untranslatable(name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._word(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._word(node.attr)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        # The first element of an action, say, where the target has no array.
        name = _name(node.value)
        text = self.words.resolve(name) if name else None
        if text is None or number(node.slice) is None:
            raise Untranslatable(ast.dump(node))
        return ast.parse(text, mode="eval").body

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = callee(node)
        arguments = [self.visit(a) for a in node.args]
        if name in CASTS and len(arguments) >= 1:
            return arguments[0]  # type: ignore[no-any-return]
        if name == "square" and len(arguments) == 1:
            return ast.BinOp(arguments[0], ast.Pow(), ast.Constant(2))
        if name in ("pow", "power") and len(arguments) == 2:
            return ast.BinOp(arguments[0], ast.Pow(), arguments[1])
        if name in self.words.own:
            return ast.Call(ast.Name(name, ast.Load()), arguments, [])
        name = RENAMED.get(name, name)
        if name not in NUMPY or node.keywords:
            raise Untranslatable(name)
        return ast.Call(ast.parse(f"{self.words.numpy}.{name}", mode="eval").body, arguments, [])

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        op = ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr()
        values = [self.visit(v) for v in node.values]
        found = values[0]
        for value in values[1:]:
            found = ast.BinOp(found, op, value)
        return found  # type: ignore[no-any-return]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        inner = self.visit(node.operand)
        if not isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, inner)
        function = ast.parse(f"{self.words.numpy}.logical_not", mode="eval").body
        return ast.Call(function, [inner], [])

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        sides = [self.visit(v) for v in (node.left, *node.comparators)]
        if any(isinstance(op, (ast.In, ast.NotIn, ast.Is, ast.IsNot)) for op in node.ops):
            raise Untranslatable("in, is")
        found: ast.AST | None = None
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            one = ast.Compare(left, [op], [right])
            found = one if found is None else ast.BinOp(found, ast.BitAnd(), one)  # type: ignore[arg-type]
        assert found is not None
        return found

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        parts = [self.visit(v) for v in (node.test, node.body, node.orelse)]
        return ast.Call(ast.parse(f"{self.words.numpy}.where", mode="eval").body, parts, [])


@lru_cache(maxsize=1 << 14)
def similar(name: str, others: tuple[str, ...]) -> str | None:
    """The one of the others that means the same: written alike, or nearly so."""
    wanted = re.sub(r"\W", "", bare(name))
    best, ratio = None, SIMILAR
    for other in others:
        if bare(other) == wanted:
            return other
        found = difflib.SequenceMatcher(None, wanted, bare(other)).ratio()
        if found > ratio:
            best, ratio = other, found
    return best
