"""Other ways in which functions could hand their values on: what is unpacked, passed or listed in another order, or
another name, field or type in the place of one.

Such a slip leaves no operation, or others than were there: it is found by tracing what would have been written.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise

from pytest_envequiv.whitebox.definitions import offsets
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.sources import Span, class_fields, functions_in, nodes_of, text_of

MOST_BESIDE = 6  # elements of one list that are exchanged
FLOATS, NARROW = {"float32", "float64", "float_"}, {"float16", "bfloat16"}
WHOLES = {"int8", "int16", "int32", "int64", "uint8", "uint32"}
IDLE = {"self", "cls", "key", "rng", "rng_key", "seed", "params", "config", "env_params"}  # what many do not need
SUMS = ast.Add | ast.Sub
BOUNDS = ("jnp.minimum", "jnp.maximum")  # as most people import them
NAMED = ast.Name | ast.Attribute


@dataclass(frozen=True)
class Rewrite:
    """A file's text with one thing written otherwise on one line, and in words what."""

    place: Site
    text: str
    why: str


def rewrites(files: list[str], functions: Container[str], run: Container[Span]) -> Iterator[Rewrite]:
    """The rewrites of some functions, the likelier kinds first, each text once. ``run``: where expressions stand that
    leave an operation."""
    found = list(functions_in(files, functions))
    seen = {text_of(file) for file in files}
    called = {key: names for file in files for key, names in _parameters(file).items()}
    kinds: tuple[Kind, ...] = (
        partial(_expected, called), _unread, _inserted, _neighbours, _twice, _types, _exchanges, _fields, _unlike,
        partial(_folded, run), _names,
    )  # fmt: skip
    for kind in kinds:
        for file, function in found:
            for node, change in kind(function):
                text = _written(file, change)
                if text not in seen:
                    seen.add(text)
                    place = Site(file, node.lineno, node.lineno, node.col_offset, function=function.name)
                    yield Rewrite(place, text, "; ".join(why for _, _, why in change if why))


def unread(function: ast.FunctionDef) -> list[str]:
    """What a function is given or gives a name, and never reads; but for what it draws from, and settings."""
    nodes = list(ast.walk(function))
    read = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
    return [name for name in _bound(function) if name not in read | IDLE and not name.startswith("_")]


# (expression, what stands there instead ("{}" is what stands there now), in words)
Change = list[tuple[ast.expr, str | ast.expr, str]]
Kind = Callable[[ast.FunctionDef], Iterator[tuple[ast.expr, Change]]]


