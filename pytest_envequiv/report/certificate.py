"""The certificate: what a full green run leaves behind, bound to the content of what was judged.

``conclude`` decides at the end of a run whether a pair gets one; ``load`` and ``save`` are its file. It is imported by
training scripts (requirement.py), so it must stay light: neither pytest nor JAX.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pytest_envequiv import contents, whole
from pytest_envequiv.errors import CertificateError
from pytest_envequiv.verdict import (
    ALPHA,
    DIFFERENT,
    EQUAL,
    INCONCLUSIVE,
    Verdict,
    default_levels,
    pair_name,
    plain,
)

FORMAT = 1
COUNTED = ("transitions", "episodes", "terminations", "truncations")
POWER = ("kill_rate", "detectable", "killed")
VERSIONS = ("numpy", "jax", "jaxlib", "pytest-envequiv")


@dataclass(frozen=True)
class Certificate:
    """What its file holds, key by key.

    coverage   transitions, episodes, terminations, truncations that were compared; branch_sides and branch_covered if
               the target's branches were counted
    effects    the smallest effects that statistics could have seen -> the checks that say so
    power      kill_rate (0 to 1), detectable and killed mutants, if they were measured on this very target
    accepted   differences the contract let pass: check, word, until, note
    contract   sha256 of its text, and its path from the certificate's folder; None: there is none, or it lies in the
               target's package and is one of its files
    contents   "ref" and "target": sha256 over all, and files: relative name -> sha256
    libraries  distribution -> version, of what the sides are, import or ask for; versions: of what merely was there
    checks     id -> word
    """

    ref: str
    target: str
    date: str
    profile: str
    seed: int
    levels: list[str]
    strict: bool
    isolate: bool
    alpha: float
    coverage: dict[str, int]
    effects: dict[str, list[str]]
    power: dict[str, float] | None
    accepted: list[dict[str, str]]
    contract: dict[str, str] | None
    versions: dict[str, str]
    libraries: dict[str, str]
    checks: dict[str, str]
    contents: dict[str, dict[str, Any]]


def place(output: str | Path, ref: str, target: str) -> Path:
    """Where a pair's certificate lies if nothing else was said."""
    return Path(output) / "certificates" / f"{pair_name(ref, target)}.json"


# --- the file --------------------------------------------------------------------------------------------------------


def save(certificate: Certificate, path: Path) -> None:
    """Written whole or not at all. Raises OSError."""
    told = {"envequiv_certificate": FORMAT, **asdict(certificate)}
    text = json.dumps({**told, "sha256": _seal(told)}, indent=2, ensure_ascii=False) + "\n"
    whole.write(path, text)


def load(path: Path) -> Certificate:
    """Raises CertificateError for what is missing, cut, changed by hand, of another format, or no certificate."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CertificateError(f"there is no certificate {path}") from None
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise CertificateError(f"{path} is not whole: it is no JSON") from None
    if not isinstance(told, dict) or "envequiv_certificate" not in told:
        raise CertificateError(f"{path} is not a certificate")
    if told["envequiv_certificate"] != FORMAT:
        raise CertificateError(f"{path} has format {told['envequiv_certificate']}, this version reads {FORMAT}")
    seal = told.pop("sha256", None)
    if seal != _seal(told) or set(told) != {"envequiv_certificate", *(f.name for f in fields(Certificate))}:
        raise CertificateError(f"{path} was changed after it was written")
    del told["envequiv_certificate"]
    return Certificate(**told)


def _seal(told: Mapping[str, Any]) -> str:
    """Against slips, not against forgers: anyone can compute it."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# --- the end of a run ------------------------------------------------------------------------------------------------


def conclude(
    pair: Mapping[str, Any],
    verdicts: list[Verdict],
    doubted: set[str],
    contents_now: Callable[[], Mapping[str, Any]],
    path: Path,
    home: Path,
) -> str:
    """Write the pair's certificate, or do not; one line for the terminal that says where it is, or why there is none.

    ``pair`` is a pair_document; ``doubted``: ids of checks that ever said something else than EQUAL; ``contents_now``
    hashes both sides again, {"ref", "target"} or {"error"}; ``path`` is meant from ``home``, where pytest was called.
    """
    reasons = missing(pair, verdicts, doubted)
    if reasons:
        return f"no certificate: {'; '.join(reasons)}{_withdrawn(pair, verdicts, path, home)}"
    now = contents_now()
    if "error" in now:
        return f"no certificate: {now['error']}"
    for side, word in (("target", "target"), ("ref", "reference")):
        if now[side]["sha256"] != pair["contents"][side]:
            return f"no certificate: the {word}'s files changed while it was judged"
    try:
        save(made(pair, verdicts, now, path, home), home / path)
    except OSError as error:
        return f"no certificate: {path} could not be written: {error.strerror}"
    return f"certificate: {path}"


