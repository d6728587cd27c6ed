"""``require_certificate``: at the top of a training script, refuse to train on a port that nothing vouches for.

It reads files and versions and imports neither side: it costs a fraction of a second.
"""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_envequiv import contents
from pytest_envequiv.errors import CertificateError, OpenError
from pytest_envequiv.report.certificate import Certificate, load, place
from pytest_envequiv.verdict import LEVELS, PROFILES

OUTPUT = ".envequiv"


def require_certificate(
    ref: str,
    target: str,
    path: str | os.PathLike[str] | None = None,
    profile: str | None = None,
    min_kill_rate: float | None = None,
    max_age: datetime.timedelta | None = None,
    levels: Sequence[str] = (),
) -> Certificate:
    """The certificate of this pair, if it is about the files and libraries that are here now.

    ref, target    the names as they were given to pytest
    path           of the certificate; without it, where pytest leaves it in the current folder
    profile        at least this one ("quick", "standard", "thorough")
    min_kill_rate  from 0 to 1: at least this share of mutants must have been killed
    max_age        without it a certificate does not age: it is bound to contents, not to a date
    levels         at least these must have been judged: ["L4"], say, which is left out where optax is missing

    Raises CertificateError: one line with what is missing, stale or foreign, and the command that makes a new one.
    Raises ValueError for arguments that can never be met.
    """
    if profile is not None and profile not in PROFILES:
        raise ValueError(f"there is no profile {profile!r} (profiles are {', '.join(PROFILES)})")
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ValueError(f"there is no level {unknown[0]!r} (levels are {', '.join(LEVELS)})")
    if min_kill_rate is not None and not 0 <= min_kill_rate <= 1:
        raise ValueError(f"min_kill_rate is a share from 0 to 1, got {min_kill_rate!r}")
    at = place(OUTPUT, ref, target) if path is None else Path(path)
    found = None
    try:
        found = load(at)
        if (found.ref, found.target) != (ref, target):
            held, found = found, None  # its settings are another pair's
            raise CertificateError(f"{at} is about target={held.target} against ref={held.ref}, not about this pair")
        wrong = weak(found, profile, min_kill_rate, levels) or old(found, max_age) or stale(found, at)
        if wrong:
            raise CertificateError(f"{at} {wrong}")
    except CertificateError as error:
        told = command(ref, target, None if path is None else at, found, at, profile)
        if min_kill_rate is not None:
            told = f"{shlex.join(['envequiv-power', f'ref={ref}', f'target={target}'])} && {told}"
        raise CertificateError(f"{error}; make a new one with: {told}") from None
    return found


def weak(
    found: Certificate, profile: str | None, min_kill_rate: float | None, levels: Sequence[str] = ()
) -> str | None:
    """What it does not vouch for; the end of a sentence."""
    if unasked := [level for level in levels if level not in found.levels]:
        return f"is about {', '.join(found.levels)}, {unasked[0]} is required"
    if profile is not None and PROFILES.index(found.profile) < PROFILES.index(profile):
        return f"has the profile {found.profile}, {profile} is required"
    if min_kill_rate is not None:
        rate = (found.power or {}).get("kill_rate")
        if rate is None:
            return f"has no kill rate, {min_kill_rate:g} is required"
        if rate < min_kill_rate:
            return f"has a kill rate of {rate:.4g}, {min_kill_rate:g} is required"
    return None


def old(found: Certificate, max_age: datetime.timedelta | None) -> str | None:
    """Whether it, or a difference it lets pass, has had its day."""
    now = datetime.datetime.now(datetime.UTC)
    if max_age is not None and now - datetime.datetime.fromisoformat(found.date) > max_age:
        return f"is of {found.date}, older than {max_age}"
    for accepted in found.accepted:
        if datetime.date.fromisoformat(accepted["until"]) < datetime.date.today():
            return f"lets {accepted['check']} pass, which the contract accepted until {accepted['until']}"
    return None


def stale(found: Certificate, at: Path) -> str | None:
    """What is not as it was when it was judged."""
    for side, word, name in (("target", "target", found.target), ("ref", "reference", found.ref)):
        try:
            now = present(name)
        except (OpenError, OSError) as error:
            return f"cannot be held against the {word}: {error}"
        if changes := changed(found.contents[side]["files"], now):
            return f"is stale: the {word} changed since: {changes}"
    if found.contract:
        path = at.parent / found.contract["path"]
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return f"is stale: its contract {shown(path)} cannot be read"
        if contents.of_text(text) != found.contract["sha256"]:
            return f"is stale: its contract {shown(path)} changed since"
    for library, version in found.libraries.items():
        here = contents.version(library)
        if here != version:
            return f"is stale: it was made with {library} {version}, here is {here or 'none'}"
    return None


def present(name: str) -> dict[str, str]:
    """The files of a side as they are now, where this script would import it from, or else from the current folder
    (pytest looks there too). Raises OpenError."""
    try:
        return contents.files(name)
    except OpenError:
        sys.path.append(os.getcwd())
        try:
            return contents.files(name)
        finally:
            sys.path.remove(os.getcwd())


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """ "a.py changed and 2 more", or ""."""
    words = [f"{name} is {'gone' if name not in now else 'new'}" for name in sorted(before.keys() ^ now.keys())]
    words = [f"{name} changed" for name in sorted(before) if now.get(name, before[name]) != before[name]] + words
    return words[0] + (f" and {len(words) - 1} more" if len(words) > 1 else "") if words else ""


def command(ref: str, target: str, path: Path | None, found: Certificate | None, at: Path, profile: str | None) -> str:
    """What makes the certificate that is asked for. ``path``: where, if it was said; ``found``: the one there is."""
    words = ["pytest", "--envequiv", f"ref={ref}", f"target={target}"]
    chosen = max(filter(None, [profile, found and found.profile]), key=PROFILES.index, default=PROFILES[0])
    words += [f"--envequiv-profile={chosen}"] if chosen != PROFILES[0] else []
    if found is not None:
        words += ["--envequiv-strict"] if found.strict else []
        words += [f"--envequiv-contract={shown(at.parent / found.contract['path'])}"] if found.contract else []
    words += [f"--envequiv-certificate={path}"] if path is not None else []
    return shlex.join(words)


def shown(path: Path) -> str:
    """From the current folder, if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


__all__ = ["Certificate", "require_certificate"]
