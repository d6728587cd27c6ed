from typing import NamedTuple

import jax
import jax.numpy as jnp


class HillState(NamedTuple):
    pos: jax.Array
    vel: jax.Array
    t: jax.Array


class Hill:
    """Continuous mountain car (MountainCarContinuous-v0)."""

    def __init__(self, goal_velocity: float = 0.0, max_steps: int = 999):
        self.min_action = -1.0
        self.max_action = 1.0
        self.min_position = -1.2
        self.max_position = 0.6
        self.max_speed = 0.07
        self.goal_position = 0.45
        self.goal_velocity = goal_velocity
        self.power = 0.0015
        self.gravity = 0.0025
        self.max_steps = max_steps
        self.start = (-0.6, -0.4)

    def reset(self, key):
        lo, hi = self.start
        s = HillState(
            pos=jax.random.uniform(key, minval=lo, maxval=hi, dtype=jnp.float32),
            vel=jnp.float32(0.0),
            t=jnp.int32(0),
        )
        return self._observe(s), s

    def step(self, key, state, action):
        throttle = jnp.asarray(action, jnp.float32).reshape(-1)[0]
        nxt = self._dynamics(state, throttle)
        terminated = self._done(nxt)
        truncated = nxt.t >= self.max_steps
        reward = self._reward(throttle, terminated)
        return self._observe(nxt), nxt, reward, terminated, truncated, {}

    # ------------------------------------------------------------------ inner

    def _dynamics(self, s: HillState, throttle) -> HillState:
        force = jnp.minimum(jnp.maximum(throttle, self.min_action), self.max_action)
        vel = s.vel + force * self.power - self.gravity * jnp.cos(3.0 * s.pos)
        vel = jnp.minimum(jnp.maximum(vel, -self.max_speed), self.max_speed)
        pos = s.pos + vel
        pos = jnp.minimum(jnp.maximum(pos, self.min_position), self.max_position)
        at_wall = pos == self.min_position
        vel = jnp.where(at_wall & (vel < 0), 0.0, vel)
        return HillState(pos, vel, s.t + 1)

    def _reward(self, throttle, reached):
        # Gymnasium charges for the action as given, not for the clipped force.
        return 100.0 * reached.astype(jnp.float32) - 0.1 * throttle**2

    def _done(self, s: HillState):
        return (s.pos >= self.goal_position) & (s.vel >= self.goal_velocity)

    @staticmethod
    def _observe(s: HillState):
        return jnp.array([s.pos, s.vel], dtype=jnp.float32)
