"""A state map: for each field of the target's state, where it is read on the reference's side. ``align`` finds one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Leaf, State


@dataclass(frozen=True)
class Source:
    """One place to read a value from.

    kind   "state": the reference's field ``name`` (element ``index`` of it, or all); "output": what it showed;
           "clock": steps since the reset; "constant": ``value``; "free": any label
    digit  (k, m): of whole numbers that are several in one, the one that is ``value // k % m`` (m = 0: ``value // k``)
    """

    kind: Literal["state", "output", "clock", "constant", "free"]
    name: str = ""
    index: int | None = None
    value: tuple[float, ...] = ()
    digit: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.kind == "constant":
            return f"constant:{self.value[0]:g}" if len(set(self.value)) == 1 else "constant"
        if self.kind in ("clock", "free"):
            return self.kind
        text = self.name if self.index is None else f"{self.name}[{self.index}]"
        if self.digit is not None:
            text += (f" // {self.digit[0]}" if self.digit[0] > 1 else "") + (
                f" % {self.digit[1]}" if self.digit[1] else ""
            )
        return text if self.kind == "state" else f"output:{text}"


@dataclass(frozen=True)
class Link:
    """A target field and its sources: one for the whole field, or one for each element in C order.

    ``recode`` translates whole numbers (reference value -> target value) where the sides number things differently.
    ``fits``: digits of the source that were all the same as the field, as far as was seen.
    """

    field: str
    leaf: Leaf
    sources: tuple[Source, ...]
    recode: Mapping[int, int] | None = None
    how: str = "name"
    fits: tuple[tuple[int, int], ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether the field has a counterpart in the reference's state (and not only in what it showed)."""
        return all(s.kind in ("state", "clock") for s in self.sources)

    def __str__(self) -> str:
        text = ", ".join(map(str, self.sources))
        return f"{text} recoded {dict(self.recode)}" if self.recode else text


@dataclass(frozen=True)
class StateMap:
    """links: every target field that could be filled; missing: those that could not, with what is known."""

    links: tuple[Link, ...]
    missing: Mapping[str, str]
    unread: tuple[str, ...]  # reference fields that fill nothing
    ambiguous: Mapping[str, str]
    verified: bool = False
    said: str = ""

    @property
    def complete(self) -> bool:
        return not self.missing and not self.ambiguous

    @property
    def usable(self) -> bool:
        return self.complete and self.verified

    def apply(self, state: State, seen: Arrays, clock: np.ndarray, seeds: np.ndarray, free: Mapping[str, int]) -> State:
        """The target's states for the reference's: B rows each."""
        fields = {}
        for link in self.links:
            columns = [_read(s, link, state, seen, clock, seeds, free) for s in link.sources]
            value = columns[0] if len(columns) == 1 else np.stack([c.reshape(len(clock)) for c in columns], 1)
            if link.recode:
                value = _recoded(value, link.recode)
            if value.dtype.kind == "f" and link.leaf.dtype[0] in "biu":
                value = np.nan_to_num(value, nan=0.0)  # None in the reference
            fields[link.field] = value.reshape(len(clock), *link.leaf.shape).astype(link.leaf.dtype)
        return State(fields)

    def text(self) -> dict[str, str]:
        return {link.field: str(link) for link in self.links} | {k: f"? {v}" for k, v in self.missing.items()}

    def toml(self) -> str:
        """The map as a contract table, for a person to complete."""
        lines = ["[fields]", "# target field = where it is found on the reference's side:"]
        lines += ['# "name", "name[i]", "output:mask", "clock", "constant:0", "free", or a list, one for each element']
        for link in self.links:
            listed = [str(s) for s in link.sources]
            value = f'"{listed[0]}"' if len(listed) == 1 else "[" + ", ".join(f'"{t}"' for t in listed) + "]"
            note = f"  # by {link.how}" + (
                f"; also fits {self.ambiguous[link.field]}" if link.field in self.ambiguous else ""
            )
            lines.append(f'"{link.field}" = {value}{note}')
        lines += [f'# "{field}" = "?"  # {why}' for field, why in self.missing.items()]
        if self.unread:
            lines.append(f"# fields of the reference that nothing is filled from: {', '.join(self.unread)}")
        return "\n".join(lines) + "\n"


def offset(recode: Mapping[int, int]) -> tuple[int, int] | None:
    """(start, 1) of a code that counts from another start, (start, -1) of one that counts downwards, else None."""
    for sign in (1, -1):
        starts = {code - sign * known for known, code in recode.items()}
        if len(starts) == 1:
            return starts.pop(), sign
    return None


def _read(
    s: Source, link: Link, state: State, seen: Arrays, clock: np.ndarray, seeds: np.ndarray, free: Mapping[str, int]
) -> np.ndarray:
    rows = len(clock)
    if s.kind == "clock":
        return clock
    if s.kind == "constant":
        return np.broadcast_to(
            np.array(s.value if len(s.value) > 1 else s.value[0]), (rows, len(s.value)) if len(s.value) > 1 else (rows,)
        )
    if s.kind == "free":
        return seeds % free.get(link.field, 2)
    column = (state.fields if s.kind == "state" else seen)[s.name]
    column = column if s.index is None else column.reshape(rows, -1)[:, s.index]
    if s.digit is None:
        return column
    whole = column // s.digit[0]
    return whole % s.digit[1] if s.digit[1] else whole


def _recoded(value: np.ndarray, recode: Mapping[int, int]) -> np.ndarray:
    known = np.array(sorted(recode))
    codes = np.array([recode[k] for k in known])
    place = np.clip(np.searchsorted(known, value), 0, len(known) - 1)
    # A value never seen in play has no known counterpart, unless the code is a count from another start or downwards;
    # it is left alone and will show as a divergence.
    unseen, count = value, offset(recode)
    if len(known) > 2 and count is not None:
        unseen = count[0] + count[1] * np.asarray(value, np.int64)
    return np.where(known[place] == value, codes[place], unseen)
