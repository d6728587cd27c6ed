"""Which failures belong together, and which to mend first: level first, then data flow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Checks that fail for one reason, as far as the report can tell.

    key        "L2 velocity": level and field, as people say it
    checks     ids of the checks that must turn EQUAL: the root first; followers: those that only follow
    """

    key: str
    level: str
    field: str
    checks: tuple[str, ...]
    followers: tuple[str, ...] = ()
