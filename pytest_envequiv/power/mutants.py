"""Mutants of a Python source: one slip each, everything else as it was written, formatting included.

The kinds of slip are in ``edits.py``, after a taxonomy of real bugs in public issue threads. Not touched: docstrings
and strings, annotations, imports, decorators, assertions and errors, names for people (``name``, ``__repr__``),
rendering, and what only a type checker reads.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pytest_envequiv.power.edits import COUNTS, ENDS, EXPRESSIONS, dropped, ended, exchanged
from pytest_envequiv.power.syntax import Code, Edit, Place, Scope, callee, number

KINDS = (
    "operator", "constant", "config", "comparison", "limit", "branch", "drop", "clip", "dtype", "axis", "index", "set",
    "key", "arguments", "order", "flags", "function", "variable", "statement",
)  # fmt: skip
TOPICS = (
    "time/termination", "auto-reset", "reward", "dynamics", "observation", "action", "stochastic", "numeric",
    "batch/jit", "config", "hidden state",
)  # fmt: skip
UNTOUCHED = re.compile(r"^(name|__repr__|__str__|__hash__|__eq__|close|_?render.*|_?draw_.*|seed)$")
ARRAYS = {"at", "shape", "T", "dtype", "size", "ndim", "mT"}  # attributes that do not make a structure
Only = Callable[[str], bool]


@dataclass(frozen=True)
class Mutant:
    """One edited source.

    id      "cartpole.py:52:20:operator:2": where the edit begins in the original (columns from 0), its kind, and which
            of that kind at that place, from 1. The same source always has the same ids.
    file    as given
    line    of the original; ``end_line`` is included
    kind    one of KINDS
    topic   one of TOPICS: what it is about, a guess (see ``topic_of``)
    function qualified name of the function it is in, "" outside of any
    before, after   the text of the edited span
    start   where the span begins in both texts, in characters
    source  the whole edited text
    """

    id: str
    file: str
    line: int
    end_line: int
    kind: str
    topic: str
    function: str
    before: str
    after: str
    start: int
    source: str

    @property
    def original(self) -> str:
        """The whole text before the edit."""
        return self.source[: self.start] + self.before + self.source[self.start + len(self.after) :]

    def diff(self, context: int = 1) -> str:
        """A unified diff, with the file's last name."""
        name = _last(self.file)
        lines = difflib.unified_diff(
            self.original.splitlines(), self.source.splitlines(), name, name, n=context, lineterm=""
        )
        return "\n".join(lines)


