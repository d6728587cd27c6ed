"""Candidates: small edits of the target's source that might mend it, the likeliest first.

Most slips are undone by the same kind of edit that makes them, so the mutants of ``pytest_envequiv.power`` are the
first half. The second half puts back what a slip took away: numbers, terms, clips, statements, mined from the
reference or taken from the names in scope. How likely one is: its kind, and how much its line is blamed.
"""

from __future__ import annotations

import ast
import warnings
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pytest_envequiv.power.edits import DTYPES, FUNCTIONS, KEYS, OPERATORS, SYMBOLS, UPDATES, WRAPPERS
from pytest_envequiv.power.mutants import mutants
from pytest_envequiv.power.syntax import Code, Edit, callee, number
from repair_agent.offline.mining import Mined, Words, bare, similar, translated

BLAMED, UNBLAMED = 0.3, 4.0  # what one place further down the list of blamed lines costs; what a line not on it does
MOST_TERMS = 24  # parts of the reference's expression that are put back
MOST_NUMBERS = 40  # numbers of the reference that are tried in the place of another
# What an edit of a kind costs, by how seldom it mends something. Ties are broken by the size of the edit.
COSTS = {
    "operator": 1.0, "comparison": 1.0, "constant": 1.2, "config": 1.2, "limit": 2.5, "branch": 2.0, "drop": 2.0,
    "clip": 2.0, "dtype": 2.0, "axis": 1.0, "index": 1.0, "set": 1.5, "key": 1.0, "arguments": 1.2, "order": 1.2,
    "flags": 1.5, "function": 1.0, "variable": 1.0, "statement": 3.0,
}  # fmt: skip
OFF = 1.5  # for an operator in front of a flag that is always so
UNLIKELY = 6.0  # a condition that is always so, a number that becomes 0
UNARY = WRAPPERS - {"clip", "mod", "remainder", "fmod", "power", "roll", "flip", "transpose", "int", "float"}


