"""A bug seeded into the repaired code, that the suite must catch: if it does not, its EQUAL says nothing of that code.

The bug goes into a copy that is thrown away. A mutant may happen to change nothing, so a few are tried; those on lines
that the repair wrote come first, then those in the functions that make a step or a reset.
"""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_envequiv.power.mutants import mutants
from repair_agent.findings import SHUT
from repair_agent.question import Question
from repair_agent.suite import judged, never, place, silent
from repair_agent.tree.worktree import CACHES, Worktree, allowed, git

TRIES = 5
SEEN = 4  # checks that fail before it is enough: where a bug hides the state, the first say INCONCLUSIVE
STEPS = re.compile(r"step|reset|transition|dynamics|move|update|init|observ|reward|termin|done", re.I)
# Kinds of slip that seldom change nothing.
TELLING = ("operator", "constant", "comparison", "function", "statement", "limit", "drop", "config")
RUST = (
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " / "), (r" <= ", " < "), (r" >= ", " > "), (r" == ", " != "),
    (r" && ", " || "), (r" \|\| ", " && "), (r"\.min\(", ".max("), (r"\.max\(", ".min("), (r"\.sin\(", ".cos("),
    (r"\.cos\(", ".sin("), (r"\b(\d+\.\d+)\b", r"(\1 + 0.5)"), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
)  # fmt: skip
# Lines of Rust on which these do not mean what they do elsewhere.
RUST_ASIDE = re.compile(
    r"^\s*(//|/\*|\*|use |mod |pub mod |#|impl|struct|enum|type |where|pub struct|pub enum|fn |pub fn )"
)


@dataclass(frozen=True)
class Bug:
    """One edited file. ``what``: "port.py:3 9.8 -> 9.9"; ``rank``: what is tried first has the lowest."""

    file: str  # relative to the worktree's root
    what: str
    source: str
    rank: tuple[int, int]


@dataclass(frozen=True)
class Canary:
    """Whether a seeded bug was caught, and one line about which, or about what was tried."""

    caught: bool
    why: str


def canary(
    question: Question,
    tree: Worktree,
    seed: int = 0,
    seconds: float | None = None,
    tell: Callable[[str], None] = silent,
    tries: int = TRIES,
    stop: Callable[[], bool] = never,
) -> Canary:
    """Seeds one bug after the other into copies of the worktree until the suite finds one DIFFERENT.

    That a bug keeps the pair from opening, or the suite from ending in ``seconds``, proves nothing. ``stop``: as of
    ``judged``.
    """
    found = list(bugs(tree))
    random.Random(seed).shuffle(found)
    found.sort(key=lambda bug: bug.rank)
    quick = replace(question, profile="quick", options=(*question.options, f"--maxfail={SEEN}"))
    tried = []
    for bug in found[:tries]:
        if stop():
            break
        tell(f"seeding a bug: {bug.what}")
        with tempfile.TemporaryDirectory(prefix="envequiv-canary-") as scratch:
            top = Path(scratch) / "tree"
            shutil.copytree(tree.top, top, symlinks=True, ignore=shutil.ignore_patterns(".git", "target", *CACHES))
            root = top / tree.root.relative_to(tree.top)
            (root / bug.file).write_text(bug.source, encoding="utf-8")
            run = judged(quick, root, seed=seed, seconds=seconds, output=Path(scratch) / "output", stop=stop)
        shutil.rmtree(place(root), ignore_errors=True)  # what was built of it
        caught = [f.check for f in run.findings.values() if f.word == "DIFFERENT" and f.check not in SHUT]
        if caught:
            return Canary(True, f"{caught[0]} catches the seeded bug {bug.what}")
        tried.append(bug.what)
    if not found:
        return Canary(False, "no bug could be seeded into the repaired code: it holds nothing to get wrong")
    return Canary(False, f"the suite does not notice bugs in the repaired code: {'; '.join(tried)}")


def bugs(tree: Worktree) -> Iterator[Bug]:
    """Every bug that could be seeded into the files of the allow-list."""
    for path in sorted(tree.root.rglob("*")):
        name = path.relative_to(tree.root).as_posix()
        if path.suffix not in (".py", ".rs") or not path.is_file() or not allowed(name, tree.files):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        written = _written(tree, path)
        yield from (_of_python if path.suffix == ".py" else _of_rust)(name, text, written)


def _of_python(name: str, text: str, written: set[int]) -> Iterator[Bug]:
    try:
        found = mutants(text, name)
    except SyntaxError:
        return
    for mutant in found:
        place = 0 if mutant.line in written else 1 if STEPS.search(mutant.function) else 2 if mutant.function else 3
        what = f"{name}:{mutant.line} {_short(mutant.before)} -> {_short(mutant.after)}"
        yield Bug(name, what, mutant.source, (place, int(mutant.kind not in TELLING)))


def _of_rust(name: str, text: str, written: set[int]) -> Iterator[Bug]:
    """A few slips, by the text alone: what does not compile is not caught, and the next is tried."""
    lines = text.split("\n")
    function = ""
    for n, line in enumerate(lines):
        if begins := re.search(r"\bfn (\w+)", line):
            function = begins[1]
        if re.search(r"#\[cfg\(test\)\]", line):
            return
        if RUST_ASIDE.match(line):
            continue
        place = 0 if n + 1 in written else 1 if STEPS.search(function) else 2 if function else 3
        for pattern, after in RUST:
            for match in re.finditer(pattern, line.partition("//")[0]):
                edited = line[: match.start()] + match.expand(after) + line[match.end() :]
                source = "\n".join([*lines[:n], edited, *lines[n + 1 :]])
                yield Bug(
                    name, f"{name}:{n + 1} {_short(match[0])} -> {_short(match.expand(after))}", source, (place, 0)
                )


def _written(tree: Worktree, path: Path) -> set[int]:
    """The lines of a file that are there since the repair began."""
    relative = path.relative_to(tree.top).as_posix()
    told = git(
        tree.top, "diff", "--no-color", "--no-ext-diff", "--unified=0", tree.base, "--", f":(literal,top){relative}"
    )
    found: set[int] = set()
    for begin, count in re.findall(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", told, re.MULTILINE):
        found |= set(range(int(begin), int(begin) + int(count or 1)))
    return found


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 40 else f"{flat[:37]}..."
