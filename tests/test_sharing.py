"""How two sides come to begin and go on alike: draws that are used in other ways."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from ports import judging


class Spread(gymnasium.Env):
    """Begins at (angle, rate) within (pi, 1), on one of five lanes from 1."""

    action_space, observation_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Box(-9, 9, (3,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        high = np.array([np.pi, 1.0])
        self.at, self.lane = self.np_random.uniform(-high, high), int(self.np_random.integers(1, 6))
        return np.append(self.at, self.lane), {}

    def step(self, action):
        self.at = self.at + 0.1 * action
        return np.append(self.at, self.lane), 0.0, bool(self.at[0] > 4), False, {}


class Unit:
    """The same, drawn from -1 to 1 and from 0, and made into it."""

    action_space = gymnasium.spaces.Discrete(2)
    spread = (np.pi, 1.0)

    def reset(self, key):
        one, two = jax.random.split(key)
        at = jax.random.uniform(one, (2,), minval=-1.0) * jnp.array(self.spread)
        state = {"at": at, "lane": 1 + jax.random.randint(two, (), 0, 5)}
        return self.seen(state), state

    def step(self, key, state, action):
        state = {**state, "at": state["at"] + 0.1 * action}
        return self.seen(state), state, 0.0, state["at"][0] > 4, False, {}

    def seen(self, state):
        return jnp.append(state["at"], state["lane"])


class Wider(Unit):
    spread = (np.pi, 1.5)


class Little(Unit):
    spread = (np.pi, 1.01)


class Folded(Unit):
    """What is seen is distributed alike, and made of the draws in another way."""

    def reset(self, key):
        _, state = super().reset(key)
        state["at"] = -state["at"]
        return self.seen(state), state


class Coarse(Unit):
    """Drawn in half precision."""

    def reset(self, key):
        one, two = jax.random.split(key)
        at = jax.random.uniform(one, (2,), jnp.float16, -1.0) * jnp.array(self.spread)
        state = {"at": at, "lane": 1 + jax.random.randint(two, (), 0, 5)}
        return self.seen(state), state


def test_draws_that_are_scaled_afterwards_are_shared_by_their_place_between_the_bounds():
    judge = judging.opened(Spread, Unit())
    assert judge.pair.reset_mode == "tape" and judge.pair.reset_match.scaled
    assert judging.words(judging.run(judge, "*")) == {}
    judge = judging.opened(Spread, Wider())
    assert judge.pair.reset_mode == "none"  # no two episodes are brought together: distributions decide
    assert "L1-reset-at" in judging.different(judging.run(judge, "L1-reset-*"))
    judge = judging.opened(Spread, Little())
    assert judge.pair.reset_mode == "tape"  # what is seen goes up and down with the reference's: chance would hide this
    assert "L1-reset-at" in judging.different(judging.run(judge, "L1-reset-*"))


class OneByOne(Unit):
    """The two numbers drawn one after the other, from their own bounds."""

    def reset(self, key):
        one, two, three = jax.random.split(key, 3)
        angle = jax.random.uniform(one, (), minval=-np.pi, maxval=np.pi)
        rate = jax.random.uniform(two, (), minval=-1.0, maxval=1.0)
        state = {"at": jnp.stack([angle, rate]), "lane": jax.random.randint(three, (), 1, 6)}
        return self.seen(state), state


class Turned(OneByOne):
    """The other way round: what is drawn first is the rate."""

    def reset(self, key):
        one, two, three = jax.random.split(key, 3)
        rate = jax.random.uniform(two, (), minval=-1.0, maxval=1.0)
        angle = jax.random.uniform(one, (), minval=-np.pi, maxval=np.pi)
        state = {"at": jnp.stack([angle, rate]), "lane": jax.random.randint(three, (), 1, 6)}
        return self.seen(state), state


class Halved(OneByOne):
    def reset(self, key):
        one, two, three = jax.random.split(key, 3)
        angle = jax.random.uniform(one, (), jnp.float16, minval=-np.pi, maxval=np.pi)
        rate = jax.random.uniform(two, (), minval=-1.0, maxval=1.0)
        state = {"at": jnp.stack([angle, rate]), "lane": jax.random.randint(three, (), 1, 6)}
        return self.seen(state), state


class Narrow(OneByOne):
    def reset(self, key):
        _, state = super().reset(key)
        state["at"] = 0.9 * state["at"]
        return self.seen(state), state


def test_numbers_drawn_one_by_one_are_those_of_a_vector():
    judge = judging.opened(Spread, OneByOne())
    assert judge.pair.reset_mode == "tape" and judge.pair.reset_match.regrouped
    assert judging.words(judging.run(judge, "*")) == {}
    judge = judging.opened(Spread, Narrow())
    assert judge.pair.reset_mode == "tape"
    assert "L1-reset-at" in judging.different(judging.run(judge, "L1-reset-*"))
    judge = judging.opened(Spread, Halved())
    assert "float16, of few values" in judging.run(judge, "L1-draws-reset")["L1-draws-reset"].summary


def test_what_is_made_of_draws_in_another_way_is_left_to_chance():
    judge = judging.opened(Spread, Folded())
    assert judge.pair.reset_mode == "none"
    assert judging.different(judging.run(judge, "L1-reset-*")) == []
    judge = judging.opened(Spread, Coarse())
    assert judge.pair.reset_mode == "tape"
    assert "L1-reset-at" in judging.different(judging.run(judge, "L1-reset-*"))


class Noisy(Spread):
    """Each number with a little of its own on top."""

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.at = self.at + 0.02 * self.np_random.uniform(size=2)
        return np.append(self.at, self.lane), info


class NoiseSwapped(OneByOne):
    """Distributed alike: what is on top of one is drawn where the reference draws that of the other."""

    def reset(self, key):
        keys = jax.random.split(key)
        _, state = super().reset(keys[0])
        state["at"] = state["at"] + 0.02 * jax.random.uniform(keys[1], (2,))[::-1]
        return self.seen(state), state


def test_what_counts_for_little_is_not_overlooked():
    judge = judging.opened(Noisy, NoiseSwapped())
    assert judge.pair.reset_mode == "none"  # though each number goes up and down with the reference's
    assert judging.words(judging.run(judge, "L1-reset-*")) == {}


class Mixed(Spread):
    """Two numbers of the same bounds."""

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 2)
        return np.append(self.at, self.lane), info


class Swapped(OneByOne):
    def reset(self, key):
        one, two, three = jax.random.split(key, 3)
        rate, angle = (jax.random.uniform(k, (), minval=-1.0, maxval=1.0) for k in (one, two))
        state = {"at": jnp.stack([angle, rate]), "lane": jax.random.randint(three, (), 1, 6)}
        return self.seen(state), state


def test_which_is_which_is_told_by_the_bounds_and_where_it_is_not_nothing_is_shared():
    judge = judging.opened(Spread, Turned())
    assert judge.pair.reset_mode == "tape"
    assert judging.words(judging.run(judge, "*")) == {}
    judge = judging.opened(Mixed, Swapped())
    assert judge.pair.reset_mode == "none"
    assert judging.words(judging.run(judge, "L1-reset-*")) == {}