def mutants(source: str, file: str, only: Only | None = None) -> list[Mutant]:
    """All mutants of a source, in the order of their places. Each parses to another tree than every other.

    ``only``: which functions to mutate, by qualified name (as in a code object); what stands outside of functions
    (defaults, class attributes, constants) is always mutated. Raises SyntaxError if the source does not parse.
    """
    code = Code(source)
    found: list[tuple[Edit, Place, ast.stmt | None]] = []
    seen = {_shape(source)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        for edit, place, statement in _edits(code, only):
            settled = _settled(edit, statement, code, seen)
            if settled is not None:
                found.append((settled, place, statement))
    found.sort(key=lambda entry: (entry[0].start, entry[0].end))
    counts: Counter[str] = Counter()
    result = []
    for edit, place, statement in found:
        line, column = code.line_of(edit.start)
        stem = f"{_last(file)}:{line}:{column}:{edit.kind}"
        counts[stem] += 1
        result.append(
            Mutant(
                id=f"{stem}:{counts[stem]}",
                file=file,
                line=line,
                end_line=code.line_of(max(edit.start, edit.end - 1))[0],
                kind=edit.kind,
                topic=topic_of(edit.kind, place, "" if statement is None else code.text(statement)),
                function=place.function if place.inside else "",
                before=source[edit.start : edit.end],
                after=edit.after,
                start=edit.start,
                source=source[: edit.start] + edit.after + source[edit.end :],
            )
        )
    return result


def topic_of(kind: str, place: Place, text: str) -> str:
    """What an edit is about: a guess from its kind, then the name of the variable or argument whose value it is in,
    then the function's name, then the statement's text. The first that says something decides; what says nothing is
    dynamics."""
    function = place.function.rsplit(".", 1)[-1]
    if kind in ("key", "dtype", "axis", "flags"):
        return {"key": "stochastic", "dtype": "numeric", "axis": "batch/jit", "flags": "time/termination"}[kind]
    if not place.inside:
        return "time/termination" if re.search(r"max_.*step|limit|horizon|episode", place.assigned) else "config"
    if function == "__init__":
        return "config"
    if function == "step" and re.search(r"reset|\bdone\b|fresh|_re\b", text):
        return "auto-reset"
    if COUNTS.search(place.assigned):
        return "time/termination"
    for name in (place.assigned, function):
        for topic, pattern in GUESSES:
            if re.search(pattern, name, re.I):
                return topic
    if re.search(r"random|\brng\b|\bkey\b", text):
        return "stochastic"
    return "dynamics"


GUESSES = (
    ("time/termination", ENDS.pattern),
    ("reward", r"reward|bonus|penalt|\bcost\b|score"),
    ("observation", r"obs|seen|view|channel"),
    ("action", r"action|force|torque|push|^u$|control"),
    ("hidden state", r"last_|prev|histor|memory|cache"),
    ("stochastic", r"reset|^init|noise|random|spawn|sample"),
)


# -- inside ----------------------------------------------------------------------------------------------------------

Found = Iterator[tuple[Edit, Place, ast.stmt | None]]
Shape = tuple[int, str]  # where a piece of text begins, and its tree


def _edits(code: Code, only: Only | None) -> Found:
    """Every edit, with where it is and the simple statement it lies in (None: in a header, or over several)."""
    yield from _block(code.tree.body, Place(), code, only or (lambda name: True))


def _block(body: list[ast.stmt], place: Place, code: Code, only: Only) -> Found:
    for node, following in zip(body, [*body[1:], None], strict=False):
        yield from _statement(node, place, code, only)
        if place.inside and following is not None:
            assigned = replace(place, assigned=_target(node))
            for edit in exchanged(node, following, assigned, code):
                yield edit, assigned, None


def _statement(node: ast.stmt, place: Place, code: Code, only: Only) -> Found:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from _function(node, place, code, only)
    elif isinstance(node, ast.ClassDef):
        yield from _block(node.body, Place(_within(place, node.name)), code, only)
    elif isinstance(node, (ast.Import, ast.ImportFrom, ast.Assert, ast.Raise)):
        return
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    elif isinstance(node, ast.If) and re.search("TYPE_CHECKING|__name__", code.text(node.test)):
        return
    elif isinstance(node, (ast.If, ast.For, ast.While, ast.With, ast.Try)):
        for name in ("test", "iter"):
            if hasattr(node, name):
                role = "test" if isinstance(node, ast.If) else ""
                for edit, where in _expression(getattr(node, name), replace(place, role=role), code):
                    yield edit, where, None
        for name in ("body", "orelse", "finalbody"):
            yield from _block(getattr(node, name, []), place, code, only)
        for handler in getattr(node, "handlers", []):
            yield from _block(handler.body, place, code, only)
    elif _target(node) not in ("metadata", "__slots__", "__all__"):
        here = replace(place, assigned=_target(node) or place.assigned)
        if place.inside:
            for rule in (ended, dropped):
                for edit in rule(node, here, code):
                    yield edit, here, node
        for edit, where in _expression(node, here, code):
            yield edit, where, node


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, place: Place, code: Code, only: Only) -> Found:
    if UNTOUCHED.match(node.name):
        return
    name = _within(place, node.name)
    parameters = [*node.args.posonlyargs, *node.args.args][::-1]
    defaults = [*zip(parameters, node.args.defaults[::-1], strict=False)]
    defaults += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
    for parameter, default in defaults:
        outside = Place(name, assigned=parameter.arg)
        for edit, where in _expression(default, outside, code):
            yield edit, where, None
    if only(name):
        inside = Place(name, inside=True, scope=_scope(node, place.scope, code))
        yield from _block(node.body, inside, code, only)


def _within(place: Place, name: str) -> str:
    """A qualified name, as Python makes it."""
    return ".".join(filter(None, (place.function, "<locals>" if place.inside else "", name)))


