"""pytest's side: collection, outcomes, and handing over to the reports. With plugin_*.py all that knows pytest.

It opens no environment: checks are asked for through a worker process (worker.py), one per pytest process.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_envequiv import plugin_coverage, plugin_options
from pytest_envequiv.peer import PeerError
from pytest_envequiv.plugin_options import ROOT, check_writable, nearest, read_settings, take_ids
from pytest_envequiv.report import document, terminal
from pytest_envequiv.report.session import Findings, Ticker
from pytest_envequiv.verdict import (
    EQUAL,
    INCONCLUSIVE,
    LEVELS,
    Check,
    Settings,
    Verdict,
)
from pytest_envequiv.worker import OPEN, Failure, Pair, Replay, Worker, contents_now

MARKERS = (
    "envequiv(ref, target, levels, profile, seed, ...): this test holds the checks of a pair of environments",
    *(f"{level}: envequiv checks of level {level[1]}" for level in LEVELS),
    "cheap: envequiv checks that take seconds",
    "costly: envequiv checks that take longer",
)

SETTINGS = pytest.StashKey[Settings]()
CHOSEN = pytest.StashKey[list[str]]()
WORKER = pytest.StashKey[Worker]()
PROGRESS = pytest.StashKey[bool]()  # whether there is a terminal to show it on


# --- options ---------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    plugin_options.add(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    option = config.option
    settings = read_settings(config, {}, config.rootpath)
    chosen = take_ids(config)
    home = config.invocation_params.dir
    if chosen and not settings.ref:
        raise pytest.UsageError(f"{ROOT}::{chosen[0]}: name its pair too: --envequiv ref=NAME target=NAME")
    if option.envequiv_export and not option.envequiv_replay:
        raise pytest.UsageError("--envequiv-export: needs a counterexample: add --envequiv-replay FILE")
    for name in ("propose", "certificate"):
        if config.getoption(f"envequiv_{name}") and not settings.ref:
            raise pytest.UsageError(f"--envequiv-{name}: needs a pair: add --envequiv ref=NAME target=NAME")
    if option.envequiv_propose and option.envequiv_replay:
        raise pytest.UsageError("--envequiv-propose: cannot go with --envequiv-replay: give one of them")
    if option.envequiv_replay and not (home / option.envequiv_replay).is_file():
        raise pytest.UsageError(f"--envequiv-replay: no file {option.envequiv_replay!r} in {home}")
    for name in ("export", "propose", "certificate"):
        path = config.getoption(f"envequiv_{name}")
        if path and (wrong := check_writable((home / path).parent)):
            raise pytest.UsageError(f"--envequiv-{name}: {wrong}: choose another folder")
    if (settings.ref or option.envequiv_replay) and (wrong := check_writable(home / settings.output)):
        raise pytest.UsageError(f"--envequiv-output: {wrong}: choose another folder")
    if settings.answers and (wrong := check_writable(home / settings.answers)):
        raise pytest.UsageError(f"--envequiv-answers: {wrong}: choose another folder")

    # Asked for on the command line, and no paths were: collect nothing else.
    asked = option.envequiv or option.envequiv_replay or option.envequiv_propose or option.envequiv_coverage
    if asked and config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args = []
    config.stash[SETTINGS] = settings
    config.stash[CHOSEN] = chosen
    config.stash[WORKER] = worker = Worker(str(home))
    config.stash[PROGRESS] = sys.stdout.isatty() and sys.stderr.isatty() and not hasattr(config, "workerinput")
    config.add_cleanup(worker.close)
    config.pluginmanager.register(Reporting(), "envequiv-reporting")
    plugin_coverage.configure(config, settings, worker, ticker)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The judge is loaded while pytest gets ready, where this process is the one that will ask it."""
    config = session.config
    spread = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")  # over pytest-xdist's
    if (config.stash[SETTINGS].ref or config.option.envequiv_replay) and not spread:
        with suppress(PeerError, OSError):  # it is told of where something is asked
            config.stash[WORKER].begin()


# --- collection ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """The pair of the command line hangs under the session itself: it needs no file and no folder."""
    report = yield
    if isinstance(collector, pytest.Session) and report.passed:
        report.result = [*report.result, *root_collectors(collector)]
    return report