def _expected(called: Mapping[str, Sequence[str]], function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """What is called as the parameter it is handed to, in the place of what is."""
    bound = _bound(function)
    for node in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
        names = called.get(getattr(node.func, "id", getattr(node.func, "attr", "")), ())
        given = [*zip(names, node.args, strict=False), *((k.arg or "", k.value) for k in node.keywords)]
        for name, value in given:
            if bound.get(name, node.lineno) < node.lineno and isinstance(value, NAMED) and ast.unparse(value) != name:
                yield value, [(value, name, f"{name} in the place of {ast.unparse(value)}")]


def _neighbours(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Two things of a kind that follow one another, exchanged. Numbers are told by their definitions."""
    for parts in _lists(function):
        yield from _exchanged(pairwise(parts))


def _exchanges(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Any two things of a kind that stand side by side, exchanged."""
    for parts in _lists(function):
        yield from _exchanged(combinations(parts[:MOST_BESIDE], 2))


def _unlike(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Two things of different kinds that follow one another, exchanged: a name and what is computed beside it."""
    for parts in _lists(function):
        yield from _exchanged(pairwise(parts), alike=False)


def _exchanged(pairs: Iterable[tuple[ast.expr, ast.expr]], alike: bool = True) -> Iterator[tuple[ast.expr, Change]]:
    for one, other in pairs:
        if (type(one) is type(other)) == alike and not isinstance(one, ast.Constant):
            why = f"{ast.unparse(one)} and {ast.unparse(other)} exchanged"
            yield one, [(one, other, why), (other, one, "")]


def _unread(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """What is never read, in the place of a name; first of one that is handed on."""
    names = unread(function)
    yield from _replaced(_handed(function), _bound(function), names)
    computed = (part for node in ast.walk(function) for part in _computed(node)) if names else ()
    yield from _replaced(computed, _bound(function), names)


def _twice(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Another name in the place of one that is handed on twice at once."""
    for parts in _lists(function):
        names = [n.id for n in parts if isinstance(n, ast.Name)]
        again = [n for n in parts if isinstance(n, ast.Name) and names.count(n.id) > 1]
        yield from _replaced(again, _bound(function), list(_bound(function)))


def _inserted(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """What is never read, as one more term of a sum or factor of a product, or as a bound of what is returned."""
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    for name in unread(function):
        for node in (n for n in ast.walk(function) if isinstance(n, ast.BinOp)):
            signs = "+-" if isinstance(node.op, SUMS) else "*"
            above = parents.get(node)
            inside = isinstance(above, ast.BinOp) and isinstance(above.op, SUMS) == isinstance(node.op, SUMS)
            if inside or _bound(function)[name] >= node.lineno:
                continue
            for sign in signs:
                yield node, [(node, f"({{}} {sign} {name})", f"{sign} {name} is missing")]
        for made in (n.value for n in ast.walk(function) if isinstance(n, ast.Return)):
            if not isinstance(made, ast.Call | ast.BinOp | ast.Name):
                continue
            for bound in BOUNDS:
                yield made, [(made, f"{bound}({{}}, {name})", f"{bound} of it and {name} is right")]


def _folded(run: Container[Span], function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Another name in the place of one of which Python computes something, so that no operation is left of it."""
    for node in (n for n in ast.walk(function) if isinstance(n, ast.BinOp | ast.Compare)):
        if (node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0) not in run:
            yield from _replaced(_computed(node), _bound(function), list(_bound(function)))


def _computed(node: ast.AST) -> list[ast.expr]:
    """What an expression computes its value of, as far as it stands there by name."""
    if isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    else:
        parts = [node.operand] if isinstance(node, ast.UnaryOp) else []
    return [part for part in parts if isinstance(part, ast.Name)]


def _names(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Another name in the place of one that is handed on."""
    yield from _replaced(_handed(function), _bound(function), list(_bound(function)))


def _replaced(
    nodes: Iterable[ast.expr], bound: Mapping[str, int], names: Sequence[str]
) -> Iterator[tuple[ast.expr, Change]]:
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            for name in names:
                if name != node.id and bound[name] < node.lineno:
                    yield node, [(node, name, f"{name} in the place of {node.id}")]


def _types(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """A whole number's type where a fraction's stands, and the other way round; a wider one for a narrow one."""
    for node in ast.walk(function):
        name = getattr(node, "attr", getattr(node, "id", ""))
        other = "float32" if name in WHOLES | NARROW else "int32" if name in FLOATS else ""
        if other and isinstance(node, NAMED):
            text = other if isinstance(node, ast.Name) else f"{ast.unparse(node.value)}.{other}"
            yield node, [(node, text, f"{other} in the place of {name}")]


def _fields(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, Change]]:
    """Another field of the same thing in the place of one that is handed on."""
    fields: dict[str, dict[str, None]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            fields.setdefault(node.value.id, {})[node.attr] = None
    for node in _handed(function):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            for name in fields[node.value.id]:
                if name != node.attr:
                    yield node, [(node, f"{node.value.id}.{name}", f"{name} in the place of {node.attr}")]


def _lists(function: ast.FunctionDef) -> Iterator[list[ast.expr]]:
    """Expressions that stand side by side: elements, arguments, what values are unpacked into."""
    for node in ast.walk(function):
        if isinstance(node, ast.Tuple | ast.List):
            yield node.elts
        elif isinstance(node, ast.Call):
            yield [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Dict):
            yield node.values


def _handed(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What is handed on as it stands: to a call, into a list, under another name, or back; or only a part of it is."""
    for node in ast.walk(function):
        parts = [node.value] if isinstance(node, ast.Assign | ast.AnnAssign | ast.Return) and node.value else []
        for part in [*parts, *(_own_lists(node))]:
            bare = part.value if isinstance(part, ast.Subscript | ast.Starred) else part
            if isinstance(bare, NAMED) and isinstance(bare.ctx, ast.Load):
                yield bare


def _own_lists(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Tuple | ast.List):
        return node.elts
    return [*node.args, *(keyword.value for keyword in node.keywords)] if isinstance(node, ast.Call) else []


def _bound(function: ast.FunctionDef) -> dict[str, int]:
    """What a function calls its arguments and variables -> the line on which it first does."""
    given = function.args
    found = {a.arg: function.lineno for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = min(found.get(node.id, node.lineno), node.lineno)
    return found


def _parameters(file: str) -> dict[str, list[str]]:
    """Functions and classes of a file -> what their parameters and fields are called, in order."""
    functions = (n for n in nodes_of(file) if isinstance(n, ast.FunctionDef))
    own = {f.name: [a.arg for a in (*f.args.posonlyargs, *f.args.args) if a.arg != "self"] for f in functions}
    return own | class_fields(text_of(file))


def _written(file: str, change: Change) -> str:
    """The text of a file with some expressions in the place of others."""
    text = text_of(file)
    spans = offsets(text)
    edits = []
    for node, other, _ in change:
        own = text[slice(*spans(node))]
        edits.append((*spans(node), other.replace("{}", own) if isinstance(other, str) else text[slice(*spans(other))]))
    for start, end, other in sorted(edits, reverse=True):
        text = text[:start] + other + text[end:]
    return text
