"""Every bug of the taxonomy is found, by the check that is there for it, at the root, and at no other level."""

from __future__ import annotations

import pytest
from ports import bugs, judging
from ports.bugs import BUGS, Bug

from pytest_envequiv import shrinking

# What takes long and has its own bugs is only run where one is expected.
OWN = (
    "L1-jit", "L1-auto_reset", "L1-reset", "L1-after_done", "L1-honest", "L2-coverage", "L2-branches", "L3-episodes",
)  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_found_at_its_root(bug: Bug, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shrinking, "make", lambda bench, verdict, step: (verdict, None))  # has tests of its own
    judge = judging.of(bug.port, bug.name, bug.options)
    usual = [c.id for c in judge.checks if not c.id.startswith(OWN)]
    verdicts = judging.run(judge, *usual, *bug.roots, *bug.follows)
    roots = judging.different(verdicts)
    assert not set(bug.roots) - set(roots), (roots, judging.words(verdicts))
    assert "".join(sorted({check[1] for check, v in verdicts.items() if v.word == "DIFFERENT"})) == bug.levels
    assert {check: verdicts[check].follows for check in bug.follows} == bug.follows


def test_every_kind_of_bug_is_there():
    assert {bug.kind for bug in BUGS} == set("TARDOXSNBCH")
    assert len({str(bug) for bug in bugs.BUGS}) == len(BUGS)
