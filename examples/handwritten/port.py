"""The same probe as two plain functions in JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LIMIT, GRAVITY, THRUST = 60, 0.1, 0.25


class State(NamedTuple):
    height: jax.Array
    speed: jax.Array
    fuel: jax.Array
    steps: jax.Array


def reset(key):
    first, second = jax.random.split(key)
    height = jax.random.uniform(first, minval=8.0, maxval=12.0)
    return State(height, jnp.float32(0.0), jax.random.randint(second, (), 5, 15), jnp.int32(0))


def step(state, action):
    braking = (action == 1) & (state.fuel > 0)
    speed = state.speed + THRUST * braking - GRAVITY
    height = jnp.maximum(state.height + speed, 0.0)
    state = State(height, speed, state.fuel - braking, state.steps + 1)
    terminated = height <= 0.0
    reward = jnp.where(terminated, -jnp.abs(speed), -0.01 * braking)
    return state, observe(state), reward, terminated, state.steps >= LIMIT


def observe(state):
    return jnp.stack([state.height, state.speed, state.fuel.astype(jnp.float32)])
