"""MountainCarContinuous-v0 in JAX.

``make`` builds an environment from its physical constants; the module's own
``reset`` and ``step`` are those of the standard one.
"""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


class Car(NamedTuple):
    kinematics: jax.Array  # (position, velocity)
    clock: jax.Array


def make(
    power=0.0015,
    gravity=0.0025,
    max_action=1.0,
    min_position=-1.2,
    max_position=0.6,
    max_speed=0.07,
    goal_position=0.45,
    goal_velocity=0.0,
    start=(-0.6, -0.4),
    goal_reward=100.0,
    action_cost=0.1,
    time_limit=999,
):
    low = np.array([min_position, -max_speed], dtype=np.float32)
    high = np.array([max_position, max_speed], dtype=np.float32)
    observation_space = spaces.Box(low, high, dtype=np.float32)
    action_space = spaces.Box(-max_action, max_action, shape=(1,), dtype=np.float32)

    def slope(position):
        return gravity * jnp.cos(3.0 * position)

    def drive(position, velocity, throttle):
        force = jnp.clip(throttle, -max_action, max_action)
        velocity = velocity + force * power - slope(position)
        velocity = jnp.clip(velocity, -max_speed, max_speed)
        position = jnp.clip(position + velocity, min_position, max_position)
        stopped = (position == min_position) & (velocity < 0)
        return position, jnp.where(stopped, 0.0, velocity)

    def at_goal(position, velocity):
        return (position >= goal_position) & (velocity >= goal_velocity)

    def reward_of(throttle, terminated):
        # the cost is of the action as given, before it is clipped
        bonus = jnp.where(terminated, goal_reward, 0.0)
        return (bonus - action_cost * jnp.square(throttle)).astype(jnp.float32)

    def reset(key):
        position = jax.random.uniform(key, (), jnp.float32, minval=start[0], maxval=start[1])
        kinematics = jnp.stack([position, jnp.zeros_like(position)])
        return kinematics, Car(kinematics, jnp.int32(0))

    def step(key, state, action):
        throttle = jnp.asarray(action, jnp.float32)[0]
        position, velocity = drive(*state.kinematics, throttle)
        terminated = at_goal(position, velocity)
        reward = reward_of(throttle, terminated)
        kinematics = jnp.stack([position, velocity])
        clock = state.clock + 1
        state = Car(kinematics, clock)
        return kinematics, state, reward, terminated, clock >= time_limit, {}

    return SimpleNamespace(
        reset=reset,
        step=step,
        action_space=action_space,
        observation_space=observation_space,
    )


_default = make()

reset = _default.reset
step = _default.step
action_space = _default.action_space
observation_space = _default.observation_space
