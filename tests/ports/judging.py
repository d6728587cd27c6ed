"""Opening a pair of ports in a test, and running some of its checks."""

from __future__ import annotations

import fnmatch
import tempfile
from typing import Any

from ports import drift, maze, stones
from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import DIFFERENT, WITHOUT_LEARNING, Settings, Verdict

WINDY = {"slip": 0.1, "wind": 0.01, "gust": 0.05}
ICY = {"ice": True}


def opened(ref: Any, target: Any, contract: str | None = None, **settings: Any) -> Judge:
    """A judge of two names or objects, with a folder of its own; ``contract`` is TOML. Without L4, unless asked."""
    folder = tempfile.mkdtemp(prefix="envequiv-test-")
    if contract is not None:
        path = f"{folder}/contract.toml"
        with open(path, "w") as file:
            file.write(contract)
        settings["contract"] = path
    names = [x if isinstance(x, str) else name for x, name in ((ref, "the reference"), (target, "the target"))]
    settings = {"output": folder, "levels": WITHOUT_LEARNING, **settings}
    given = Settings(ref=names[0], target=names[1], **settings)
    return Judge(given, ref=None if isinstance(ref, str) else ref, target=None if isinstance(target, str) else target)


def of(port: str, bug: str | None = None, options: dict[str, Any] | None = None, **settings: Any) -> Judge:
    """One of the ports against its reference. "drift", "plain", "vector", "maze" or "stones"."""
    options = options or {}
    if port == "maze":
        return opened(maze.reference, maze.PlainMaze(bug), **settings)
    if port == "stones":
        return opened(stones.Stones, stones.PgxStones(bug), **settings)
    kinds = {"drift": drift.GymnaxDrift, "plain": drift.PlainDrift, "vector": drift.VectorDrift}
    return opened(lambda: drift.reference(**options), kinds[port](bug, **options), **settings)


def run(judge: Judge, *patterns: str) -> dict[str, Verdict]:
    """The verdicts of the checks that match a pattern, by id; at least one a pattern."""
    ids = []
    for pattern in patterns:
        found = [c.id for c in judge.checks if fnmatch.fnmatchcase(c.id, pattern)]
        assert found, f"no check {pattern}; there are {[c.id for c in judge.checks]}"
        ids += found
    return {check: judge.run(check) for check in dict.fromkeys(ids)}


def one(judge: Judge, check: str) -> Verdict:
    return run(judge, check)[check]


def different(verdicts: dict[str, Verdict]) -> list[str]:
    """Ids of the roots."""
    return [check for check, v in verdicts.items() if v.word == DIFFERENT and v.follows is None]


def words(verdicts: dict[str, Verdict]) -> dict[str, str]:
    """Id -> word, for those that are not EQUAL; with the summary, for the eye."""
    return {check: f"{v.word}: {v.summary}" for check, v in verdicts.items() if v.word != "EQUAL"}
