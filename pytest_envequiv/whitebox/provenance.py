"""Where a name has its value from: through calls, unpackings and returns, as long as nothing is computed on the way.

A value that was handed on wrongly is found where it is used: the slip may stand on any line that it came by.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.sources import functions_in, nodes_of

DEEPEST = 6  # lines that one value is followed through


def came_by(place: Site, callers: Sequence[Site]) -> list[Site]:
    """The lines that handed on what is read by name on a line, first those that hand on the same thing twice;
    ``callers``: the calls that led to it, the innermost first."""
    found: dict[tuple[str, int], Site] = {}
    function = _around(place.file, place.line)
    if function is None:
        return []
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    for name in dict.fromkeys(n.id for n in names if n.lineno == place.line):
        for line in _followed(place.file, function, name, place.line, list(callers), DEEPEST):
            found.setdefault((line.file, line.line), line)
    found.pop((place.file, place.line), None)
    return sorted(found.values(), key=lambda line: not _twice(line))


def _twice(place: Site) -> bool:
    """Whether a name stands twice in a list, or among what a call is given, on a line."""
    for node in nodes_of(place.file):
        if isinstance(node, ast.Tuple | ast.Call) and node.lineno == place.line:
            parts = node.elts if isinstance(node, ast.Tuple) else [*node.args, *(k.value for k in node.keywords)]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
            if len(names) > len(set(names)):
                return True
    return False


def _followed(
    file: str, function: ast.FunctionDef, name: str, line: int, callers: Sequence[Site], left: int
) -> Iterator[Site]:
    """The lines by which a name of a function has its value when a line of it runs."""
    if left == 0:
        return
    assigned = [n for n in ast.walk(function) if isinstance(n, ast.Assign) and n.lineno < line]
    for node in sorted(assigned, key=lambda n: -n.lineno):
        for target in node.targets:
            element = _element(target, name)
            if element is not None:
                yield from _valued(file, function, node, element, callers, left)
                return
    if name in _parameters(function) and callers:
        call, outer = callers[0], _around(callers[0].file, callers[0].line)
        if outer is None:
            return
        for made in (n for n in ast.walk(outer) if isinstance(n, ast.Call) and _calls(n) == function.name):
            given = _argument(made, function, name)
            if isinstance(given, ast.Name) and made.lineno <= call.line <= (made.end_lineno or made.lineno):
                yield Site(call.file, given.lineno, given.lineno, given.col_offset, function=outer.name)
                yield from _followed(call.file, outer, given.id, made.lineno, callers[1:], left - 1)


def _valued(
    file: str, function: ast.FunctionDef, node: ast.Assign, element: int, callers: Sequence[Site], left: int
) -> Iterator[Site]:
    """The lines by which an element of what is assigned (-1: all of it) has its value."""
    value, here = node.value, Site(file, node.lineno, node.lineno, node.col_offset, function=function.name)
    if isinstance(value, ast.Tuple | ast.List) and 0 <= element < len(value.elts):
        value = value.elts[element]
    if isinstance(value, ast.Name):
        yield here
        yield from _followed(file, function, value.id, node.lineno, callers, left - 1)
    elif isinstance(value, ast.Call):
        for _, called in functions_in([file], {_calls(value)}):
            yield here
            for back in (n for n in ast.walk(called) if isinstance(n, ast.Return) and n.value is not None):
                parts = back.value.elts if isinstance(back.value, ast.Tuple) else [back.value]
                part = parts[element] if 0 <= element < len(parts) else parts[0]
                if isinstance(part, ast.Name):
                    yield Site(file, part.lineno, part.lineno, part.col_offset, function=called.name)
                    yield from _followed(file, called, part.id, back.lineno, (), left - 1)


def _element(target: ast.expr, name: str) -> int | None:
    """Which element of an unpacking a name is; -1 if it is all; None if it is none."""
    if isinstance(target, ast.Name):
        return -1 if target.id == name else None
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else []
    return next((n for n, part in enumerate(parts) if isinstance(part, ast.Name) and part.id == name), None)


def _argument(call: ast.Call, function: ast.FunctionDef, name: str) -> ast.expr | None:
    """What a call gives to a parameter."""
    named = next((k.value for k in call.keywords if k.arg == name), None)
    parameters = [p for p in _parameters(function) if p != "self"]
    at = parameters.index(name) if name in parameters else len(call.args)
    return named if named is not None else call.args[at] if at < len(call.args) else None


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _calls(node: ast.Call) -> str:
    return str(getattr(node.func, "id", getattr(node.func, "attr", "")))


def _around(file: str, line: int) -> ast.FunctionDef | None:
    """The innermost function that a line is in."""
    inside = (n for n in nodes_of(file) if isinstance(n, ast.FunctionDef))
    around = [n for n in inside if n.lineno <= line <= (n.end_lineno or n.lineno)]
    return max(around, key=lambda n: n.lineno, default=None)
