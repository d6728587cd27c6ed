"""Processes that look at the target: in a session of their own that is killed, without the keys of this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

SECRETS = ("API_KEY", "AUTH_TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "ANTHROPIC_")


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """Without what a target has no business with."""
    return {k: v for k, v in env.items() if not any(secret in k.upper() for secret in SECRETS)}


def process(
    argv: list[str], folder: Path, env: Mapping[str, str], given: str, seconds: float
) -> tuple[int | None, str, str]:
    """(exit code or None if it took too long, stdout, stderr). Its whole session is gone afterwards."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            argv, cwd=folder, env=dict(env), stdin=subprocess.PIPE, stdout=out, stderr=said, start_new_session=True
        )
        late = False
        try:
            with contextlib.suppress(BrokenPipeError):
                process.communicate(given.encode(), seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (out, said):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return (None if late else process.returncode), texts[0], texts[1]