def root_collectors(session: pytest.Session) -> Iterator[pytest.Collector]:
    config = session.config
    option, settings, worker = config.option, config.stash[SETTINGS], config.stash[WORKER]
    place: dict[str, Any] = {"name": ROOT, "parent": session, "path": config.rootpath, "nodeid": ROOT}
    if option.envequiv_replay:
        replay = Replay(option.envequiv_replay, settings, worker, option.envequiv_export)
        yield PairCollector.from_parent(pair=replay, **place)
    elif option.envequiv_propose:
        yield ProposalCollector.from_parent(pair=Pair(settings, worker), **place)
    elif settings.ref and not option.envequiv_coverage:
        yield PairCollector.from_parent(pair=Pair(settings, worker), chosen=config.stash[CHOSEN], **place)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> pytest.Collector | None:
    """A test function with the marker holds a pair's checks in place of itself."""
    if not inspect.isfunction(obj) or not collector.istestfunction(obj, name):
        return None
    marks = list(getattr(obj, "pytestmark", []))
    ours = [mark for mark in marks if mark.name == "envequiv"]
    return MarkedCollector.from_parent(collector, name=name, function=obj, marks=marks, mark=ours[0]) if ours else None


class PairCollector(pytest.Collector):
    """The checks of one pair; all of them, or those that were chosen by id."""

    def __init__(self, *, pair: Pair | Replay, chosen: list[str] | None = None, **kw: Any):
        super().__init__(**kw)
        self.pair = pair
        self.chosen = chosen or []
        self.body: Callable[[Verdict], object] | None = None

    def collect(self) -> Iterator[pytest.Item]:
        with ticker(self.config, "envequiv") as tell:
            self.pair.open(tell)
        known = tuple(check.id for check in self.pair.checks)
        for name in self.chosen if known != (OPEN.id,) else ():
            if name not in known:
                close = difflib.get_close_matches(name, known, 1, 0.5)
                mend = f"did you mean {self.nodeid}::{close[0]}?" if close else "--collect-only lists them"
                raise self.CollectError(f"{self.nodeid}::{name}: no check of that name; {mend}")
        for check in self.pair.checks:
            if not self.chosen or check.id in self.chosen or check is OPEN:
                yield CheckItem.from_parent(self, name=check.id, check=check)

    def document(self) -> dict[str, Any]:
        pair = self.pair
        decided = self.body is not None
        about = (pair.settings, pair.checks, pair.notes, pair.describe, decided, pair.contents)
        return document.pair_document(self.nodeid, *about)


class MarkedCollector(PairCollector):
    """A test function marked with a pair."""

    def __init__(self, *, function: Callable[..., object], marks: list[Any], mark: Any, **kw: Any):
        super().__init__(pair=None, **kw)  # type: ignore[arg-type]  # it is read when collected, where it may fail
        self.function = function
        self.mark = mark
        self.own_markers.extend(marks)

    def collect(self) -> Iterator[pytest.Item]:
        settings = self.settings()
        if wrong := check_writable(self.config.invocation_params.dir / settings.output):
            raise self.CollectError(f"the envequiv marker's output: {wrong}: choose another folder")
        self.pair = Pair(settings, self.config.stash[WORKER])
        takes = set(inspect.signature(self.function).parameters) - {"self"}
        if takes - {"verdict"}:
            raise self.CollectError(f"{self.name} is marked envequiv: it may take 'verdict' and nothing else")
        if takes:
            holder = self.parent
            self.body = getattr(holder.obj(), self.name) if isinstance(holder, pytest.Class) else self.function
        yield from super().collect()

    def settings(self) -> Settings:
        known = tuple(field.name for field in dataclasses.fields(Settings))
        for name in self.mark.kwargs:
            if name not in known:
                raise self.CollectError(f"the envequiv marker knows no {name!r}: {nearest(name, known)}")
        if self.mark.args or not {"ref", "target"} <= set(self.mark.kwargs):
            raise self.CollectError("the envequiv marker needs ref=... and target=..., by name")
        told = {key: name_of(value) if key in ("ref", "target") else value for key, value in self.mark.kwargs.items()}
        try:
            return read_settings(self.config, told, self.path.parent)
        except pytest.UsageError as error:
            raise self.CollectError(str(error)) from None


def name_of(value: Any) -> str:
    """A name that opens the same thing in another process: modules and what stands at their top have one."""
    if isinstance(value, str):
        return value
    if isinstance(value, types.ModuleType):
        return value.__name__
    name = getattr(value, "__qualname__", "<nameless>")
    if "<" in name:  # a lambda, or made inside a function
        raise pytest.Collector.CollectError(f"the envequiv marker cannot name {value!r}: give a name or a module")
    return f"{value.__module__}:{name}"


