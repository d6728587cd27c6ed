"""MountainCar-v0 in JAX. State: {"position", "velocity", "t"}, all scalars."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

MIN_POSITION = -1.2
MAX_POSITION = 0.6
MAX_SPEED = 0.07
GOAL_POSITION = 0.5
GOAL_VELOCITY = 0.0
FORCE = 0.001
GRAVITY = 0.0025
START_LOW = -0.6
START_HIGH = -0.4
TIME_LIMIT = 200

action_space = spaces.Discrete(3)
observation_space = spaces.Box(
    low=np.array([MIN_POSITION, -MAX_SPEED], dtype=np.float32),
    high=np.array([MAX_POSITION, MAX_SPEED], dtype=np.float32),
    dtype=np.float32,
)


def _obs(state):
    return jnp.array([state["position"], state["velocity"]], dtype=jnp.float32)


def reset(key):
    state = {
        "position": jax.random.uniform(key, (), jnp.float32, minval=START_LOW, maxval=START_HIGH),
        "velocity": jnp.array(0.0, dtype=jnp.float32),
        "t": jnp.array(0, dtype=jnp.int32),
    }
    return _obs(state), state


def step(key, state, action):
    position, velocity = state["position"], state["velocity"]

    # 0 accelerates to the left, 1 coasts, 2 accelerates to the right
    push = jnp.select([action == 0, action == 2], [-FORCE, FORCE], 0.0)

    velocity = velocity + push - GRAVITY * jnp.cos(3.0 * position)
    velocity = jnp.minimum(jnp.maximum(velocity, -MAX_SPEED), MAX_SPEED)

    moved = position + velocity
    position = jnp.where(
        moved <= MIN_POSITION,
        MIN_POSITION,
        jnp.where(moved >= MAX_POSITION, MAX_POSITION, moved),
    )

    # the left wall is inelastic
    velocity = jnp.where(
        moved <= MIN_POSITION,
        jnp.where(velocity < 0.0, 0.0, velocity),
        velocity,
    )

    terminated = jnp.where(position >= GOAL_POSITION, velocity >= GOAL_VELOCITY, False)
    t = state["t"] + 1
    truncated = t >= TIME_LIMIT
    reward = jnp.array(-1.0, dtype=jnp.float32)

    state = {
        "position": position.astype(jnp.float32),
        "velocity": velocity.astype(jnp.float32),
        "t": t,
    }
    return _obs(state), state, reward, terminated, truncated, {}
