"""MountainCar-v0, with every decision of the car taken by a jax.lax branch."""

import jax
import jax.numpy as jnp
from jax import lax

LEFT_WALL, RIGHT_EDGE = -1.2, 0.6
TOP_SPEED = 0.07
FLAG = 0.5
FLAG_SPEED = 0.0
ENGINE = 0.001
GRAVITY = 0.0025
TIME_LIMIT = 200


# --- the engine: one branch per action -------------------------------------


def push_left(velocity):
    return velocity - ENGINE


def coast(velocity):
    return velocity


def push_right(velocity):
    return velocity + ENGINE


def drive(action, velocity):
    return lax.switch(
        jnp.asarray(action, jnp.int32).reshape(()),
        (push_left, coast, push_right),
        velocity,
    )


# --- the wall: it takes the speed of a car that runs into it ---------------


def crash(velocity):
    return jnp.zeros_like(velocity)


def roll_on(velocity):
    return velocity


def meet_wall(position, velocity):
    hit = jnp.logical_and(position <= LEFT_WALL, velocity < 0)
    return lax.cond(hit, crash, roll_on, velocity)


# --- the interface ----------------------------------------------------------


def look(state):
    return jnp.stack([state["position"], state["velocity"]])


def reset(key):
    state = {
        "position": jax.random.uniform(key, (), jnp.float32, -0.6, -0.4),
        "velocity": jnp.zeros((), jnp.float32),
        "elapsed": jnp.zeros((), jnp.int32),
    }
    return look(state), state


def step(key, state, action):
    del key  # the hill is deterministic
    position, velocity = state["position"], state["velocity"]

    slope = jnp.cos(3 * position)
    velocity = drive(action, velocity) - GRAVITY * slope
    velocity = jnp.clip(velocity, -TOP_SPEED, TOP_SPEED)
    position = jnp.clip(position + velocity, LEFT_WALL, RIGHT_EDGE)
    velocity = meet_wall(position, velocity)

    state = {
        "position": position,
        "velocity": velocity,
        "elapsed": state["elapsed"] + 1,
    }
    terminated = jnp.logical_and(position >= FLAG, velocity >= FLAG_SPEED)
    truncated = state["elapsed"] >= TIME_LIMIT
    reward = jnp.full((), -1.0, jnp.float32)
    return look(state), state, reward, terminated, truncated, {}
