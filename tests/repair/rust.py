"""Whether Rust targets can be built here: the tests that build one are left out where they cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from repair_agent import crates

EXAMPLE = Path(__file__).parents[2] / "examples" / "rust"


def _why_not() -> str:
    if lacking := crates.lacking():
        return lacking
    argv = [shutil.which("cargo") or "cargo", "fetch", "--locked", "--quiet"]
    fetched = subprocess.run(argv, cwd=EXAMPLE, capture_output=True, stdin=subprocess.DEVNULL)
    return "" if fetched.returncode == 0 else "cargo cannot fetch what the example depends on"


WHY_NOT = _why_not()
builds = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")
