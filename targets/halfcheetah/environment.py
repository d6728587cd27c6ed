"""Gymnasium's HalfCheetah-v5 in JAX: what it shows, pays and begins with. The physics is in dynamics.py.

The environment has gymnax's face, and takes one row or any batch of them::

    env, params = make(ctrl_cost_weight=0.05)
    observation, state = env.reset_env(key, params)                 one episode; shape=(B,): a batch of them
    observation, state, reward, terminated, info = env.step_env(key, state, action, params)

It computes in the dtype of the state: float32, or float64 where ``make(dtype="float64")`` began the episode (under
JAX's x64 mode, which ``with jax.enable_x64(True):`` switches on for a while).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from targets.halfcheetah.dynamics import advance
from targets.halfcheetah.model import DOFS, HINGES, TIMESTEP, in_legs, model_of
from targets.halfcheetah.tree import coordinates, rows

# Rows computed together on a CPU: what they need then stays in its cache, and a hard row keeps fewer waiting.
TILE = 256


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """Gymnasium's settings with its names and defaults; ``max_steps_in_episode`` is its wrapper's time limit.

    ``frame_skip`` (time steps a step) and ``exclude_current_positions_from_observation`` shape the program, the others
    are numbers in it.
    """

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1
    max_steps_in_episode: int = 1000
    frame_skip: int = field(default=5, metadata={"static": True})
    exclude_current_positions_from_observation: bool = field(default=True, metadata={"static": True})

    def replace(self, **changes: Any) -> Params:
        return replace(self, **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """``qpos``: x and z (m) and angle (rad) of the torso, then six hinges (rad); ``qvel``: their rates. Floats
    (*shape, 9). ``time``: steps since the reset, int32 of ``shape``."""

    qpos: jax.Array
    qvel: jax.Array
    time: jax.Array

    def replace(self, **changes: Any) -> State:
        return replace(self, **changes)


@dataclass(frozen=True)
class Box:
    """Floats low..high."""

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: Any

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, self.shape, self.dtype, self.low, self.high)


class HalfCheetah:
    """The environment. ``dtype``: that of the states it begins with."""

    name = "HalfCheetah-v5"
    num_actions = HINGES

    def __init__(self, dtype: Any = "float32"):
        self.dtype = jnp.dtype(dtype)

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params, shape: tuple[int, ...] = ()) -> tuple[jax.Array, State]:
        """Begin an episode, or a batch of ``shape``: the observation (*shape, n), and the state."""
        one, other = jax.random.split(key)
        scale = params.reset_noise_scale
        qpos = jax.random.uniform(one, (*shape, DOFS), self.dtype, -scale, scale)
        qvel = scale * jax.random.normal(other, (*shape, DOFS), self.dtype)
        state = State(qpos, qvel, jnp.zeros(shape, jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step of ``frame_skip`` time steps. ``action``: floats (*shape, 6), which the motors clip to -1..1 and the
        cost takes as they are. Returns the observation (*shape, n), the state, the reward, whether the episode
        terminated (never), and Gymnasium's info."""
        qpos, qvel, moved = simulate(state.qpos, state.qvel, action, params.frame_skip)
        x_velocity = moved / (TIMESTEP * params.frame_skip)
        forward = params.forward_reward_weight * x_velocity
        cost = params.ctrl_cost_weight * jnp.sum(jnp.square(action), -1)  # in the action's dtype, as numpy would
        state = State(qpos, qvel, state.time + 1)
        info = {
            "x_position": qpos[..., 0],
            "x_velocity": x_velocity,
            "reward_forward": forward,
            "reward_ctrl": -cost,
        }
        reward = forward - cost
        return self.get_obs(state, params), state, reward, jnp.zeros(reward.shape, bool), info

    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, jax.Array, dict[str, jax.Array]]:
        """``step_env``, and the next episode where the time limit is met: (observation, state, reward, terminated,
        truncated, info). What was seen last of an episode is ``info["final_observation"]``."""
        seen, after, reward, terminated, info = self.step_env(key, state, action, params)
        truncated = self.is_truncated(after, params)
        fresh, begun = self.reset_env(key, params, state.time.shape)

        def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(truncated[(..., *[None] * (new.ndim - truncated.ndim))], new, old)

        state = jax.tree.map(chosen, begun, after)
        return chosen(fresh, seen), state, reward, terminated, truncated, {**info, "final_observation": seen}

    def reset(self, key: jax.Array, params: Params, shape: tuple[int, ...] = ()) -> tuple[jax.Array, State]:
        return self.reset_env(key, params, shape)

    def get_obs(self, state: State, params: Params) -> jax.Array:
        """Positions, but for x unless that is asked for, and rates."""
        skipped = int(params.exclude_current_positions_from_observation)
        return jnp.concatenate([state.qpos[..., skipped:], state.qvel], -1)

    def is_truncated(self, state: State, params: Params) -> jax.Array:
        return state.time >= params.max_steps_in_episode

    def action_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (HINGES,), jnp.float32)

    def observation_space(self, params: Params) -> Box:
        size = 2 * DOFS - int(params.exclude_current_positions_from_observation)
        return Box(-jnp.inf, jnp.inf, (size,), self.dtype)


