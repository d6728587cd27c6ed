"""How far apart are two means? A confidence sequence for the mean difference of paired episodes, by betting.

Unit i is one pair of episodes: x[i] on the reference, y[i] on the target, both clipped to a range that is fixed before
the first of them, so that their difference lies in a known interval. Whoever bets that its mean is above m, a fixed
share of what may be lost each time, has a fair game at best if it is not; the capital, spread evenly over SHARES,
reaches 1 / alpha with probability at most alpha, however often one looks. All m against which neither this bet nor the
opposite one got that far form an interval that holds the true mean at all times (Waudby-Smith & Ramdas 2024,
"Estimating means of bounded random variables by betting", JRSS B 86:1, arXiv 2010.09686). It is narrow where the pairs
vary little: paired episodes that share their draws are usually the same.

DIFFERENT: the interval at ``alpha`` does not hold 0. EQUAL: the one at ``confidence`` lies within the margin.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Word, plain

SHARES = np.geomspace(0.002, 0.98, 16)  # of what may be lost in a unit, that are bet
HALVINGS = 40
LIKELY = 1.2816  # standard errors: a chance of 0.9


@dataclass(frozen=True)
class Plan:
    """Fixed before the first unit. ValueError if it makes no sense.

    ``low`` and ``high``: returns are clipped to them. ``margin``: of the mean difference, for EQUAL. ``alpha``: of a
    false DIFFERENT; 1 - ``confidence``: of a false EQUAL.
    """

    low: float
    high: float
    margin: float
    alpha: float
    confidence: float = 0.999

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"returns must lie in a range, not in [{self.low}, {self.high}]")
        if not self.margin > 0:
            raise ValueError(f"margin must be above 0, not {self.margin}")
        for what in ("alpha", "confidence"):
            if not 0 < getattr(self, what) < 1:
                raise ValueError(f"{what} must lie between 0 and 1, not {getattr(self, what)}")


@dataclass(frozen=True)
class Gap:
    """What the units so far say. ``gap``: mean of reference - target; ``low`` and ``high``: the interval at the plan's
    confidence; ``detectable``: a gap that had a chance of 0.9 of being found DIFFERENT with units like these (inf: none
    had)."""

    word: Word
    gap: float
    low: float
    high: float
    units: int
    detectable: float
    reference: float
    target: float

    def as_json(self) -> dict[str, Any]:
        return plain(asdict(self))


def judge(plan: Plan, x: np.ndarray, y: np.ndarray) -> Gap:
    """After n units, x the reference's returns and y the target's, float[n]. Asking often is safe. NaN counts as the
    lowest return. ValueError if the shapes do not fit or there is nothing."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"two arrays of the same length were expected, not {x.shape} and {y.shape}")
    x, y = (np.clip(np.nan_to_num(v, nan=plan.low), plan.low, plan.high) for v in (x, y))
    apart, reach = x - y, plan.high - plan.low
    low, high = interval(apart, reach, 1 - plan.confidence)
    word: Word = INCONCLUSIVE
    if not holds(apart, reach, 0.0, plan.alpha):
        word = DIFFERENT
    elif -plan.margin <= low and high <= plan.margin:
        word = EQUAL
    found = (float(v.mean()) for v in (x, y))
    return Gap(word, float(apart.mean()), low, high, len(x), detectable(apart, reach, plan.alpha), *found)


def holds(apart: np.ndarray, reach: float, mean: float, alpha: float) -> bool:
    """Whether the interval at ``alpha`` holds ``mean``; ``apart``: float[n] within [-reach, reach]."""
    return max(_wealth(apart, reach, mean), _wealth(-apart, reach, -mean)) < math.log(2 / alpha)


def interval(apart: np.ndarray, reach: float, alpha: float) -> tuple[float, float]:
    """The interval that holds the mean, wrong with probability at most ``alpha`` whenever one looks."""
    return _below(apart, reach, alpha), -_below(-apart, reach, alpha)


def detectable(apart: np.ndarray, reach: float, alpha: float) -> float:
    """How far these differences, around 0 and unluckily low, would have to be moved for 0 to be left out."""
    error = float(apart.std()) / math.sqrt(len(apart))
    centred = apart - apart.mean() - LIKELY * error

    def found(shift: float) -> bool:
        return not holds(np.clip(centred + shift, -reach, reach), reach, 0.0, alpha)

    low, high = 0.0, reach
    if not found(high):
        return math.inf
    for _ in range(HALVINGS // 2):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def half_width(deviation: float, reach: float, units: int, alpha: float) -> float:
    """About how far the interval will reach to either side, for planning: Bernstein's inequality, and the price of not
    knowing how much to bet. ``deviation``: of a pair's difference."""
    price = math.log(2 * len(SHARES) / alpha)
    return deviation * math.sqrt(2 * price / units) + price * reach / units


def _below(apart: np.ndarray, reach: float, alpha: float) -> float:
    """The largest mean that those who bet on a larger one have ruled out; -reach if none."""
    limit, low, high = math.log(2 / alpha), -reach, reach
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _wealth(apart, reach, middle) >= limit else (low, middle)
    return low


def _wealth(apart: np.ndarray, reach: float, mean: float) -> float:
    """The logarithm of what 1 has become by bets that the mean is above ``mean``. It falls as ``mean`` rises."""
    most = mean + reach  # what may be lost in a unit is won back at these odds
    if most <= 0:
        return math.inf
    gain = (apart + reach) / most - 1.0
    logs = np.log1p(SHARES[:, None] * gain).sum(1)
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))
