"""The bench a pair lies on: what the checks of one run share, computed once and only when asked for.

Everything here is a pure function of the pair, the contract, the profile and the seed, so it does not matter which
check asks first, or in which process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Outcome, Spec, State, Tape
from pytest_envequiv.comparison import statistics
from pytest_envequiv.comparison.fields import Found, compare
from pytest_envequiv.pair import Field, Pair
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.influence import flow_of
from pytest_envequiv.stimuli.meetings import Meetings, meetings, moved_together
from pytest_envequiv.stimuli.play import Play, Rows, collect, seeds_for, shown
from pytest_envequiv.stimuli.search import searched
from pytest_envequiv.verdict import ALPHA, DIFFERENT, Progress, silent
from pytest_envequiv.whitebox.coverage import Covered
from pytest_envequiv.whitebox.dataflow import Flow


@dataclass(frozen=True)
class Sizes:
    """How much a profile looks at. Rows are one-step inputs; ``most`` bounds the transitions of play."""

    episodes: int
    most: int
    play: int
    boundary: int
    pairs: int
    limit: int
    search: int  # candidates of the search by coverage
    resets: int
    margin: float  # largest difference of probabilities that still counts as equal, where statistics decide
    cells: int  # states from which conditional distributions are compared
    units: int  # most samples of one statistical comparison
    policies: int  # trained on each side
    training: int  # steps of each training
    patience: int  # seconds for all trainings on one side
    duels: int  # most episodes a policy plays on each side
    gap: float  # largest gap between the returns that still counts as equal, as a share of what was learned


PROFILES = {
    "quick": Sizes(
        64, 30_000, 2_048, 4_096, 1_024, 256, 16_384, 2_000, 0.3, 12, 4_000,
        2, 300_000, 120, 512, 0.1,
    ),
    "standard": Sizes(
        256, 150_000, 8_192, 32_768, 8_192, 1_024, 131_072, 8_000, 0.15, 32, 16_000,
        3, 2_000_000, 1_800, 2_048, 0.05,
    ),
    "thorough": Sizes(
        1_024, 1_000_000, 65_536, 262_144, 65_536, 4_096, 1_048_576, 32_000, 0.08, 96, 64_000,
        5, 20_000_000, 86_400, 8_192, 0.02,
    ),
}  # fmt: skip
DOUBT = 1e-4  # of which this much is for finding out whether draws that were matched are used alike
LANES = 64  # episodes played side by side
FEW_ULPS = 16  # by which two states of the same history may differ and still be asked the same question
LONGEST = 2_000  # steps of an episode that has no declared limit


@dataclass(frozen=True)
class Step:
    """One source of rows, asked of both sides and compared."""

    source: str
    rows: Rows
    ours: Outcome
    theirs: Outcome
    found: dict[str, Found]

    @property
    def evidence(self) -> dict[str, Any]:
        """What was exercised."""
        outputs = self.ours.outputs
        found = {
            "transitions": len(self.rows),
            "episodes": len(np.unique(self.rows.episode[self.rows.episode >= 0])),
        }
        if "terminated" in outputs:
            found["terminations"] = int(np.sum(outputs["terminated"]))
            found["truncations"] = int(np.sum(outputs["truncated"]))
        else:
            found["terminations"] = int(np.sum(self.ours.done))
        return found


class TargetView:
    """The target as a backend that takes the reference's actions and begins with the reference's draws."""

    def __init__(self, pair: Pair):
        self.pair = pair
        self.spec: Spec = replace(pair.target.spec, action=pair.ref.spec.action)
        self.masked = pair.target.masked

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._renamed(self.pair.reset_both(seeds)[1])

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._renamed(self.pair.target_step(state, action, seeds, tape))

    def _renamed(self, outcome: Outcome) -> Outcome:
        names = self.pair.observations
        return Outcome(outcome.state, {names.get(k, k): v for k, v in outcome.outputs.items()}, None)

    def close(self) -> None:
        """The pair closes its sides."""


class Bench:
    """See the module's text. ``replays``: rows of saved counterexamples, tried first."""

    def __init__(self, pair: Pair, replays: Rows | None = None):
        self.pair, self.settings, self.replays = pair, pair.settings, replays
        self.sizes = PROFILES[pair.settings.profile]
        self.progress: Progress = silent
        self.comparisons = 1  # statistical comparisons the whole suite may make; set before the first check
        self._steps: dict[str, Step | None] = {}
        self._kept: dict[Any, Any] = {}

    @cached_property
    def horizon(self) -> int:
        """Steps after which an episode of play is left alone."""
        limit = self.pair.time_limit
        return LONGEST if limit is None else min(limit + 2, 10_000)

    @cached_property
    def played(self) -> Play:
        """Episodes of the reference under the portfolio of policies."""
        return collect(
            self.pair.ref,
            LANES,
            self.horizon,
            self.sizes.most,
            self.settings.seed,
            self.progress,
            "playing the reference",
        )

    @cached_property
    def flow(self) -> Flow | None:
        """What the target's step computes from what; None where it cannot be told."""
        return flow_of(self.pair.target, self.pair.target_play)

    @cached_property
    def meetings(self) -> Meetings:
        """Pairs of the reference's inputs that meet in an output of the target."""
        return meetings(self.pair, self.flow)

    def paired_rows(self) -> Rows | None:
        """States both sides reached by the same history: what is stepped where states cannot be injected."""
        pair = self.pair
        if pair.reset_mode == "none" or pair.step_mode == "distribution":
            return None
        if "none" in (pair.ref.spec.state, pair.target.spec.state):
            return None
        seeds = self.played.reset_seeds[: 2 * LANES]
        ours, theirs = pair.reset_both(seeds)
        lanes, parts = np.arange(len(seeds)), []
        record = self.played.rows.take(np.flatnonzero(self.played.rows.episode < len(seeds)))
        total = 0
        for t in range(self.horizon):
            at = np.flatnonzero(record.step == t)
            where = {int(e): i for e, i in zip(record.episode[at], at, strict=True)}
            on = np.array([i for i, lane in enumerate(lanes) if int(lane) in where], int)
            if not len(on) or total > 2 * self.sizes.play:
                break
            lanes = lanes[on]
            rows = record.take(np.array([where[int(lane)] for lane in lanes]))
            ours, theirs = ours.take(on), theirs.take(on)
            now = Rows(
                ours.state,
                shown(ours.outputs),
                rows.clock,
                rows.action,
                rows.seeds,
                rows.episode,
                rows.step,
                theirs.state,
            )
            parts.append(now)
            total += len(now)
            ours = pair.ref.step(now.state, now.action, now.seeds)
            theirs = pair.target_step(theirs.state, now.action, now.seeds, ours.draws)
            # Histories that have come apart, by a bug or by rounding, have no state in common any more.
            alive = np.flatnonzero(~ours.done & ~theirs.done & self._together(ours, theirs))
            lanes, ours, theirs = lanes[alive], ours.take(alive), theirs.take(alive)
        return Rows.join(parts) if parts else None

    def _together(self, ours: Outcome, theirs: Outcome) -> np.ndarray:
        """bool[B]: rows whose observations are the same, floats to within a few units in the last place."""
        same = np.ones(len(ours.state), bool)
        for field in self.pair.fields:
            if field.role != "output" or not field.name.startswith("observation"):
                continue
            x, y = (v.astype(float) for v in self.pair.values(field, ours, theirs, np.zeros(len(same), int)))
            slack = 0.0 if field.exact else FEW_ULPS * field.eps * np.maximum(field.scale, np.nan_to_num(np.abs(x)))
            same &= ((np.abs(x - y) <= slack) | (np.isnan(x) & np.isnan(y))).all(1)
        return same

    def rows(self, source: str) -> Rows | None:
        """The inputs of one source; None where the pair cannot be asked that way."""
        pair, sizes, seed = self.pair, self.sizes, self.settings.seed
        if source == "replay":
            return self.replays
        if source == "resync":
            return self.played.rows if pair.injectable() else None
        if not pair.injectable():
            if source != "play":
                return None
            rows = self.paired_rows()
            if rows is None:
                return None
            rng = np.random.default_rng([seed, 15])
            picked = rows.take(np.sort(rng.choice(len(rows), min(sizes.play, len(rows)), replace=False)))
            return picked.doing(states.legal(states.fresh_actions(pair, len(picked), rng), picked, pair, rng))
        if source == "play":
            return states.live(pair, states.from_play(pair, self.played, sizes.play, seed))
        if source == "pairs":
            found = moved_together(pair, self.played, self.meetings, sizes.pairs, seed, self.ends)
        elif source == "boundary":
            found = states.near_boundaries(pair, self.played, sizes.boundary, seed, self.ends)
        elif source == "coverage":
            return searched(pair, self._look, self.played, sizes.search, seed, self.ends, self.progress)
        else:
            found = states.before_limit(pair, self.played, sizes.limit, seed)
        return found if len(found) else None

    @cached_property
    def covered(self) -> Covered | None:
        """The branches of the target's step; None where it cannot be traced, or has none."""
        backend: Any = self.pair.target.backend
        if self.pair.blocked is not None or not hasattr(backend, "step_covered"):
            return None
        try:
            found: Covered = backend.covered
        except Exception:  # what cannot be traced has no branches that could be seen; the other checks say the rest
            return None
        return found if found.branches else None

    def _look(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """(hits, distances) of the target from these rows, with the reference's draws where they are shared."""
        tape = None
        if self.pair.step_mode == "tape":
            tape = self.pair.ref.step(rows.state, rows.action, rows.seeds).draws
        return self.pair.target_covered(rows, tape)

    def went(self, source: str) -> np.ndarray | None:
        """int[sides]: how many rows of a source went which way in the target; None if there are no such rows."""
        step = self.step(source)
        if step is None:
            return None
        hits: np.ndarray = self.once(
            ("went", source), lambda: self.pair.target_covered(step.rows, step.ours.draws)[0].sum(0)
        )
        return hits

    @cached_property
    def ends(self) -> states.Ends:
        """How far float fields go before that ends episodes."""
        return states.ends(self.pair, self.played, self.settings.seed)

    def step(self, source: str) -> Step | None:
        """Both sides asked the rows of one source, and compared. None: there are no such rows."""
        if source not in self._steps:
            self.progress(f"stepping both sides from {source} states", 0, 0)
            rows = self.rows(source)
            known = self.played.outcome if source == "resync" else None
            self._steps[source] = None if rows is None or not len(rows) else self._asked(source, rows, known)
        return self._steps[source]

    def _asked(self, source: str, rows: Rows, known: Outcome | None) -> Step:
        ours, theirs = self.pair.ask(rows, known)
        return Step(source, rows, ours, theirs, compare(self.pair, rows, ours, theirs))

    @cached_property
    def begun(self) -> Step:
        """Resets of both sides as a step that leads to the first state: clock -1 before it."""
        pair = self.pair
        seeds = seeds_for(self.settings.seed, 3, count=256)
        ours, theirs = pair.reset_both(seeds)
        count = len(seeds)
        action = {k: np.zeros((count, *s.shape), s.dtype) for k, s in pair.ref.spec.action.items()}
        none = np.full(count, -1)
        rows = Rows(ours.state, shown(ours.outputs), none, action, seeds, np.arange(count), np.zeros(count, int))
        return Step("reset", rows, ours, theirs, {})

    def along(self, played: Play) -> Bench:
        """A bench on which the reference has played something else."""
        other = Bench(self.pair)
        other.comparisons, other.progress = self.comparisons, self.progress
        other.played, other.flow = played, self.flow
        return other

    def once(self, key: Any, build: Callable[[], Any]) -> Any:
        """What ``build`` gives, computed at the first asking."""
        if key not in self._kept:
            self._kept[key] = build()
        return self._kept[key]

    @property
    def share(self) -> float:
        """One statistical comparison's part of the suite's false-alarm budget, fixed by the whole suite."""
        return statistics.share(max(1, self.comparisons), ALPHA - DOUBT)


# -- whether draws that look alike are used alike -------------------------------------------------------------------

COPIES, SPOTS = 256, 4  # copies of one row, and rows, from which the use of draws is judged
CLEAR = 0.95  # of the copies that must differ for a difference of arithmetic, not of chances
COUPLED = 0.7  # of the distance of strangers that sides which read their draws alike may be apart


@dataclass(frozen=True)
class Coupling:
    """One row, many times: how sides that share their draws come out, against sides that do not.

    own       mean distance of two next states of the reference alone
    shared    mean distance of the sides where the target is given the reference's draws; apart: where it is not
    wrong     share of the copies that differ although their draws are shared
    """

    own: float
    shared: float
    apart: float
    wrong: float

    @property
    def arithmetic(self) -> bool:
        """The sides read their draws alike and still differ (nearly) always, or no draw matters: it is not chance."""
        if self.own <= 1e-3 * self.shared:
            return True
        return self.shared < COUPLED * self.apart and self.wrong > CLEAR


def settle_draws(bench: Bench) -> None:
    """Look whether draws that were matched by their labels are used alike; if not, fall back to distributions.

    Two programs may make the same draw and read it in another way (a slip to the left for small numbers, or for large
    ones) and still be the same environment. Where the tape gives other outcomes, that is told from a difference in
    two steps. Many copies of such a state: sides that read their draws alike stay close together, and if they differ
    nearly always, the difference is not one of chances. Else the copies are compared as distributions: had the sides
    other chances, these would differ by about the share of copies that differ. If they do not, the draws are used in
    another way; if that cannot be told with the samples there are, ``pair.doubt`` says so.
    """
    pair = bench.pair
    if pair.blocked is not None or pair.step_mode != "tape" or not pair.injectable():
        return
    rows = pair.sample.rows
    ours, theirs = pair.ask(rows, pair.sample.outcome)
    found = compare(pair, rows, ours, theirs)
    wrong = [f for f in found.values() if f.rows.any()]
    if not wrong:
        return
    worst = max(wrong, key=lambda f: int(f.rows.sum()))
    differing = np.flatnonzero(worst.rows)
    spots = differing[np.unique(np.linspace(0, len(differing) - 1, SPOTS).astype(int))]
    couplings = {int(row): coupling(pair, rows, int(row), worst.field) for row in spots}
    if any(c.arithmetic for c in couplings.values()):
        return
    row = max(couplings, key=lambda r: couplings[r].wrong)
    share = max(couplings[row].wrong, 1 / COPIES)
    payoffs, margin, units = statistics.most_payoffs(8), share / 3, 0
    while units == 0 or units > 4 * bench.sizes.units:  # the closest look that can be afforded
        units = statistics.pairs_needed(margin, DOUBT, payoffs, disagreement=min(share, 0.5))
        margin *= 1 if units <= 4 * bench.sizes.units else 1.2
    result = next_states_differ(pair, rows, row, worst.field, margin, units)
    if result.word == DIFFERENT:
        return
    pair.step_mode = "distribution"
    pair.notes.append(f"draws of a step look alike but are used in another way ({result.text})")
    if result.bound is None or result.bound > share / 2:
        name = worst.field.name
        pair.doubt = f"with shared draws {name} differs in {share:.0%} of the copies of a state, and {result.text}"


def _copies(rows: Rows, row: int, count: int, seeds: np.ndarray) -> Rows:
    many = rows.take(np.full(count, row))
    return replace(many, state=State(many.state.fields), seeds=seeds)


def coupling(pair: Pair, rows: Rows, row: int, field: Field) -> Coupling:
    many = _copies(rows, row, COPIES, seeds_for(52, row, count=COPIES))
    ours, theirs = pair.ask(many)
    x, y = (np.nan_to_num(v.astype(float)) for v in pair.values(field, ours, theirs, many.clock))
    scale = np.where(field.scale > 0, field.scale, 1.0)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float((np.abs(a - b) / scale).sum(1).mean())

    differ = compare(pair, many, ours, theirs)[field.name].rows
    return Coupling(distance(x, np.roll(x, 1, 0)), distance(x, y), distance(x, np.roll(y, 1, 0)), float(differ.mean()))


def next_states_differ(
    pair: Pair, rows: Rows, row: int, field: Field, margin: float, units: int
) -> statistics.Comparison:
    """One field of many next states of one row, the target with the reference's draws, compared as distributions.

    Sides that read their draws in other ways, but have the same chances, disagree in both directions alike. That the
    draws are shared only makes them disagree less often, and so lets a difference of chances stand out.
    """
    many = _copies(rows, row, units, seeds_for(51, row, count=units))
    ours, theirs = pair.ask(many)
    x, y = (v[:, :8].astype(float) for v in pair.values(field, ours, theirs, many.clock))
    grain = 1e-5 * max(float(np.nanmax(np.abs(np.where(np.isfinite(x), x, 0)), initial=0.0)), 1e-6)
    names = tuple(f"{field.name}[{i}]" for i in range(x.shape[1]))
    plan = statistics.Plan(names, DOUBT, margin, units, resolution=grain)
    return statistics.compare(plan, x, y)
