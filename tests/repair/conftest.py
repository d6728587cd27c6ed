"""A repository of the user's, with a port that is to be mended."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path

import desk
import pytest
import toy_judge
from messages_server import Server

from repair_agent import cli, journal
from repair_agent.case import Case
from repair_agent.tree import guard


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


@pytest.fixture
def case(tmp_path) -> Case:
    """A port of two functions and one group of failures."""
    return desk.made(tmp_path)


@pytest.fixture
def serving():
    """Begins a scripted Messages server; at the end of the test the protocol must have been kept."""
    servers: list[Server] = []

    def begin(script, **options) -> Server:
        servers.append(Server(script, **options).__enter__())
        return servers[-1]

    yield begin
    for server in servers:
        server.__exit__()
        assert not server.problems


class Workshop:
    """A repository with a reference, a port, and the whole program with a suite that takes milliseconds."""

    PAIR = ("ref=reference:Car", "target=port")

    def __init__(self, repository: Repository, capsys, serving):
        self.repository, self.top, self._capsys, self._serving = repository, repository.top, capsys, serving
        self.servers: list[Server] = []
        self.said = ""  # what the last run printed, on both streams

    def begin(self, port: str) -> None:
        """The port as it is found."""
        self.repository.write(port=port)
        self.repository.commit("a port")

    def run(self, *words: str, pair: tuple[str, ...] = PAIR) -> int:
        self._capsys.readouterr()
        code = cli.main([*pair, *words])
        out = self._capsys.readouterr()
        self.said = out.out + out.err
        return code

    def mend(self, script, *words: str) -> int:
        """By a scripted model."""
        return self.run("--engine", "model", "--base-url", self.server(script).url, *words)

    def server(self, script, **options) -> Server:
        self.servers.append(self._serving(script, **options))
        return self.servers[-1]

    def started(self, *words: str, **more) -> subprocess.Popen:
        """The program in a process of its own, which Ctrl-C reaches also where the tests run in the background of a
        shell: what is begun there ignores it, and hands that on."""
        argv = [sys.executable, toy_judge.__file__, *self.PAIR, *words]
        ready = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(argv, cwd=self.top, preexec_fn=ready, **pipes, **more)

    @property
    def port(self) -> str:
        return (self.top / "port.py").read_text()

    @property
    def place(self) -> Path:
        (found,) = (self.top / ".envequiv" / "repair").glob("*/")
        return found

    @property
    def report(self) -> dict:
        return json.loads((self.place / "report.json").read_text())

    def events(self, kind: str) -> list[dict]:
        return [event for event in journal.read(self.place / "trajectory.jsonl") if event["kind"] == kind]

    @property
    def branches(self) -> list[str]:
        return self.repository.git("branch", "--format=%(refname:short)", "--list", "envequiv-repair/*").split()

    @property
    def status(self) -> str:
        """What git sees of the user's files, the program's own records aside."""
        return self.repository.git("status", "--porcelain", "--", ".", ":(exclude).envequiv")


@pytest.fixture
def workshop(tmp_path, monkeypatch, capsys, checkout_at_rest, serving):
    made = Repository(tmp_path / "user")
    made.write(reference=toy_judge.REFERENCE, port=toy_judge.PORT)
    made.commit()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(made.top)
    monkeypatch.setattr(sys, "path", list(sys.path))
    toy_judge.install(monkeypatch.setattr)
    return Workshop(made, capsys, serving)
