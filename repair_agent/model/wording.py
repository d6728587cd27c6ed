"""Findings of the suite as a model reads them: short, exact, the same words each time.

No times and no absolute paths stand in them: the same run gives the same text, on any machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from repair_agent.findings import Finding, Run

LONGEST = 400  # characters of one value
DRAWS = 6  # of one step that are shown
BLAMED = 5  # lines that are shown


def value(thing: Any) -> str:
    """A value on one line: names without quotes, numbers exactly, the long cut in the middle."""
    text = ", ".join(f"{k} = {v!r}" for k, v in thing.items()) if isinstance(thing, Mapping) else repr(thing)
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 4 :]}"


def divergence(found: Mapping[str, Any]) -> list[str]:
    """One transition on which the sides differ: the inputs, what was expected, what came out."""
    index = "".join(f"[{i}]" for i in found["index"])
    distance = [] if found["error"] is None else [f"error {_rounded(found['error'])}"]
    distance += [] if found["tolerance"] is None else [f"tolerance {_rounded(found['tolerance'])}"]
    if found["why"] and distance:
        distance[-1] += f" ({found['why']})"
    at = [f"{name} {found[name]}" for name in ("episode", "step") if found[name] is not None]
    lines = [
        ("field", f"{found['field']}{index}"),
        ("state before", value(found["state"])),
        ("action", value(found["action"])),
        ("draws", "; ".join(_draw(d) for d in found["draws"][:DRAWS])),
        ("expected", value(found["expected"])),
        ("actual", value(found["actual"])),
        ("distance", ", ".join(distance)),
        ("met", ", ".join([*at, *([f"by {found['source']}"] if found["source"] else [])])),
    ]
    return [f"  {name:<13} {text}" for name, text in lines if text]


def _draw(draw: Mapping[str, Any]) -> str:
    kind, place, drawn = draw.get("kind", "draw"), draw.get("site", ""), draw.get("value")
    return f"{kind} = {value(drawn)}" + (f" at {place}" if place else "")


def _rounded(number: float | str) -> str:
    return number if isinstance(number, str) else f"{number:.4g}"


def finding(found: Finding, whole: bool = True) -> list[str]:
    """One check: its word and why; ``whole``: with the divergence and the lines that are blamed."""
    follows = f", follows {found.follows}" if found.follows else ""
    lines = [f"{found.check}: {found.word}{follows}" + (f": {found.summary}" if found.summary else "")]
    if whole and found.divergence is not None:
        lines += divergence(found.divergence)
    if whole:
        lines += [f"  {'blamed':<13} {blamed(line)}" for line in found.blame[:BLAMED]]
    return lines


def blamed(line: Mapping[str, Any]) -> str:
    """A line of the target that explains a divergence."""
    file = str(line["file"]).replace("\\", "/").rpartition("/")[2]
    return f"{file}:{line['line']}  {str(line['code']).strip()}  ({line['why']})"


def results(run: Run, checks: Iterable[str], whole: int = 3) -> str:
    """What a run of some checks found: first what is not EQUAL, the first ``whole`` of them with all there is."""
    if run.trouble and not run.findings:
        return f"The suite did not run: {run.trouble}"
    found = [run.findings[c] for c in checks if c in run.findings]
    wrong = [f for f in found if f.word != "EQUAL"]
    right = [f.check for f in found if f.word == "EQUAL"]
    lines = [f"{len(right)} of {len(found)} checks are EQUAL."]
    lines += [f"The run is not whole: {run.trouble}"] if run.trouble else []
    wrong.sort(key=lambda f: f.follows is not None)
    shown = told_apart([f for f in wrong if f.follows is None], whole)
    for f in wrong:
        lines += finding(f, f.check in shown)
    lines += [f"EQUAL: {names(right)}"] if right and wrong else []
    return "\n".join(lines)


def told_apart(found: Iterable[Finding], most: int) -> list[str]:
    """At most so many of the checks: those whose divergences have other inputs than the ones before."""
    seen: list[Any] = []
    chosen: list[str] = []
    for f in found:
        told = f.divergence
        inputs = None if told is None else (told["field"], told["index"], told["state"], told["action"])
        if len(chosen) < most and (inputs is None or inputs not in seen):
            seen.append(inputs)
            chosen.append(f.check)
    return chosen


def names(ids: Iterable[str], most: int = 40) -> str:
    found = list(ids)
    rest = len(found) - most
    return ", ".join(found[:most]) + (f" and {rest} more" if rest > 0 else "")


def portable(text: str, root: Path) -> str:
    """Without what is another one in every run: where the tree lies, and where in memory a thing is."""
    for folder in dict.fromkeys((str(root), str(root.resolve()))):
        text = text.replace(folder + os.sep, "").replace(folder, ".")
    return re.sub(r"\b0x[0-9a-f]{6,16}\b", "0x...", text)


def cut(text: str, most: int) -> str:
    """At most so many characters: the beginning and the end."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]}\n... {len(text) - most:,} characters are left out ...\n{text[head - most :]}"
