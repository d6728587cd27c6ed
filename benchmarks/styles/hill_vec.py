"""MountainCar-v0 with state = (float vector [position, velocity], step count)."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import lax

CONFIG = {
    "min_position": -1.2,
    "max_position": 0.6,
    "max_speed": 0.07,
    "goal_position": 0.5,
    "goal_velocity": 0.0,
    "force": 0.001,
    "gravity": 0.0025,
    "init_low": -0.6,
    "init_high": -0.4,
    "max_steps": 200,
}

# Layout of the physical state vector.
POS, VEL = 0, 1

# Thrust of each discrete action: push left, coast, push right.
FORCES = np.array([-1.0, 0.0, 1.0], dtype=np.float32) * np.float32(CONFIG["force"])

LOW = np.array([CONFIG["min_position"], -CONFIG["max_speed"]], dtype=np.float32)
HIGH = np.array([CONFIG["max_position"], CONFIG["max_speed"]], dtype=np.float32)
GOAL = np.array([CONFIG["goal_position"], CONFIG["goal_velocity"]], dtype=np.float32)

action_space = spaces.Discrete(3)
observation_space = spaces.Box(LOW, HIGH, dtype=np.float32)


@jax.jit
def reset(key):
    start = jax.random.uniform(key, minval=CONFIG["init_low"], maxval=CONFIG["init_high"], dtype=jnp.float32)
    vec = jnp.zeros(2, jnp.float32).at[POS].set(start)
    return vec, (vec, jnp.int32(0))


@jax.jit
def step(key, state, action):
    del key
    vec, count = state

    slope = lax.cos(3.0 * vec[POS])
    velocity = vec[VEL] + jnp.asarray(FORCES)[action] - CONFIG["gravity"] * slope
    velocity = lax.clamp(LOW[VEL], velocity, HIGH[VEL])
    position = lax.clamp(LOW[POS], vec[POS] + velocity, HIGH[POS])

    # Inelastic wall on the left.
    at_wall = (position == LOW[POS]) & (velocity < 0)
    velocity = lax.select(at_wall, jnp.zeros_like(velocity), velocity)

    vec = jnp.array([position, velocity])
    count = count + 1

    terminated = jnp.all(vec >= GOAL)
    truncated = count >= CONFIG["max_steps"]
    reward = jnp.float32(-1.0)
    return vec, (vec, count), reward, terminated, truncated, {}
