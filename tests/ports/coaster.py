"""Coaster: a cart between two slopes, four small moves a step. Its port in JAX makes them in loops."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

MOVES, LIMIT = 4, 25
ENGINES = (1.0, 0.6, 0.3)  # each weaker, and each with its own drag
DRAGS = (0.02, 0.05, 0.08)
TOP = np.array([4.0, 4.0], np.float32)


class Coaster(gymnasium.Env):
    """The reference."""

    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(-TOP, TOP, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.speed, self.paid = float(self.np_random.uniform(-0.5, 0.5)), 0.0, 0.0
        return self._seen(), {}

    def step(self, action):
        push = 0.0
        for engine, drag in zip(ENGINES, DRAGS, strict=True):
            push += engine * float(np.clip(action[0], -1.0, 1.0)) - drag * self.speed
        reward = 0.0
        for _ in range(MOVES):
            self.speed += 0.1 * push - 0.3 * math.sin(2.0 * self.place)
            self.speed = min(max(self.speed, -1.5), 1.5)
            self.place += 0.05 * self.speed
            reward -= self.place**2
        return self._seen(), reward, abs(self.place) > 2.0, False, {}

    def _seen(self):
        return np.array([self.place, self.speed], np.float32)


gymnasium.register("Coaster-v0", entry_point="ports.coaster:Coaster", max_episode_steps=LIMIT, disable_env_checker=True)


class State(NamedTuple):
    place: Any
    speed: Any
    time: Any


class Port:
    """The port: the engines are gone through by ``scan``, the moves made by ``fori_loop``."""

    action_space, observation_space = Coaster.action_space, Coaster.observation_space
    max_steps_in_episode = LIMIT

    def reset(self, key):
        state = State(jax.random.uniform(key, (), minval=-0.5, maxval=0.5), jnp.float32(0), jnp.int32(0))
        return state, seen(state)

    def step(self, state, action):
        wish = jnp.clip(action[0], -1.0, 1.0)

        def driven(push, engine):
            power, drag = engine
            return push + power * wish - drag * state.speed, None

        push, _ = jax.lax.scan(driven, jnp.float32(0), (jnp.array(ENGINES), jnp.array(DRAGS)))

        def moved(_, carry):
            place, speed, reward = carry
            speed = speed + 0.1 * push - 0.3 * jnp.sin(2.0 * place)
            speed = jnp.clip(speed, -1.5, 1.5)
            place = place + 0.05 * speed
            return place, speed, reward - place**2

        place, speed, reward = jax.lax.fori_loop(0, MOVES, moved, (state.place, state.speed, jnp.float32(0)))
        state = State(place, speed, state.time + 1)
        return state, seen(state), reward, jnp.abs(place) > 2.0, state.time >= LIMIT


def seen(state):
    return jnp.array([state.place, state.speed])