@dataclass(frozen=True)
class Candidate:
    """The characters start..end of ``file`` become ``after``. ``line``: the first of them, from 1."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str
    cost: float

    def applied(self, source: str) -> str:
        return source[: self.start] + self.after + source[self.end :]

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"line {self.line}: {_short(before) or 'nothing'} -> {_short(after) or 'nothing'}"


def candidates(source: str, file: str, mined: Mined, blamed: Mapping[int, int]) -> Iterator[Candidate]:
    """Edits of a source, the likeliest first, each to another tree. ``blamed``: line -> its rank, from 0.

    On lines that are not blamed only what undoes a usual slip is tried. Raises SyntaxError if the source does not
    parse.
    """
    code = Code(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        raw = list(restored(code, mined, blamed))
        for mutant in mutants(source, file):
            edit = Edit(mutant.kind, mutant.start, mutant.start + len(mutant.before), mutant.after, False)
            raw.append((edit, _cost(mutant.kind, mutant.after)))
    begins = [0, *(at + 1 for at, character in enumerate(source) if character == "\n")]
    # ``x & False`` is mended by x, not by ``x | False``.
    raw = [(e, cost + OFF * source[e.end : e.end + 7].strip().startswith(("True", "False"))) for e, cost in raw]
    priced = [(cost + _price(edit, begins, blamed), number, edit) for number, (edit, cost) in enumerate(raw)]
    spans, seen = _statements(code), set[tuple[int, str]]()
    for cost, _, edit in sorted(priced, key=lambda entry: entry[:2]):
        settled = _settled(edit, spans, code, seen)
        if settled is not None:
            line, before = bisect_right(begins, settled.start), source[settled.start : settled.end]
            yield Candidate(file, line, edit.kind, settled.start, settled.end, before, settled.after, cost)


def _price(edit: Edit, begins: list[int], blamed: Mapping[int, int]) -> float:
    """What an edit costs for its place and its size."""
    lines = range(bisect_right(begins, edit.start), bisect_right(begins, max(edit.start, edit.end - 1)) + 1)
    rank = min((blamed[n] for n in lines if n in blamed), default=None)
    size = min(len(edit.after) + abs(edit.end - edit.start), 400) / 1000
    return size + (UNBLAMED if rank is None else BLAMED * rank)


def _cost(kind: str, after: str) -> float:
    unlikely = after in ("True", "False", "0", "0.0", "pass") or after.endswith(("& False", "| True"))
    return UNLIKELY if unlikely else COSTS[kind]


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:87]}..."


def _statements(code: Code) -> list[tuple[int, int]]:
    """(start, end) of every statement without a body, in the order of the text: what an edit has to parse in."""
    simple = [n for n in ast.walk(code.tree) if isinstance(n, ast.stmt) and not hasattr(n, "body")]
    return sorted((code.start(n), code.end(n)) for n in simple)


def _settled(edit: Edit, spans: list[tuple[int, int]], code: Code, seen: set[tuple[int, str]]) -> Edit | None:
    """The edit with the parentheses it needs; None if it does not parse, or its tree is known or the one there is."""
    inside = [s for s in spans if s[0] <= edit.start and edit.end <= s[1]]
    begin, end = inside[0] if inside else (0, len(code.source))

    def shape(after: str) -> str:
        try:
            return ast.dump(ast.parse(code.source[begin : edit.start] + after + code.source[edit.end : end]))
        except (SyntaxError, ValueError):
            return ""

    seen.add((begin, shape(code.source[edit.start : edit.end])))
    plain = shape(edit.after)
    if edit.expression:
        wrapped = shape(f"({edit.after})")
        if wrapped != plain:
            edit, plain = replace(edit, after=f"({edit.after})"), wrapped
    if not plain or (begin, plain) in seen:
        return None
    seen.add((begin, plain))
    return edit


# -- what may have been there ----------------------------------------------------------------------------------------


Memory = dict[tuple[str, ...], list[str]]


@dataclass(frozen=True)
class Here:
    """Where an expression stands: in a statement of a function, as (a part of) the value of ``assigned``.

    names    what is bound before, nearest first; structures: name -> its attributes; before: where the statement begins
    """

    assigned: str = ""
    names: tuple[str, ...] = ()
    structures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numpy: str = "jnp"
    own: frozenset[str] = frozenset()
    memory: Memory = field(default_factory=dict)  # of what was worked out for a place of this function before

    @property
    def words(self) -> Words:
        return Words(self.resolve, self.numpy, self.own)

    def resolve(self, name: str) -> str | None:
        """What the reference's name is here: a local name, or an attribute of something that is given."""
        plain, fields = self._known
        for known in (plain, fields):
            if name in known:
                return known[name]
        for known in (plain, fields):
            exact = next((n for n in known if bare(n) == bare(name)), None)
            if exact is not None:
                return known[exact]
        near = similar(name, (*plain, *fields))
        return None if near is None else plain.get(near) or fields[near]

    @cached_property
    def _known(self) -> tuple[dict[str, str], dict[str, str]]:
        """Local names, and attributes of structures, each with how it is written."""
        plain = {n: n for n in reversed(self.names) if n not in self.structures}
        return plain, {a: f"{s}.{a}" for s, attributes in self.structures.items() for a in attributes}

    def remembered(self, what: str, build: Callable[[], Iterable[str | None]]) -> list[str]:
        """Texts that depend on the names of this place alone, short ones, each once."""
        key = (what, *self.names)
        if key not in self.memory:
            texts = dict.fromkeys(build())
            self.memory[key] = [t for t in texts if t is not None and len(t) < 400]
        return self.memory[key]

    @cached_property
    def values(self) -> list[str]:
        """What could stand as an operand: names, then attributes."""
        plain = [n for n in self.names if n not in self.structures and not KEYS.search(n) and n not in ("self", "cls")]
        fields = [f"{s}.{a}" for s, attributes in self.structures.items() if s != "self" for a in attributes]
        return plain + fields


Restored = Iterator[tuple[Edit, float]]
Rule = Callable[[ast.AST, Here, Code, Mined], Restored]


def restored(code: Code, mined: Mined, blamed: Container[int]) -> Restored:
    """Edits that put back what is missing, with what they cost."""
    numpy = _numpy(code.tree)
    own = frozenset(n.name for n in code.tree.body if isinstance(n, ast.FunctionDef))
    fields = _class_fields(code.tree)
    for node in ast.walk(code.tree):
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            yield from _setting(statement, code, mined, numpy)
    for function in (n for n in ast.walk(code.tree) if isinstance(n, ast.FunctionDef)):
        structures, bound = _structures(function, code, fields), _bound(function, code)
        memory: Memory = {}
        for statement in _own_statements(function):
            at = code.start(statement)
            names = tuple(n for n, begin in sorted(bound.items(), key=lambda b: -b[1]) if begin <= at)
            here = Here("", names, structures, numpy, own, memory)
            lines = range(statement.lineno, (_head_end(statement) or statement.lineno) + 1)
            suspected = any(n in blamed for n in lines)
            yield from _of_statement(statement, function.name, here, code, mined, suspected)


def _own_statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements of a function, those of functions in it left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and not isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield child
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef, ast.expr)):
            yield from _own_statements(child)


