"""A git worktree in which the target is mended: a branch of its own, one commit an accepted step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Worktree:
    """Where files may be changed.

    root    the worktree's counterpart of the folder the agent was called in; the suite runs here
    top     the worktree's top level
    branch  the branch it is on; base: the commit it began from
    files   the allow-list: paths relative to ``root`` that may be edited
    origin  the user's folder
    """

    root: Path
    top: Path
    branch: str
    base: str
    files: tuple[str, ...]
    origin: Path
