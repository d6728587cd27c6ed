"""Bugs that are seeded into repaired code, with a suite that is made to notice them or not."""

from __future__ import annotations

import pytest

from repair_agent import canary as canaries
from repair_agent.canary import bugs, canary
from repair_agent.findings import Finding, Run
from repair_agent.question import Question
from repair_agent.tree import worktree
from repair_agent.tree.worktree import open_worktree

PORT = """LIMIT = 500


def bonus(x):
    return x * 3


def step(state, action):
    return state + 0.02 * action
"""
RUST = """use std::cmp;
fn step(x: f64) -> f64 {
    let y = x * 2.5 + 1.0; // a + b
    y.min(3.0)
}
#[cfg(test)]
fn t() { 1.0 + 2.0 }
"""
QUESTION = Question("A", "port.env", options=("--envequiv-strict",))


@pytest.fixture
def tree(repository):
    repository.write(port__env=PORT)
    repository.commit()
    return open_worktree(repository.top, ("port/*.py",), "port")


@pytest.fixture
def suite(monkeypatch, tree):
    """Makes the suite say of each mutated port what it is told to; what it saw is kept."""
    seen = []

    def says(word):
        def judged(question, root, **how):
            assert not root.is_relative_to(tree.top) and not (root / ".git").exists()
            seen.append(((root / "port" / "env.py").read_text(), question.options))
            check = "L1-open-pair" if word == "shut" else "L2-play-x"
            finding = Finding("", check, "L2", "play", "x", "DIFFERENT" if word == "shut" else word, "")
            return Run({check: finding}, (check,), exit=int(word != "EQUAL"))

        monkeypatch.setattr(canaries, "judged", judged)
        return seen

    return says


def test_a_bug_that_is_caught(tree, suite):
    seen = suite("DIFFERENT")
    bird = canary(QUESTION, tree, seed=3)
    assert bird.caught and bird.why.startswith("L2-play-x catches the seeded bug port/env.py:9 ")
    ((text, options),) = seen
    assert text != PORT and options == ("--envequiv-strict", "--maxfail=4")
    assert (tree.root / "port" / "env.py").read_text() == PORT
    assert canary(QUESTION, tree, seed=3) == bird


@pytest.mark.parametrize("word", ["EQUAL", "INCONCLUSIVE", "shut"])
def test_a_suite_that_notices_nothing_proves_nothing(tree, suite, word):
    seen = suite(word)
    bird = canary(QUESTION, tree, tries=3)
    assert not bird.caught and len({text for text, _ in seen}) == 3
    assert "does not notice bugs in the repaired code: port/env.py:" in bird.why


def test_lines_that_the_repair_wrote_come_first(tree, suite):
    seen = suite("DIFFERENT")
    (tree.root / "port" / "env.py").write_text(PORT.replace("x * 3", "x * 4"))
    worktree.commit(tree, "a step")
    assert ":5 " in canary(QUESTION, tree).why and "0.02 * action" in seen[0][0]


def test_code_without_anything_to_get_wrong(tree, suite):
    suite("DIFFERENT")
    (tree.root / "port" / "env.py").write_text("from port import other\n")
    assert not canary(QUESTION, tree).caught


def test_bugs_in_rust(repository):
    (repository.top / "src").mkdir()
    (repository.top / "src" / "lib.rs").write_text(RUST)
    repository.commit()
    found = list(bugs(open_worktree(repository.top, ("src/**/*.rs",), "crate")))
    texts = [bug.source for bug in found]
    assert len(set(texts)) == len(texts) and RUST not in texts
    assert RUST.replace("a + b", "a - b") not in texts
    assert {bug.what.split()[0] for bug in found} == {"src/lib.rs:3", "src/lib.rs:4"}
    assert RUST.replace("y.min(", "y.max(") in texts and RUST.replace("x * 2.5", "x / 2.5") in texts
