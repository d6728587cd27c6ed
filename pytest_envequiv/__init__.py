"""envequiv decides whether two environments are the same. See README.md.

report = pytest_envequiv.compare("gymnasium:CartPole-v1", "gymnax:CartPole-v1")
assert report.word == "EQUAL", report
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_envequiv.errors import CertificateError, EnvequivError
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Settings, Verdict

if TYPE_CHECKING:
    from pytest_envequiv.api import Report, compare
    from pytest_envequiv.report.requirement import Certificate, require_certificate

__all__ = [
    "DIFFERENT",
    "EQUAL",
    "INCONCLUSIVE",
    "Certificate",
    "CertificateError",
    "Check",
    "Divergence",
    "EnvequivError",
    "Report",
    "Settings",
    "Verdict",
    "compare",
    "require_certificate",
]

LATE = {
    "Report": "pytest_envequiv.api",
    "compare": "pytest_envequiv.api",
    "Certificate": "pytest_envequiv.report.requirement",
    "require_certificate": "pytest_envequiv.report.requirement",
}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the plugin must not pull JAX into every pytest run."""
    if name in LATE:
        import importlib

        return getattr(importlib.import_module(LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
