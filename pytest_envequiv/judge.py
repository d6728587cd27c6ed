"""The judge: opens a pair, lists its checks, runs them one by one. Knows nothing of pytest.

    judge = Judge(Settings(ref="gymnasium:CartPole-v1", target="gymnax:CartPole-v1"))
    for check in judge.checks:
        verdict = judge.run(check.id)
"""

from __future__ import annotations

from typing import Any

from pytest_envequiv.verdict import Check, Progress, Settings, Verdict, silent


class Judge:
    """One pair, opened. Raises OpenError or ContractError (both EnvequivError) for what a user can mend.

    checks   in the order they should run; ids are the same in every process for the same settings and files
    notes    differences of convention that were understood and bridged, one line each
    """

    checks: list[Check]
    notes: list[str]

    def __init__(self, settings: Settings, progress: Progress = silent, ref: Any = None, target: Any = None): ...

    def run(self, check_id: str, progress: Progress = silent) -> Verdict:
        """Run one check. A backend that raises makes a verdict, not an exception."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """JSON-safe: {"ref": {name, kind, state, draws, versions}, "target": {...}, "map": {...}, "draws": str}."""
        raise NotImplementedError

    def proposal(self) -> str:
        """The field map as TOML, to be completed by a person and given back as a contract."""
        raise NotImplementedError

    def close(self) -> None: ...


def replay(path: str, settings: Settings | None = None, progress: Progress = silent) -> Verdict:
    """Open the pair a counterexample names and try its inputs again; DIFFERENT if they still differ."""
    raise NotImplementedError


def export(path: str, destination: str) -> None:
    """Write a counterexample as a standalone pytest file that needs only the two environments' packages."""
    raise NotImplementedError
