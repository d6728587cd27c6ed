"""PufferLib 3.0.0's Pong in JAX: the rules of its ``pong.h``, quirks included. Numbers in comments are its lines.

A state is a struct of arrays and every rule is elementwise, so a state may have any batch shape: ``()`` under ``vmap``,
or ``(B,)`` with one key for the whole batch, which is the fast way. The environment has gymnax's face::

    env, params = make(frameskip=8)
    observation, state = env.reset(key, params)                  one episode; shape=(B,): a batch of them
    observation, state, reward, done, info = env.step(key, state, action, params)

There is one step, and it begins a new episode by itself where one ends, as ``c_step`` does: the observation that comes
with ``done`` is the first of the next episode. Nothing is ever truncated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from targets.pong.spaces import Box, Discrete

UP, DOWN = 1, 2  # the discrete actions that move; any other number holds still
WORD = 32  # bits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    """PufferLib's settings, by its names and with the defaults of its class (its ``pong.ini`` sets frameskip to 8).

    Lengths are in pixels, speeds in pixels a frame. ``frameskip`` (frames a step) and ``continuous`` shape the program,
    the others are numbers in it.
    """

    width: float = 500
    height: float = 640
    paddle_width: float = 20  # only drawn
    paddle_height: float = 70
    ball_width: float = 32
    ball_height: float = 32
    paddle_speed: float = 8
    ball_initial_speed_x: float = 10
    ball_initial_speed_y: float = 1
    ball_speed_y_increment: float = 3
    ball_max_speed_y: float = 13
    max_score: int = 21
    frameskip: int = field(default=1, metadata={"static": True})
    continuous: bool = field(default=False, metadata={"static": True})

    def replace(self, **changes: Any) -> Params:
        return replace(self, **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a step changes of C's struct, all of one batch shape: 20 numbers of 4 bytes.

    l is the opponent's side, r the agent's; y grows upwards; ``tick`` and ``n_bounces`` count within a round; ``win``
    is 1 if the last round was the agent's. ``observations`` is C's buffer: what was shown last is state, because a
    step that scores may leave it as it was.
    """

    paddle_yl: jax.Array
    paddle_yr: jax.Array
    ball_x: jax.Array
    ball_y: jax.Array
    ball_vx: jax.Array
    ball_vy: jax.Array
    score_l: jax.Array  # uint32, as score_r
    score_r: jax.Array
    paddle_dir: jax.Array
    tick: jax.Array  # int32, as n_bounces and win
    n_bounces: jax.Array
    win: jax.Array
    observations: tuple[jax.Array, ...]

    def replace(self, **changes: Any) -> State:
        return replace(self, **changes)


class Court(NamedTuple):
    """What moves."""

    paddle_yl: jax.Array
    paddle_yr: jax.Array
    ball_x: jax.Array
    ball_y: jax.Array
    ball_vx: jax.Array
    ball_vy: jax.Array


class Rally(NamedTuple):
    """Where the frames of a step have got to.

    ``scored``: 1 for the agent's point, -1 for the opponent's, 0 in play. The frame that scores changes nothing else,
    and those after it are not played. ``shown``: whether a frame has ended in play.
    """

    court: Court
    n_bounces: jax.Array
    reward: jax.Array
    scored: jax.Array
    shown: jax.Array


