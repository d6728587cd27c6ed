"""The reports' hold on a running pytest: gathering what was found, telling it at the end, showing progress meanwhile.

The only module beside plugin.py that knows pytest.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_envequiv.report import document, terminal
from pytest_envequiv.verdict import Verdict, plain

COLOURS = {"EQUAL": "green", "DIFFERENT": "red", "INCONCLUSIVE": "yellow"}


# Whether there is a terminal to show progress on.
PROGRESS = pytest.StashKey[bool]()


class Findings:
    """Gathers what the reports carry, from this process or from xdist workers, and tells it at the end."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.pairs: dict[str, dict[str, Any]] = {}  # by node id
        self.verdicts: dict[str, dict[str, Verdict]] = {}  # by node id, then by the check's
        self.proposals: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if found := getattr(report, "envequiv", None):
            node = found["pair"]["node"]
            self.pairs[node] = found["pair"]
            self.verdicts.setdefault(node, {})[report.nodeid] = Verdict.from_json(found["test"])
        if report.when == "call" and report.passed:
            self.proposals += [str(value) for key, value in report.user_properties if key == "envequiv.proposal"]

    def gathered(self) -> Iterator[tuple[dict[str, Any], list[Verdict]]]:
        """In the order of the pair's checks, whichever worker was first."""
        for node, pair in sorted(self.pairs.items()):
            order = {check: i for i, check in enumerate(pair["checks"])}
            verdicts = self.verdicts[node].values()
            yield pair, sorted(verdicts, key=lambda v, order=order: (order.get(v.check.id, len(order)), v.check.id))

    @pytest.hookimpl(optionalhook=True)
    def pytest_json_modifyreport(self, json_report: dict[str, Any]) -> None:
        if self.pairs:
            json_report["envequiv"] = plain(document.run_document(self.gathered()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.ensure_newline()
        for path in self.proposals:
            terminalreporter.write_line(f"envequiv: the field map is in {path}; complete it and give it as a contract")
        for pair, verdicts in self.gathered():
            terminalreporter.section(terminal.title(pair))
            for line in terminal.summary(pair, verdicts, document.level_summary(verdicts)):
                colour = COLOURS.get(line.partition(" ")[0])
                terminalreporter.write_line(line, **({colour: True} if colour else {}))


class Ticker:
    """Shows progress behind the cursor, on a terminal only, and leaves no trace.

    The text never reaches the end of the line and the cursor always returns to where pytest left it, so whatever
    pytest writes next comes out as if nothing had been there.
    """

    def __init__(self, config: pytest.Config, name: str):
        shown = config.stash[PROGRESS] and config.pluginmanager.hasplugin("terminalreporter")
        self.name = name
        self.writer = config.get_terminal_writer() if shown else None
        self.told: dict[str, float] = {}  # when each thing was last shown
        self.capture = config.pluginmanager.getplugin("capturemanager")

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self.tell

    def __exit__(self, *_: object) -> None:
        self.show("")

    def tell(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.told.get(what, 0.0) > 0.1:  # two sides that step in turn are a thousand changes a second
            self.told[what] = now
            self.show(terminal.progress(self.name, what, done, total))

    def show(self, text: str) -> None:
        if self.writer is None:
            return
        text = terminal.fit(text, self.writer.fullwidth - self.writer.width_of_current_line - 2)
        text = f" {text}" if text else ""
        back = f"\x1b[{len(text)}D" if text else ""
        with self.capture.global_and_fixture_disabled() if self.capture else contextlib.nullcontext():
            sys.stdout.write(f"\x1b[K{text}{back}")  # not by the writer: it would count the text as written
            sys.stdout.flush()
