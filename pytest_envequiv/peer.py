"""A child process we talk to in length-prefixed msgpack frames, and what to say when it dies.

A frame is four bytes, the length of the body as a big-endian unsigned integer, then the body: one msgpack map.
Used towards the worker (which runs the judge apart from pytest) and towards ``process:`` backends in any language.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import struct
import subprocess
import tempfile
import threading
from typing import IO, Any

import msgpack

# Bytes in one frame; more is garbage read as a length. Any printed text is: its first byte is 9 (tab) or above.
LARGEST = 1 << 27

# How runtimes begin the line that names what went wrong; some print more lines behind it (node: its version).
CAUSE = re.compile(r"(Uncaught )?[\w.:]*(Error|Exception)\b|thread .* panicked at|terminate called")


class PeerError(Exception):
    """The peer died, fell silent or wrote something that is not a frame. One line, with its last words."""


class PeerDied(PeerError):
    """It exited, or was killed, before it answered."""


class PeerSilent(PeerError):
    """It did not answer within the deadline."""


class PeerGarbled(PeerError):
    """What it wrote is not a frame."""


def write_frame(stream: IO[bytes], message: Any) -> None:
    body = msgpack.packb(message, use_bin_type=True)
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """The next message, or EOFError at a clean end. Raises PeerGarbled for what is not a frame."""
    head = stream.read(4)
    if not head:
        raise EOFError
    length = struct.unpack(">I", head)[0] if len(head) == 4 else LARGEST + 1
    if length > LARGEST:
        raise PeerGarbled(f"expected the length of a frame, got {head!r} (does it print to stdout?)")
    body = stream.read(length)
    if len(body) < length:
        raise PeerGarbled(f"a frame of {length} bytes ended after {len(body)}")
    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=False)
    except Exception as error:
        raise PeerGarbled(f"a frame of {length} bytes is not msgpack: {error}") from error


class Peer:
    """Starts ``argv`` and exchanges frames over its stdin and stdout; keeps the tail of its stderr."""

    def __init__(
        self, argv: list[str], *, cwd: str | None = None, env: dict[str, str] | None = None, own_session: bool = False
    ):
        self.argv = argv
        self._stderr = tempfile.TemporaryFile()
        try:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                cwd=cwd,
                env=env,
                start_new_session=own_session,  # so that what signals its own group does not signal ours
            )
        except OSError as error:
            self._stderr.close()
            raise PeerDied(f"cannot start {argv[0]!r}: {error.strerror}") from error
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            while True:
                try:
                    self._inbox.put(read_frame(stream))
                except Exception as error:  # handed to whoever receives next
                    self._inbox.put(error)
                    return

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Write one message. A peer that does not read it within ``timeout`` seconds is killed (PeerSilent)."""
        assert self._child.stdin is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._child.kill()  # the only way to end a write to a full pipe

        watchdog = None if timeout is None else threading.Timer(timeout, give_up)
        if watchdog is not None:
            watchdog.daemon = True
            watchdog.start()
        try:
            write_frame(self._child.stdin, message)
        except (OSError, ValueError) as error:
            if late.is_set():
                raise PeerSilent(f"did not read its input within {timeout:g} s{self._last_words()}") from error
            raise PeerDied(self._obituary()) from error
        finally:
            if watchdog is not None:
                watchdog.cancel()

    def receive(self, timeout: float) -> Any:
        """The next message. Raises PeerDied, PeerSilent (after ``timeout`` seconds) or PeerGarbled."""
        try:
            message = self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise PeerSilent(f"no answer within {timeout:g} s{self._last_words()}") from None
        if isinstance(message, EOFError):
            raise PeerDied(self._obituary()) from None
        if isinstance(message, PeerGarbled):
            raise PeerGarbled(f"{message}{self._last_words()}") from None
        if isinstance(message, Exception):
            raise PeerDied(f"{self._obituary()} ({message})") from message
        return message

    def _obituary(self) -> str:
        try:
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return f"closed its pipe without exiting{self._last_words()}"
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        return f"{how}{self._last_words()}"

    def _last_words(self) -> str:
        """The last line of stderr that names an error, else its last line, to put behind a message."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4000))
        lines = [line.strip() for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        causes = [line for line in lines if CAUSE.match(line)]
        return f"; its last words: {(causes or lines)[-1][:300]}" if lines else ""

    def close(self, patience: float = 1.0) -> None:
        """End it: stdin closed first, killed if it does not leave within seconds. Safe to call twice."""
        if self._child.poll() is None:
            try:
                assert self._child.stdin is not None
                self._child.stdin.close()
                self._child.wait(patience)
            except (OSError, subprocess.TimeoutExpired):
                self._child.kill()
                self._child.wait()
        self._let_go()

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        self._let_go()

    def _let_go(self) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # what it had not read is lost
            self._child.stdin.close()
        self._stderr.close()
