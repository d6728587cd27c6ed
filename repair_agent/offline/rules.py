"""What may have stood in the place of an expression: one rule a kind of slip, each a function from a node to edits.

An edit comes with what it costs: how seldom it mends something.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import permutations

from pytest_envequiv.power.edits import DTYPES, FUNCTIONS, KEYS, OPERATORS, SYMBOLS, UPDATES, WRAPPERS
from pytest_envequiv.power.syntax import Code, Edit, callee, number
from repair_agent.offline.here import Here, is_condition
from repair_agent.offline.mining import Mined, bare, similar, translated

MOST_TERMS = 24  # parts of the reference's expression that are put back
FEW_NAMES = 8  # of which every two are tried
MOST_NUMBERS = 40  # numbers of the reference that are tried in the place of another
UNARY = WRAPPERS - {"clip", "mod", "remainder", "fmod", "power", "roll", "flip", "transpose", "int", "float"}
# What an edit of a kind costs, by how seldom it mends something. Ties are broken by the size of the edit.
COSTS = {
    "operator": 1.0, "comparison": 1.0, "constant": 1.2, "config": 1.2, "limit": 2.5, "branch": 2.0, "drop": 2.0,
    "clip": 2.0, "dtype": 2.0, "axis": 1.0, "index": 1.0, "set": 1.5, "key": 1.0, "arguments": 1.2, "order": 1.2,
    "flags": 1.5, "function": 1.0, "variable": 1.0, "statement": 3.0,
}  # fmt: skip

Restored = Iterator[tuple[Edit, float]]
Rule = Callable[[ast.AST, Here, Code, Mined], Restored]


def numbers(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """Another number: the usual slips undone, those of the reference, and a name in the place of a number."""
    value = number(node)
    if value is None:
        return
    named = mined.settings.get(bare(here.assigned))
    if named is not None:
        yield code.replaced("constant", node, written(named)), 1.0
    whole = isinstance(value, int)
    slips = [value / 2, -value] if not whole else [value // 2, -value]
    slips += [] if whole else [value / 1.01, value / 0.9, value + 1.0, value - 1.0, value * 10, value / 10]
    for other in slips:
        # 0.02 * 1.01 / 1.01 is not quite 0.02
        yield code.replaced("constant", node, written(other if whole else float(f"{other:.12g}"))), 1.3
    for rank, other in enumerate(mined.numbers[:MOST_NUMBERS]):
        near = value != 0 and 0.2 <= abs(other / value) <= 5
        cost = 1.2 if other in mined.absent else 1.6 if near else 2.4
        yield code.replaced("constant", node, written(other)), cost + 0.02 * rank
        if other and float(other) != 1.0:
            yield code.replaced("constant", node, written(-other)), 2.6 + 0.02 * rank
    for name in here.values:
        yield code.replaced("variable", node, name), 3.2


def _context(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """A number and what the reference has around it."""
    value = number(node)
    if value is None or value not in mined.around:
        return
    texts = here.remembered(
        f"around {value}", lambda: (translated(n, mined, here.words, 1) for n in mined.around[value])
    )
    for rank, text in enumerate(texts):
        yield code.replaced("drop", node, text), 1.5 + 0.05 * rank


def operators(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        symbol = SYMBOLS.get(type(node.op), "")
        at = code.between(left, right, symbol)
        family = ("&", "|", "^") if symbol in ("&", "|", "^") else ("+", "-", "*", "/", "//", "%", "**")
        for other in family if symbol in OPERATORS else ():
            if other != symbol:
                likely = symbol in OPERATORS.get(other, ())
                yield Edit("operator", at, at + len(symbol), other, False), 1.0 if likely else 2.0


def _functions(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """The function whose slip this one may be, a number type, an update of an array."""
    name = node.attr if isinstance(node, ast.Attribute) else ""
    if not name:
        return
    assert isinstance(node, ast.Attribute)
    end = code.end(node)
    for table, kind in ((FUNCTIONS, "function"), (DTYPES, "dtype"), (UPDATES, "set")):
        if name not in table and not any(name in others for others in table.values()):
            continue
        if kind == "set" and not code.text(node.value).endswith("]"):
            continue
        for other, slips in table.items():
            if other != name and (name in slips or kind != "function"):
                yield Edit(kind, end - len(name), end, other, False), COSTS[kind] if name in slips else 2.6


def _variables(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """Any other name or attribute of the place."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.id in here.structures or node.id not in here.names:
            return
        for other in here.names if KEYS.search(node.id) else here.values:
            if other not in (node.id, *here.structures):
                yield code.replaced("variable", node, other), 2.4
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        for other in here.structures.get(node.value.id, ()):
            if other != node.attr:
                yield Edit("variable", code.end(node) - len(node.attr), code.end(node), other, False), 1.8
        if node.value.id in here.structures:
            for other in (n for n in here.names if n not in here.structures and not KEYS.search(n)):
                yield code.replaced("variable", node, other), 2.6


