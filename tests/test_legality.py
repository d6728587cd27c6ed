"""Masks that only one side tells, or only now and then, or that are advice and no rule."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import judging
from ports.judging import one, run

from pytest_envequiv.verdict import DIFFERENT, INCONCLUSIVE

CELLS, LIMIT = 6, 20


class Corridor(gymnasium.Env):
    """Left, right, stay. To run into a wall is of no use and costs ten, and the mask says so. The last cell ends it."""

    action_space = gymnasium.spaces.Discrete(3)
    observation_space = gymnasium.spaces.Box(0, CELLS, (1,), np.float32)
    strict = False  # then it raises an error
    masks = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell, self.time = int(self.np_random.integers(0, CELLS - 1)), 0
        return self.seen()

    def step(self, action):
        bump = action == 0 and self.cell == 0
        if bump and self.strict:
            raise ValueError("there is a wall")
        self.cell += 0 if bump else (-1, 1, 0)[action]
        self.time += 1
        seen, info = self.seen()
        return seen, -10.0 if bump else -1.0, self.cell == CELLS - 1, self.time >= LIMIT, info

    def seen(self):
        info = {"action_mask": np.array([self.cell > 0, True, True], np.int8)} if self.masks else {}
        return np.array([self.cell], np.float32), info


class Strict(Corridor):
    strict = True


class Silent(Corridor):
    masks = False


class Port:
    """The corridor in JAX: without a mask, unless one is asked for."""

    action_space, observation_space = Corridor.action_space, None
    after_reset = after_step = False
    wall, price = 0, -10.0

    def reset(self, key):
        state = {"cell": jax.random.randint(key, (), 0, CELLS - 1), "time": jnp.int32(0)}
        return self.seen(state, self.after_reset), state

    def step(self, key, state, action):
        bump = (action == 0) & (state["cell"] <= self.wall)
        cell = state["cell"] + jnp.where(bump, 0, jnp.array([-1, 1, 0])[action])
        state = {"cell": cell, "time": state["time"] + 1}
        reward = jnp.where(bump, self.price, -1.0)
        obs, terminated, truncated = self.seen(state, self.after_step), cell == CELLS - 1, state["time"] >= LIMIT
        return obs, state, reward, terminated, truncated, {}

    def seen(self, state, masked):
        cell = state["cell"].astype(jnp.float32)[None]
        mask = jnp.stack([state["cell"] > 0, jnp.array(True), jnp.array(True)])
        return {"observation": cell, "action_mask": mask} if masked else cell


class Told(Port):
    """In the way of PettingZoo: a dict with the observation and the mask."""

    after_reset = after_step = True


class Late(Port):
    """The mask is in the info, and a reset has none."""

    def step(self, key, state, action):
        obs, state, reward, terminated, truncated, _ = super().step(key, state, action)
        return obs, state, reward, terminated, truncated, {"action_mask": jnp.stack([obs[0] > 0, True, True])}


class NoWall(Port):
    wall = -1


class Cheap(Told):
    """It is less bad to do what the mask advises against: a matter of taste where both sides advise against it."""

    price = -2.0


def judged(reference, port):
    return judging.opened(reference, port(), levels=("L1", "L2", "L3"))


@pytest.mark.parametrize(("reference", "port"), [(Corridor, Port), (Corridor, Told), (Corridor, Late), (Silent, Told)])
def test_equal_rules_are_equal_whoever_tells_the_mask(reference, port):
    judge = judged(reference, port)
    assert judging.words(run(judge, "*")) == {}
    both = (reference, port) == (Corridor, Told)
    assert judge.pair.ref.masked == judge.pair.target.masked == both
    assert any("mask of legal actions (not compared, nor kept to)" in note for note in judge.pair.notes) != both
    played = judge.bench.played.rows
    bumps = (played.action["action"] == 0) & (played.state.fields["cell"] == 0)
    assert bumps.any() != both


def test_what_is_masked_on_one_side_only_has_to_be_answered_alike():
    found = run(judged(Corridor, NoWall), "L2-play-*")
    assert found["L2-play-cell"].word == found["L2-play-reward"].word == DIFFERENT


def test_where_both_sides_advise_against_it_it_is_a_note():
    judge = judged(Corridor, Cheap)
    found = run(judge, "*")
    assert judging.words(found) == {}
    assert "an illegal action" in found["L1-illegal_action-step"].notes[0]


def test_a_reference_that_raises_is_kept_from_it():
    """What can be asked is; episodes cannot be played alike, and that is said with what to do about it."""
    judge = judged(Strict, Port)
    found = run(judge, "*")
    assert {i for i, v in found.items() if v.word != "EQUAL"} == {"L3-episodes-return", "L3-episodes-length"}
    verdict = one(judge, "L3-episodes-return")
    assert verdict.word == INCONCLUSIVE
    assert "there is a wall" in verdict.summary and "give it a mask" in verdict.summary
    assert judging.words(run(judged(Strict, Told), "*")) == {}
