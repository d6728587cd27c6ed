"""Coverage-guided search for states: those are kept that make the target go where no state before them made it go.

A candidate is a way to a live state: put the reference into a made-up state, step it once, and what it steps into
without ending is live. The made-up states are bred from the ways that were kept: a field moved a little, a lot, to a
boundary, by the distance that a comparison is from its threshold; fields of two parents mixed; and two parents on both
sides of a threshold (or one nearer to it than the other) blended so that the comparison should just be a tie. Where the
state holds whole numbers that must not be moved (places on a grid, cards), some go on from a state that was kept: then
it is an exploration that returns to where it saw something new (Ecoffet et al., First return, then explore, 2021).

Kept is what shows a side of a branch that few rows have shown, two sides that no row has shown together, or a
comparison nearer to its threshold, from below or from above, than any row before. That a float is exactly at a
boundary (a wall, standstill) counts like a side. Only floats, clocks, and numbers of the contract's rule are moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, State
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import Play, Rows
from pytest_envequiv.verdict import Progress, silent

if TYPE_CHECKING:  # a pair is handed in; nothing of it is needed to read this file
    from pytest_envequiv.pair import Pair

BATCH, STRIDE = 2_048, 256  # candidates of one generation; and where each goes on by one step
QUOTA = 24  # rows kept for one side
ELSEWHERE = 64  # rows of one generation kept for being somewhere else
NEARER = 0.5  # how much nearer to a threshold a row must be to be kept for that
PAIRS = 4_096  # new pairs of sides looked at in one generation
FLAGS = 256  # boundaries that count like sides
FINEST = 7  # smallest moves are 10 ** -FINEST of a field's range
WAYS = ("little", "lot", "boundary", "threshold", "mix", "blend", "clock", "act", "onward")

Look = Callable[[Rows], tuple[np.ndarray, np.ndarray]]  # rows -> (hits bool[B, sides], distances float[B, comparisons])


@dataclass(frozen=True)
class Ways:
    """B ways to live states: from ``before`` (a state that may be made up) by its action, and what to do then."""

    before: Rows
    action: Arrays

    def __len__(self) -> int:
        return len(self.before)

    def take(self, rows: np.ndarray) -> Ways:
        return Ways(self.before.take(rows), {k: v[rows] for k, v in self.action.items()})


@dataclass(frozen=True)
class Reach:
    """One number that may be moved: where it has boundaries, how far it may go, and whether it is always whole."""

    name: str
    element: int
    boundaries: np.ndarray
    low: float
    high: float
    whole: bool


@dataclass
class Archive:
    """What was kept, and the best that was seen of each side, pair and comparison."""

    times: np.ndarray  # int[sides]
    together: np.ndarray  # bool[sides, sides]
    nearest: np.ndarray  # float[2, comparisons]: below, above
    holder: np.ndarray  # int[2, comparisons]: the kept row that is nearest; -1: none
    ways: list[Ways] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    distances: list[np.ndarray] = field(default_factory=list)
    met: set[bytes] = field(default_factory=set)  # what the numbers that must not be moved have been
    size: int = 0

    @staticmethod
    def empty(sides: int, comparisons: int) -> Archive:
        nearest = np.full((2, comparisons), np.inf)
        return Archive(np.zeros(sides, int), np.zeros((sides, sides), bool), nearest, np.full((2, comparisons), -1))

    def keep(self, ways: Ways, rows: Rows, hits: np.ndarray, distances: np.ndarray, walking: list[str]) -> None:
        """Keep those rows that show something new."""
        chosen = self._elsewhere(rows, walking)
        for side in np.flatnonzero(self.times < QUOTA):
            chosen += np.flatnonzero(hits[:, side])[: QUOTA - self.times[side]].tolist()
        wide = hits.astype(np.float32)
        one, other = np.nonzero(np.triu((wide.T @ wide > 0) & ~self.together, 1))
        for start in range(0, min(len(one), PAIRS), 256):
            both = hits[:, one[start : start + 256]] & hits[:, other[start : start + 256]]
            chosen += both.argmax(0).tolist()
        records: list[tuple[int, int, int]] = []
        for way, gaps in enumerate(
            (np.where(distances < 0, -distances, np.inf), np.where(distances > 0, distances, np.inf))
        ):
            best = gaps.argmin(0)
            gap = gaps[best, np.arange(gaps.shape[1])]
            for number in np.flatnonzero(gap < NEARER * self.nearest[way]).tolist():
                self.nearest[way, number] = gap[number]
                records.append((way, number, int(best[number])))
        kept = np.unique([*chosen, *(place for _, _, place in records)]).astype(int)
        if not len(kept):
            return
        for way, number, place in records:
            self.holder[way, number] = self.size + int(np.searchsorted(kept, place))
        self.times += hits[kept].sum(0)
        self.together |= wide[kept].T @ wide[kept] > 0
        self.ways.append(ways.take(kept))
        self.rows.append(rows.take(kept))
        self.distances.append(distances[kept])
        self.size += len(kept)

    def _elsewhere(self, rows: Rows, walking: list[str]) -> list[int]:
        """Rows in which the numbers that must not be moved are what they have not been."""
        if not walking:
            return []
        parts = [np.ascontiguousarray(rows.state.fields[n]).reshape(len(rows), -1) for n in walking]
        first: dict[bytes, int] = {}
        for number in range(len(rows)):
            first.setdefault(b"".join(part[number].tobytes() for part in parts), number)
        new = [key for key in first if key not in self.met][:ELSEWHERE]
        self.met.update(new)
        return [first[key] for key in new]

    def parents(self) -> tuple[Ways, np.ndarray]:
        """All ways that were kept, and their distances."""
        action = {k: np.concatenate([w.action[k] for w in self.ways]) for k in self.ways[0].action}
        return Ways(Rows.join([w.before for w in self.ways]), action), np.concatenate(self.distances)


def searched(
    pair: Pair, look: Look, played: Play, count: int, seed: int, limits: states.Ends, progress: Progress = silent
) -> Rows | None:
    """Live rows found by trying ``count`` candidates; None if no state was live. The same seed finds the same."""
    rng = np.random.default_rng([seed, 23])
    reaches = [
        _reach(pair, played, name, i)
        for name in played.rows.state.fields
        if states.movable(pair, played, name)
        for i in range(min(64, int(np.prod(played.rows.state.fields[name].shape[1:], dtype=int))))
    ]
    reaches = [reach for reach in reaches if len(reach.boundaries)]
    clocks = states.clocks(pair, played) if pair.time_limit is not None else []
    walking = states.walked(pair, played)
    # What is nearer to an end than the coarser side can tell would be beyond it there.
    slack = 4 * max((f.eps for f in pair.fields if not f.exact), default=0.0)
    archive: Archive | None = None
    batch = STRIDE if walking else BATCH
    for tried in range(0, count, batch):
        progress("searching for states by coverage", tried, count)
        size = min(batch, count - tried)
        if archive is None or not archive.size:
            ways = _begun(pair, played, size, rng)
        else:
            ways = _bred(pair, archive, reaches, clocks, walking, size, rng)
        rows, origin = states.entered(pair, ways.before)
        inside = np.flatnonzero(states.within(rows, limits, slack))
        if not len(inside):
            continue
        rows, ways = rows.take(inside), ways.take(origin[inside])
        rows = rows.doing(states.legal(ways.action, rows, pair, rng))
        hits, distances = look(rows)
        hits = np.concatenate([hits, _standing(reaches, rows)], 1)
        archive = archive or Archive.empty(hits.shape[1], distances.shape[1])
        archive.keep(ways, rows, hits, distances, walking)
    return Rows.join(archive.rows) if archive is not None and archive.size else None


def _reach(pair: Pair, played: Play, name: str, element: int) -> Reach:
    values = states.places(pair, played, name, element)
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    return Reach(name, element, values, low, high, not states.continuous(played, name))


def _standing(reaches: list[Reach], rows: Rows) -> np.ndarray:
    """bool[B, boundaries]: which floats are exactly at a boundary."""
    flags = [np.zeros((len(rows), 0), bool)]
    for reach in reaches:
        own = rows.state.fields[reach.name].reshape(len(rows), -1)[:, reach.element, None]
        flags.append(own == reach.boundaries.astype(own.dtype))
    return np.concatenate(flags, 1)[:, :FLAGS]


def _begun(pair: Pair, played: Play, count: int, rng: np.random.Generator) -> Ways:
    """Steps of play, and then any action."""
    before = played.rows.take(np.sort(rng.integers(0, len(played.rows), count)))
    before = replace(before, state=State(before.state.fields))
    return Ways(before, states.fresh_actions(pair, count, rng))


def _bred(
    pair: Pair,
    archive: Archive,
    reaches: list[Reach],
    clocks: list[str],
    walking: list[str],
    count: int,
    rng: np.random.Generator,
) -> Ways:
    """Children of what was kept; half of them of rows that are nearest to some threshold."""
    every, distances = archive.parents()
    holders = archive.holder[archive.holder >= 0]
    first = rng.integers(0, archive.size, count)
    if len(holders):
        first = np.where(rng.random(count) < 0.5, rng.choice(holders, count), first)
    second = rng.integers(0, archive.size, count)
    can = {"clock": bool(clocks), "act": True, "onward": bool(walking)}
    possible = [w for w in WAYS if can.get(w, bool(reaches))]
    way = rng.choice(possible, count)
    newest = rng.integers(max(archive.size - ELSEWHERE, 0), archive.size, count)
    first = np.where((way == "onward") & (rng.random(count) < 0.5), newest, first)

    share = np.zeros(count)  # how far to go from the first parent to the second
    if distances.shape[1]:
        number = rng.integers(0, distances.shape[1], count)
        below, above = archive.holder[:, number]
        between = (way == "blend") & (below >= 0) & (above >= 0) & (rng.random(count) < 0.7)
        first, second = np.where(between, below, first), np.where(between, above, second)
        gap, other = (distances[parent, number].astype(float) for parent in (first, second))
        with np.errstate(all="ignore"):
            share = np.clip(np.nan_to_num(gap / (gap - other), posinf=0, neginf=0), -2, 2)
    else:
        gap = np.zeros(count)
    share = np.where(way == "blend", share, 0.0)

    parent, partner = every.take(first), every.take(second)
    if walking:
        there = Rows.join(archive.rows).take(first)
        parent = Ways(_either(way == "onward", there, parent.before), parent.action)
    fields = {n: v.reshape(count, -1).copy() for n, v in parent.before.state.fields.items()}
    chosen = rng.integers(0, max(len(reaches), 1), count)
    for place, reach in enumerate(reaches):
        mine = fields[reach.name][:, reach.element].astype(float)
        theirs = partner.before.state.fields[reach.name].reshape(count, -1)[:, reach.element].astype(float)
        moved = _moved(reach, mine, theirs, way, share, np.nan_to_num(gap), rng)
        # Most moves are of one field: the others stay, so that what was found is not lost.
        here = (chosen == place) | (rng.random(count) < 0.2) | (way == "blend") | (way == "mix")
        moved = np.where(here, np.clip(moved, reach.low, reach.high), mine)
        column = fields[reach.name]
        column[:, reach.element] = states.settled(moved, column.dtype) if reach.whole else moved
    clock = parent.before.clock
    if clocks and pair.time_limit is not None:
        clock = np.where(way == "clock", np.maximum(pair.time_limit - rng.integers(1, 5, count), 0), clock)
        for name in clocks:
            fields[name] = np.where((way == "clock")[:, None], clock[:, None], fields[name])
    state = State({n: fields[n].reshape(v.shape).astype(v.dtype) for n, v in parent.before.state.fields.items()})

    act = (way == "act") | (way == "onward") | (rng.random(count) < 0.1)
    entering = _acts(pair, parent.before.action, partner.before.action, share, act, rng)
    then = _acts(pair, parent.action, partner.action, share, act | (rng.random(count) < 0.2), rng)
    before = replace(parent.before, state=state, clock=clock)
    return Ways(before.doing(states.legal(entering, before, pair, rng)), then)


def _either(which: np.ndarray, one: Rows, other: Rows) -> Rows:
    """Row by row one or the other."""
    both = Rows.join([replace(rows, state=State(rows.state.fields)) for rows in (one, other)])
    return both.take(np.where(which, 0, len(which)) + np.arange(len(which)))


def _moved(
    reach: Reach,
    mine: np.ndarray,
    theirs: np.ndarray,
    way: np.ndarray,
    share: np.ndarray,
    gap: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """float[B]: where each way of breeding puts one float."""
    count, wide = len(mine), reach.high - reach.low
    little = rng.normal(size=count) * wide * 10.0 ** -rng.uniform(1, FINEST, count)
    return np.select(
        [way == w for w in ("little", "lot", "boundary", "threshold", "mix", "blend")],
        [
            mine + little,
            rng.uniform(reach.low, reach.high, count),
            rng.choice(reach.boundaries, count) + np.where(rng.random(count) < 0.5, little, 0.0),
            mine + gap * rng.choice([-1.0, 1.0], count),
            np.where(rng.random(count) < 0.5, mine, theirs),
            mine + share * (theirs - mine),
        ],
        mine,
    )


def _acts(
    pair: Pair, mine: Arrays, theirs: Arrays, share: np.ndarray, fresh: np.ndarray, rng: np.random.Generator
) -> Arrays:
    """Actions of the first parent, blended where they are floats, or new ones."""
    new = states.fresh_actions(pair, len(share), rng)
    found = {}
    for name, space in pair.ref.spec.action.items():
        wide = [-1, *[1] * (mine[name].ndim - 1)]
        kept = mine[name]
        if kept.dtype.kind == "f":
            blended = kept + share.reshape(wide) * (theirs[name] - kept)
            kept = np.clip(blended, space.low, space.high).astype(kept.dtype)
        found[name] = np.where(fresh.reshape(wide), new[name], kept)
    return found
