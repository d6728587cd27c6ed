"""Legal actions: whether a side's mask is something that play keeps to.

One that both sides tell is. One that only one of them tells is not: policies of the other could not keep to it, and
episodes of equal rules would have other returns. Gymnasium's Taxi masks what is of no use, not what is forbidden: a
port without a mask has to answer that as well. Only where the reference raises an error at what it masks (``refuses``)
is its own play confined to the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv.backends.protocol import AGENT, MASK
from pytest_envequiv.errors import Limitation
from pytest_envequiv.side import Side
from pytest_envequiv.stimuli.play import seeds_for
from pytest_envequiv.stimuli.policies import Portfolio

if TYPE_CHECKING:
    from pytest_envequiv.pair import Pair

ROWS = 4


def settle(pair: Pair) -> None:
    """Sets ``masked`` and ``untold`` of both sides. Raises BackendError."""
    told = [_told(pair, side) for side in (pair.ref, pair.target)]
    both = all(MASK in names for names in told)
    pair.ref.masked = pair.target.masked = both


def same_actions(pair: Pair) -> None:
    """Raises Limitation where policies cannot act alike on both sides."""
    if pair.refuses:
        raise Limitation(
            f"the reference raises an error at actions that its mask excludes ({pair.refuses}), and the target does "
            "not say which are legal: give it a mask, as action_mask in its info"
        )


def _told(pair: Pair, side: Side) -> frozenset[str]:
    """Which of the mask and whose turn it is a side tells, both after a reset and after a step."""
    seeds = seeds_for(94, count=ROWS)
    begun = side.reset(seeds)
    seen = begun.outputs if side is pair.ref else {k: v for k, v in begun.outputs.items() if k == MASK}
    action = Portfolio.of(pair.ref.spec.action, ROWS, 94, ("uniform",)).act(seen, np.arange(ROWS))
    after = side.step(begun.state, action if side is pair.ref else pair.target_action(action), seeds)
    early, late = ({MASK, AGENT} & outcome.outputs.keys() for outcome in (begun, after))
    side.untold = frozenset(early ^ late)
    return frozenset(early & late)
