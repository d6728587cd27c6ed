"""Files written whole or not at all: who reads one, or is killed while it writes one, never meets half of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def writing(path: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which stands at ``path`` once the block has ended well, and is gone if it has not.

    Its folder is made if need be. ``private``: for its owner alone to read. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    mode = 0o600 if private else 0o666  # less what the user's mask takes away
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write(path: Path, text: str) -> None:
    """``text`` in UTF-8. Raises OSError."""
    with writing(path) as file:
        file.write(text.encode())