def _unread(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """A name that nothing reads: in the place of a value, or beside it."""
    if not here.unread or not _value(node, here, code):
        return
    text = code.operand(node)
    for name in here.unread:
        yield code.replaced("variable", node, name), 0.6
        for made in (f"{text} + {name}", f"{text} * {name}", f"{text} - {name}", f"{text} / {name}"):
            yield code.replaced("drop", node, made), 0.9


def _wrapped(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """A function, a clip, a sign, a power or a cast that is missing around a value."""
    if not _value(node, here, code):
        return
    text, operand = code.text(node), code.operand(node)
    yield code.replaced("drop", node, f"-{operand}"), 2.0
    yield code.replaced("drop", node, f"{operand}**2"), 2.2
    yield code.replaced("branch", node, f"{here.numpy}.logical_not({text})"), 2.6
    for dtype in ("int32", "float32"):
        yield code.replaced("dtype", node, f"{here.numpy}.{dtype}({text})"), 3.6
    for name in sorted(UNARY & mined.called):
        yield code.replaced("drop", node, f"{here.numpy}.{name}({text})"), 2.6
    for low, high in _bounds(here, code, mined):
        yield code.replaced("clip", node, f"{here.numpy}.clip({text}, {low}, {high})"), 2.6
    for name in sorted(here.own & mined.called):
        yield code.replaced("drop", node, f"{name}({text})"), 2.6


def _bounds(here: Here, code: Code, mined: Mined) -> list[tuple[str, str]]:
    """Pairs of bounds: those of all clips of the source, ``min_x`` with ``max_x``, ``-max_x`` with ``max_x``."""
    found = []
    for node in ast.walk(code.tree):
        if callee(node) == "clip" and isinstance(node, ast.Call) and len(node.args) == 3:
            found.append((code.text(node.args[1]), code.text(node.args[2])))
    for name in here.values:
        last = name.rpartition(".")[2]
        if "max" in last.lower():
            other = name.replace("max", "min").replace("MAX", "MIN")
            found.append((other, name) if other in here.values else (f"-{name}", name))
    return list(dict.fromkeys(found))


def _terms(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """An operand that is missing: of what the reference computes under this name, of the names here, a number."""
    if not _value(node, here, code):
        return
    text = code.operand(node)
    own = [n for n in here.values if n.rpartition(".")[2] == here.assigned]  # what is counted on from what it was
    terms = dict.fromkeys(own, 2.0)
    for rank, term in enumerate(_reference_terms(here, mined)):
        terms.setdefault(term, 2.2 + 0.01 * rank)
    for rank, name in enumerate(here.values):
        terms.setdefault(name, 3.4 + 0.01 * rank)
    for rank, value in enumerate(mined.numbers[:MOST_NUMBERS]):
        terms.setdefault(written(value), (2.2 if value in mined.absent else 3.4) + 0.02 * rank)
    for term, cost in terms.items():
        other = term if _atomic(term) else f"({term})"
        total = f"{other} + {text}" if term in own else f"{text} + {other}"
        for made in (total, f"{text} * {other}", f"{text} - {other}", f"{text} / {other}"):
            yield code.replaced("drop", node, made), cost
        yield code.replaced("drop", node, f"{other} - {text}"), cost + 0.1
        yield code.replaced("drop", node, f"{other} / {text}"), cost + 0.1


def _reference_terms(here: Here, mined: Mined) -> list[str]:
    """The parts of what the reference assigns to the name, in the words of this place."""
    own = here.assigned if here.assigned in mined.assigned else similar(here.assigned, tuple(mined.assigned))
    kinds = (ast.BinOp, ast.Call, ast.UnaryOp, ast.Subscript)
    parts = [p for value in mined.assigned.get(own or "", ()) for p in ast.walk(value) if isinstance(p, kinds)]
    texts = here.remembered(f"parts of {own}", lambda: (translated(p, mined, here.words, 1) for p in parts))
    return [t for t in texts if len(t) < 120][:MOST_TERMS]


def _conditions(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """A condition that is missing: beside another, or in the place of one that is always so."""
    logical = isinstance(node, ast.Call) and callee(node).startswith(("logical_", "any", "all"))
    flag = isinstance(node, ast.Constant) and isinstance(node.value, bool)
    if not (flag or logical or isinstance(node, (ast.Compare, ast.BoolOp))):
        return
    known = here.remembered("conditions", lambda: (translated(c, mined, here.words, 1) for c in mined.conditions))
    if flag:
        for text in known:
            yield code.replaced("branch", node, text), 2.2
        for name in here.values:
            yield code.replaced("branch", node, name), 2.8
        return
    text = code.operand(node)
    for other in known:
        yield code.replaced("drop", node, f"{here.numpy}.logical_or({code.text(node)}, {other})"), 2.4
        yield code.replaced("drop", node, f"{here.numpy}.logical_and({code.text(node)}, {other})"), 2.4
        yield code.replaced("drop", node, f"{text} * ({other})"), 2.6


def _flags(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """A condition that is missing beside another, and has a name here."""
    if not is_condition(node, here.flags):
        return
    text = code.operand(node)
    for name in (n for n in here.flags if n != text):
        yield code.replaced("drop", node, f"{name} & {text}"), 2.0
        yield code.replaced("drop", node, f"{text} & ~{name}"), 2.0
        yield code.replaced("drop", node, f"{text} | {name}"), 2.2


def _beside(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """In the place of a number or a name, what the function computes elsewhere; of another attribute, too."""
    if (number(node) is None and not isinstance(node, ast.Name | ast.Attribute)) or not _value(node, here, code):
        return
    cost = 2.8 if number(node) is None else 2.2
    for text in here.beside:
        yield code.replaced("drop", node, text), cost
        for name, attributes in here.structures.items():
            for read in (a for a in attributes if re.search(rf"\b{name}\.{a}\b", text)):
                for other in (a for a in attributes if a != read):
                    like = re.sub(rf"\b{name}\.{read}\b", f"{name}.{other}", text)
                    yield code.replaced("drop", node, like), cost + 0.3


def _pairs(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """In the place of a number, what two names make; where there are few."""
    if number(node) is None or len(here.values) > FEW_NAMES:
        return
    for one, other in permutations(here.values, 2):
        for symbol in ("-", "/", *(("+", "*") if one < other else ())):
            yield code.replaced("drop", node, f"{one} {symbol} {other}"), 2.9


def _clips(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """A clip that lost a bound, or stands before the operation instead of after it."""
    if not isinstance(node, (ast.Call, ast.BinOp)):
        return
    if isinstance(node, ast.BinOp) and callee(node.left) == "clip" and isinstance(node.left, ast.Call):
        if len(node.left.args) == 3:
            value, low, high = (code.text(a) for a in node.left.args)
            whole = f"{value} {SYMBOLS.get(type(node.op), '+')} {code.operand(node.right)}"
            yield code.replaced("clip", node, f"{here.numpy}.clip({whole}, {low}, {high})"), 1.6
        return
    name = callee(node)
    if isinstance(node, ast.Call) and name in ("maximum", "minimum", "max", "min") and len(node.args) == 2:
        value, bound = (code.text(a) for a in node.args)
        for low, high in _bounds(here, code, mined):
            if bound in (low, high):
                yield code.replaced("clip", node, f"{here.numpy}.clip({value}, {low}, {high})"), 1.4


def _value(node: ast.AST, here: Here, code: Code) -> bool:
    """Whether something could stand around it: a number, a name, or what is computed."""
    if isinstance(node, ast.Name):
        return node.id in here.names and node.id not in here.structures and not KEYS.search(node.id)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id in here.structures
    if isinstance(node, ast.Call):
        return callee(node) not in ("split", "stop_gradient") and not callee(node)[:1].isupper()  # of a class
    return (
        isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.BoolOp)) or number(node) is not None
    )


def _atomic(text: str) -> bool:
    return isinstance(ast.parse(text, mode="eval").body, (ast.Name, ast.Attribute, ast.Call, ast.Constant))


def written(value: float | int) -> str:
    return repr(value if isinstance(value, int) else float(value))


CHEAP: tuple[Rule, ...] = (operators, _functions, _clips, _unread)
LOST: tuple[Rule, ...] = (_context, _terms, _beside, _pairs)
RULES: tuple[Rule, ...] = (numbers, *CHEAP, _variables, _flags, _conditions, _wrapped, *LOST)
