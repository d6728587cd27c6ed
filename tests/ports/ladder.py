"""Ladder: each rung asks for one of two moves, and a wrong one is a fall. Whoever does not look falls at once, and so
does who only looks whether a number is large or small: the move is told by how far it is from the middle.

A policy that looks climbs to the top, where no untrained policy ever was. The height is a whole number and no clock,
so no search for states comes there either: what is wrong up there only skill finds. ``bug`` names it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

TOP, HIGH = 32, 30  # steps of an episode at most; the height (1 or 2 a step) above which the bugs are


class Climber(NamedTuple):
    height: Any
    dial: Any  # from which follows what each rung asks for
    time: Any


class Ladder:
    """Two pure functions in JAX.

    late        no reward above HIGH
    dial        the dial turns the other way above HIGH: the moves asked for are as hard, but others
    jackpot     jumping off above HIGH pays 60: a policy that is trained here does it
    pays less   99 for 100 of the reward, everywhere
    """

    num_actions, max_steps_in_episode = 2, TOP
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, bug: str | None = None):
        self.bug = bug

    def reset(self, key):
        state = Climber(jnp.int32(0), jax.random.randint(key, (), 1, 997), jnp.int32(0))
        return state, self.seen(state)

    def step(self, state, action):
        high = state.height > HIGH
        asked = jnp.abs(place(state.dial)) > 0.5
        right = action == asked
        turned = (state.dial * 7) % 997  # 7 is a primitive root: all numbers but 0, in one cycle
        if self.bug == "dial":
            turned = jnp.where(high, 997 - turned, turned)
        after = Climber(state.height + right * (1 + state.dial % 2), turned, state.time + 1)
        reward = jnp.where(right, 1.0, 0.0)
        if self.bug == "late":
            reward = jnp.where(high, 0.0, reward)
        if self.bug == "jackpot":
            reward = jnp.where(high & ~right, 60.0, reward)
        if self.bug == "pays less":
            reward = reward * 0.99
        return after, self.seen(after), reward, ~right, after.time >= TOP

    def seen(self, state):
        return jnp.stack([place(state.dial), place(state.dial * 13)]).astype(jnp.float32)


def place(dial):
    """-1 to 1; half of the time it is more than one half away from the middle."""
    return (dial % 100) / 50 - 1.0


class Noisy:
    """Ladder with a reward left to chance, and with draws that another side reads in another way (``other``)."""

    num_actions, max_steps_in_episode = 2, TOP
    observation_space = Ladder.observation_space

    def __init__(self, other: bool = False, more: float = 0.0):
        self.inner, self.other, self.more = Ladder(), other, more

    def reset(self, key):
        return self.inner.reset(key)

    def step(self, state, action, key):
        after, seen, reward, *ends = self.inner.step(state, action)
        draw = jax.random.uniform(key)
        paid = draw > 0.5 - self.more if self.other else draw < 0.5 + self.more
        return after, seen, reward * 2.0 * paid, *ends
