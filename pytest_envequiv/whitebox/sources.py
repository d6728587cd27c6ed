"""Source text behind what runs: the line of a site, where a setting gets its value, which lines a call runs."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from types import FrameType
from typing import Any

from pytest_envequiv.whitebox.jaxprs import Site, site, walk

Span = tuple[int, int, int, int]  # of an expression: first and last line, first and last column


@dataclass(frozen=True)
class Silent:
    """An assignment or return that only passes on what is there.

    used   later lines that use what it assigns; made: earlier lines that assign what it passes on
    busy   it also computes something, but not of that; ``calls``: it gives a name to what a call gives; ``last``: it
           returns; ``fixed``: it passes on nothing that the function was given or has computed
    """

    place: Site
    used: frozenset[int]
    made: frozenset[int]
    busy: bool = False
    calls: bool = False
    last: bool = False
    fixed: bool = False


def code(place: Site) -> str:
    """The source line of a site, stripped; "" where the file cannot be read."""
    return linecache.getline(place.file, place.line).strip()


def nodes_of(file: str) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree; none where it cannot be read or parsed."""
    return nodes_in(text_of(file))


def text_of(file: str) -> str:
    """A file as it is now; "" where it cannot be read."""
    return "".join(linecache.getlines(file))


@lru_cache(maxsize=32)  # by the text, as a file may change while it is looked at
def nodes_in(text: str) -> tuple[ast.AST, ...]:
    try:
        return tuple(ast.walk(ast.parse(text)))
    except SyntaxError:
        return ()


