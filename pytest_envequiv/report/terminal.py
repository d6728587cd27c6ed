"""What a person reads: verdicts as lines of text. Pure functions; pytest does the printing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from pytest_envequiv.verdict import (
    DIFFERENT,
    EQUAL,
    INCONCLUSIVE,
    Divergence,
    Settings,
    Verdict,
    default_levels,
    overall,
)

# A value longer than this is cut: the counterexample file has all of it.
LONGEST = 160

# Sides of branches that are named where some were missed.
MISSED = 2

SWITCHES = ("strict", "isolate")  # settings that are on or off

# How many ids to name where many share something.
NAMED = 6
BLAMED = 3  # lines of the target shown with a divergence


def replay_command(path: str) -> str:
    return f"pytest --envequiv-replay {shlex.quote(path)}"


def rerun_command(pair: Mapping[str, Any], check_id: str) -> str:
    """The command that runs one check again, for a verdict that leaves no counterexample (a crash)."""
    node = f"{pair['node']}::{check_id}"
    if pair["node"] != "envequiv":  # a marker in a test file
        return f"pytest {shlex.quote(node)}"
    defaults = {f.name: f.default for f in fields(Settings)}
    options = [
        f"--envequiv-{name}={shlex.quote(','.join(value) if isinstance(value, list) else str(value))}"
        for name, value in pair["settings"].items()
        if name in ("profile", "seed", "timeout", "memory", "contract", "output", "answers") and value != defaults[name]
    ]
    names = [shlex.quote(f"{side}={pair[side]}") for side in ("ref", "target")]
    return " ".join(
        ["pytest --envequiv", *names, *options, *[f"--envequiv-{w}" for w in SWITCHES if pair["settings"][w]], node]
    )


def header(settings: Settings) -> str:
    """The pair and what a verdict depends on, in one line."""
    parts = [f"ref {settings.ref}, target {settings.target}", f"levels {','.join(settings.levels)}"]
    parts += [f"profile {settings.profile}", f"seed {settings.seed}"]
    parts += [f"budget {settings.budget:g} s"] if settings.budget is not None else []
    parts += [f"contract {settings.contract}"] if settings.contract else []
    parts += ["the reference's answers from memory"] if settings.answers else []
    parts += [switch for switch in SWITCHES if getattr(settings, switch)]
    return ", ".join(parts)


# --- one verdict -----------------------------------------------------------------------------------------------------


def failure(verdict: Verdict, pair: Mapping[str, Any]) -> list[str]:
    """Why a check failed, and nothing a person does not need. The first line says it all in short."""
    if verdict.follows is not None:
        return [f"{verdict.word}, follows {verdict.follows}: {verdict.summary}"]
    lines = [f"{verdict.word}: {verdict.summary}"]
    if verdict.divergence is not None:
        lines += rows(divergence(verdict.divergence))
    more = [("blame" if not n else "", suspect(s)) for n, s in enumerate(verdict.evidence.get("blame", ())[:BLAMED])]
    more += [("also differ", ids(verdict.evidence.get("followers", ())))]
    reached = verdict.evidence.get("reached_from_reset")
    if reached:
        more += [
            ("from reset", f"also {reached['steps']} actions after a reset with seed {reached['seed']} (in the file)")
        ]
    more += [("note", note) for note in verdict.notes]
    more += [("picture", verdict.evidence.get("plot", ""))]
    more += [("traceback", verdict.evidence.get("traceback", ""))]
    if verdict.counterexample:
        more += [("replay", replay_command(verdict.counterexample))]
    elif pair["ref"] and verdict.check.subject != "open":
        more += [("run again", rerun_command(pair, verdict.check.id))]
    return lines + rows(more)


def suspect(found: Mapping[str, Any]) -> str:
    """A line of the target that is blamed, and why."""
    return f"{found['file']}:{found['line']}  {found['code']}   ({found['why']})"


def divergence(found: Divergence) -> list[tuple[str, str]]:
    """Where the sides differ, by how much, and from which inputs."""
    index = "".join(f"[{i}]" for i in found.index)
    place = [f"{name} {at}" for name, at in (("episode", found.episode), ("step", found.step)) if at is not None]
    place += [f"from {found.source}"] if found.source else []
    distance = [] if found.error is None else [rounded(found.error)]
    distance += [] if found.tolerance is None else [f"tolerance {rounded(found.tolerance)}"]
    why = [f"({found.why})" if distance else found.why] if found.why else []
    return [
        ("field", found.field + index),
        ("where", ", ".join(place)),
        ("expected", show(found.expected)),
        ("actual", show(found.actual)),
        ("error", " ".join([", ".join(distance), *why]).strip()),
        ("action", show(found.action)),
        ("state before", show(found.state)),
        ("draws", show(found.draws) if found.draws else ""),
    ]


def rounded(value: float | str) -> str:
    """An error or a tolerance; NaN and infinities may be text by now."""
    return value if isinstance(value, str) else f"{value:.4g}"


def rows(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Labelled lines; what has nothing to say is left out."""
    return [f"  {label:<13} {text}" for label, text in pairs if text]


