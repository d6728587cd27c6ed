"""What is happening now, for the person who waits: one line that is rewritten on a terminal, else what matters."""

from __future__ import annotations

import re
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
        self._phase = self._detail = ""
        self._said = time.monotonic()
        self._status: Status | None = console.status(self) if console.is_terminal else None

    def __enter__(self) -> Line:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def now(self, text: str) -> None:
        """A passing state of things. What the running suite is at is added to what was said before."""
        plain = " ".join(text.split())
        if re.fullmatch(r"\S+, \d+ %", plain):
            self._detail = plain
        else:
            self._phase, self._detail = plain, ""
        if self._status is None and time.monotonic() - self._said > OFTEN:
            self._print(f"  {self._doing()}  ({self._spent()})")

    def tell(self, text: str) -> None:
        """Something that stays."""
        if text != self._last:
            self._print(text)
            self._last = text
        self.now(text)

    def __rich__(self) -> Text:
        """Asked for at each turn of the spinner: the seconds go on while nothing else does."""
        shown = Text(self._spent(), style="bold", no_wrap=True, overflow="ellipsis", end="")
        return shown.append(f"  {self._doing()}", style="not bold")

    def _doing(self) -> str:
        return ": ".join(filter(None, (self._phase, self._detail)))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)
        self._said = time.monotonic()

    def _spent(self) -> str:
        spent, limit = self._budget.spent, self._budget.limits.dollars
        money = f"${spent.dollars:.2f}" + (f" of ${limit:g}" if limit is not None else "")
        calls = f"{spent.calls} call{'s' * (spent.calls != 1)}" if spent.calls else ""
        return ", ".join(filter(None, (self.stand, money, calls, f"{spent.seconds:.0f} s")))
