"""envequiv decides whether two environments are the same. See README.md.

report = pytest_envequiv.compare("gymnasium:CartPole-v1", "gymnax:CartPole-v1")
assert report.word == "EQUAL", report
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Settings, Verdict

if TYPE_CHECKING:
    from pytest_envequiv.api import Report, compare

__all__ = [
    "DIFFERENT",
    "EQUAL",
    "INCONCLUSIVE",
    "Check",
    "Divergence",
    "EnvequivError",
    "Report",
    "Settings",
    "Verdict",
    "compare",
]


def __getattr__(name: str) -> Any:
    """``compare`` and ``Report`` are loaded when asked for: the plugin must not pull JAX into every pytest run."""
    if name in ("Report", "compare"):
        import importlib

        return getattr(importlib.import_module("pytest_envequiv.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