class CheckItem(pytest.Item):
    """One check. A plain item: with an ``obj`` other plugins would take it for a test function."""

    parent: PairCollector

    def __init__(self, *, check: Check, **kw: Any):
        super().__init__(**kw)
        self.check = check
        self.found: dict[str, Any] | None = None  # what the report carries
        for mark in (check.level, check.cost):
            if mark in (*LEVELS, "cheap", "costly"):
                self.add_marker(mark)

    def runtest(self) -> None:
        collector = self.parent
        self.found = None
        with ticker(self.config, self.name) as tell:
            verdict = collector.pair.run(self.check, tell)
        pair = collector.document()
        told = document.test_document(pair, verdict)
        self.found = {"pair": pair, "test": told}
        self.user_properties[:] = document.properties(told)
        if collector.body is not None:
            collector.body(verdict)
        elif verdict.word != EQUAL:
            pytest.fail("\n".join(terminal.failure(verdict, pair)), pytrace=False)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Of a body that failed, its own lines only."""
        excinfo.traceback = excinfo.traceback.cut(path=self.path)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.parent.name} {self.name}"


class ProposalCollector(PairCollector):
    """Holds the one item that writes the field map."""

    def collect(self) -> Iterator[pytest.Item]:
        path = self.config.option.envequiv_propose
        yield ProposalItem.from_parent(self, name=f"propose-{Path(path).stem}", destination=path)


class ProposalItem(pytest.Item):
    parent: PairCollector

    def __init__(self, *, destination: str, **kw: Any):
        super().__init__(**kw)
        self.destination = destination

    def runtest(self) -> None:
        wrong = None
        try:
            with ticker(self.config, self.name) as tell:
                proposal = self.parent.pair.propose(tell)  # type: ignore[union-attr]
            (self.config.invocation_params.dir / self.destination).write_text(proposal, encoding="utf-8")
        except (Failure, OSError) as error:
            wrong = str(error)
        if wrong:
            pytest.fail(wrong, pytrace=False)
        self.user_properties.append(("envequiv.proposal", self.destination))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.parent.name} {self.name}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """A pair that did not open must not be lost to -k or -m: it would look as if nothing had been asked."""
    unopened = [item for item in items if isinstance(item, CheckItem) and item.check is OPEN]
    result = yield
    items.extend(item for item in unopened if item not in items)
    return result


# --- outcomes and reports --------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """What was found travels on the report: it is all that comes back from an xdist worker."""
    report = yield
    if isinstance(item, CheckItem) and call.when == "call" and item.found:
        report.envequiv = item.found
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: Any) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """INCONCLUSIVE fails the run, but is shown and counted as its own word."""
    found = getattr(report, "envequiv", None)
    if not found or found["pair"]["decided"] or report.outcome != "failed" or found["test"]["check"]["id"] == OPEN.id:
        return None
    if found["test"]["word"] != INCONCLUSIVE:
        return None
    return "inconclusive", "?", (INCONCLUSIVE, {"yellow": True})


@pytest.hookimpl(optionalhook=True)
def pytest_json_runtest_metadata(item: pytest.Item, call: pytest.CallInfo[None]) -> dict[str, Any]:
    found = item.found if isinstance(item, CheckItem) and call.when == "call" else None
    return {"envequiv": found["test"]} if found else {}


def pytest_report_header(config: pytest.Config) -> list[str]:
    settings, replay = config.stash[SETTINGS], config.option.envequiv_replay
    lines = [f"envequiv: replay {replay}"] if replay else []
    return lines + ([f"envequiv: {terminal.header(settings)}"] if settings.ref else [])


class Reporting:
    """Hands what the reports carry to the summary, and the summary to pytest."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.proposals: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if found := getattr(report, "envequiv", None):
            self.findings.add(report.nodeid, **found)
        if report.when == "call" and report.passed:
            self.proposals += [str(value) for key, value in report.user_properties if key == "envequiv.proposal"]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Of the run as a whole: with xdist the workers know their part only."""
        config = session.config
        if not hasattr(config, "workerinput"):
            now = functools.partial(contents_now, config.stash[WORKER])
            self.findings.certify(now, config.invocation_params.dir, config.option.envequiv_certificate)

    @pytest.hookimpl(optionalhook=True)
    def pytest_json_modifyreport(self, json_report: dict[str, Any]) -> None:
        if told := self.findings.document():
            json_report["envequiv"] = told

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.ensure_newline()
        for path in self.proposals:
            terminalreporter.write_line(f"envequiv: the field map is in {path}; complete it and give it as a contract")
        for title, lines in self.findings.sections():
            terminalreporter.section(title)
            for line, colour in lines:
                terminalreporter.write_line(line, **({colour: True} if colour else {}))


def ticker(config: pytest.Config, name: str) -> Ticker:
    shown = config.stash[PROGRESS] and config.pluginmanager.hasplugin("terminalreporter")
    writer = config.get_terminal_writer() if shown else None
    return Ticker(name, writer, config.pluginmanager.getplugin("capturemanager"))
