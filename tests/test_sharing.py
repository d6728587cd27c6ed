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


def test_draws_that_are_scaled_afterwards_are_shared_by_their_place_between_the_bounds():
    judge = judging.opened(Spread, Unit())
    assert judge.pair.reset_mode == "tape" and judge.pair.reset_match.scaled
    assert judging.words(judging.run(judge, "*")) == {}
    judge = judging.opened(Spread, Wider())
    assert judge.pair.reset_mode == "none"  # no two episodes are brought together: distributions decide
    assert judging.different(judging.run(judge, "L1-reset-*"))
