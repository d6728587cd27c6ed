"""What can be wrong in one place: edits of a syntax tree, each the replacement of one span of characters.

Every kind is a function from a node and its place to edits; ``mutants.py`` walks the tree and asks them all.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from itertools import pairwise

from pytest_envequiv.power.syntax import Code, Edit, Place, callee, number

SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.And: "and", ast.Or: "or",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
OPERATORS = {
    "+": ("-", "*"), "-": ("+", "*"), "*": ("/", "+"), "/": ("*", "//"), "//": ("/", "*"), "%": ("//", "*"),
    "**": ("*",), "&": ("|", "^"), "|": ("&", "^"), "^": ("&", "|"), "<<": (">>",), ">>": ("<<",),
    "and": ("or",), "or": ("and",),
}  # fmt: skip
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
FUNCTIONS = {
    "sin": ("cos",), "cos": ("sin",), "tan": ("tanh",), "minimum": ("maximum",), "maximum": ("minimum",),
    "min": ("max",), "max": ("min",), "floor": ("ceil",), "ceil": ("floor",), "round": ("floor",),
    "logical_and": ("logical_or",), "logical_or": ("logical_and",), "logical_xor": ("logical_or",),
    "any": ("all",), "all": ("any",), "zeros": ("ones",), "ones": ("zeros",), "zeros_like": ("ones_like",),
    "ones_like": ("zeros_like",), "argmax": ("argmin",), "argmin": ("argmax",), "sum": ("mean", "max"),
    "mean": ("sum",), "arcsin": ("arccos",), "arccos": ("arcsin",), "square": ("sqrt",), "sqrt": ("square",),
}  # fmt: skip
FLAGS = {
    "terminated": "truncated", "truncated": "terminated", "is_terminated": "is_truncated",
    "is_truncated": "is_terminated", "is_terminal": "is_truncated",
}  # fmt: skip
DTYPES = {
    "float32": ("float16", "int32"), "float64": ("float16", "int32"), "float16": ("float32",),
    "int32": ("int8", "float32"),
    "int64": ("int8", "float32"), "int16": ("int8",), "int8": ("int32", "uint8"), "uint8": ("int8", "int32"),
    "uint32": ("uint8", "int32"), "bool_": ("int32", "float32"),
}  # fmt: skip
UPDATES = {
    "set": ("add",), "add": ("set", "subtract"), "subtract": ("add",), "multiply": ("set",), "divide": ("multiply",),
    "min": ("max", "set"), "max": ("min", "set"),
}  # fmt: skip
# Calls of which the first argument alone is a plausible slip.
WRAPPERS = {
    "clip", "abs", "absolute", "fabs", "mod", "remainder", "fmod", "floor", "ceil", "round", "rint", "sign", "sqrt",
    "square", "sin", "cos", "tan", "tanh", "exp", "log", "int", "float", "power", "roll", "flip", "transpose",
}  # fmt: skip
COMMUTING = {"minimum", "maximum", "logical_and", "logical_or", "logical_xor", "add", "multiply", "min", "max"}
CHOICES = {"where", "select", "cond"}
ENDS = re.compile(r"terminat|truncat|terminal|^done|_done|^over$|game_over", re.I)
COUNTS = re.compile(r"time|step|limit|count|tick|elapsed|length", re.I)
KEYS = re.compile(r"key|rng|^prng|seed", re.I)


def _written(value: int | float) -> str:
    return repr(value if isinstance(value, int) else float(f"{value:.12g}"))


# -- the kinds of an expression --------------------------------------------------------------------------------------


def operators(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    if isinstance(node, ast.BoolOp):
        sides = list(pairwise(node.values))
    elif isinstance(node, ast.BinOp):
        sides = [(node.left, node.right)]
    elif isinstance(node, ast.AugAssign):
        sides = [(node.target, node.value)]
    else:
        return
    symbol = SYMBOLS.get(type(node.op), "")
    for left, right in sides:
        if any(isinstance(n, ast.Constant) and isinstance(n.value, (str, bytes)) for n in (left, right)):
            continue
        for other in OPERATORS.get(symbol, ()):
            at = code.between(left, right, symbol)
            yield Edit("operator", at, at + len(symbol), other, False)


def constants(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """Literal numbers and flags. Of class attributes, of parameters and of the module they are the "config"."""
    kind = "constant" if place.inside else "config"
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield code.replaced(kind, node, str(not node.value))
    value = number(node)
    if value is None:
        return
    others: tuple[int | float, ...]
    if place.role == "axis":
        kind, others = "axis", (0, 1, -1)
    elif place.role == "index":
        kind, others = "index", (int(value) + 1, int(value) - 1)
    elif place.role in ("shape", "exponent"):
        others = (value + 1, value - 1)
    elif isinstance(value, int):
        others = (value + 1, value - 1, 2 * value, -value, 0)
    else:
        others = (1.0, -1.0, 0.01) if value == 0 else (-value, 2 * value, 1.01 * value, 0.9 * value, 0.0)
    for other in others:
        yield code.replaced(kind, node, _written(other))


def comparisons(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    if not isinstance(node, ast.Compare):
        return
    sides = [node.left, *node.comparators]
    for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
        symbol = SYMBOLS.get(type(op))
        if symbol is None:
            continue
        at = code.between(left, right, symbol)
        for other in COMPARISONS:
            if other != symbol:
                yield Edit("comparison", at, at + len(symbol), other, False)
        if COUNTS.search(code.text(left) + code.text(right)):
            for shift in ("+ 1", "- 1"):
                yield code.replaced("limit", right, f"{code.operand(right)} {shift}")


def limits(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """Off by one in the end of a range."""
    if callee(node) in ("range", "arange") and isinstance(node, ast.Call) and node.args:
        last = node.args[min(1, len(node.args) - 1)]
        if number(last) is None:
            for shift in ("+ 1", "- 1"):
                yield code.replaced("limit", last, f"{code.operand(last)} {shift}")


def branches(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """The other branch, always one branch, a condition without its negation."""
    if isinstance(node, ast.Call) and callee(node) in CHOICES and len(node.args) >= 3:
        yield code.swapped("branch", node.args[1], node.args[2])
        for force in ("True", "False"):
            yield code.replaced("branch", node.args[0], force)
    elif isinstance(node, ast.IfExp):
        test, body, other = (code.operand(n) for n in (node.test, node.body, node.orelse))
        yield code.replaced("branch", node, f"{other} if {test} else {body}")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
        yield code.replaced("branch", node, code.text(node.operand))
    elif isinstance(node, ast.Call) and callee(node) == "logical_not" and len(node.args) == 1:
        yield code.replaced("branch", node, code.text(node.args[0]))
    if place.role == "test":
        yield code.replaced("branch", node, f"not {code.operand(node)}")
        for force in ("True", "False"):
            yield code.replaced("branch", node, force)


def drops(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """A term, a factor, an operand, a wrapper, a sign or a changed field is missing."""
    if isinstance(node, ast.BinOp):
        op = type(node.op)
        yield code.replaced("drop", node, code.text(node.left))
        chained = isinstance(node.left, ast.BinOp) and _group(node.left.op) == _group(node.op)
        if not chained and op not in (ast.Pow, ast.Mod, ast.FloorDiv):
            sign = {ast.Sub: "-", ast.Div: "1 / "}.get(op, "")
            right = code.operand(node.right) if sign else code.text(node.right)
            yield code.replaced("drop", node, sign + right)
    elif isinstance(node, ast.BoolOp):
        for dropped in node.values:
            rest = [code.operand(v) for v in node.values if v is not dropped]
            yield code.replaced("drop", node, f" {SYMBOLS[type(node.op)]} ".join(rest))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and number(node) is None:
        yield code.replaced("drop", node, code.text(node.operand))
    elif isinstance(node, ast.Call):
        name, method = callee(node), isinstance(node.func, ast.Attribute) and not _of_module(node.func, code)
        if name in WRAPPERS and method and isinstance(node.func, ast.Attribute):
            yield code.replaced("drop", node, code.text(node.func.value))
        elif name in WRAPPERS and node.args:
            yield code.replaced("drop", node, code.text(node.args[0]))
        elif name in COMMUTING and len(node.args) == 2:
            for kept in node.args:
                yield code.replaced("drop", node, code.text(kept))
        if name in ("replace", "_replace") and len(node.keywords) > 1:
            for here, following in pairwise(node.keywords):
                yield Edit("drop", code.start(here), code.start(following), "", False)
            last, before = node.keywords[-1], node.keywords[-2]
            yield Edit("drop", code.end(before), code.end(last), "", False)


def _group(op: ast.operator) -> str:
    return (
        "sum" if isinstance(op, (ast.Add, ast.Sub)) else "product" if isinstance(op, (ast.Mult, ast.Div)) else str(op)
    )


def _of_module(function: ast.Attribute, code: Code) -> bool:
    root = function.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in code.modules


def clips(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """Bounds exchanged, one bound only, and a clip before the last operation instead of after it."""
    if not (isinstance(node, ast.Call) and callee(node) == "clip" and len(node.args) == 3):
        return
    value, low, high = node.args
    yield code.swapped("clip", low, high)
    if isinstance(node.func, ast.Attribute):
        module = code.text(node.func.value)
        yield code.replaced("clip", node, f"{module}.maximum({code.text(value)}, {code.text(low)})")
        yield code.replaced("clip", node, f"{module}.minimum({code.text(value)}, {code.text(high)})")
    if isinstance(value, ast.BinOp) and type(value.op) in SYMBOLS:
        bounds = f", {code.text(low)}, {code.text(high)})"
        clipped = f"{code.text(node.func)}({code.text(value.left)}{bounds}"
        yield code.replaced("clip", node, f"{clipped} {SYMBOLS[type(value.op)]} {code.operand(value.right)}")


def dtypes(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    if isinstance(node, ast.Attribute) and node.attr in DTYPES and _of_module(node, code):
        for other in DTYPES[node.attr]:
            yield Edit("dtype", code.end(node) - len(node.attr), code.end(node), other, False)
    if isinstance(node, ast.Call) and callee(node) == "astype" and isinstance(node.func, ast.Attribute):
        yield code.replaced("dtype", node, code.text(node.func.value))


def updates(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """``x.at[i].set(v)``: another operation, or none."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return
    where = node.func.value
    if not (isinstance(where, ast.Subscript) and isinstance(where.value, ast.Attribute) and where.value.attr == "at"):
        return
    name = node.func.attr
    for other in UPDATES.get(name, ()):
        yield Edit("set", code.end(node.func) - len(name), code.end(node.func), other, False)
    yield code.replaced("set", node, code.text(where.value.value))


