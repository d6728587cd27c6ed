"""What is happening now, for the person who waits: one line that is rewritten on a terminal, else what matters."""

from __future__ import annotations

import time

from rich.console import Console
from rich.status import Status
from rich.text import Text

from repair_agent.budget import Budget

OFTEN = 60.0  # seconds between two signs of life where there is no terminal


class Line:
    """``stand``: what is green, in a few words; it may be set at any time."""

    def __init__(self, console: Console, budget: Budget):
        self.stand = ""
        self._console, self._budget, self._last = console, budget, ""
        self._said = time.monotonic()
        self._status: Status | None = console.status("") if console.is_terminal else None

    def __enter__(self) -> Line:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def now(self, text: str) -> None:
        """A passing state of things."""
        if self._status:
            shown = Text(f"{self._spent()}  ", style="dim", no_wrap=True, overflow="ellipsis")
            self._status.update(shown.append(" ".join(text.split()), style="not dim"))
        elif time.monotonic() - self._said > OFTEN:
            self._print(f"  {text}  ({self._spent()})")

    def tell(self, text: str) -> None:
        """Something that stays."""
        if text != self._last:
            self._print(text)
            self._last = text
        self.now(text)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)
        self._said = time.monotonic()

    def _spent(self) -> str:
        spent = self._budget.spent
        limit = self._budget.limits.dollars
        money = f"${spent.dollars:.2f}" + (f" of ${limit:g}" if limit is not None else "")
        return ", ".join(filter(None, (self.stand, money, f"{spent.calls} calls", f"{spent.seconds:.0f} s")))
