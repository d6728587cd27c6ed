"""A source text as a syntax tree whose nodes know their characters, and what an edit of it is."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

ATOMS = (ast.Name, ast.Constant, ast.Call, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Dict, ast.Set)


@dataclass(frozen=True)
class Edit:
    """The characters start..end become ``after``. ``expression``: they are an expression before and after, so that
    parentheses may be put around where ``after`` would bind otherwise."""

    kind: str
    start: int
    end: int
    after: str
    expression: bool = True


@dataclass(frozen=True)
class Scope:
    """What is known in one function: name -> the character from which on it is bound; split keys -> the others that
    may be mistaken for them; names that hold structures."""

    bound: dict[str, int] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    structures: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """Where a node stands.

    function  qualified name, as in a code object; "" outside of functions, or "Class"
    inside    whether it is inside a function's body (not a default, class attribute or constant of the module)
    assigned  what it is a part of the value of: a variable, or a keyword argument
    role      "index", "axis", "shape", "exponent", "callee", "test" or ""
    """

    function: str = ""
    inside: bool = False
    assigned: str = ""
    role: str = ""
    scope: Scope = Scope()


class Code:
    """A source text and where its nodes stand in it, in characters (the tree counts columns in bytes of utf-8)."""

    def __init__(self, source: str):
        self.source = source
        self.tree = ast.parse(source)
        self.lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", source)
        self._begins = [0]
        for line in self.lines:
            self._begins.append(self._begins[-1] + len(line))
        nodes = list(ast.walk(self.tree))
        self.modules = {
            alias.asname or alias.name.split(".")[0]
            for node in nodes
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        # base name -> the attributes read from it anywhere, in order of appearance
        self.attributes: dict[str, list[str]] = {}
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and id(node) not in called:
                known = self.attributes.setdefault(node.value.id, [])
                if node.attr not in known:
                    known.append(node.attr)

    def _at(self, line: int, column: int) -> int:
        text = self.lines[line - 1]
        return self._begins[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))

    def start(self, node: ast.AST) -> int:
        return self._at(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self._at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)]

    def operand(self, node: ast.AST) -> str:
        """The text, in parentheses unless it holds together by itself."""
        text = self.text(node)
        return text if isinstance(node, ATOMS) else f"({text})"

    def line_of(self, position: int) -> tuple[int, int]:
        """Line from 1 and column from 0, both in characters."""
        line = next(i for i in range(len(self.lines), 0, -1) if self._begins[i - 1] <= position)
        return line, position - self._begins[line - 1]

    def between(self, left: ast.AST, right: ast.AST, symbol: str) -> int:
        """Where ``symbol`` stands between two nodes, comments aside."""
        begin = self.end(left)
        gap = self.source[begin : self.start(right)]
        found = next(m for m in re.finditer(rf"#[^\r\n]*|{re.escape(symbol)}", gap) if m.group()[0] != "#")
        return begin + found.start()

    def replaced(self, kind: str, node: ast.AST, after: str) -> Edit:
        return Edit(kind, self.start(node), self.end(node), after)

    def swapped(self, kind: str, first: ast.AST, second: ast.AST) -> Edit:
        middle = self.source[self.end(first) : self.start(second)]
        return Edit(kind, self.start(first), self.end(second), f"{self.text(second)}{middle}{self.text(first)}", False)


def callee(node: ast.AST) -> str:
    """The last part of the name of what is called."""
    function = node.func if isinstance(node, ast.Call) else None
    return str(getattr(function, "attr", None) or getattr(function, "id", ""))


def number(node: ast.AST) -> int | float | None:
    """The value of a literal number, its sign included; None of anything else, booleans too."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number(node.operand) if isinstance(node.operand, ast.Constant) else None
        return None if inner is None else -inner
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