def _head_end(node: ast.stmt) -> int | None:
    """The last line of a statement, or of the head of one with a body."""
    body = getattr(node, "body", None)
    return body[0].lineno - 1 if body else node.end_lineno


def _numpy(tree: ast.Module) -> str:
    """What a module calls jax.numpy (or numpy)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("jax.numpy", "numpy") and alias.asname:
                    return alias.asname
        if isinstance(node, ast.ImportFrom) and node.module == "jax":
            for alias in node.names:
                if alias.name == "numpy":
                    return alias.asname or alias.name
    return "jnp"


def _class_fields(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Class -> the fields it declares."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            named = [s.target for s in node.body if isinstance(s, ast.AnnAssign)]
            found[node.name] = tuple(t.id for t in named if isinstance(t, ast.Name))
    return found


def _structures(
    function: ast.FunctionDef, code: Code, fields: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Parameter -> the attributes it has: those its class declares, and those that are read from it."""
    found = {}
    for parameter in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs):
        noted = parameter.annotation
        declared = fields.get(code.text(noted).split("|")[0].strip(), ()) if noted is not None else ()
        read = [
            n for n in code.attributes.get(parameter.arg, ()) if n not in ("at", "shape", "T", "dtype", "size", "ndim")
        ]
        if declared or read:
            found[parameter.arg] = tuple(dict.fromkeys((*declared, *read)))
    return found


def _bound(function: ast.FunctionDef, code: Code) -> dict[str, int]:
    """Name -> the character from which on it is known."""
    given = function.args
    found = {a.arg: code.start(function) for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    found.setdefault(name.id, code.end(node))
    return found


def _setting(statement: ast.stmt, code: Code, mined: Mined, numpy: str) -> Restored:
    """A default in a class: the value the reference has under that name, or one it has at all."""
    value = getattr(statement, "value", None)
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    name = getattr(targets[0], "id", "")
    if value is None or not name:
        return
    known = mined.settings.get(bare(name))
    near = known if known is not None else mined.settings.get(bare(similar(name, tuple(mined.settings)) or ""))
    if near is not None:
        yield code.replaced("config", value, _written(near)), 0.3 if known is not None else 1.4
    here = Here(name, numpy=numpy)
    for other in mined.assigned.get(name, ()):
        text = translated(other, mined, here.words)
        if text is not None:
            yield code.replaced("config", value, text), 1.0
    for node in ast.walk(value):
        yield from _numbers(node, here, code, mined)
        yield from _operators(node, here, code, mined)


def _of_statement(
    statement: ast.stmt, function: str, here: Here, code: Code, mined: Mined, suspected: bool
) -> Restored:
    """``suspected``: whether its lines are blamed, so that everything is tried."""
    near = suspected or isinstance(statement, ast.Pass)
    if near and isinstance(statement, (ast.Pass, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return)):
        yield from _inserted(statement, here, code, mined)
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assert, ast.Raise)):
        return
    heads = [getattr(statement, n) for n in ("test", "iter") if hasattr(statement, n)]
    if hasattr(statement, "body"):
        roots = heads
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a docstring
    else:
        roots = [v for v in (getattr(statement, "value", None),) if v is not None]
        yield from _whole(statement, function, here, code, mined)
    target = _target(statement) or function
    for root in roots:
        for node, assigned in _expressions(root, target):
            for rule in RULES if suspected else CHEAP:
                yield from rule(node, replace(here, assigned=assigned), code, mined)


def _expressions(root: ast.expr, assigned: str) -> Iterator[tuple[ast.expr, str]]:
    """Every expression that is computed, and what it is a part of the value of."""
    yield root, assigned
    for name, value in ast.iter_fields(root):
        if isinstance(root, ast.Call) and name == "func" and isinstance(value, ast.Name):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword):
                yield from _expressions(child.value, child.arg or assigned)
            elif isinstance(child, ast.expr):
                yield from _expressions(child, assigned)


def _target(node: ast.stmt) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return str(getattr(targets[0], "id", None) or getattr(targets[0], "attr", None) or "")


# -- rules for statements --------------------------------------------------------------------------------------------