@lru_cache(maxsize=32)
def operands_in(text: str) -> dict[Span, tuple[ast.expr, tuple[ast.expr, ...]]]:
    """Where an expression stands -> (it, its operands in the order in which an operation has them)."""
    found: dict[Span, tuple[ast.expr, tuple[ast.expr, ...]]] = {}
    for node in (n for n in nodes_in(text) if isinstance(n, ast.expr)):
        parts: Sequence[ast.expr] = ()
        if isinstance(node, ast.BinOp):
            power = isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant)
            parts = [node.left] if power else [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            parts = [node.operand]
        elif isinstance(node, ast.Compare) and len(node.comparators) == 1:
            parts = [node.left, node.comparators[0]]
        elif isinstance(node, ast.Call) and listed(node):
            parts = listed(node)
        elif isinstance(node, ast.Call) and not node.keywords:
            parts = node.args
        if parts:
            span = (node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0)
            found[span] = node, tuple(parts)
    return found


def listed(node: ast.expr) -> list[ast.expr]:
    """The elements of the list that a call is handed first."""
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    return first.elts if isinstance(first, ast.List | ast.Tuple) else []


def operator_line(place: Site) -> int:
    """The line on which the operator of an expression stands that runs over several lines; else its first line."""
    if place.end_line <= place.line:
        return place.line
    lines = linecache.getlines(place.file)
    for node in nodes_of(place.file):
        if not isinstance(node, ast.BinOp | ast.Compare) or (node.lineno, node.end_lineno) != (
            place.line,
            place.end_line,
        ):
            continue
        if node.col_offset != place.column:
            continue
        right = node.right if isinstance(node, ast.BinOp) else node.comparators[-1]
        # Between the operands stand parentheses, comments and the operator: the first line with anything else.
        for line in range(node.left.end_lineno or node.lineno, right.lineno + 1):
            text = lines[line - 1]
            start = (node.left.end_col_offset or 0) if line == node.left.end_lineno else 0
            between = text[start : right.col_offset if line == right.lineno else None].partition("#")[0]
            if between.strip(" ()\t\n"):
                return line
    return place.line


def short(file: str) -> str:
    """A path as a person wants it: relative to here, or from the package on where it is installed."""
    parts = file.replace("\\", "/").split("/")
    for root in ("site-packages", "dist-packages"):
        if root in parts:
            return "/".join(parts[parts.index(root) + 1 :])
    name = os.path.relpath(file)
    return name if not name.startswith("..") else file


def sites_of(body: Any) -> set[Site]:
    """The sites of all equations of a jaxpr."""
    return {found for equation in walk(body) if (found := site(equation)) is not None}


def setting_sites(params: Any) -> dict[str, Site]:
    """Name of a setting -> the line that sets it: its default in a dataclass, named tuple or plain class, or the
    keyword of a call of that class in the same file."""
    found: dict[str, Site] = {}
    for kind in reversed(type(params).__mro__):
        try:
            lines, first = inspect.getsourcelines(kind)
            file = inspect.getsourcefile(kind) or ""
            tree = ast.parse(inspect.cleandoc("\n" + "".join(lines)) if lines[0][:1].isspace() else "".join(lines))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
        for node in body:
            targets: list[ast.expr] = [node.target] if isinstance(node, ast.AnnAssign) and node.value else []
            targets += node.targets if isinstance(node, ast.Assign) else []
            for name in (t.id for t in targets if isinstance(t, ast.Name)):
                line, end = first + node.lineno - 1, first + (node.end_lineno or node.lineno) - 1
                found[name] = Site(file, line, end, node.col_offset, node.end_col_offset or 0, kind.__name__)
        for call in nodes_of(file):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == kind.__name__:
                given = {k.arg: k.value for k in call.keywords if k.arg in found}
                found |= {name: _place(file, value, kind.__name__, value.lineno) for name, value in given.items()}
    return found


def functions_in(files: Iterable[str], names: Container[str]) -> Iterator[tuple[str, ast.FunctionDef]]:
    """(file, function) of the functions of some names in some files."""
    for file in files:
        for node in nodes_of(file):
            if isinstance(node, ast.FunctionDef) and node.name in names:
                yield file, node


def named_places(files: Sequence[str], functions: Container[str], names: Container[str]) -> list[Site]:
    """Where a value gets one of some names: keywords of calls, keys of dicts, what stands in the place of a field where
    a class of the files is called, and assignments in some functions, and what a function of that name returns
    (``is_terminated``)."""
    found = []
    fields = {name: given for file in files for name, given in class_fields(text_of(file)).items()}
    for file, function in functions_in(files, functions):
        for node in ast.walk(function):
            if isinstance(node, ast.keyword) and node.arg in names:
                found.append(_place(file, node.value, function.name, node.lineno))
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                named = [(k, v) for k, v in pairs if isinstance(k, ast.Constant) and k.value in names]
                found += [_place(file, value, function.name, key.lineno) for key, value in named]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in fields:
                given = fields[getattr(node.func, "id", getattr(node.func, "attr", ""))]
                parts = zip(given, node.args, strict=False)
                found += [_place(file, value, function.name, value.lineno) for name, value in parts if name in names]
            elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in names for t in node.targets):
                found.append(_place(file, node.value, function.name, node.lineno))
    for file in files:
        for function in (n for n in nodes_of(file) if isinstance(n, ast.FunctionDef)):
            if re.sub("^_*(is_|get_|compute_)?", "", function.name) in names:
                returned = (n for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None)
                found += [_place(file, n.value, function.name, n.lineno) for n in returned if n.value is not None]
    return found


@lru_cache(maxsize=32)
def class_fields(text: str) -> dict[str, list[str]]:
    """Class -> its fields in order: annotated ones of a class, or those that ``namedtuple`` is given."""
    found: dict[str, list[str]] = {}
    for node in nodes_in(text):
        if isinstance(node, ast.ClassDef):
            fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            found |= {node.name: fields} if fields else {}
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name)
        ):
            call = node.value
            if getattr(call.func, "id", getattr(call.func, "attr", "")) == "namedtuple" and len(call.args) > 1:
                listed = call.args[1]
                if isinstance(listed, ast.Constant) and isinstance(listed.value, str):
                    found[node.targets[0].id] = listed.value.replace(",", " ").split()
                elif isinstance(listed, ast.List | ast.Tuple):
                    found[node.targets[0].id] = [str(getattr(e, "value", "")) for e in listed.elts]
    return found


