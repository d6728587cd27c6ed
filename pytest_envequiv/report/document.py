"""The machine form of a run, described by docs/report.schema.json: one document per test, one for the whole run.

Pure functions from plain values to JSON-safe dicts; pytest's JSON report carries them under "envequiv".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_envequiv.report.terminal import replay_command
from pytest_envequiv.verdict import (
    DIFFERENT,
    EQUAL,
    INCONCLUSIVE,
    LEVELS,
    Check,
    Settings,
    Verdict,
    default_levels,
    overall,
    plain,
)

SCHEMA_VERSION = 1

# What a level's checks add up to.
COUNTED = ("transitions", "episodes", "terminations", "truncations", "seconds")


def pair_document(
    node: str,
    settings: Settings,
    checks: Iterable[Check],
    notes: Iterable[str],
    describe: Mapping[str, Any],
    decided: bool = False,
    contents: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What is known of a pair before a check runs. ``node`` is the node id its checks are under; ``decided``: a
    test's own body says what passes; ``contents``: what a certificate is bound to."""
    return plain(
        {
            "node": node,
            "ref": settings.ref or None,
            "target": settings.target or None,
            "settings": settings.as_json(),
            "checks": [check.id for check in checks],
            "notes": list(notes),
            "describe": describe,
            "decided": decided,
            "contents": contents or {},
        }
    )


def test_document(pair: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """One check's evidence, for the test's metadata."""
    return {
        "schema": SCHEMA_VERSION,
        "pair": {key: pair[key] for key in ("node", "ref", "target")},
        **plain(verdict.as_json()),
        "replay": replay_command(verdict.counterexample) if verdict.counterexample else None,
    }


def run_document(pairs: Iterable[tuple[Mapping[str, Any], list[Verdict]]]) -> dict[str, Any]:
    """Every pair of a run with what was found, for the top level of the report."""
    found = [pair_summary(pair, verdicts) for pair, verdicts in pairs]
    words = {pair["word"] for pair in found}
    word = next((w for w in (DIFFERENT, INCONCLUSIVE) if w in words), EQUAL if words else INCONCLUSIVE)
    return {"schema": SCHEMA_VERSION, "word": word, "pairs": found}


def pair_summary(pair: Mapping[str, Any], verdicts: list[Verdict]) -> dict[str, Any]:
    """``complete`` tells a whole run from one narrowed by -k, -m, -x, a node id or a choice of levels."""
    ran = {v.check.id for v in verdicts}
    return {
        **pair,
        "word": overall(verdicts),
        "ran": len(verdicts),
        "complete": set(pair["checks"]) <= ran and set(default_levels()) <= set(pair["settings"]["levels"]),
        "levels": level_summary(verdicts),
        "roots": [v.check.id for v in verdicts if v.word == DIFFERENT and v.follows is None],
        "inconclusive": {v.check.id: v.summary for v in verdicts if v.word == INCONCLUSIVE},
    }


def level_summary(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Any]]:
    """Per level: how many checks came to each word, and what was compared."""
    levels: dict[str, dict[str, Any]] = {}
    for verdict in sorted(verdicts, key=lambda v: v.check.level):
        if verdict.check.level not in LEVELS or verdict.check.subject == "open":  # it compared nothing
            continue
        counts = levels.setdefault(verdict.check.level, dict.fromkeys((EQUAL, DIFFERENT, INCONCLUSIVE, *COUNTED), 0))
        counts[verdict.word] += 1
        for key in COUNTED:
            value = verdict.evidence.get(key)
            counts[key] += value if isinstance(value, (int, float)) else 0
    for counts in levels.values():
        counts["seconds"] = round(float(counts["seconds"]), 3)
    return levels


def properties(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A test's document as flat strings, for JUnit: what is not text is JSON."""
    return [
        (f"envequiv.{key}", value if isinstance(value, str) else json.dumps(value))
        for key, value in document.items()
        if value not in (None, [], {})
    ]