def simulate(qpos: jax.Array, qvel: jax.Array, action: jax.Array, steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``steps`` time steps: (qpos, qvel, metres moved along x). The way moved is summed by itself: far from the origin
    it would drown in the rounding of x. Under ``vmap`` it is the same as a call with a batch, which is several times
    faster than what ``vmap`` would make of it."""
    return _simulation(steps)(qpos, qvel, action)  # type: ignore[no-any-return]


@cache
def _simulation(steps: int) -> Any:
    def together(size: int, batched: list[bool], *given: jax.Array) -> tuple[Any, tuple[bool, bool, bool]]:
        whole = (a if there else jnp.broadcast_to(a, (size, *a.shape)) for a, there in zip(given, batched, strict=True))
        return simulated(*whole), (True, True, True)

    simulated = jax.custom_batching.custom_vmap(partial(_simulate, steps=steps))
    simulated.def_vmap(together)
    return simulated


def _simulate(
    qpos: jax.Array, qvel: jax.Array, action: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    given = _batch_last(qpos), _batch_last(qvel), _batch_last(action.astype(qpos.dtype))
    batch = given[0].shape[-1]
    tile = TILE if jax.default_backend() == "cpu" and batch % TILE == 0 else batch
    if tile == batch:
        places, rates, moved = _tile(*given, steps)
    else:
        tiles = [array.reshape(len(array), -1, tile).swapaxes(0, 1) for array in given]
        found = jax.lax.map(lambda each: _tile(each[0], each[1], each[2], steps), tiles)
        places, rates, moved = (array.swapaxes(0, -2).reshape(*array.shape[1:-1], batch) for array in found)
    return places.T.reshape(qpos.shape), rates.T.reshape(qvel.shape), moved.reshape(qpos.shape[:-1])


def _tile(qpos: jax.Array, qvel: jax.Array, action: jax.Array, steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same of arrays (n, batch)."""
    model, controls = model_of(str(qpos.dtype)), in_legs(action)
    here = coordinates(qpos.at[0].set(0))

    def frame(_: Any, carry: Any) -> Any:
        places, rates, guess = carry
        return advance(model, places, rates, controls, guess)

    here, rates_, _ = jax.lax.fori_loop(0, steps, frame, (here, coordinates(qvel), jax.tree.map(jnp.zeros_like, here)))
    return rows(here).at[0].add(qpos[0]), rows(rates_), here.x


def make(dtype: Any = "float32", **settings: Any) -> tuple[HalfCheetah, Params]:
    """The environment and its parameters. Raises ValueError for settings Gymnasium does not have or would refuse."""
    known = [f.name for f in fields(Params)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"HalfCheetah has no setting {unknown[0]!r}; it has {', '.join([*known, 'dtype'])}")
    if str(jnp.dtype(dtype)) not in ("float32", "float64"):
        raise ValueError(f"dtype is float32 or float64, not {dtype!r}")
    params = Params(**settings)
    for name in ("frame_skip", "max_steps_in_episode"):
        value = getattr(params, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is a whole number from 1 on, not {value!r}")
    return HalfCheetah(dtype), params


def _batch_last(array: jax.Array) -> jax.Array:
    """(*shape, n) as (n, batch): the physics has one batch axis, and it comes last."""
    return array.reshape(-1, array.shape[-1]).T