def _whole(statement: ast.stmt, function: str, here: Here, code: Code, mined: Mined) -> Restored:
    """A value as the reference computes it: of the same name, or returned by the function of the same name."""
    value = getattr(statement, "value", None)
    if value is None:
        return
    name = _target(statement) if not isinstance(statement, ast.Return) else function
    for text in _called(name, here, mined):
        if isinstance(statement, ast.AugAssign):
            yield Edit("translation", code.start(statement), code.end(statement), f"{name} = {text}", False), 2.5
        else:
            yield code.replaced("translation", value, text), 1.6
    for node in ast.walk(value):
        if isinstance(node, ast.keyword) and node.arg:
            for text in _called(node.arg, here, mined):
                yield code.replaced("translation", node.value, text), 2.2
            if node.arg in here.names:
                yield code.replaced("variable", node.value, node.arg), 1.4
    yield from _missing_keywords(value, here, code)


def _called(name: str, here: Here, mined: Mined) -> list[str]:
    """What the reference assigns to a name, in the words of this place."""
    own = name if name in mined.assigned else similar(name, tuple(mined.assigned))
    # Before a name is assigned anew, the state's is meant, too.
    without = replace(here, names=tuple(n for n in here.names if n in here.structures))
    values = mined.assigned.get(own or "", ())
    return here.remembered(
        f"called {own}", lambda: (translated(v, mined, place.words) for place in (here, without) for v in values)
    )


def _missing_keywords(value: ast.expr, here: Here, code: Code) -> Restored:
    """``state.replace(x=x)``: a field that is not given and has a name here."""
    for node in ast.walk(value):
        if callee(node) in ("replace", "_replace") and isinstance(node, ast.Call) and node.keywords:
            given, end = {k.arg for k in node.keywords}, code.end(node.keywords[-1])
            for name in (n for n in here.names if n not in given and n not in here.structures):
                yield Edit("keyword", end, end, f", {name}={name}", False), 2.0


def _inserted(statement: ast.stmt, here: Here, code: Code, mined: Mined) -> Restored:
    """A statement of the reference that is missing, in front of this one or in the place of ``pass``."""
    start, end = code.start(statement), code.end(statement)
    column = code.line_of(start)[1]
    known = [n for n in here.names if n not in here.structures and n not in ("self", "cls")]
    for name, values in mined.assigned.items():
        own = name if name in known else next((n for n in known if bare(n) == bare(name)), None)
        for text in _called(name, here, mined) if own is not None and values else ():
            if text == own:
                continue
            if isinstance(statement, ast.Pass):
                yield Edit("statement", start, end, f"{own} = {text}", False), 1.8
            else:
                yield Edit("statement", start, start, f"{own} = {text}\n{' ' * column}", False), 3.6


# -- rules for expressions -------------------------------------------------------------------------------------------


def _numbers(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
    """Another number: the usual slips undone, those of the reference, and a name in the place of a number."""
    value = number(node)
    if value is None:
        return
    named = mined.settings.get(bare(here.assigned))
    if named is not None:
        yield code.replaced("constant", node, _written(named)), 1.0
    whole = isinstance(value, int)
    slips = [value / 2, -value] if not whole else [value // 2, -value]
    slips += [] if whole else [value / 1.01, value / 0.9, value + 1.0, value - 1.0, value * 10, value / 10]
    for other in slips:
        yield code.replaced("constant", node, _written(other)), 1.3
    for rank, other in enumerate(mined.numbers[:MOST_NUMBERS]):
        near = value != 0 and 0.2 <= abs(other / value) <= 5
        yield code.replaced("constant", node, _written(other)), 1.6 + 0.02 * rank if near else 2.4 + 0.02 * rank
        if other and float(other) != 1.0:
            yield code.replaced("constant", node, _written(-other)), 2.6 + 0.02 * rank
    for name in here.values:
        yield code.replaced("variable", node, name), 3.2


def _operators(node: ast.AST, here: Here, code: Code, mined: Mined) -> Restored:
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
        terms.setdefault(_written(value), 3.4 + 0.02 * rank)
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


CHEAP: tuple[Rule, ...] = (_operators, _functions, _clips)
RULES: tuple[Rule, ...] = (_numbers, *CHEAP, _variables, _conditions, _wrapped, _terms)


def _value(node: ast.AST, here: Here, code: Code) -> bool:
    """Whether something could stand around it: a number, a name, or what is computed."""
    if isinstance(node, ast.Name):
        return node.id in here.names and node.id not in here.structures and not KEYS.search(node.id)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id in here.structures
    if isinstance(node, ast.Call):
        return callee(node) not in ("EnvState", "split", "stop_gradient", "get_obs")
    return (
        isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.BoolOp)) or number(node) is not None
    )


def _atomic(text: str) -> bool:
    return isinstance(ast.parse(text, mode="eval").body, (ast.Name, ast.Attribute, ast.Call, ast.Constant))


def _written(value: float | int) -> str:
    return repr(value if isinstance(value, int) else float(f"{value:.12g}"))