def called_functions(files: Iterable[str], functions: Iterable[str]) -> set[str]:
    """What functions of some files are called in some of them, by name, and they themselves."""
    files, found = list(files), set(functions)
    calls = (n for _, f in functions_in(files, found) for n in ast.walk(f) if isinstance(n, ast.Call))
    named = {getattr(n.func, "id", getattr(n.func, "attr", "")) for n in calls}
    return found | {f.name for _, f in functions_in(files, named)}


def unpacked_together(place: Site) -> list[Site]:
    """Where names that are read on a line are given at once to what is unpacked, and what a function of the file that
    is called there returns."""
    names = {n.id for n in nodes_of(place.file) if isinstance(n, ast.Name) and n.lineno == place.line}
    found = []
    for node in nodes_of(place.file):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and node.lineno < place.line):
            continue
        given = {n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)}
        if len(given & names) > 1:
            found.append(_place(place.file, node.value, place.function, node.lineno))
            called = getattr(node.value.func, "id", "") if isinstance(node.value, ast.Call) else ""
            for _, function in functions_in([place.file], {called}):
                returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
                found += [_place(place.file, value, function.name, value.lineno) for value in returned]
    return found


def returned_places(files: Iterable[str], functions: Container[str]) -> list[Site]:
    """Each element of the tuples some functions return, where it stands; those that are no more than a name first."""
    found = []
    for file, function in functions_in(files, functions):
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                elements = sorted(node.value.elts, key=lambda e: not isinstance(e, ast.Name))
                found += [_place(file, e, function.name, e.lineno) for e in elements]
    return found


def statement_lines(file: str, first: int, last: int) -> list[int]:
    """The lines from ``first`` to ``last`` on which a statement begins."""
    return sorted({n.lineno for n in nodes_of(file) if isinstance(n, ast.stmt) and first <= n.lineno <= last})


def function_starts(file: str) -> list[int]:
    """The lines on which the functions of a file begin."""
    return [n.lineno for n in nodes_of(file) if isinstance(n, ast.FunctionDef)]


def next_statement(place: Site) -> int | None:
    """The line of the statement that follows, in the same block, the one that a place is in."""
    best: tuple[int, int] | None = None
    for node in nodes_of(place.file):
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for here, after in pairwise(block if isinstance(block, list) else []):
                if here.lineno <= place.line <= (here.end_lineno or here.lineno) and (
                    not best or here.lineno > best[0]
                ):
                    best = here.lineno, after.lineno
    return None if best is None else best[1]


def silent_lines(
    files: Iterable[str],
    functions: Container[str],
    busy: Container[tuple[str, int]],
    behind: Container[tuple[str, int]] = (),
) -> list[Silent]:
    """Assignments and returns in some functions of whose lines none is ``busy``, (file, line): what they do leaves no
    operation. Calls and tuples too that hand on names as they are, if only what else they are handed is computed there:
    if none of their lines is ``behind`` what is looked at."""
    found = []
    for file, function in functions_in(files, functions):
        uses: dict[str, set[int]] = {}
        makes: dict[str, set[int]] = {}
        parameters = {n.arg for n in ast.walk(function.args) if isinstance(n, ast.arg)}
        statements = []
        for node in ast.walk(function):
            if isinstance(node, ast.Name):
                lines = uses if isinstance(node.ctx, ast.Load) else makes
                lines.setdefault(node.id, set()).add(node.lineno)
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return) and node.value is not None:
                span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                statements.append((node, node.value, span))
                targets = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                for name in targets:
                    makes.setdefault(name, set()).update(span)
        for node, value, span in statements:
            given = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            taken = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
            parts = _handed_on(value)
            occupied = any((file, line) in busy for line in span)
            if occupied:
                if not parts or any((file, line) in behind for line in span):
                    continue
                taken = {name for name, _ in parts}
            used = frozenset(line for name in given for line in uses.get(name, ()) if line > node.lineno)
            for names, line in ((taken, node.lineno), *(({name}, line) for name, line in parts if line != node.lineno)):
                made = frozenset(line for name in names for line in makes.get(name, ()) if line < node.lineno)
                fixed = taken.isdisjoint(makes.keys() | parameters)
                place, last = _place(file, value, function.name, line), isinstance(node, ast.Return)
                found.append(Silent(place, used, made, occupied, isinstance(value, ast.Call) and not last, last, fixed))
    return found


