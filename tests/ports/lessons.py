"""Lessons: small JAX environments, each of which teaches one thing. For what learning has to be able to do."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.opening import open_backend

ENDS, CUT = 7, 10  # the walk's last place, and the steps after which it is cut off


class Where(NamedTuple):
    at: Any
    time: Any


class Walk:
    """Whole numbers only: right is good. It terminates at ENDS and is truncated after CUT steps."""

    num_actions, max_steps_in_episode = 2, CUT
    observation_space = gymnasium.spaces.Box(-20.0, 20.0, (2,), np.float32)

    def reset(self, key):
        state = Where(jax.random.randint(key, (), 0, 4), jnp.int32(0))
        return state, self.seen(state)

    def step(self, state, action):
        after = Where(state.at + 2 * action - 1, state.time + 1)
        reward = jnp.float32(action)
        return after, self.seen(after), reward, after.at >= ENDS, after.time >= CUT

    def seen(self, state):
        return jnp.stack([state.at, state.time]).astype(jnp.float32)


class Recall:
    """What was shown at the beginning has to be done five steps later: nobody can without memory."""

    num_actions, max_steps_in_episode = 2, 6
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, key):
        state = {"cue": jax.random.randint(key, (), 0, 2), "time": jnp.int32(0)}
        return state, jnp.stack([2.0 * state["cue"] - 1.0, 0.0])

    def step(self, state, action):
        after = {**state, "time": state["time"] + 1}
        last = after["time"] == 6
        right = jnp.where(action == state["cue"], 1.0, -1.0)
        seen = jnp.stack([0.0, (after["time"] == 5).astype(jnp.float32)])
        return after, seen, jnp.where(last, right, 0.0), last, jnp.zeros((), bool)


class Menu:
    """Of five dishes some are off, others each time; an illegal order costs 100. The last that is on is the best."""

    num_actions, max_steps_in_episode = 5, 8
    observation_space = gymnasium.spaces.Dict({"menu": gymnasium.spaces.Box(0.0, 1.0, (5,), np.float32)})

    def reset(self, key):
        state = {"mask": self.drawn(key), "time": jnp.int32(0)}
        return state, self.seen(state)

    def step(self, state, action, key):
        legal = state["mask"][action]
        after = {"mask": self.drawn(key), "time": state["time"] + 1}
        last = 4 - jnp.argmax(state["mask"][::-1])
        reward = jnp.where(legal, (action == last).astype(jnp.float32), -100.0)
        over = after["time"] >= 8
        return after, self.seen(after), reward, over, jnp.zeros((), bool)

    def seen(self, state):
        return {"menu": state["mask"].astype(jnp.float32), "action_mask": state["mask"]}

    def drawn(self, key):
        return jax.random.bernoulli(key, 0.5, (5,)).at[jax.random.randint(key, (), 0, 5)].set(True)


class Several:
    """Three choices of different sizes and two real numbers at once, each with one best value."""

    max_steps_in_episode = 4
    action_space = gymnasium.spaces.Dict(
        {
            "pick": gymnasium.spaces.MultiDiscrete([2, 5, 3]),
            "dose": gymnasium.spaces.Box(np.array([0.0, -2.0], np.float32), np.array([4.0, 2.0], np.float32)),
        }
    )
    observation_space = gymnasium.spaces.Discrete(4)

    def reset(self, key):
        return {"time": jnp.int32(0)}, jnp.int32(0)

    def step(self, state, action):
        time = state["time"]
        best = jnp.stack([time % 2, (time + 2) % 5, time % 3])
        hits = (action["pick"] == best).sum().astype(jnp.float32)
        off = jnp.abs(action["dose"] - jnp.array([3.0, -1.0])).sum()
        over = time + 1 >= 4
        return {"time": time + 1}, jnp.minimum(time + 1, 3), hits - off, over, jnp.zeros((), bool)


class Stepwise:
    """The same backend without its pure functions: what any other program looks like."""

    def __init__(self, backend):
        self.backend, self.spec = backend, backend.spec

    def reset(self, seeds, tape=None):
        return self.backend.reset(seeds, tape)

    def step(self, state, action, seeds, tape=None):
        return self.backend.step(state, action, seeds, tape)

    def close(self):
        pass


def compiled(lesson):
    return open_backend(lesson)


def stepwise(lesson):
    return Stepwise(open_backend(lesson))


class Rich(NamedTuple):
    rich: Any
    time: Any


class Endless:
    """Nothing that is done matters: half of the episodes pay 1 at each step, and all are cut off after five."""

    num_actions, max_steps_in_episode = 2, 5
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    def reset(self, key):
        state = Rich(jax.random.bernoulli(key).astype(jnp.float32), jnp.int32(0))
        return state, state.rich[None]

    def step(self, state, action):
        after = Rich(state.rich, state.time + 1)
        return after, after.rich[None], after.rich, jnp.zeros((), bool), after.time >= 5


class Doomed(Endless):
    """The same, but what was cut off there ends here."""

    def step(self, state, action):
        after, seen, reward, terminated, truncated = super().step(state, action)
        return after, seen, reward, truncated, terminated