def keys(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """A split key in the place of another, or the key it was split from."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for other in place.scope.keys.get(node.id, ()):
            if place.scope.bound.get(other, 1 << 60) <= code.start(node):
                yield code.replaced("key", node, other)


def arguments(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """Two neighbouring arguments exchanged, by position or by keyword."""
    if not isinstance(node, ast.Call):
        return
    name = callee(node)
    first = len(node.args) if name in COMMUTING | CHOICES | {"clip"} else 0
    for a, b in zip(node.args[first:], node.args[first + 1 :], strict=False):
        if not isinstance(a, ast.Starred) and not isinstance(b, ast.Starred):
            yield code.swapped("arguments", a, b)
    for k, l in pairwise(node.keywords):  # noqa: E741
        if k.arg and l.arg:
            yield code.swapped(_exchange("arguments", k.value, l.value, code), k.value, l.value)


def displays(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """Two neighbouring elements of a list, tuple or dict exchanged."""
    if isinstance(node, (ast.List, ast.Tuple)):
        parts, kind = node.elts, "index" if place.role == "index" else "order"
        if parts and all(isinstance(p, ast.Name) and p.id in place.scope.keys for p in parts):
            kind = "key"
    elif isinstance(node, ast.Dict):
        parts, kind = node.values, "order"
    else:
        return
    for a, b in pairwise(parts):
        if not isinstance(a, ast.Starred) and not isinstance(b, ast.Starred):
            yield code.swapped(_exchange(kind, a, b, code), a, b)


def _exchange(kind: str, a: ast.AST, b: ast.AST, code: Code) -> str:
    return "flags" if ENDS.search(code.text(a)) and ENDS.search(code.text(b)) else kind


def flags(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """The other end of an episode."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in FLAGS:
        yield Edit("flags", code.end(node) - len(node.attr), code.end(node), FLAGS[node.attr], False)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in FLAGS:
        other = FLAGS[node.id]
        if place.scope.bound.get(other, 1 << 60) <= code.start(node):
            yield code.replaced("flags", node, other)


def functions(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if not isinstance(getattr(node, "ctx", None), ast.Load) or name not in FUNCTIONS or name in place.scope.bound:
        return
    if place.role == "callee" or (isinstance(node, ast.Attribute) and _of_module(node, code)):
        for other in FUNCTIONS[name]:
            yield Edit("function", code.end(node) - len(name), code.end(node), other, False)


def variables(node: ast.AST, place: Place, code: Code) -> Iterator[Edit]:
    """A lookalike of the same function, or of the same structure; the old value of a name, or its new one."""
    if place.role == "callee" or not isinstance(getattr(node, "ctx", None), ast.Load):
        return
    scope, here = place.scope, code.start(node)
    if isinstance(node, ast.Name) and node.id in scope.bound and node.id not in scope.structures:
        if KEYS.search(node.id) or node.id in ("self", "cls"):
            return
        others = [n for n, at in scope.bound.items() if at <= here and n not in scope.structures and n != node.id]
        others = [n for n in others if not KEYS.search(n) and n not in ("self", "cls", "_", "__class__")]
        for other in _lookalikes(node.id, others):
            yield code.replaced("variable", node, other)
        for structure in sorted(scope.structures):
            if node.id in code.attributes.get(structure, ()) and scope.bound.get(structure, 1 << 60) <= here:
                yield code.replaced("variable", node, f"{structure}.{node.id}")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in code.modules:
        if KEYS.search(node.attr) or node.attr in FLAGS:
            return
        base = node.value.id
        for other in _lookalikes(node.attr, [n for n in code.attributes.get(base, ()) if n != node.attr]):
            yield Edit("variable", code.end(node) - len(node.attr), code.end(node), other, False)
        if scope.bound.get(node.attr, 1 << 60) <= here:
            yield code.replaced("variable", node, node.attr)


def _lookalikes(name: str, others: list[str]) -> list[str]:
    """The most similar name, and a second if it is similar too."""
    ratio = {other: difflib.SequenceMatcher(None, name, other).ratio() for other in others}
    ranked = sorted(others, key=lambda other: -ratio[other])[:2]
    return [other for i, other in enumerate(ranked) if i == 0 or ratio[other] >= 0.5]


EXPRESSIONS = (
    operators, constants, comparisons, limits, branches, drops, clips, dtypes, updates, keys, arguments, displays,
    flags, functions, variables,
)  # fmt: skip


# -- the kinds of a statement ----------------------------------------------------------------------------------------


def ended(node: ast.stmt, place: Place, code: Code) -> Iterator[Edit]:
    """An end that never comes, or always."""
    value = getattr(node, "value", None)
    name = place.assigned if isinstance(node, ast.Assign) else place.function.rsplit(".", 1)[-1]
    if not isinstance(node, (ast.Assign, ast.Return)) or value is None or not ENDS.search(name):
        return
    if not isinstance(value, (ast.Tuple, ast.List)):
        yield code.replaced("flags", value, f"{code.operand(value)} & False")
        yield code.replaced("flags", value, f"{code.operand(value)} | True")


def dropped(node: ast.stmt, place: Place, code: Code) -> Iterator[Edit]:
    """An assignment is missing where the names have another value already; a call for its effect is missing."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if "super" not in code.text(node) and callee(node.value) != "append":
            yield Edit("statement", code.start(node), code.end(node), "pass", False)
        return
    stored = stores(node)
    if stored and all(_known(t, place, code.start(node)) for t in stored):
        yield Edit("statement", code.start(node), code.end(node), "pass", False)


def exchanged(first: ast.stmt, second: ast.stmt, place: Place, code: Code) -> Iterator[Edit]:
    """Two neighbouring assignments in the other order, where that matters and every name stays defined."""
    a, b = stores(first), stores(second)
    if not a or not b:
        return
    written = {code.text(t) for t in a}, {code.text(t) for t in b}
    read = tuple(
        {code.text(n) for n in ast.walk(s) if isinstance(n, (ast.Name, ast.Attribute))} for s in (first, second)
    )
    needed = [t for t in a if code.text(t) in read[1]]
    if not needed and not (written[1] & read[0]):
        return
    if all(_known(t, place, code.start(first)) for t in needed):
        yield code.swapped("statement", first, second)


def stores(node: ast.stmt) -> list[ast.expr]:
    """The names and attributes that a plain assignment sets; nothing if it sets something else."""
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and node.value is not None):
        targets = [node.target]
    else:
        return []
    flat = [t for target in targets for t in (target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target])]
    return flat if all(isinstance(t, (ast.Name, ast.Attribute)) for t in flat) else []


def _known(target: ast.expr, place: Place, before: int) -> bool:
    if isinstance(target, ast.Name):
        return place.scope.bound.get(target.id, 1 << 60) <= before
    return not place.function.endswith("__init__")
