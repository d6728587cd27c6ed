"""Branch coverage of one environment as lines of text. Pure functions over the document of ``cover.cover``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_envequiv.whitebox import TIE

CODE = 70  # characters of code in a row


def share(document: Mapping[str, Any]) -> float:
    return float(document["covered"] / document["sides"]) if document["sides"] else 1.0


def lines(document: Mapping[str, Any]) -> list[str]:
    """One row a branch, then what it comes to."""
    cells = [("line", "what", "status", "how often", "code")]
    for branch in document["branches"]:
        often = ", ".join(f"{side} {times:,}" for side, times in branch["sides"].items() if side != TIE or times)
        code = branch["code"] if len(branch["code"]) <= CODE else f"{branch['code'][: CODE - 4]} ..."
        cells.append((f"{branch['file']}:{branch['line']}", branch["primitive"], branch["status"], often, code))
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    rows = ["  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]).rstrip() for row in cells]
    looked = ", ".join(f"{count:,} of {source}" for source, count in document["rows"].items())
    return [*rows, *(f"note: {note}" for note in document["notes"]), f"{summary(document)}; rows: {looked}"]


def summary(document: Mapping[str, Any]) -> str:
    told = f"{document['covered']} of {document['sides']} branch sides exercised ({share(document):.0%}"
    return f"{told}; play alone: {document['played']})"


def failure(document: Mapping[str, Any], floor: float) -> list[str]:
    """Why a coverage below the floor fails: what was never seen."""
    missed = [f"  never {m['side']}: {m['file']}:{m['line']} {m['code']}" for m in document["missed"]]
    return [f"{summary(document)}, the floor is {floor:.0%}", *missed]
