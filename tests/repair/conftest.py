"""A repository of the user's, with a port that is to be mended."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from repair_agent import guard


class Repository:
    """A git repository in a folder of its own."""

    def __init__(self, top: Path):
        self.top = top
        top.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.email", "someone@example.org")
        self.git("config", "user.name", "Someone")

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.top, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, **files: str) -> None:
        """``port__env="x"`` is the file port/env.py, and ``port__init`` is port/__init__.py."""
        for name, text in files.items():
            *folders, stem = name.split("__")
            path = self.top.joinpath(*folders, "__init__.py" if stem == "init" else f"{stem}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, message: str = "as it was") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def checkout_at_rest(tmp_path, monkeypatch):
    """The programs that are frozen are a copy's: whoever works on this checkout meanwhile does not fail the tests."""
    for label, folder in guard.PROGRAMS.items():
        (tmp_path / folder.name).mkdir()
        (tmp_path / folder.name / "__init__.py").write_text("")
        monkeypatch.setitem(guard.PROGRAMS, label, tmp_path / folder.name)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    """port/env.py, port/__init__.py and other.py, committed; worktrees go to a folder of the test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Repository(tmp_path / "user")
    made.write(port__init="", port__env="GRAVITY = 3.7\n", other="x = 1\n")
    made.commit()
    return made
