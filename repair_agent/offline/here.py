"""Where an edit would stand: which names, attributes and functions there are to write it with."""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pytest_envequiv.power.edits import KEYS
from pytest_envequiv.power.syntax import Code
from repair_agent.offline.mining import Words, bare, similar

SHORT = 60  # characters of an expression that is tried elsewhere
Memory = dict[tuple[str, ...], list[str]]


@dataclass(frozen=True)
class Here:
    """Where an expression stands: in a statement of a function, as (a part of) the value of ``assigned``.

    names    what is bound before, nearest first; flags: those of them that hold a condition; unread: those that no
             expression of the function reads; structures: name -> its attributes
    beside   what else the function computes, as it is written: a slip in one of several lines that are alike is undone
             by another of them
    """

    assigned: str = ""
    names: tuple[str, ...] = ()
    structures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numpy: str = "jnp"
    own: frozenset[str] = frozenset()
    flags: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
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


def numpy_of(tree: ast.Module) -> str:
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


def class_fields(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Class -> the fields it declares."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            named = [s.target for s in node.body if isinstance(s, ast.AnnAssign)]
            found[node.name] = tuple(t.id for t in named if isinstance(t, ast.Name))
    return found


def structures_of(
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


def is_condition(node: ast.AST, flags: Container[str] = ()) -> bool:
    """Whether an expression is true or false, as far as its form tells. ``flags``: names that are."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not) or (isinstance(node.op, ast.Invert) and is_condition(node.operand, flags))
    if isinstance(node, ast.BinOp):
        both = (is_condition(part, flags) for part in (node.left, node.right))
        return isinstance(node.op, ast.BitAnd | ast.BitOr) and any(both)
    return isinstance(node, ast.Compare | ast.BoolOp) or (isinstance(node, ast.Name) and node.id in flags)


def flags_in(function: ast.FunctionDef) -> frozenset[str]:
    """The names that hold a condition wherever they are assigned."""
    found, other = set[str](), set[str]()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            (found if is_condition(node.value, found) else other).add(name)
    return frozenset(found - other)


def unread_in(function: ast.FunctionDef, code: Code) -> frozenset[str]:
    """The names of values that are bound and never read: what reads them may be what is missing.

    Not one of several that are bound at once: of what a call returns, not all need be wanted.
    """
    nodes = list(ast.walk(function))
    read = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
    single = [t.id for n in nodes if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    bound = {*single, *(n.arg for n in nodes if isinstance(n, ast.arg))}
    spare = {n for n in bound if n.startswith("_") or n in ("self", "cls") or KEYS.search(n) or code.attributes.get(n)}
    return frozenset(bound - read - spare)


def computed_in(function: ast.FunctionDef, code: Code) -> tuple[str, ...]:
    """What a function computes of names and numbers, short expressions, each once."""
    kinds = (ast.BinOp, ast.Call, ast.Compare)
    texts = (code.text(n) for n in ast.walk(function) if isinstance(n, kinds))
    return tuple(dict.fromkeys(text for text in texts if len(text) <= SHORT))


def bound_in(function: ast.FunctionDef, code: Code) -> dict[str, int]:
    """Name -> the character from which on it is known."""
    given = function.args
    found = {a.arg: code.start(function) for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    found.setdefault(name.id, code.end(node))
    return found
