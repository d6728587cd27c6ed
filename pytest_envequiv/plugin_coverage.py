"""pytest's side of --envequiv-coverage: one environment by itself, one item, and a table in the summary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from pytest_envequiv.report import coverage
from pytest_envequiv.verdict import Settings
from pytest_envequiv.worker import Failure, Worker

OPTION = "--envequiv-coverage"
NODE = "envequiv-coverage"  # the collector, and what the node id begins with
KEY = "envequiv_coverage"  # in the JSON report


def add_option(group: pytest.OptionGroup) -> None:
    group.addoption(
        OPTION, nargs="+", metavar="target=NAME", help="branch coverage of one JAX environment: target=NAME [floor=0.9]"
    )


def parse(words: list[str]) -> tuple[str, float]:
    """(target, floor) from "target=NAME floor=0.9", or ValueError: what was wrong and how to mend it."""
    found = {key: value for key, _, value in (word.partition("=") for word in words)}
    if len(found) != len(words) or not found.get("target") or set(found) - {"target", "floor"}:
        raise ValueError(f"expected target=NAME [floor=SHARE], got {' '.join(words)!r} (write paths before it)")
    try:
        floor = float(found.get("floor", 0))
    except ValueError:
        floor = -1.0
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={found['floor']}: give a share from 0 to 1, like 0.9")
    return found["target"], floor


def configure(config: pytest.Config, settings: Settings, worker: Worker, ticker: Callable[..., Any]) -> None:
    """Register what answers the option, if it was given. Raises UsageError, in one line."""
    words = config.getoption(KEY)
    if words is None:
        return
    try:
        target, floor = parse(words)
    except ValueError as error:
        raise pytest.UsageError(f"{OPTION}: {error}") from None
    for other in ("envequiv", "envequiv_replay", "envequiv_propose"):
        if config.getoption(other):
            raise pytest.UsageError(f"{OPTION}: cannot go with --{other.replace('_', '-')}: give one of them")
    asked = dataclasses.replace(settings, ref="", target=target)
    config.pluginmanager.register(Coverage(asked, floor, worker, ticker), NODE)


class CoverageItem(pytest.Item):
    """Plays and searches one environment; fails below the floor."""

    def __init__(self, *, settings: Settings, floor: float, ask: Callable[[], dict[str, Any]], **kw: Any):
        super().__init__(**kw)
        self.settings, self.floor, self.ask = settings, floor, ask
        self.found: dict[str, Any] | None = None

    def runtest(self) -> None:
        wrong = None
        try:
            told = self.ask()
            self.found = {**told, "floor": self.floor, "profile": self.settings.profile, "seed": self.settings.seed}
            self.user_properties[:] = [
                (f"{KEY}.{key}", value if isinstance(value, str) else json.dumps(value))
                for key, value in self.found.items()
            ]
            if coverage.share(self.found) < self.floor:
                wrong = "\n".join(coverage.failure(self.found, self.floor))
        except Failure as failure:
            wrong = f"{OPTION}: {failure}"
        if wrong:
            pytest.fail(wrong, pytrace=False)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, f"{NODE} {self.name}"


class CoverageCollector(pytest.Collector):
    """Holds the one item."""

    def __init__(self, *, make: Callable[[pytest.Collector], pytest.Item], **kw: Any):
        super().__init__(**kw)
        self.make = make

    def collect(self) -> Iterator[pytest.Item]:
        yield self.make(self)


class Coverage:
    """The hooks, there only if the option was given."""

    def __init__(self, settings: Settings, floor: float, worker: Worker, ticker: Callable[..., Any]):
        self.settings, self.floor, self.worker, self.ticker = settings, floor, worker, ticker
        self.documents: list[dict[str, Any]] = []

    def make(self, parent: pytest.Collector) -> pytest.Item:
        name = self.settings.target

        def ask() -> dict[str, Any]:
            request = {"do": "cover", "settings": self.settings.as_json()}
            with self.ticker(parent.config, name) as tell:
                told: dict[str, Any] = json.loads(self.worker.ask(request, self.settings.timeout, tell))
            return told

        return CoverageItem.from_parent(parent, name=name, settings=self.settings, floor=self.floor, ask=ask)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            place: dict[str, Any] = {"name": NODE, "nodeid": NODE, "path": collector.config.rootpath}
            report.result = [*report.result, CoverageCollector.from_parent(collector, make=self.make, **place)]
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """What was found travels on the report: it is all that comes back from an xdist worker."""
        report = yield
        if isinstance(item, CoverageItem) and call.when == "call" and item.found:
            report.envequiv_coverage = item.found
        return report

    def pytest_report_header(self) -> str:
        return f"envequiv: branch coverage of {self.settings.target}, profile {self.settings.profile}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if found := getattr(report, KEY, None):
            self.documents.append(found)

    @pytest.hookimpl(optionalhook=True)
    def pytest_json_modifyreport(self, json_report: dict[str, Any]) -> None:
        if self.documents:
            json_report[KEY] = self.documents

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for found in self.documents:
            terminalreporter.section(f"envequiv coverage: {found['target']}")
            for line in coverage.lines(found):
                terminalreporter.write_line(line)