def show(value: Any) -> str:
    """A value on one line: names without quotes, numbers exactly, the long cut."""
    text = ", ".join(f"{k} = {v!r}" for k, v in value.items()) if isinstance(value, dict) else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def ids(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


# --- a pair ----------------------------------------------------------------------------------------------------------


def title(pair: Mapping[str, Any]) -> str:
    """The pair and, if a marker made it, the test that holds it: one that decides for itself may let anything pass."""
    name = f"{pair['target']} against {pair['ref']}" if pair["ref"] else pair["checks"][0]
    where = f"{pair['node']}{', decided by the test' if pair['decided'] else ''}"
    return f"envequiv: {name}" + (f" ({where})" if pair["node"] != "envequiv" else "")


def summary(pair: Mapping[str, Any], verdicts: list[Verdict], levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was compared, what was found and what could not be decided; the last line is the overall word.

    ``levels`` is document.level_summary's. A line that starts with one of the three words can be coloured by it.
    """
    return [
        *sides(pair["describe"]),
        *table(levels),
        *(f"note: {note}" for note in dict.fromkeys(pair["notes"])),
        *accepted(verdicts),
        *branches(verdicts),
        *transfers(verdicts),
        *uncertain(verdicts),
        *differences(verdicts),
        *undecided(verdicts),
        verdict_line(pair, verdicts),
    ]


def sides(describe: Mapping[str, Any]) -> list[str]:
    """Which versions of what were compared, and how their draws were aligned."""
    lines = []
    for side in ("ref", "target"):
        told = describe.get(side) or {}
        versions = ", ".join(f"{name} {version}" for name, version in (told.get("versions") or {}).items())
        about = [f"state {told['state']}"] if told.get("state") else []
        about += [versions] if versions else []
        if told.get("name"):
            lines.append(f"{side:<6} {told['name']}" + (f" ({'; '.join(about)})" if about else ""))
    lines += [f"draws  {describe['draws']}"] if describe.get("draws") else []
    return lines + ([f"seed   {describe['seed']}"] if describe.get("seed") else [])


def table(levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One row per level, numbers to the right."""
    if not levels:
        return []
    columns = list(next(iter(levels.values())))
    cells = [["level", *columns]] + [
        [level, *(f"{counts[c]:.1f}" if c == "seconds" else f"{counts[c]:,}" for c in columns)]
        for level, counts in levels.items()
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def accepted(verdicts: Sequence[Verdict]) -> list[str]:
    """What the contract lets pass: it is not EQUAL, and a reader must see that."""
    return [f"accepted: {v.check.id}: {v.notes[-1]}" for v in verdicts if v.evidence.get("accepted")]


def branches(verdicts: Sequence[Verdict]) -> list[str]:
    """How much of the target's branches was exercised, and the first of those that were not."""
    lines = []
    for v in verdicts:
        if v.evidence.get("branch_sides"):
            missed = [f"never {m['side']}: {m['file']}:{m['line']} `{m['code']}`" for m in v.evidence["missed"]]
            rest = [f"{len(missed) - MISSED} more in {v.check.id}"] if len(missed) > MISSED else []
            told = f"branches: {v.evidence['branch_covered']} of {v.evidence['branch_sides']} sides exercised"
            lines.append("; ".join([told, *missed[:MISSED], *rest]))
    return lines


def transfers(verdicts: Sequence[Verdict]) -> list[str]:
    """What policies that were trained on a side are worth on both; differences are told elsewhere."""
    equal = [v for v in verdicts if v.word == EQUAL and v.evidence.get("policies")]
    return [f"transfer: {v.summary}" + (f"; picture {p}" if (p := v.evidence.get("plot")) else "") for v in equal]


def uncertain(verdicts: Sequence[Verdict]) -> list[str]:
    """What an EQUAL does not say: ties at a rounding boundary, and effects too small to be seen."""
    ties = [
        f"ties: {v.check.id}: {v.evidence['ties']} mismatches at a rounding boundary, not counted"
        for v in verdicts
        if v.evidence.get("ties")
    ]
    effects: dict[str, list[str]] = {}
    for v in verdicts:
        if v.evidence.get("detectable_effect"):
            effects.setdefault(v.evidence["detectable_effect"], []).append(v.check.id)
    return ties + [f"smallest detectable effect: {effect} ({ids(names)})" for effect, names in effects.items()]


def differences(verdicts: Iterable[Verdict]) -> list[str]:
    """The roots, one entry a field: where it shows, what merely follows, and the command that shows it again."""
    differing = [v for v in verdicts if v.word == DIFFERENT]
    shown = {v.check.id for v in differing}
    roots: dict[str, list[Verdict]] = {}
    for v in differing:
        if v.follows not in shown:
            roots.setdefault(v.check.field, []).append(v)
    lines = []
    for found in roots.values():
        ours = {v.check.id for v in found}
        saved = next((v.counterexample for v in found if v.counterexample), None)
        lines.append(f"DIFFERENT {found[0].check.id}: {found[0].summary}")
        lines += rows(
            [
                ("follows", found[0].follows or ""),
                ("also in", ids([v.check.id for v in found[1:]])),
                ("followed by", ids([v.check.id for v in differing if v.follows in ours])),
                ("blame", next((suspect(v.evidence["blame"][0]) for v in found if v.evidence.get("blame")), "")),
                ("replay", replay_command(saved) if saved else ""),
            ]
        )
    return lines


def undecided(verdicts: Iterable[Verdict]) -> list[str]:
    """What is INCONCLUSIVE and why; checks that share a reason share a line."""
    reasons: dict[str, list[str]] = {}
    for v in verdicts:
        if v.word == INCONCLUSIVE:
            reasons.setdefault(v.summary, []).append(v.check.id)
    return [f"INCONCLUSIVE {ids(names)}: {reason}" for reason, names in reasons.items()]


def verdict_line(pair: Mapping[str, Any], verdicts: list[Verdict]) -> str:
    words = [v.word for v in verdicts]
    counts = ", ".join(f"{words.count(w)} {w}" for w in (EQUAL, DIFFERENT, INCONCLUSIVE) if w in words)
    total, levels = len(pair["checks"]), pair["settings"]["levels"]
    missing = [f"{len(words)} of its {total} checks were run"] if len(words) < total else []
    missing += [f"levels {','.join(levels)} only"] if not set(default_levels()) <= set(levels) else []
    scope = f"as far as was checked ({'; '.join(missing)})" if missing else "overall"
    return f"{overall(verdicts)} {scope}: {counts}"


def fit(text: str, room: int) -> str:
    """``text`` in ``room`` columns, or nothing where too little of it would be left."""
    text = " ".join(text.encode("ascii", "replace").decode().split())  # one column per character
    if room < 12:
        return ""
    return text if len(text) <= room else f"{text[: room - 4]} ..."


def progress(name: str, what: str, done: int, total: int) -> str:
    """One line for the progress display."""
    share = f" {done:,}/{total:,}" if total else f" {done:,}" if done else ""
    return f"{name}: {what}{share}" if what else name