class Pong:
    """The environment.

    ``unroll``: whether the frames of a step are a straight program or a loop. A straight program touches memory once a
    step, which is what counts on a GPU. On a CPU XLA computes it anew for every number it returns, so that a loop is
    faster, even of one frame. None: a loop only on a CPU and of several frames; one frame is left to be looked into.
    """

    name = "pong"
    num_actions = 3  # where actions are discrete

    def __init__(self, unroll: bool | None = None):
        self.unroll = unroll

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params, shape: tuple[int, ...] = ()) -> tuple[jax.Array, State]:
        """Begin an episode, or a batch of ``shape`` (c_reset, 116). Returns the observation, float32 (*shape, 8), and
        the state."""
        p = _numbers(params)
        court = reset_round(p, coin(key, shape))
        none, nobody = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.uint32)
        observations = compute_observations(p, court, nobody, nobody)
        still = jnp.zeros(shape, jnp.float32)
        state = State(*court, nobody, nobody, still, tick=none, n_bounces=none, win=none, observations=observations)
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step of ``frameskip`` frames (c_step, 123).

        ``action``: integers of the state's shape or, if ``continuous``, floats (*shape, 1), which are clipped to -1..1.
        Returns the observation (*shape, 8), the state, the reward (-1, 0, 0.1 or 1), done, and what C adds to its log.
        """
        p = _numbers(params)
        tick = state.tick + 1
        direction = paddle_direction(action, params.continuous)
        rally = self._played(p, params.frameskip, state, direction)
        won, scored = rally.scored > 0, rally.scored != 0

        score_l = state.score_l + (rally.scored < 0)
        score_r = state.score_r + won
        done = scored & (jnp.where(won, score_r, score_l) == p.max_score)  # 177, 208
        info = log_of(done, score_l, score_r, tick)

        # reset_round, and at the last point c_reset
        court = Court(*map(_chosen(scored), reset_round(p, coin(key, scored.shape)), rally.court))
        score_l, score_r = jnp.where(done, 0, score_l), jnp.where(done, 0, score_r)
        # A point returns early (184, 215): what was shown before it stays, unless c_reset shows the new episode.
        last = Court(*map(_chosen(done), court, rally.court))
        seen = compute_observations(p, last, _chosen(done)(0, state.score_l), _chosen(done)(0, state.score_r))
        observations = tuple(map(_chosen(done | rally.shown), seen, state.observations))
        state = State(
            *court,
            score_l,
            score_r,
            paddle_dir=direction,
            tick=jnp.where(scored, 0, tick),
            n_bounces=jnp.where(scored, 0, rally.n_bounces),
            win=jnp.where(scored, won.astype(jnp.int32), state.win),
            observations=observations,
        )
        reward = jnp.where(scored, rally.scored.astype(jnp.float32), rally.reward)
        return self.get_obs(state), state, reward, done, info

    def _played(self, p: Params, frames: int, state: State, direction: jax.Array) -> Rally:
        court = Court(state.paddle_yl, state.paddle_yr, state.ball_x, state.ball_y, state.ball_vx, state.ball_vy)
        none = jnp.zeros_like(state.n_bounces)
        rally = Rally(court, state.n_bounces, jnp.zeros_like(direction), scored=none, shown=none != 0)
        straight = frames == 1 or jax.default_backend() != "cpu" if self.unroll is None else self.unroll
        if straight:
            for _ in range(frames):
                rally = frame(p, rally, direction)
            return rally
        turns = jax.lax.optimization_barrier(jnp.int32(frames))  # XLA takes a loop apart that it knows to turn once
        return jax.lax.fori_loop(0, turns, lambda _, rally: frame(p, rally, direction), rally)

    reset, step = reset_env, step_env  # a step has begun the next episode already

    def get_obs(self, state: State) -> jax.Array:
        """float32 (*shape, 8): what C's buffer holds."""
        return jnp.stack(state.observations, axis=-1)

    def is_truncated(self, state: State, params: Params) -> jax.Array:
        return jnp.zeros(state.tick.shape, bool)

    def action_space(self, params: Params) -> Discrete | Box:
        return Box(-1.0, 1.0, (1,)) if params.continuous else Discrete(3)

    def observation_space(self, params: Params) -> Box:
        """As PufferLib declares it; a ball that flies past a paddle leaves it."""
        return Box(0.0, 1.0, (8,))


def make(unroll: bool | None = None, **settings: Any) -> tuple[Pong, Params]:
    """The environment (``unroll``: see there) and its parameters. Raises ValueError for settings that are unknown, or
    that C cannot bear."""
    known = [f.name for f in fields(Params)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"Pong has no setting {unknown[0]!r}; it has {', '.join(known)}")
    worded = [name for name, value in settings.items() if not isinstance(value, (int, float))]
    if worded:
        raise ValueError(f"{worded[0]} is a number, not {settings[worded[0]]!r}")
    params = Params(**settings)
    for name, least in (("max_score", 1), ("frameskip", 0)):
        value = getattr(params, name)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is a whole number from {least} on, not {value!r}")
    return Pong(unroll), params


# -- the rules -------------------------------------------------------------------------------------------------------


