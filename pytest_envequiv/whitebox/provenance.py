"""Where a name has its value from: through calls, unpackings, fields and returns, as long as nothing is computed.

A value that was handed on wrongly is found where it is used: the slip may stand on any line that it came by.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.sources import class_fields, functions_in, nodes_of, text_of

DEEPEST = 6  # lines that one value is followed through
TWICE, UNLIKE, UNKNOWN, ALIKE = range(4)  # whether what is handed on is called as where it goes


@dataclass(frozen=True)
class Reading:
    """A name that a function reads on a line, and the calls that led to it, the innermost first. ``fields``: of what it
    stands for, those that are read; all if none is told."""

    file: str
    function: ast.FunctionDef
    name: str
    line: int
    callers: tuple[Site, ...]
    left: int = DEEPEST
    fields: frozenset[str] = frozenset()


def came_by(place: Site, callers: Sequence[Site]) -> list[Site]:
    """The lines that handed on what is read by name on a line: first those that hand on the same thing twice, then
    those that do so under another name, last those at which both ends are called alike. ``callers``: the calls that led
    to the line, the innermost first."""
    function = _around(place.file, place.line)
    if function is None:
        return []
    here = [n for n in ast.walk(function) if getattr(n, "lineno", 0) == place.line]
    names = dict.fromkeys(n.id for n in here if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    found: dict[tuple[str, int], tuple[int, Site]] = {}
    for name in names:
        fields = (n.attr for n in here if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == name)
        reading = Reading(place.file, function, name, place.line, tuple(callers), fields=frozenset(fields))
        for likeness, line in _followed(reading):
            key = line.file, line.line
            if key not in found or likeness < found[key][0]:
                found[key] = likeness, line
    found.pop((place.file, place.line), None)
    told = [(TWICE if _twice(line) else likeness, line) for likeness, line in found.values()]
    return [line for _, line in sorted(told, key=lambda entry: entry[0])]


def _followed(reading: Reading) -> Iterator[tuple[int, Site]]:
    """The lines by which a name has its value, and whether they call it alike."""
    function, callers = reading.function, reading.callers
    if reading.left == 0:
        return
    assigned = [n for n in ast.walk(function) if isinstance(n, ast.Assign) and n.lineno < reading.line]
    for node in sorted(assigned, key=lambda n: -n.lineno):
        for element in (e for target in node.targets if (e := _element(target, reading.name)) is not None):
            yield from _valued(reading, node, element)
            return
    outer = _around(callers[0].file, callers[0].line) if callers and reading.name in _parameters(function) else None
    if outer is None:
        return
    for call in (n for n in ast.walk(outer) if isinstance(n, ast.Call)):
        if _calls(call) == function.name and call.lineno <= callers[0].line <= (call.end_lineno or call.lineno):
            given = _argument(call, function, reading.name)
            if isinstance(given, ast.Name):
                yield _named(reading.name, given), _site(callers[0].file, given, outer)
                yield from _further(reading, given, callers[0].file, outer, callers[1:])


def _valued(reading: Reading, node: ast.Assign, element: int) -> Iterator[tuple[int, Site]]:
    """The lines by which an element of what is assigned (-1: all of it) has its value."""
    file, value = reading.file, node.value
    here = UNKNOWN, _site(file, node, reading.function)
    if isinstance(value, ast.Tuple | ast.List) and 0 <= element < len(value.elts):
        value = value.elts[element]
    if isinstance(value, ast.Name):
        yield _named(reading.name, value), here[1]
        yield from _further(reading, value, file, reading.function, reading.callers)
    elif isinstance(value, ast.Call) and _calls(value) in class_fields(text_of(file)):
        fields = class_fields(text_of(file))[_calls(value)]
        given = [*zip(fields, value.args, strict=False), *((k.arg or "", k.value) for k in value.keywords)]
        for field, part in given:
            if isinstance(part, ast.Name) and (field in reading.fields or not reading.fields):
                yield _named(field, part), _site(file, part, reading.function)
                yield from _further(reading, part, file, reading.function, reading.callers)
    elif isinstance(value, ast.Call):
        for _, called in functions_in([file], {_calls(value)}):
            yield here
            for back in (n.value for n in ast.walk(called) if isinstance(n, ast.Return)):
                parts = back.elts if isinstance(back, ast.Tuple) else [back]
                gives = parts[element] if 0 <= element < len(parts) else parts[0]
                if isinstance(gives, ast.Name):
                    yield _named(reading.name, gives), _site(file, gives, called)
                    yield from _further(reading, gives, file, called, ())


def _further(
    reading: Reading, name: ast.Name, file: str, function: ast.FunctionDef, callers: Sequence[Site]
) -> Iterator[tuple[int, Site]]:
    return _followed(Reading(file, function, name.id, name.lineno, tuple(callers), reading.left - 1, reading.fields))


def _named(name: str, given: ast.Name) -> int:
    return ALIKE if given.id == name else UNLIKE


def _site(file: str, node: ast.expr | ast.stmt, function: ast.FunctionDef) -> Site:
    return Site(file, node.lineno, node.lineno, node.col_offset, function=function.name)


def _twice(place: Site) -> bool:
    """Whether a name stands twice in a list, or among what a call is given, on a line."""
    for node in nodes_of(place.file):
        if isinstance(node, ast.Tuple | ast.Call) and node.lineno == place.line:
            parts = node.elts if isinstance(node, ast.Tuple) else [*node.args, *(k.value for k in node.keywords)]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
            if len(names) > len(set(names)):
                return True
    return False


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
