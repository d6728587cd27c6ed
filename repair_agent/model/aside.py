"""What ``evaluate.py`` answers in a process of its own: the only way in which this program looks at the target."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from repair_agent import apart, suite
from repair_agent.question import Question

SECONDS = 300.0


def ask(question: Question, root: Path, request: dict[str, Any], seconds: float = SECONDS) -> dict[str, Any]:
    """The answer of ``evaluate.py`` to a request about a pair; {"error", "traceback"} if there is none."""
    suite.build(question, root)
    asked = {**request, "settings": question.settings()}
    env = apart.clean(suite.environment(question, root))
    argv = [sys.executable, "-m", "repair_agent.model.evaluate"]
    code, out, said = apart.process(argv, root, env, json.dumps(asked), seconds)
    try:
        found = json.loads(out)
    except ValueError:
        last = (said.strip().splitlines() or ["it said nothing"])[-1][:300]
        why = f"no answer within {seconds:g} s" if code is None else f"the process ended with exit code {code}: {last}"
        return {"error": why, "traceback": []}
    return found if isinstance(found, dict) else {"error": f"an answer of another kind: {out[:200]}", "traceback": []}
