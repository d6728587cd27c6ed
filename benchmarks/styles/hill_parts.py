"""MountainCarContinuous-v0 as a pipeline of small pure functions.

apply_action -> integrate -> collide -> reward_of
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


class Params(NamedTuple):
    min_action: float = -1.0
    max_action: float = 1.0
    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07
    goal_position: float = 0.45
    goal_velocity: float = 0.0
    power: float = 0.0015
    gravity: float = 0.0025
    action_cost: float = 0.1
    goal_bonus: float = 100.0
    time_limit: int = 999


P = Params()

action_space = spaces.Box(P.min_action, P.max_action, shape=(1,), dtype=np.float32)
observation_space = spaces.Box(
    low=np.array([P.min_position, -P.max_speed], dtype=np.float32),
    high=np.array([P.max_position, P.max_speed], dtype=np.float32),
    dtype=np.float32,
)


def apply_action(car, throttle):
    """(position, velocity), throttle -> (position, velocity) after the engine and the hill."""
    position, velocity = car
    force = jnp.minimum(jnp.maximum(throttle, P.min_action), P.max_action)
    velocity = velocity + force * P.power - P.gravity * jnp.cos(3 * position)
    return position, velocity


def integrate(car):
    position, velocity = car
    velocity = jnp.clip(velocity, -P.max_speed, P.max_speed)
    return position + velocity, velocity


def collide(car):
    position, velocity = car
    position = jnp.clip(position, P.min_position, P.max_position)
    blocked = jnp.logical_and(position <= P.min_position, velocity < 0)
    return position, jnp.where(blocked, 0.0, velocity)


def reached_goal(car):
    position, velocity = car
    return (position >= P.goal_position) & (velocity >= P.goal_velocity)


def reward_of(car, throttle):
    """-> (reward, at goal). The cost is on the throttle as commanded, before clipping."""
    goal = reached_goal(car)
    bonus = jax.lax.cond(goal, lambda: P.goal_bonus, lambda: 0.0)
    return bonus - P.action_cost * throttle**2, goal


def observe(car):
    return jnp.stack(car)


def reset(key):
    position = jax.random.uniform(key, (), jnp.float32, -0.6, -0.4)
    car = (position, jnp.zeros_like(position))
    return observe(car), (*car, jnp.zeros((), dtype=jnp.int32))


def step(key, state, action):
    del key
    *car, t = state
    throttle = jnp.asarray(action, jnp.float32)[0]

    car = apply_action(tuple(car), throttle)
    car = integrate(car)
    car = collide(car)
    reward, terminated = reward_of(car, throttle)

    t = t + 1
    truncated = t >= P.time_limit
    return observe(car), (*car, t), reward, terminated, truncated, {}
