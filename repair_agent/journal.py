"""The trajectory: everything that happened, one JSON object a line, on disk before the next thing happens.

A killed run loses nothing: the last line may be torn, and is then not read.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Journal:
    """Appends events to ``path``. Raises OSError if it cannot be written: a run without its record is not begun."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def write(self, kind: str, **values: Any) -> None:
        """One event. ``values`` are JSON-safe."""
        self._file.write(json.dumps({"kind": kind, "time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a trajectory; a torn line is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
