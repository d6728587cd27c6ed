"""The API's text editor tool on files: view, create, str_replace, insert. Only what is on the allow-list is written.

A path is taken for what it really is: ".." is resolved before it is looked up in the list, and where a link stands in
its way it is refused. Tests and conftest files may never change, whatever the list says.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repair_agent.tree.extent import NEVER
from repair_agent.tree.worktree import allowed

LONGEST = 16_000  # characters of a view
AROUND = 4  # lines shown around an edit
NEAR = 3  # places shown where an edit matches nowhere
PATTERN = re.compile(r"[*?]")
LIKE = 0.5  # how alike a place must be to be shown, 0 to 1


class Refused(Exception):
    """An edit or a view that cannot be done: what is wrong, in words for the one who asked."""


@dataclass(frozen=True)
class Files:
    """``editable``: names or patterns, relative to ``root``. ``readable``: what a file is called -> where it is; it may
    only be viewed."""

    root: Path
    editable: tuple[str, ...]
    readable: Mapping[str, Path] = field(default_factory=dict)

    def listed(self) -> list[str]:
        """The files that may change, those that patterns stand for by name."""
        names: list[str] = []
        for name in self.editable:
            found = sorted(self.root.glob(name)) if PATTERN.search(name) else [self.root / name]
            names += [path.relative_to(self.root).as_posix() for path in found if path.is_file() or len(found) == 1]
        return [name for name in dict.fromkeys(names) if not NEVER.search(name)]

    def to_write(self, name: str) -> Path:
        found = self._allowed(name)
        if found is None:
            what = "may only be viewed" if name in self.readable else "is not among the files that may change"
            raise Refused(f"{name} {what}. These may change: {', '.join(self.editable)}.")
        return found

    def to_read(self, name: str) -> Path:
        found = self._allowed(name) or self.readable.get(name)
        if found is None:
            known = ", ".join([*self.listed(), *self.readable])
            raise Refused(f"{name} cannot be viewed. These files can: {known}.")
        return found

    def _allowed(self, name: str) -> Path | None:
        """The file on the allow-list that a path leads to. One with a link in its way is not followed."""
        root = self.root.resolve()
        try:
            meant = (root / name).resolve()
            plain = Path(os.path.normpath(root / name))
        except (OSError, ValueError, RuntimeError):  # a loop of links, a null byte
            return None
        if plain != meant or not meant.is_relative_to(root):
            return None
        relative = meant.relative_to(root).as_posix()
        return meant if allowed(relative, self.editable) and not NEVER.search(relative) else None


def run(files: Files, asked: Mapping[str, Any]) -> tuple[str, bool]:
    """(what to answer, whether a file was changed). Raises Refused."""
    command = _text(asked, "command")
    name = _text(asked, "path")
    if command == "view":
        return _view(files, name, asked.get("view_range")), False
    path = files.to_write(name)
    if command == "create":
        return _create(path, name, _text(asked, "file_text")), True
    if command == "str_replace":
        return _replace(path, name, _text(asked, "old_str"), _text(asked, "new_str", "")), True
    if command == "insert":
        given = asked.get("insert_text", asked.get("new_str"))  # older models say new_str
        return _insert(path, name, asked.get("insert_line"), _text({"insert_text": given}, "insert_text")), True
    raise Refused(f"there is no command {command!r}: use view, create, str_replace or insert")


def numbered(text: str, first: int = 1) -> str:
    """Lines as the editor shows them: number, tab, line."""
    return "\n".join(f"{n}\t{line}" for n, line in enumerate(text.splitlines(), first))


def _text(asked: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = asked.get(name, default)
    if not isinstance(found, str):
        raise Refused(f"{name} must be a text" if name in asked and found is not None else f"{name} is missing")
    return found


# -- the commands ----------------------------------------------------------------------------------------------------


def _view(files: Files, name: str, span: Any) -> str:
    if name.strip("/") in ("", "."):
        changing = [f"{file} (may change)" for file in files.listed()]
        return "\n".join([*changing, *(f"{file} (to read)" for file in files.readable)])
    lines = _read(files.to_read(name), name).splitlines()
    first, last = 1, len(lines)
    if span is not None:
        if not (isinstance(span, list) and len(span) == 2 and all(type(n) is int for n in span)):
            raise Refused("view_range must be two whole numbers: first and last line, -1 for the end")
        first, last = span[0], len(lines) if span[1] == -1 else span[1]
        if not 1 <= first <= last or first > len(lines):
            raise Refused(f"view_range {span} does not fit: {name} has {len(lines)} lines")
    shown = numbered("\n".join(lines[first - 1 : last]), first)
    if len(shown) <= LONGEST:
        return shown or f"{name} is empty"
    kept = shown[:LONGEST].rpartition("\n")[0]
    return f"{kept}\n({name} has {len(lines)} lines: view the rest with view_range)"


def _create(path: Path, name: str, text: str) -> str:
    there = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, text)
    return f"{name} was {'replaced' if there else 'created'}: {len(text.splitlines())} lines."


def _replace(path: Path, name: str, old: str, new: str) -> str:
    text = _read(path, name)
    if not old:
        raise Refused("old_str is empty: use insert, or create for a whole file")
    if old == new:
        raise Refused("old_str and new_str are the same: nothing would change")
    places = _places(text, old)
    if not places:
        raise Refused(_nearest(text, old, name))
    if len(places) > 1:
        lines = ", ".join(str(text.count("\n", 0, at) + 1) for at in places)
        raise Refused(f"old_str occurs {len(places)} times in {name}, at lines {lines}: give more of what is around it")
    at = places[0]
    after = text[:at] + new + text[at + len(old) :]
    _write(path, after)
    first = text.count("\n", 0, at)
    return _edited(after, name, first, first + new.count("\n"))


def _insert(path: Path, name: str, line: Any, given: str) -> str:
    text = _read(path, name)
    lines = text.splitlines(keepends=True)
    if type(line) is not int or not 0 <= line <= len(lines):
        raise Refused(f"insert_line must be a whole number from 0 to {len(lines)}, the number of lines of {name}")
    if lines[:line] and not lines[line - 1].endswith("\n"):
        lines[line - 1] += "\n"
    block = given if given.endswith("\n") or line == len(lines) else given + "\n"
    after = "".join([*lines[:line], block, *lines[line:]])
    _write(path, after)
    return _edited(after, name, line, line + max(0, len(given.splitlines()) - 1))


def _edited(text: str, name: str, first: int, last: int) -> str:
    """What an edit left, with what is around it. Lines count from 0."""
    start = max(0, first - AROUND)
    shown = "\n".join(text.splitlines()[start : last + AROUND + 1])
    return f"{name} was changed:\n{numbered(shown, start + 1)}"


def _places(text: str, old: str) -> list[int]:
    """Where a text occurs, overlaps included."""
    found = [text.find(old)]
    while found[-1] != -1:
        found.append(text.find(old, found[-1] + 1))
    return found[:-1]


def _nearest(text: str, old: str, name: str) -> str:
    """Where an edit was probably meant to go."""
    lines, wanted = text.splitlines(), old.strip("\n").splitlines() or [old]
    size = len(wanted)
    squeezed = ["".join(line.split()) for line in wanted]
    spaced = [
        start
        for start in range(len(lines) - size + 1)
        if ["".join(line.split()) for line in lines[start : start + size]] == squeezed
    ]
    said = f"old_str does not occur in {name}"
    if spaced:
        said += "; these lines differ from it only in white space"
    else:
        spaced = _likest(lines, wanted)
        said += "; the lines that come nearest to it" if spaced else ", nor does anything like it"
    shown = [numbered("\n".join(lines[start : start + size]), start + 1) for start in spaced[:NEAR]]
    return "\n\n".join([said + (":" if shown else "."), *shown])


def _likest(lines: list[str], wanted: list[str]) -> list[int]:
    """The starts of the places that are most like it, best first, none within another."""
    size = len(wanted)
    matcher = difflib.SequenceMatcher(None, "", "\n".join(wanted), autojunk=False)
    scores: list[tuple[float, int]] = []
    for start in range(max(1, len(lines) - size + 1)):
        matcher.set_seq1("\n".join(lines[start : start + size]))
        floor = max(LIKE, scores[NEAR - 1][0] if len(scores) >= NEAR else 0.0)
        if matcher.real_quick_ratio() > floor and matcher.quick_ratio() > floor and (ratio := matcher.ratio()) > floor:
            scores = sorted([*scores, (ratio, start)], key=lambda s: (-s[0], s[1]))
    found: list[int] = []
    for _, start in scores:
        if all(abs(start - other) >= size for other in found):
            found.append(start)
    return found[:NEAR]


# -- files -----------------------------------------------------------------------------------------------------------


def _read(path: Path, name: str) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise Refused(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not text") from error


def _write(path: Path, text: str) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
    except (OSError, UnicodeEncodeError) as error:
        raise Refused(f"{path.name}: {error}") from error