def _handed_on(value: ast.expr) -> list[tuple[str, int]]:
    """(name, line) of what a call is handed, or a tuple holds, as it is or but for its shape (``x.squeeze()``)."""
    if isinstance(value, ast.Call):
        parts = [*value.args, *(k.value for k in value.keywords)]
    else:
        parts = value.elts if isinstance(value, ast.Tuple) else []
    found = []
    for part in parts:
        bare = part
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and not part.args:
            bare = part.func.value
        if isinstance(bare, ast.Name):
            found.append((bare.id, part.lineno))
    return found


def element_place(place: Site, element: int, count: int) -> Site:
    """Where one of ``count`` elements stands of the list that is written at a place; the place where there is none."""
    for node in nodes_of(place.file):
        if not (isinstance(node, ast.List | ast.Tuple) and len(node.elts) == count):
            continue
        if place.line <= node.lineno and (node.end_lineno or node.lineno) <= max(place.end_line, place.line):
            return _place(place.file, node.elts[element], place.function, node.elts[element].lineno)
    return place


def operand_place(place: Site, number: int, count: int, chosen: bool) -> Site:
    """Where one of the ``count`` operands of the expression at a place stands, if it is no expression itself; else the
    place. ``chosen``: it is one of those that a branch gives, not what it is chosen by."""
    span = (place.line, place.end_line, place.column, place.end_column)
    node, parts = operands_in(text_of(place.file)).get(span, (None, ()))
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("switch", "cond"):
        return place if chosen else replace(place, line=node.args[0].lineno, end_line=node.args[0].lineno)
    if len(parts) != count or isinstance(parts[number], ast.BinOp | ast.Call):
        return place
    return replace(place, line=parts[number].lineno, end_line=parts[number].lineno)


def array_elements(sites: Iterable[Site], count: int) -> dict[int, list[Site]]:
    """Lists of ``count`` elements that some lines write down: element number -> where it stands."""
    found: dict[int, list[Site]] = {}
    lines = {(s.file, s.line): s.function for s in sites}
    for file in sorted({file for file, _ in lines}):
        for node in nodes_of(file):
            if isinstance(node, ast.List | ast.Tuple) and len(node.elts) == count and (file, node.lineno) in lines:
                for number, element in enumerate(node.elts):
                    found.setdefault(number, []).append(_place(file, element, "", element.lineno))
    return found


def assigned_places(files: Iterable[str], part: str) -> list[Site]:
    """The lines of statements that assign to a name, or hand on by a keyword, in which ``part`` occurs."""
    found = []
    for file in files:
        for node in nodes_of(file):
            given = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [getattr(t, "id", getattr(t, "attr", "")) for t in given] + [getattr(node, "arg", None) or ""]
            value = getattr(node, "value", None)
            if isinstance(value, ast.expr) and any(part in name for name in names):
                lines = range(value.lineno, (value.end_lineno or value.lineno) + 1)
                places = [_place(file, value, "", line) for line in lines]
                found += [place for place in places if code(place).strip("()[]{}, ")]
    return found


def _place(file: str, node: ast.expr, function: str, line: int) -> Site:
    return Site(file, line, node.end_lineno or line, node.col_offset, node.end_col_offset or 0, function)


def executed(call: Callable[[], Any], files: Iterable[str]) -> list[Site]:
    """The lines of ``files`` that ``call()`` runs, in order, each once."""
    wanted = set(files)
    found: dict[Site, None] = {}

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in wanted:
            return None
        if event == "line":
            found.setdefault(Site(frame.f_code.co_filename, frame.f_lineno, function=frame.f_code.co_name), None)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        call()
    finally:
        sys.settrace(before)
    return list(found)