def frame(p: Params, rally: Rally, direction: jax.Array) -> Rally:
    """One turn of c_step's loop (142-224), of rows whose ball is still in play."""
    yl, yr, x, y, vx, vy = rally.court
    # The selects below keep the compiler from fusing multiplication and addition, which would round otherwise than C.
    push = jnp.where(direction == 0, 0, p.paddle_speed * direction)
    yr = _clipped(yr + push, *_reach(p))
    chase = _clipped(y - (yl + p.paddle_height / 2), -p.paddle_speed, p.paddle_speed)
    yl = _clipped(yl + chase, *_reach(p))
    x, y = x + vx, y + vy
    vy = jnp.where((y < 0) | (y + p.ball_height > p.height), -vy, vy)

    left = x < 0
    returned = left & (y + p.ball_height > yl) & (y < yl + p.paddle_height)
    won = left & ~returned
    vx = jnp.where(returned, -vx, vx)

    right = (x + p.ball_width > p.width) & ~won
    bounced = right & (y + p.ball_height > yr) & (y < yr + p.paddle_height)
    lost = right & ~bounced
    vx = jnp.where(bounced, -vx, vx)
    spin = jnp.where(bounced, p.ball_speed_y_increment * direction, 0)
    off = _clipped(vy + spin, -p.ball_max_speed_y, p.ball_max_speed_y)
    flat = jnp.abs(off) <= jnp.float32(0.01)  # C asks for < 0.01 in double, and the nearest float lies below that
    vy = jnp.where(bounced, jnp.where(flat, p.ball_speed_y_increment, off), vy)
    # Only the agent's paddle puts the ball back inside (219-221).
    x = jnp.where(bounced, _clipped(x, 0, p.width - p.ball_width), x)
    y = jnp.where(bounced, _clipped(y, 0, p.height - p.ball_height), y)

    playing = rally.scored == 0
    point = won.astype(jnp.int32) - lost
    ends = _chosen(playing & (point == 0))
    return Rally(
        Court(*map(ends, (yl, yr, x, y, vx, vy), rally.court)),
        n_bounces=ends(rally.n_bounces + returned + bounced, rally.n_bounces),
        reward=ends(jnp.where(bounced, jnp.float32(0.1), rally.reward), rally.reward),
        scored=jnp.where(playing, point, rally.scored),
        shown=rally.shown | (playing & (point == 0)),
    )


def paddle_direction(action: jax.Array, continuous: bool) -> jax.Array:
    """float32, of the state's shape (128-140). C takes any float; its Python class clips it (pong.py, step)."""
    if continuous:
        return jnp.clip(jnp.asarray(action, jnp.float32)[..., 0], -1, 1)
    return jnp.where(action == UP, jnp.float32(1), jnp.where(action == DOWN, jnp.float32(-1), jnp.float32(0)))


def reset_round(p: Params, drawn: jax.Array) -> Court:
    """The serve (105). ``drawn``: rand() % 2; the ball falls or flies level, it never rises."""
    middle = p.height / 2 - p.paddle_height / 2
    vy = (drawn - 1).astype(jnp.float32) * p.ball_initial_speed_y
    served = (middle, middle, p.width / 5, p.height / 2 - p.ball_height / 2, p.ball_initial_speed_x, vy)
    return Court(*(jnp.broadcast_to(value, drawn.shape) for value in served))


def compute_observations(p: Params, court: Court, score_l: jax.Array, score_r: jax.Array) -> tuple[jax.Array, ...]:
    """The 8 observations (94). Of whole numbers C's division is whole: the scores show as 0 until the last point."""
    low, high = _reach(p)
    return (
        (court.paddle_yl - low) / (high - low),
        (court.paddle_yr - low) / (high - low),
        court.ball_x / p.width,
        court.ball_y / p.height,
        (court.ball_vx + p.ball_initial_speed_x) / (2 * p.ball_initial_speed_x),
        (court.ball_vy + p.ball_max_speed_y) / (2 * p.ball_max_speed_y),
        (score_l // p.max_score).astype(jnp.float32),
        (score_r // p.max_score).astype(jnp.float32),
    )


def log_of(done: jax.Array, score_l: jax.Array, score_r: jax.Array, tick: jax.Array) -> dict[str, jax.Array]:
    """What add_log (85) adds to the log: zeros but where an episode ends. Its length is that of the last round."""
    ours, theirs = score_r.astype(jnp.float32), score_l.astype(jnp.float32)
    entry = {
        "perf": ours / (theirs + ours),
        "score": ours - theirs,
        "episode_return": ours - theirs,
        "episode_length": tick.astype(jnp.float32),
        "n": jnp.ones_like(ours),
    }
    return {name: jnp.where(done, value, 0) for name, value in entry.items()}


def coin(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """int32 of ``shape``: rand() % 2 (111) of each row, one bit of a random word each."""
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count // WORD),))
    bits = (words[:, None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
    return bits.reshape(-1)[:count].reshape(shape).astype(jnp.int32)


def _numbers(params: Params) -> Params:
    """The settings in C's types, so that what is computed from them is rounded as in C."""
    dtypes = {f.name: jnp.uint32 if f.type == "int" else jnp.float32 for f in fields(Params) if not f.metadata}
    return params.replace(**{name: jnp.asarray(getattr(params, name), dtype) for name, dtype in dtypes.items()})


def _reach(p: Params) -> tuple[Any, Any]:
    """How far down and up a paddle goes (init, 61-62)."""
    return -p.paddle_height / 2, p.height - p.paddle_height / 2


def _clipped(x: jax.Array, low: Any, high: Any) -> jax.Array:
    """fminf(fmaxf(x, low), high): of a NaN it is ``low``, as in C."""
    x = jnp.where(x > low, x, low)
    return jnp.where(x < high, x, high)


def _chosen(where: jax.Array) -> Any:
    return lambda yes, no: jnp.where(where, yes, no)