def _expression(node: ast.AST, place: Place, code: Code) -> Iterator[tuple[Edit, Place]]:
    """Edits of a node and of everything in it that is computed."""
    if isinstance(node, ast.JoinedStr):  # where its parts stand is told since Python 3.12 only
        return
    for rule in EXPRESSIONS:
        for edit in rule(node, place, code):
            yield edit, place
    if number(node) is not None:
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "op", "ops", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.arguments):
                continue
            if isinstance(child, ast.keyword):
                yield from _expression(child.value, _argument(child, place), code)
            elif isinstance(child, ast.AST):
                yield from _expression(child, replace(place, role=_role(node, name, place)), code)


def _argument(keyword: ast.keyword, place: Place) -> Place:
    name = keyword.arg or ""
    role = {"axis": "axis", "shape": "shape"}.get(name, "")
    return replace(place, role=role, assigned=place.assigned if role or not name else name)


def _role(parent: ast.AST, name: str, place: Place) -> str:
    """What a child is to its parent."""
    if name == "func":
        return "callee"
    if isinstance(parent, ast.Subscript):
        return "index" if name == "slice" else ""
    if isinstance(parent, (ast.Tuple, ast.Slice)) and place.role in ("index", "shape", "axis"):
        return place.role
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow):
        return "exponent" if name == "right" else ""
    return "test" if isinstance(parent, ast.IfExp) and name == "test" else ""


def _target(node: ast.stmt) -> str:
    """The name a statement assigns to, without what it is an attribute of."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    first = targets[0]
    if isinstance(first, (ast.Tuple, ast.List)) and first.elts:
        first = first.elts[0]
    return str(getattr(first, "id", None) or getattr(first, "attr", ""))


def _scope(function: ast.FunctionDef | ast.AsyncFunctionDef, outer: Scope, code: Code) -> Scope:
    given = function.args
    bound = dict(outer.bound)
    for a in (*given.posonlyargs, *given.args, *given.kwonlyargs):
        bound[a.arg] = code.start(function)
    keys = dict(outer.keys)
    for node in _own(function):
        if isinstance(node, ast.stmt):
            end = code.end(node.target if isinstance(node, ast.For) else node)
            heads = [node.target] if isinstance(node, ast.For) else [] if hasattr(node, "body") else [node]
            for name in (n for head in heads for n in ast.walk(head)):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    bound.setdefault(name.id, end)
        if isinstance(node, ast.Assign) and callee(node.value) == "split" and isinstance(node.value, ast.Call):
            target, parent = node.targets[0], [n.id for n in node.value.args[:1] if isinstance(n, ast.Name)]
            names = [n.id for n in getattr(target, "elts", []) if isinstance(n, ast.Name)]
            for here, following in zip(names, [*names[1:], *names[:1]], strict=True):
                keys[here] = [n for n in dict.fromkeys((following, *parent)) if n != here]
    structures = {n for n, read in code.attributes.items() if set(read) - ARRAYS and n in bound}
    return Scope(bound, keys, frozenset(structures))


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, those of functions in it left out, in the order of the text."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield from _own(child)


def _settled(edit: Edit, statement: ast.stmt | None, code: Code, seen: set[Shape | None]) -> Edit | None:
    """The edit with the parentheses it needs; None if it does not parse or its tree is known. Adds to ``seen``."""
    begin, end = (0, len(code.source)) if statement is None else (code.start(statement), code.end(statement))

    def shape(after: str) -> Shape | None:
        return _shape(code.source[begin : edit.start] + after + code.source[edit.end : end], begin)

    if statement is not None:
        seen.add(_shape(code.source[begin:end], begin))
    plain = shape(edit.after)
    if edit.expression and not re.fullmatch(r"[\w.]+", edit.after):
        inside = shape(f"({edit.after})")
        if inside != plain:
            edit, plain = replace(edit, after=f"({edit.after})"), inside
    if plain is None or plain in seen:
        return None
    seen.add(plain)
    return edit


def _shape(text: str, begin: int = 0) -> Shape | None:
    """The tree of a text, to be compared; None if it does not parse."""
    try:
        return begin, ast.dump(ast.parse(text))
    except (SyntaxError, ValueError):
        return None


def _last(file: str) -> str:
    return re.split(r"[/\\]", file)[-1]