def missing(pair: Mapping[str, Any], verdicts: list[Verdict], doubted: set[str]) -> list[str]:
    """Why a run is not full or not green; empty if it is both."""
    checks, levels = pair["checks"], pair["settings"]["levels"]
    words = {v.check.id: v.word for v in verdicts}
    if any(v.check.subject == "open" for v in verdicts):
        return ["the pair did not open"]
    wrong = {word: [c for c, w in words.items() if w == word] for word in (DIFFERENT, INCONCLUSIVE)}
    again = [c for c in doubted if words.get(c) == EQUAL]
    told = [(sum(c not in words for c in checks), "not run"), *((len(ids), word) for word, ids in wrong.items())]
    told += [(len(again), "EQUAL only when tried again")]
    reasons = [f"levels {','.join(levels)} only"] if not set(default_levels()) <= set(levels) else []
    reasons += ["the reference may have answered from memory"] if pair["settings"]["answers"] else []
    for count, what in told:
        if count:
            verb = ("was" if count == 1 else "were") if what == "not run" else ("is" if count == 1 else "are")
            reasons.append(f"{count} of {len(checks)} checks {verb} {what}")
    return reasons or ([pair["contents"]["error"]] if "error" in pair["contents"] else [])


def _withdrawn(pair: Mapping[str, Any], verdicts: list[Verdict], path: Path, home: Path) -> str:
    """A difference in the very thing that was certified takes its certificate away; the end of a sentence."""
    sealed = pair["contents"]
    if "error" in sealed or not any(v.word == DIFFERENT for v in verdicts):
        return ""
    try:
        old = load(home / path)
        about = (old.ref, old.target, old.strict, (old.contract or {}).get("sha256"))
        asked = (*(pair[side] for side in ("ref", "target")), pair["settings"]["strict"])
        same = about == (*asked, (sealed["contract"] or {}).get("sha256"))
        if not same or any(old.contents[side]["sha256"] != sealed[side] for side in ("ref", "target")):
            return ""
        (home / path).unlink()
    except (CertificateError, OSError):
        return ""
    return f"; {path} said EQUAL of the same files and is withdrawn"


def made(
    pair: Mapping[str, Any], verdicts: list[Verdict], now: Mapping[str, Any], path: Path, home: Path
) -> Certificate:
    """The certificate of a full green run. ``now``: the contents of both sides, with their files."""
    settings, sealed = pair["settings"], pair["contents"]
    contract = sealed["contract"]
    if contract is not None:
        beside = os.path.relpath(home / contract["path"], (home / path).parent)
        contract = {**contract, "path": Path(beside).as_posix()}
    passed = [v for v in verdicts if v.evidence.get("accepted")]
    words = {v.check.id: v.word for v in verdicts} | {v.check.id: f"{v.evidence['accepted']}, accepted" for v in passed}
    versions = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}".lower()}
    versions |= {name: v for name in VERSIONS if (v := contents.version(name))}
    return Certificate(
        ref=pair["ref"],
        target=pair["target"],
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        profile=settings["profile"],
        seed=settings["seed"],
        levels=list(settings["levels"]),
        strict=settings["strict"],
        isolate=settings["isolate"],
        alpha=ALPHA,
        coverage=coverage(verdicts),
        effects=effects(verdicts),
        power=power(home / settings["output"], pair["ref"], pair["target"], now["target"]["sha256"]),
        accepted=[acceptance(v) for v in passed],
        contract=contract,
        versions=versions,
        libraries=dict(sealed["libraries"]),
        checks=words,
        contents={side: dict(now[side]) for side in ("ref", "target")},
    )


def acceptance(verdict: Verdict) -> dict[str, str]:
    """A difference that the contract let pass."""
    told = verdict.evidence
    until = told["accepted_until"]
    return {"check": verdict.check.id, "word": told["accepted"], "until": until, "note": verdict.notes[-1]}


def coverage(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """What was compared, summed over the checks; of branches the check that knows most."""
    counts = dict.fromkeys(COUNTED, 0)
    branches: dict[str, int] = {}
    for v in verdicts:
        for key in COUNTED:
            value = v.evidence.get(key)
            counts[key] += value if isinstance(value, int) else 0
        covered, sides = v.evidence.get("branch_covered"), v.evidence.get("branch_sides")
        if isinstance(covered, int) and isinstance(sides, int) and covered >= branches.get("branch_covered", 0):
            branches = {"branch_sides": sides, "branch_covered": covered}
    return counts | branches


def effects(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for v in verdicts:
        if told := v.evidence.get("detectable_effect"):
            found.setdefault(told, []).append(v.check.id)
    return found


def power(output: Path, ref: str, target: str, target_hash: str) -> dict[str, float] | None:
    """The kill rate that envequiv-power measured, if it was on this very target."""
    try:
        told = json.loads((output / "power" / f"{pair_name(ref, target)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("target_hash") != target_hash:
        return None
    return plain({key: told[key] for key in POWER if isinstance(told.get(key), (int, float))}) or None


__all__ = ["Certificate", "conclude", "load", "place", "save"]
