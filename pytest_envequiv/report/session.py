"""What lives as long as a run: the verdicts as they come in, and the progress display meanwhile. Knows no pytest."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from pytest_envequiv.report import certificate, document, terminal
from pytest_envequiv.verdict import EQUAL, Settings, Verdict, plain

BOUND = ("ref", "target", "contract", "error")  # what every process must have found the same
COLOURS = {"EQUAL": "green", "DIFFERENT": "red", "INCONCLUSIVE": "yellow"}


class Findings:
    """Gathers what was found, in this process or in xdist's workers, in whichever order it comes."""

    def __init__(self) -> None:
        self.pairs: dict[str, dict[str, Any]] = {}  # by node id
        self.verdicts: dict[str, dict[str, Verdict]] = {}  # by node id, then by the check's
        self.doubted: dict[str, set[str]] = {}  # by node id: checks that ever were anything but EQUAL
        self.certificates: dict[str, str] = {}  # by node id: the line about its certificate

    def add(self, node_id: str, pair: dict[str, Any], test: dict[str, Any]) -> None:
        known = self.pairs.get(pair["node"], pair)
        if any(known["contents"].get(key) != pair["contents"].get(key) for key in BOUND):  # opened by another process
            pair = {**pair, "contents": {"error": "files of the pair changed while it was judged"}}
        self.pairs[pair["node"]] = pair
        verdict = self.verdicts.setdefault(pair["node"], {})[node_id] = Verdict.from_json(test)
        if verdict.word != EQUAL:
            self.doubted.setdefault(pair["node"], set()).add(verdict.check.id)

    def gathered(self) -> Iterator[tuple[dict[str, Any], list[Verdict]]]:
        """Each pair with its verdicts, in the order of the pair's checks."""
        for node, pair in sorted(self.pairs.items()):
            verdicts = self.verdicts[node].values()
            ranks = {check: i for i, check in enumerate(pair["checks"])}
            ranked = [(ranks.get(v.check.id, len(ranks)), v.check.id, v) for v in verdicts]
            yield pair, [v for _, _, v in sorted(ranked, key=itemgetter(0, 1))]

    def certify(self, now: Callable[[Settings], dict[str, Any]], home: Path, named: str | None) -> None:
        """Write the certificates of a run that is over. ``now``: hashes both sides again; ``home``: the folder that
        paths are meant from; ``named``: where the certificate of the command line's pair goes, if that was said."""
        for pair, verdicts in self.gathered():
            if not pair["contents"]:  # a replay
                continue
            node, settings = pair["node"], Settings.from_json(pair["settings"])
            default = certificate.place(settings.output, settings.ref, settings.target)
            path = Path(named) if named and node == "envequiv" else default
            doubted = self.doubted.get(node, set())
            told = certificate.conclude(pair, verdicts, doubted, partial(now, settings), path, home)
            self.certificates[node] = told

    def document(self) -> dict[str, Any] | None:
        """For the top level of the JSON report."""
        return plain(document.run_document(self.gathered())) if self.pairs else None

    def sections(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """For the terminal: a title for each pair, and lines with their colour."""
        for pair, verdicts in self.gathered():
            lines = terminal.summary(pair, verdicts, document.level_summary(verdicts))
            lines[-1:-1] = [line] if (line := self.certificates.get(pair["node"])) else []
            yield terminal.title(pair), [(line, COLOURS.get(line.partition(" ")[0], "")) for line in lines]


class Ticker:
    """Shows progress behind the cursor and leaves no trace.

    The text never reaches the end of the line and the cursor always returns to where pytest left it, so whatever
    pytest writes next comes out as if nothing had been there. ``writer`` is pytest's terminal writer, None where
    there is no terminal to show it on; ``capture`` is what holds stdout while a test runs.
    """

    def __init__(self, name: str, writer: Any, capture: Any):
        self.name = name
        self.writer = writer
        self.capture = capture
        self.told: dict[str, float] = {}  # when each thing was last shown

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
