"""A suspected line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_envequiv.whitebox.jaxprs import Site


@dataclass(frozen=True, order=True)
class Suspect:
    """A line, how well it explains the divergence (1: a single change of it mends every row), and why.

    callers  the calls that led to it, the innermost first; ``missing``: what is at fault may be that something which
             should follow it does not stand there; ``settled``: it is only right as a condition is turned round in
             every row, by which anything that is right in all of them can be had
    """

    score: float
    site: Site
    why: str
    callers: tuple[Site, ...] = field(default=(), compare=False)
    missing: bool = field(default=False, compare=False)
    settled: bool = field(default=False, compare=False)
    swapped: bool = field(default=False, compare=False)


def in_order(sites: Iterable[Site], score: float, why: str) -> list[Suspect]:
    """Suspected lines of about the same score, those that come first the more suspected, each once."""
    found: dict[tuple[str, int], Suspect] = {}
    for number, place in enumerate(sites):
        found.setdefault((place.file, place.line), Suspect(score - 1e-4 * number, place, why))
    return sorted(found.values(), key=lambda s: -s.score)
