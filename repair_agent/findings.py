"""What a run of the suite found, as pytest's JSON report tells it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repair_agent.question import NODE, Question, command

Word = Literal["EQUAL", "DIFFERENT", "INCONCLUSIVE", "MISSING"]  # MISSING: expected, and not in the report

OPEN = "L1-open-pair"  # the one check of a pair that does not open
RUNS = "L1-runs-step"  # that of one whose first calls fail, beside what was declared
SHUT = (OPEN, RUNS)  # they are there only as long as nothing else can be asked: mended, they are gone


@dataclass(frozen=True)
class Finding:
    """One check of a run."""

    node: str  # pytest's node id
    check: str  # its last part: "L2-boundary-velocity"
    level: str
    subject: str
    field: str
    word: Word
    summary: str
    follows: str | None = None  # the check whose divergence explains this one
    divergence: dict[str, Any] | None = None
    blame: tuple[dict[str, Any], ...] = ()  # {"file", "line", "code", "score", "why"}, best first
    counterexample: str | None = None  # absolute path
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of the suite. ``expected``: ids of all checks of the pair; ``order``: outputs in data-flow order.

    ``findings`` has every check that was asked for: those that are not in the report are there as MISSING.
    """

    findings: dict[str, Finding]  # by check id
    expected: tuple[str, ...]
    order: tuple[str, ...] = ()
    describe: dict[str, Any] = dataclasses.field(default_factory=dict)
    contents: dict[str, Any] = dataclasses.field(default_factory=dict)
    exit: int = 0
    seconds: float = 0.0
    trouble: str = ""  # why there is no report, or only half of one
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the run was asked to do, as it told

    @property
    def shut(self) -> tuple[str, ...]:
        """The checks that keep all others from being asked."""
        return tuple(check for check in SHUT if check in self.findings)

    @property
    def green(self) -> bool:
        """Every check that was expected is there and EQUAL, and pytest ended as it does then."""
        return (
            not self.trouble
            and self.exit == 0
            and bool(self.expected)
            and all(c in self.findings and self.findings[c].word == "EQUAL" for c in self.expected)
        )


def read(path: Path, question: Question, folder: Path) -> Run:
    """The run that a JSON report tells of. ``folder``: where pytest was called; its paths are meant from there.

    Raises ValueError: what is wrong with the file, and how to mend it.
    """
    again = f"write it with: {command(question)}"
    try:
        document = _parsed(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; {again}") from error
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON report, or was cut off ({error}); {again}") from error
    try:
        run = _of_report(document, question, folder.resolve())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {again}") from error
    return run


def reported(report: Path, question: Question, root: Path, wanted: tuple[str, ...]) -> Run:
    """What the report of a run tells; a run without findings if it tells nothing of the pair."""
    try:
        document = _parsed(report)
        return _of_report(document, question, root, wanted)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return Run({}, ())
    except ValueError as error:
        compared = isinstance(document, dict) and "envequiv" in document
        return Run({}, (), trouble=str(error) if compared else _collection(document))


def _parsed(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _of_report(document: Any, question: Question, folder: Path, wanted: tuple[str, ...] = ()) -> Run:
    """Raises ValueError if the document tells nothing of the pair."""
    pair = _pair(document, question)
    prefix = str(pair["node"])
    try:
        findings = {}
        for test in document["tests"]:
            told = (test.get("metadata") or {}).get("envequiv")
            if told and told["pair"]["node"] == prefix and told["check"]["level"] != "L4":
                finding = _finding(test["nodeid"], told, folder)
                findings[finding.check] = finding
        expected = tuple(str(check) for check in pair["checks"] if not check.startswith("L4-"))
        flow = pair["describe"].get("dataflow") or {}
        order, describe, contents = tuple(flow.get("order", ())), dict(pair["describe"]), dict(pair["contents"])
        exit_code = int(document.get("exitcode", 0))
        settings = dict(pair.get("settings") or {})
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is not as docs/report.schema.json says it is ({type(error).__name__}: {error})") from error
    for check in expected:
        if check not in findings and (not wanted or check in wanted or check[:2] in wanted):
            findings[check] = _missing(prefix, check)
    trouble = _collection(document)
    ordered = {check: findings.pop(check) for check in expected if check in findings} | findings
    return Run(
        ordered, expected, order, describe, contents, exit_code, float(document.get("duration") or 0), trouble, settings
    )


def _pair(document: Any, question: Question) -> dict[str, Any]:
    if not isinstance(document, dict) or "tests" not in document:
        raise ValueError("is JSON, but not of pytest --json-report")
    if not isinstance(document.get("envequiv"), dict):
        raise ValueError(_collection(document) or "no pair of environments was compared in it")
    try:
        pairs = [dict(pair) for pair in document["envequiv"]["pairs"]]
        same = [pair for pair in pairs if (pair["ref"], pair["target"]) == (question.ref, question.target)]
        known = ", ".join(f"ref={pair['ref']} target={pair['target']}" for pair in pairs)
        # The same pair may also stand in a marked test: the one of the command line is what was asked for.
        ours = sorted(same, key=lambda pair: pair["node"] != NODE)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is not as docs/report.schema.json says it is ({type(error).__name__}: {error})") from error
    if not ours:
        raise ValueError(f"is about {known or 'no pair'}, not about ref={question.ref} target={question.target}")
    return ours[0]


def _finding(node: str, told: dict[str, Any], folder: Path) -> Finding:
    check, evidence = told["check"], dict(told["evidence"])
    path = told["counterexample"]
    return Finding(
        node=node,
        check=str(check["id"]),
        level=str(check["level"]),
        subject=str(check["subject"]),
        field=str(check["field"]),
        word=told["word"],
        summary=str(told["summary"]),
        follows=told["follows"],
        divergence=told["divergence"],
        blame=tuple(evidence.get("blame", ())),
        counterexample=None if path is None else str((folder / path).resolve()),
        evidence=evidence,
    )


def _missing(prefix: str, check: str) -> Finding:
    level, subject, name = [*check.split("-", 2), "", ""][:3]
    return Finding(f"{prefix}::{check}", check, level, subject, name, "MISSING", "it was expected, and did not run")


def _collection(document: Any) -> str:
    """Why pytest could not collect something, or ""."""
    for collector in (isinstance(document, dict) and document.get("collectors")) or ():
        if isinstance(collector, dict) and collector.get("outcome") == "failed":
            lines = str(collector.get("longrepr") or "").strip().splitlines()
            return f"pytest could not collect {collector.get('nodeid')}: {lines[-1][:500] if lines else 'no reason'}"
    return ""
