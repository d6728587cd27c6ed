"""CartPole-v1 as a small environment class over a frozen pytree state."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PoleState:
    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


class CartPole:
    """Cart with a pole hinged on top, pushed left (0) or right (1)."""

    def __init__(self, max_steps: int = 500):
        self.gravity = 9.8
        self.masscart = 1.0
        self.masspole = 0.1
        self.total_mass = self.masscart + self.masspole
        self.length = 0.5  # half of the pole
        self.polemass_length = self.masspole * self.length
        self.force_mag = 10.0
        self.tau = 0.02
        self.theta_threshold = 12 * 2 * math.pi / 360
        self.x_threshold = 2.4
        self.init_bound = 0.05
        self.max_steps = max_steps

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    @property
    def observation_space(self) -> spaces.Box:
        high = np.array(
            [self.x_threshold * 2, np.inf, self.theta_threshold * 2, np.inf],
            dtype=np.float32,
        )
        return spaces.Box(-high, high, dtype=np.float32)

    def _dynamics(self, state: PoleState, force: jax.Array):
        """Accelerations of the cart and of the pole under `force`."""
        sin, cos = jnp.sin(state.theta), jnp.cos(state.theta)
        temp = (force + self.polemass_length * jnp.square(state.theta_dot) * sin) / self.total_mass
        inertia = self.length * (4.0 / 3.0 - self.masspole * jnp.square(cos) / self.total_mass)
        theta_acc = (self.gravity * sin - cos * temp) / inertia
        x_acc = temp - self.polemass_length * theta_acc * cos / self.total_mass
        return x_acc, theta_acc

    def _observe(self, state: PoleState) -> jax.Array:
        return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])

    def _is_done(self, state: PoleState) -> jax.Array:
        off_track = jnp.abs(state.x) > self.x_threshold
        fallen = jnp.abs(state.theta) > self.theta_threshold
        return jnp.logical_or(off_track, fallen)

    def reset(self, key: jax.Array):
        init = jax.random.uniform(key, (4,), jnp.float32, minval=-self.init_bound, maxval=self.init_bound)
        state = PoleState(
            x=init[0],
            x_dot=init[1],
            theta=init[2],
            theta_dot=init[3],
            time=jnp.zeros((), jnp.int32),
        )
        return self._observe(state), state

    def step(self, key: jax.Array, state: PoleState, action: jax.Array):
        del key  # deterministic transitions
        force = jnp.where(action == 1, self.force_mag, -self.force_mag)
        x_acc, theta_acc = self._dynamics(state, force)
        state = state.replace(
            x=state.x + self.tau * state.x_dot,
            x_dot=state.x_dot + self.tau * x_acc,
            theta=state.theta + self.tau * state.theta_dot,
            theta_dot=state.theta_dot + self.tau * theta_acc,
            time=state.time + 1,
        )
        reward = jnp.ones((), jnp.float32)
        terminated = self._is_done(state)
        truncated = state.time >= self.max_steps
        return self._observe(state), state, reward, terminated, truncated, {}


env = CartPole()
reset = env.reset
step = env.step
action_space = env.action_space
observation_space = env.observation_space
