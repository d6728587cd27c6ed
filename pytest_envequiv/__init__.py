"""envequiv decides whether two environments are the same. See README.md."""

from __future__ import annotations

from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Settings, Verdict

__all__ = ["DIFFERENT", "EQUAL", "INCONCLUSIVE", "Check", "Divergence", "EnvequivError", "Settings", "Verdict"]
