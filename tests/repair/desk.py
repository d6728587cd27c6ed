"""A case with a port of two functions and one group of failures, and a model's hand at its tools."""

from __future__ import annotations

from pathlib import Path

from repair_agent.budget import Budget, Limits
from repair_agent.case import Case
from repair_agent.findings import Finding, Run
from repair_agent.groups import Group
from repair_agent.journal import Journal
from repair_agent.model.tools import EDITOR, Tools
from repair_agent.prices import table
from repair_agent.question import Question
from repair_agent.tree.worktree import Worktree

TEXT = "def a():\n    return 1\n\n\ndef b():\n    return 1\n"


def finding(check: str, word: str = "DIFFERENT", **more) -> Finding:
    level, subject, name = check.split("-", 2)
    return Finding(f"envequiv::{check}", check, level, subject, name, word, f"{name} differs", **more)


DIVERGENCE = {
    "field": "speed", "index": [0], "expected": 0.15, "actual": 0.25, "error": 0.1, "tolerance": 1e-6,
    "why": "64 x the spread", "state": {"height": 8.5, "speed": 0.0}, "action": {"action": 1},
    "draws": [{"kind": "uniform", "value": 0.5, "site": "port.py:3"}], "episode": 2, "step": 7, "source": "play",
}  # fmt: skip


def use(name: str, **asked) -> dict:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": asked}


def edit(case: Case, command: str, path: str = "port.py", **asked) -> tuple[str, bool]:
    answer = Tools(case).answer(use(EDITOR, command=command, path=path, **asked))
    return answer["content"], "is_error" in answer


def source(case: Case) -> str:
    return (case.tree.root / "port.py").read_text()


def made(tmp_path: Path) -> Case:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "port.py").write_text(TEXT)
    findings = {
        f.check: f
        for f in (
            finding("L2-play-speed", divergence=DIVERGENCE, counterexample=str(tmp_path / "speed.json")),
            finding("L2-boundary-speed", follows="L2-play-speed"),
            finding("L2-play-height", "EQUAL"),
            finding("L1-opens-target", "EQUAL"),
        )
    }
    return Case(
        question=Question("reference", "port"),
        tree=Worktree(root, root, "branch", "base", ("port.py", "crate/**/*.rs"), tmp_path),
        group=Group("L2 speed", "L2", "speed", ("L2-play-speed",), ("L2-boundary-speed",)),
        run=Run(findings, tuple(findings)),
        budget=Budget(Limits(), table()),
        journal=Journal(tmp_path / "journal.jsonl"),
    )
