"""States that can only be come to by going there: the search goes on from where it saw something new."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import judging

SIDE, LIMIT = 6, 100
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])


class Quest(gymnasium.Env):
    """A grid. In one corner lies a key, which has to be taken; in the opposite one is a door that pays 5 with the key.
    Who waits goes back to the middle: to take or to open is to wait."""

    action_space = gymnasium.spaces.Discrete(5)
    observation_space = gymnasium.spaces.Box(0, SIDE, (3,), np.int64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.key, self.time = np.array([3, int(self.np_random.integers(2, 4))]), 0, 0
        return self.seen(), {}

    def step(self, action):
        took = action == 4 and tuple(self.place) == (0, 0)
        opened = action == 4 and tuple(self.place) == (SIDE - 1, SIDE - 1) and self.key == 1
        self.place = np.clip(self.place + MOVES[action], 0, SIDE - 1) if action < 4 or opened else np.array([3, 3])
        self.key, self.time = int(self.key or took), self.time + 1
        return self.seen(), 5.0 * opened, bool(opened), self.time >= LIMIT, {}

    def seen(self):
        return np.array([*self.place, self.key])


class Port:
    action_space = gymnasium.spaces.Discrete(5)
    prize = 5.0

    def reset(self, key):
        place = jnp.stack([3, jax.random.randint(key, (), 2, 4)])
        state = {"place": place, "key": jnp.int32(0), "time": jnp.int32(0)}
        return self.seen(state), state

    def step(self, key, state, action):
        waits, has = action == 4, state["key"] == 1
        took = waits & (state["place"] == 0).all()
        opened = waits & (state["place"] == SIDE - 1).all() & has
        walked = jnp.clip(state["place"] + jnp.array(MOVES)[action], 0, SIDE - 1)
        place = jnp.where(waits & ~opened, 3, walked)
        state = {"place": place, "key": jnp.where(took, 1, state["key"]), "time": state["time"] + 1}
        reward, truncated = jnp.where(opened, self.prize, 0.0), state["time"] >= LIMIT
        return self.seen(state), state, reward, opened, truncated, {}

    def seen(self, state):
        return jnp.append(state["place"], state["key"])


class Poor(Port):
    prize = 4.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_lies_behind_a_key_and_a_door_is_found(seed):
    judge = judging.opened(Quest, Poor(), seed=seed)
    found = judging.run(judge, "L2-*")
    assert "L2-coverage-reward" in judging.different(found), judging.words(found)
    rows = judge.bench.rows("coverage")
    assert (rows.clock <= LIMIT).all() and (rows.clock > 0).all()


def test_an_equal_port_stays_equal_there():
    judge = judging.opened(Quest, Port())
    assert judging.words(judging.run(judge, "*")) == {}
    assert judge.bench.step("coverage").ours.done.any()
