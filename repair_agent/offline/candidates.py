"""Candidates: small edits of the target's source that might mend it, the likeliest first.

Most slips are undone by the same kind of edit that makes them, so the mutants of ``pytest_envequiv.power`` are the
first half. The second half puts back what a slip took away: numbers, terms, clips, statements, mined from the
reference or taken from the names in scope. How likely one is: its kind, and how much its line is blamed.
"""

from __future__ import annotations

import ast
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pytest_envequiv.power.mutants import mutants
from pytest_envequiv.power.syntax import Code, Edit
from repair_agent.offline.mining import Mined
from repair_agent.offline.restoring import restored
from repair_agent.offline.rules import COSTS

BLAMED, UNBLAMED = 0.3, 4.0  # what one place further down the list of blamed lines costs; what a line not on it does
OFF = 1.5  # for an operator in front of a flag that is always so
UNLIKELY = 6.0  # a condition that is always so, a number that becomes 0


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
    column = code.line_of(begin)[1]
    head = f"if 1:\n{' ' * column}" if column else ""  # two statements of one column are parsed as such

    def shape(after: str) -> str:
        try:
            return ast.dump(ast.parse(head + code.source[begin : edit.start] + after + code.source[edit.end : end]))
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
