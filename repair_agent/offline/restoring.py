"""What a slip took away, put back: the walk through a source, statement by statement, and what a statement may lack."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from dataclasses import replace

from pytest_envequiv.power.syntax import Code, Edit, callee
from repair_agent.offline.here import (
    Here,
    Memory,
    bound_in,
    class_fields,
    computed_in,
    flags_in,
    numpy_of,
    structures_of,
    unread_in,
)
from repair_agent.offline.mining import Mined, bare, similar, translated
from repair_agent.offline.rules import CHEAP, RULES, Restored, numbers, operators, written


def restored(code: Code, mined: Mined, blamed: Container[int]) -> Restored:
    """Edits that put back what is missing, with what they cost."""
    numpy, mined = numpy_of(code.tree), mined.beside(code.tree)
    own = frozenset(n.name for n in code.tree.body if isinstance(n, ast.FunctionDef))
    fields = class_fields(code.tree)
    for node in ast.walk(code.tree):
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            yield from _setting(statement, code, mined, numpy)
    for function in (n for n in ast.walk(code.tree) if isinstance(n, ast.FunctionDef)):
        structures, bound = structures_of(function, code, fields), bound_in(function, code)
        conditions, unread = flags_in(function), unread_in(function, code)
        beside = computed_in(function, code)
        given = {node.arg for node in ast.walk(function) if isinstance(node, ast.keyword)}
        memory: Memory = {}
        for statement in _own_statements(function):
            at = code.start(statement)
            names = tuple(n for n, begin in sorted(bound.items(), key=lambda b: -b[1]) if begin <= at)
            flags = tuple(n for n in names if n in conditions)
            loose = tuple(n for n in names if n in unread)
            here = Here(
                names=names, structures=structures, numpy=numpy, own=own, flags=flags, unread=loose, beside=beside,
                memory=memory,
            )  # fmt: skip
            lines = range(statement.lineno, (_head_end(statement) or statement.lineno) + 1)
            suspected = any(n in blamed for n in lines)
            yield from _stored(statement, given, here, code)
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
        yield code.replaced("config", value, written(near)), 0.3 if known is not None else 1.4
    here = Here(name, numpy=numpy)
    for other in mined.assigned.get(name, ()):
        text = translated(other, mined, here.words)
        if text is not None:
            yield code.replaced("config", value, text), 1.0
    for node in ast.walk(value):
        yield from numbers(node, here, code, mined)
        yield from operators(node, here, code, mined)


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


def _stored(statement: ast.stmt, given: Container[str | None], here: Here, code: Code) -> Restored:
    """``state = state.replace(x=x)`` in front of what reads the state, where ``x`` is computed and given to nothing."""
    read = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    replace = "_replace" if "._replace(" in code.source else "replace"
    for name, attributes in here.structures.items():
        fields = [a for a in attributes if a in here.names]
        if not fields or any(f in given for f in fields) or not (name in read or isinstance(statement, ast.Pass)):
            continue
        stored = ", ".join(f"{field}={field}" for field in fields)
        counted = [f", {other}={name}.{other} + 1" for other in attributes if other not in fields]
        start, end = code.start(statement), code.end(statement)
        for more in ("", *counted):
            text = f"{name} = {name}.{replace}({stored}{more})"
            if isinstance(statement, ast.Pass):
                yield Edit("statement", start, end, text, False), 0.4
            else:
                yield Edit("statement", start, start, f"{text}\n{' ' * code.line_of(start)[1]}", False), 0.8


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
