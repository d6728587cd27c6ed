"""Two samples, one question: is there a difference, and if none was found, how large could it still be?

The unit is whatever is drawn independently: an episode, or one step from a fixed state. Unit i gives k numbers on
each side (return, length, a field of the next state). Nothing is assumed about their distributions, and the two
members of a pair may share their draws or not.

1. The first units (the opening) only choose what to look at: per column, events such as "return > 12.5", "return
   outside [-3, 5]" or "return is NaN". The payoff of an event is g = 1[it happens in x] - 1[it happens in y], one
   of -1, 0, 1, with mean 0 if the sides are equal.
2. DIFFERENT is decided by betting. A capital of 1 is spread evenly over all m payoffs and over all bets in (-1, 1);
   each part is multiplied by 1 + bet * g per unit. Against equal sides that is a martingale, so by Ville's inequality
   it ever reaches 1 / alpha with probability at most alpha, however often one looks (Shekhar & Ramdas, arXiv
   2112.09162; Ramdas et al., arXiv 2210.01948). The capital gets there no later than the first payoff whose own
   part has grown m / alpha times.
3. EQUAL is decided once, at a number of units fixed beforehand: every P(event in x) - P(event in y) must be bounded
   within the margin (``_bound``). Its error is another one than alpha, namely 1 - ``confidence``: the probability of
   saying EQUAL where some event looked at differs by more than the margin. It is not divided by the number of
   payoffs, nor of comparisons, because EQUAL needs every one of them: to be wrong, the bound of that one event has
   to fail (intersection-union test: Berger 1982, Technometrics 24:295).
4. Neither: INCONCLUSIVE.

The margin does not excuse a difference. A small one that was proven is DIFFERENT; the margin says how closely one
must have looked to call it EQUAL. All state is whole-number counts, so how the units were batched cannot matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from scipy.special import betaincinv, betaln
from scipy.stats import binom

from ..verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Word, plain

OPENING = 100  # units that choose the events
DISTINCT = 20  # a column with at most so many values is looked at value by value
# Other columns are looked at by quantiles of their values, and of the distance from their median.
LEVELS = np.array([0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
SPREADS = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0])
Decided = TypeVar("Decided", bound=Any)
CHANCE = 0.9  # with which a planned or "detectable" thing comes out as said
ROWS = 256  # units evaluated at once: bounds memory, and lets an obvious difference stop early


@dataclass(frozen=True)
class Plan:
    """What will be looked at, fixed before the first unit is drawn. ValueError if it makes no sense.

    ``alpha``: this comparison's part of the false-alarm budget (``share``). ``margin``: EQUAL needs every difference
    of probability to be bounded by it. ``units``: when EQUAL is decided (``pairs_needed``); later units are not
    looked at. ``resolution``: values of a column at most this far apart are one value, for all columns or for each.
    A float32 and a float64 side that both "return -2.0" need it, or the last bit makes them DIFFERENT.
    """

    names: tuple[str, ...]
    alpha: float
    margin: float
    units: int
    confidence: float = 0.999
    resolution: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a plan needs at least one column")
        for what in ("alpha", "margin", "confidence"):
            if not 0 < getattr(self, what) < 1:
                raise ValueError(f"{what} must lie between 0 and 1, not {getattr(self, what)}")
        if self.units < 2:
            raise ValueError(f"at least 2 units are needed, one to choose the events and one to bet, not {self.units}")
        apart = np.asarray(self.resolution, np.float64)
        if apart.shape not in ((), (len(self.names),)) or not np.all((apart >= 0) & np.isfinite(apart)):
            raise ValueError(f"resolution must be one number >= 0, or one per column, not {self.resolution}")

    @property
    def opening(self) -> int:
        """How many units choose the events: 100, but no more than a quarter of all."""
        return _opening(self.units)


@dataclass(frozen=True, eq=False)
class Events:
    """m events. Event j happens when the value in ``column[j]`` lies outside [low[j], high[j]].

    int64 [m], float64 [m], float64 [m]. Limits that are NaN stand for the event "the value is NaN".
    """

    column: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def happen(self, values: np.ndarray) -> np.ndarray:
        """bool [..., m] for float64 [..., k]."""
        value = values[..., self.column]
        return (value < self.low) | (value > self.high) | (np.isnan(value) & np.isnan(self.low))


@dataclass(frozen=True, eq=False)
class Bettor:
    """A comparison under way. ``update`` gives the next one; nothing is changed in place.

    ``opening``: float64 [n, 2, k], the units seen until the events were chosen. ``plus`` and ``minus``: int64 [m],
    how often each payoff was 1 and -1. ``peak``: the largest capital so far. Once ``decided_at`` is set (the number
    of units when the capital reached 1 / alpha) nothing moves any more.
    """

    plan: Plan
    opening: np.ndarray
    events: Events | None = None
    plus: np.ndarray | None = None
    minus: np.ndarray | None = None
    units: int = 0
    peak: float = 1.0
    decided_at: int | None = None

    @property
    def bets(self) -> int:
        return max(self.units - self.plan.opening, 0)

    @property
    def finished(self) -> bool:
        return self.decided_at is not None or self.units == self.plan.units


@dataclass(frozen=True)
class Comparison:
    """The answer, and the numbers behind it.

    ``column``, ``event``, ``threshold``: the event that earned most (DIFFERENT) or is bounded worst, as a name, as
    text, and its limit (the upper of two; NaN for "is NaN"; no event, "" and NaN, if the opening was not completed).
    ``difference``: how much more often it happened in x than in y. ``bound``: every P(event in x) - P(event in y) is
    within +-bound with the plan's confidence; None unless all planned units were seen, for it holds only there.
    ``wealth``: the largest capital reached; min(1, 1 / wealth) is a p-value. ``units``: looked at, with the opening.
    ``decided_at``: the units at which DIFFERENT or EQUAL was decided. ``detectable``: the smallest difference that
    had a chance of 0.9 of being found with these units (those planned, if stopped early); inf if none had.
    """

    word: Word
    column: str
    event: str
    threshold: float
    difference: float
    bound: float | None
    wealth: float
    units: int
    decided_at: int | None
    detectable: float
    payoffs: int
    text: str

    def as_json(self) -> dict[str, Any]:
        return plain(asdict(self))


def share(comparisons: int, alpha: float = 1e-3) -> float:
    """Each comparison's part of the suite's false-alarm budget, when ``comparisons`` will be looked at.

    By the union bound the suite then raises any false alarm with probability at most ``alpha``. The number must be
    fixed before the run; those never reached only make it safer. ValueError below 1.
    """
    if comparisons < 1:
        raise ValueError(f"the budget is shared by at least 1 comparison, not {comparisons}")
    return alpha / comparisons


def most_payoffs(columns: int) -> int:
    """No opening chooses more events than this: two per value, one per distance, "infinite" and "NaN"."""
    return columns * (3 * DISTINCT + 2)


@lru_cache
def pairs_needed(
    margin: float, alpha: float, payoffs: int, confidence: float = 0.999, disagreement: float = 0.5
) -> int:
    """Units for a ``Plan`` under which equal sides come out EQUAL and a difference of ``margin`` comes out DIFFERENT.

    Each with probability at least 0.9 (up to the accuracy of ``detectable`` for the second). ``payoffs``: see
    ``most_payoffs``. ``disagreement``: the largest P(g != 0) expected. 0.5 is the worst case of equal and independent
    sides (2p(1 - p) at p = 1/2); 0 is for pairs that share all their draws; sides that avoid each other reach 1.
    ValueError for arguments out of range.
    """
    if not (0 < margin < 1 and 0 < alpha < 1 and 0 < confidence < 1 and 0 <= disagreement <= 1 and payoffs >= 1):
        raise ValueError(f"no plan for {margin=}, {alpha=}, {payoffs=}, {confidence=}, {disagreement=}")
    miss = (1 - CHANCE) / payoffs / 2  # any payoff may spoil EQUAL, by how often or by how one-sidedly it disagrees

    def enough(bets: int) -> bool:
        disagree = binom.isf(miss, bets, disagreement)
        plus = binom.isf(miss / 2, disagree, 0.5)  # either sign can be the larger one
        equal = _bound(plus, disagree - plus, bets, confidence) <= margin
        return bool(equal) and _chance(margin, bets, alpha, payoffs, disagreement) >= CHANCE

    enough_bets = 1
    while not enough(enough_bets):
        enough_bets *= 2
    too_few = enough_bets // 2
    while enough_bets - too_few > 1:
        middle = (enough_bets + too_few) // 2
        too_few, enough_bets = (too_few, middle) if enough(middle) else (middle, enough_bets)
    return _units(enough_bets)


@lru_cache(maxsize=4096)
def detectable(bets: int, alpha: float, payoffs: int, disagreement: float = 0.5) -> float:
    """The smallest difference of P(event) found with probability 0.9 in so many units after the opening.

    For one event that differs alone, on top of a ``disagreement`` that favours neither side: P(g = 1) = disagreement
    / 2 + difference, P(g = -1) = disagreement / 2. A difference that shows in many events is found sooner. inf if
    not even 1 is found.
    """
    if bets < 1 or _chance(1.0, bets, alpha, payoffs, disagreement) < CHANCE:
        return math.inf
    low, high = 0.0, 1.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        found = _chance(middle, bets, alpha, payoffs, disagreement) >= CHANCE
        low, high = (low, middle) if found else (middle, high)
    return high


def compare(plan: Plan, x: np.ndarray, y: np.ndarray) -> Comparison:
    """All units at once: float [n, k] each, x the reference and y the target. ValueError if the shapes do not fit."""
    return judge(update(begin(plan), x, y))


def twice(drawn: Callable[[int], Decided]) -> Decided:
    """DIFFERENT only if a second, independent sample says so too; else whatever the second says.

    drawn(0) and drawn(1) must be comparisons (or anything with a word and a text) of samples that share nothing. A
    false alarm then needs two at once, alpha squared, which is what makes thousands of runs of an equal pair quiet; a
    real difference that alpha could show once it shows again.
    """
    first = drawn(0)
    if first.word != DIFFERENT:
        return first
    second = drawn(1)
    return replace(second, text=f"{second.text}, in each of two samples") if second.word == DIFFERENT else second


def begin(plan: Plan) -> Bettor:
    return Bettor(plan, np.empty((0, 2, len(plan.names))))


def update(bettor: Bettor, x: np.ndarray, y: np.ndarray) -> Bettor:
    """After n more units, x and y float [n, k]; row i of x and of y is one pair. ValueError if the shapes do not fit.

    Streams that are drawn in parallel must be fed in an order fixed beforehand (by unit, not by who was faster),
    for then neither the answer nor its guarantee depends on how the units were batched.
    """
    plan = bettor.plan
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != len(plan.names):
        raise ValueError(f"two arrays [n, {len(plan.names)}] were expected, not {x.shape} and {y.shape}")
    pairs = np.stack([x, y], axis=1)[: plan.units - bettor.units]
    if bettor.events is None:
        missing = plan.opening - bettor.units
        opening = np.concatenate([bettor.opening, pairs[:missing]])
        bettor, pairs = replace(bettor, opening=opening, units=len(opening)), pairs[missing:]
        if len(opening) < plan.opening:
            return bettor
        events = _choose(opening.reshape(-1, len(plan.names)), plan.resolution)
        nothing = np.zeros(len(events.column), np.int64)
        bettor = replace(bettor, events=events, plus=nothing, minus=nothing)
    for start in range(0, len(pairs), ROWS):
        if bettor.decided_at is None:
            bettor = _bet(bettor, pairs[start : start + ROWS])
    return bettor


def judge(bettor: Bettor) -> Comparison:
    """The answer as it stands. Asking early or often is safe: EQUAL is only said when all planned units were seen."""
    plan = bettor.plan
    if bettor.events is None:
        text = f"{bettor.units:,} of {plan.units:,} units: {plan.opening:,} are needed to choose what to look at"
        nan = math.nan
        return Comparison(INCONCLUSIVE, "", "", nan, nan, None, 1.0, bettor.units, None, math.inf, 0, text)
    assert bettor.plus is not None and bettor.minus is not None  # they are there as soon as the events are
    plus, minus, bets, payoffs = bettor.plus, bettor.minus, bettor.bets, len(bettor.plus)
    complete = bettor.units == plan.units and bettor.decided_at is None
    bounds = _bound(plus, minus, bets, plan.confidence) if bets else np.ones(payoffs)
    equal = complete and bounds.max() <= plan.margin
    word = DIFFERENT if bettor.decided_at is not None else EQUAL if equal else INCONCLUSIVE
    worst = int(np.argmax(_wealth(plus, minus) if word == DIFFERENT else bounds))
    column, event, threshold = _describe(bettor.events, worst, plan.names)
    difference = float(plus[worst] - minus[worst]) / max(bets, 1)
    disagreement = float((plus + minus).max()) / max(bets, 1)
    planned = plan.units - plan.opening if word == DIFFERENT else bets
    smallest = detectable(planned, plan.alpha, payoffs, disagreement)
    seen = f"{bettor.units:,} of {plan.units:,} units"
    least = "nothing could have been detected" if smallest == math.inf else f"smallest detectable {smallest:.2g}"
    text = {
        DIFFERENT: f"P({event}): reference - target is {difference:+.3g} (wealth {bettor.peak:.3g} >= "
        f"{1 / plan.alpha:.3g} after {seen})",
        EQUAL: f"all {payoffs} differences of probability lie within {bounds.max():.2g} at confidence "
        f"{plan.confidence:g}, margin {plan.margin:g}; worst: {event} ({seen}, {least})",
        INCONCLUSIVE: f"no difference found, but P({event}) could differ by {bounds.max():.2g}, margin "
        f"{plan.margin:g} ({seen}, {least})",
    }[word]
    return Comparison(
        word=word,
        column=column,
        event=event,
        threshold=threshold,
        difference=difference,
        bound=float(bounds.max()) if complete else None,
        wealth=bettor.peak,
        units=bettor.units,
        decided_at=bettor.units if equal else bettor.decided_at,
        detectable=smallest,
        payoffs=payoffs,
        text=text,
    )


def _opening(units: int) -> int:
    return max(1, min(OPENING, units // 4))


def _units(bets: int) -> int:
    """The least number of units that leaves so many after the opening."""
    return max(bets + 1, min(bets + OPENING, 4 * (bets - 1) // 3 + 1))


def _choose(values: np.ndarray, resolution: float | tuple[float, ...]) -> Events:
    """The events to look at, from the pooled opening, float64 [2n, k]: at most ``most_payoffs(k)``."""
    per_column = np.broadcast_to(resolution, values.shape[1])
    limits = [_limits(column, r) for column, r in zip(values.T, per_column, strict=True)]
    column = np.repeat(np.arange(len(limits)), [len(pairs) for pairs in limits])
    return Events(column, *np.concatenate(limits).T)


def _limits(values: np.ndarray, resolution: float) -> np.ndarray:
    """[low, high] of each event of one column, float64 [m, 2]."""
    finite = np.sort(values[np.isfinite(values)])
    finite = finite if len(finite) else np.zeros(1)
    middle = finite[(len(finite) - 1) // 2]
    with np.errstate(over="ignore", invalid="ignore"):  # a distance too large for a float has nothing beyond it
        low, high = _cuts(finite, LEVELS, resolution)
        distance = _cuts(np.abs(finite - middle), SPREADS, resolution)[1]
        around = np.stack([middle - distance, middle + distance], axis=1)
    # Both above and below each of a few values: what later falls between two of them moves one of the two events.
    above = np.stack([np.full_like(high, -np.inf), high], axis=1)
    below = np.stack([low, np.full_like(low, np.inf)], axis=1)
    largest = np.finfo(np.float64).max
    return np.concatenate([above, below, around, [[-largest, largest], [np.nan, np.nan]]])


def _cuts(values: np.ndarray, levels: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edges of the values to look at: of all if they are few, else of the least and of ``levels``."""
    values = np.sort(values)
    new = np.diff(values) > resolution
    low, high = values[np.r_[True, new]] - resolution, values[np.r_[new, True]] + resolution
    if len(low) <= min(DISTINCT, (len(values) + 1) // 2):
        return low, high
    at = np.ceil(levels * len(values)).astype(np.int64) - 1
    return low[:1], high[np.unique(np.r_[0, np.cumsum(new)][at])]


def _bet(bettor: Bettor, pairs: np.ndarray) -> Bettor:
    """``pairs``: float64 [n, 2, k], all after the opening. Stops at the unit that decides."""
    assert bettor.events is not None and bettor.plus is not None and bettor.minus is not None
    happened = bettor.events.happen(pairs)
    plus = bettor.plus + np.cumsum(happened[:, 0] & ~happened[:, 1], axis=0)
    minus = bettor.minus + np.cumsum(happened[:, 1] & ~happened[:, 0], axis=0)
    # In memory order, numpy adds the parts of every unit in the same order, however many units there are.
    capital = np.ascontiguousarray(_wealth(plus, minus)).mean(axis=1)
    reached = capital >= 1 / bettor.plan.alpha
    last = int(np.argmax(reached)) if reached.any() else len(pairs) - 1
    units = bettor.units + last + 1
    return replace(
        bettor,
        plus=plus[last],
        minus=minus[last],
        units=units,
        peak=max(bettor.peak, float(capital[: last + 1].max())),
        decided_at=units if reached.any() else None,
    )


def _wealth(plus: Any, minus: Any) -> np.ndarray:
    """What 1, spread evenly over all bets in (-1, 1), has become on payoffs so often 1 and -1; same shape.

    The product of 1 + bet * g needs only the counts, since g is -1, 0 or 1. Its mean is an Euler integral: with p =
    (1 + bet) / 2 uniform in (0, 1), 2^(plus + minus) * integral of p^plus (1 - p)^minus. Unlike a grid of bets this
    has no smallest bet, so it finds any difference in the end.
    """
    with np.errstate(over="ignore"):  # only beyond the unit that has decided already
        return np.exp((plus + minus) * math.log(2) + betaln(plus + 1.0, minus + 1.0))


def _bound(plus: Any, minus: Any, bets: int, confidence: float) -> np.ndarray:
    """Upper confidence bound on abs(E g) of each payoff, exact for any sample size; same shape as the counts.

    E g = P(disagree) * (2 P(plus | disagree) - 1): a Clopper-Pearson bound on each factor, each with half of the
    error (given how many disagree, the pluses are binomial). Without any disagreement it is about ln(2 / error) / n;
    with many it is as narrow as a normal interval with their actual variance, which Clopper-Pearson bounds on
    P(g = 1) and P(g = -1) apart are not (by sqrt 2), nor is Hoeffding's.
    """
    miss = (1 - confidence) / 2
    disagree = plus + minus
    lean = np.maximum(_at_most(plus, disagree, miss), _at_most(minus, disagree, miss))
    return _at_most(disagree, bets, miss) * (2 * lean - 1)


def _at_most(count: Any, of: Any, miss: float) -> np.ndarray:
    """Clopper-Pearson: a bound above the probability of what happened ``count`` times, wrong with chance ``miss``."""
    others = np.asarray(of - count, np.float64)
    return np.where(others > 0, betaincinv(count + 1.0, np.maximum(others, 1.0), 1 - miss), 1.0)


def _chance(difference: float, bets: int, alpha: float, payoffs: int, disagreement: float) -> float:
    """Probability that one payoff with this mean alone has reached payoffs / alpha at the end; see ``detectable``.

    Deterministic: the two binomials (how many disagree, how many of them are pluses) at evenly spaced quantiles.
    """
    disagree = min(1.0, disagreement + difference)
    if disagree == 0:
        return 0.0
    ranks = (np.arange(32) + 0.5) / 32
    total = binom.ppf(ranks, bets, disagree)
    plus = binom.ppf(ranks[:, None], total, (1 + difference / disagree) / 2)
    return float(np.mean(_wealth(plus, total - plus) >= payoffs / alpha))


def _describe(events: Events, j: int, names: tuple[str, ...]) -> tuple[str, str, float]:
    name, low, high = names[events.column[j]], float(events.low[j]), float(events.high[j])
    if math.isnan(low):
        return name, f"{name} is NaN", math.nan
    if high == np.finfo(np.float64).max:
        return name, f"{name} is infinite", high
    if low == -math.inf:
        return name, f"{name} > {high:.6g}", high
    if high == math.inf:
        return name, f"{name} < {low:.6g}", low
    return name, f"{name} outside [{low:.6g}, {high:.6g}]", high
