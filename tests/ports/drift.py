"""Drift: a cart on a track with a wall on the left and a goal on the right; its heading turns as it rolls.

``Drift`` is an unmodified-style Gymnasium environment: continuous state, fuel that is not shown, an exactly reachable
goal (the position is clipped to it), a time limit by wrapper, and, where asked for, slips and wind at each step.
``GymnaxDrift`` is its port in the manner of gymnax, ``PlainDrift`` one of two plain functions, ``CachedDrift`` one that
keeps what it could compute, ``VectorDrift`` one in numpy that steps a whole batch at once (a backend of its own).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.declared import named_spaces
from pytest_envequiv.backends.protocol import Leaf, Outcome, Spec, State

WALL, FAST, LIMIT = -1.0, 0.07, 30
ACTION = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
TOP = np.array([1.5, FAST, 3.2, 1.0], np.float32)
OBSERVATION = gymnasium.spaces.Box(-TOP, TOP, (4,), np.float32)
DRIFT = "gymnasium:ports.drift:Drift-v0"
SWITCH: str | None = None  # the bug of ``switched``: a port is mended by setting it to None


class Drift(gymnasium.Env):
    """The reference. ``slip``: chance that a push goes the other way; ``wind``: deviation of a push from the side;
    ``gust``: chance that the cart is stopped dead, in the open only; ``ice``: a push may fail, or go the other way."""

    def __init__(self, power=0.02, goal=0.5, slip=0.0, wind=0.0, gust=0.0, ice=False):
        self.power, self.goal, self.slip, self.wind, self.gust, self.ice = power, goal, slip, wind, gust, ice
        self.action_space, self.observation_space = ACTION, OBSERVATION
        self.position = self.velocity = self.angle = 0.0
        self.fuel = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform(-0.6, -0.2))
        self.velocity = float(self.np_random.uniform(-0.04, 0.04))
        self.angle = float(self.np_random.uniform(-np.pi, np.pi))
        self.fuel = int(self.np_random.integers(8, 20))
        return self._seen(), {}

    def step(self, action):
        push = float(np.clip(action[0], -1.0, 1.0))
        if self.slip and self.np_random.random() < self.slip:
            push = -push
        if self.ice:
            push *= (-1.0, 0.0, 1.0)[self.np_random.choice(3, p=[0.2, 0.2, 0.6])]
        if self.fuel == 0:
            push = 0.0
        elif abs(push) > 0.5:
            self.fuel -= 1
        self.velocity += self.power * push - 0.003 * np.sin(2.0 * self.angle)
        if self.wind:
            self.velocity += self.np_random.normal(0.0, self.wind)
        if self.gust and self.position > -0.4 and self.np_random.random() < self.gust:
            self.velocity = 0.0
        self.velocity = float(np.clip(self.velocity, -FAST, FAST))
        self.position += self.velocity
        if self.position <= WALL:
            self.position, self.velocity = WALL, max(self.velocity, 0.0)
        self.position = min(self.position, self.goal)
        self.angle = (self.angle + 5.0 * self.velocity + np.pi) % (2.0 * np.pi) - np.pi
        terminated = self.position >= self.goal
        reward = max(self.velocity * 10.0, -0.3) - 0.1 * push**2 + (5.0 if terminated else 0.0)
        return self._seen(), reward, terminated, False, {}

    def _seen(self):
        return np.array([self.position, self.velocity, self.angle, np.sin(self.angle)], np.float32)


gymnasium.register("Drift-v0", entry_point="ports.drift:Drift", max_episode_steps=LIMIT, disable_env_checker=True)


def reference(**options):
    """``Drift`` as Gymnasium makes it, time limit included."""
    return gymnasium.make("Drift-v0", **options)


# -- JAX -------------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cart:
    """What the port keeps. Other names than the reference's, so that the fields are matched by value."""

    x: Any
    v: Any
    heading: Any
    tank: Any
    time: Any

    def replace(self, **changes):
        return replace(self, **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Params:
    power: float = 0.02
    goal: float = 0.5
    max_steps_in_episode: int = LIMIT

    def replace(self, **changes):
        return replace(self, **changes)


class GymnaxDrift:
    """The port, in the manner of gymnax: ``step_env`` is the dynamics, ``step`` resets by itself.

    ``slip``, ``wind``, ``gust`` and ``ice`` as in the reference.
    """

    def __init__(self, bug=None, slip=0.0, wind=0.0, gust=0.0, ice=False):
        self.bug, self.slip, self.wind, self.gust, self.ice = bug, slip, wind, gust, ice
        self.calls = 0  # for the bug that counts steps in Python

    @property
    def default_params(self):
        changed = {
            "default limit": {"max_steps_in_episode": LIMIT + 10},
            "default goal": {"goal": 0.45},
            "default power": {"power": 0.0201},
        }
        return Params(**changed.get(self.bug, {}))

    def action_space(self, params=None):
        return ACTION

    def observation_space(self, params=None):
        if self.bug == "observation bounds":
            return gymnasium.spaces.Box(-TOP / 2, TOP / 2, (4,), np.float32)
        if self.bug == "observation shape":
            return gymnasium.spaces.Box(-TOP[:3], TOP[:3], (3,), np.float32)
        return OBSERVATION

    # -- begin

    def reset_env(self, key, params):
        bug = self.bug
        keys = jax.random.split(key, 4)
        if bug == "reused key":
            keys = [keys[0], keys[0], keys[2], keys[3]]
        if bug == "fixed beginning":
            keys = jax.random.split(jax.random.PRNGKey(0), 4)
        x = jax.random.uniform(keys[0], minval=-0.6, maxval=-0.3 if bug == "reset range" else -0.2)
        v = jax.random.uniform(keys[1], minval=-0.04, maxval=0.04)
        if bug == "correlated slots":
            both = jax.random.uniform(keys[0], ())
            x, v = -0.6 + 0.4 * both, -0.04 + 0.08 * both
        heading = jax.random.uniform(keys[2], minval=-jnp.pi, maxval=jnp.pi)
        tank = jax.random.randint(keys[3], (), 8, 19 if bug == "range off by one" else 20)
        state = Cart(x, v, heading, tank, jnp.int32(0))
        return self._seen(state), state

    # -- step

    def _push(self, key, action):
        push = action[0] if self.bug == "action not clipped" else jnp.clip(action[0], -1.0, 1.0)
        if self.bug == "low action precision":
            push = jnp.round(push * 64) / 64
        if self.slip:
            chance = 2 * self.slip if self.bug == "slip probability" else self.slip
            if self.bug == "slips for large numbers":  # no bug: the same chances, read from the other end
                slips = jax.random.uniform(key) >= 1.0 - self.slip
            else:
                slips = jax.random.bernoulli(key, chance)
            push = jnp.where(slips, -push, push)
        if self.ice:
            chances = jnp.array([0.0, 0.4, 0.6] if self.bug == "missing outcome" else [0.2, 0.2, 0.6])
            push = push * (jax.random.categorical(key, jnp.log(chances)) - 1.0)
        return push

    def _disturbed(self, key, x, v):
        first, second = jax.random.split(key)
        if self.wind:
            v = v + jax.random.normal(first) * (1.5 * self.wind if self.bug == "wind deviation" else self.wind)
        if self.gust:
            calm = self.bug == "missing rare branch"
            v = jnp.where((x > -0.4) & (jax.random.uniform(second) < self.gust), v if calm else 0.0, v)
        return v

    def step_env(self, key, state, action, params):
        bug = self.bug
        first, second = jax.random.split(key)
        push = self._push(first, action)
        if bug == "sticky action":
            push = jnp.where(jax.random.uniform(second) < 0.25, 0.0, push)
        asked = jnp.abs(push) > 0.5
        push = jnp.where(state.tank == 0, 0.0, push)
        burnt = jnp.where(asked & (state.tank > 0), 1, 0)
        tank = state.tank if bug == "fuel not carried" else state.tank - burnt
        tilt = jnp.sin(state.heading if bug == "half angle" else 2.0 * state.heading)
        power = 0.0199 if bug == "wrong constant" else params.power
        v = state.v + power * push - 0.003 * tilt
        if bug == "compile-time noise":
            v = v + np.random.normal(0.0, 1e-3)  # noqa: NPY002
        v = self._disturbed(second, state.x, v)
        if bug != "clip after integration":
            v = jnp.clip(v, -FAST, FAST)
        x = state.x + (state.v if bug == "integrator order" else v)
        if bug == "clip after integration":
            v = jnp.clip(v, -FAST, FAST)
        if bug == "half precision":
            x = x.astype(jnp.float16).astype(jnp.float32)
        wall = x <= WALL
        # MountainCarContinuous in gymnax 1.0.1 tests the goal where it should test the wall.
        stops = (x >= params.goal) if bug == "wall keeps velocity" else wall
        v = jnp.where(stops, jnp.maximum(v, 0.0), v)
        x = jnp.minimum(jnp.maximum(x, WALL), params.goal)
        turned = state.heading + 5.0 * v
        heading = turned if bug == "angle not wrapped" else jnp.mod(turned + jnp.pi, 2.0 * jnp.pi) - jnp.pi
        time = state.time + 1
        terminated = x > params.goal if bug == "goal strict" else x >= params.goal
        after = Cart(x, v, heading, tank, time)
        reward = self._reward(state, v, push, terminated)
        if bug in ("flags swapped", "flags both false"):
            terminated = after.time >= params.max_steps_in_episode if bug == "flags swapped" else jnp.zeros((), bool)
        return self._seen(after), after, reward, terminated, {}

    def _reward(self, state, v, push, terminated):
        bug = self.bug
        bonus = jnp.where(terminated, 0.0 if bug == "no reward at the end" else 5.0, 0.0)
        cost = 0.0 if bug == "reward term missing" else 0.1 * push**2
        if bug == "evaluated masked branch":  # the root of a number that is negative wherever the mask is off
            return jnp.maximum(10.0 * v, -0.3) - cost + bonus + (state.v > 0) * 0.0 * jnp.sqrt(state.v)
        if bug == "reward clip order":
            return jnp.maximum(10.0 * v - cost, -0.3) + bonus
        reward = jnp.maximum(10.0 * v, -0.3) - cost + bonus
        return {"reward sign": -reward, "reward scale": 1.01 * reward}.get(bug, reward)

    def is_truncated(self, state, params):
        limit = params.max_steps_in_episode
        if self.bug == "limit off by one":
            return state.time > limit
        if self.bug == "clock in Python":
            self.calls += 1
            return jnp.asarray(self.calls >= 10**6) & (state.time >= 0)
        if self.bug == "flags swapped":
            return state.x >= params.goal
        if self.bug == "flags both false":
            return jnp.zeros((), bool)
        return state.time >= limit

    # -- auto-reset

    def step(self, key, state, action, params):
        bug = self.bug
        first, second = jax.random.split(key)
        seen, after, reward, terminated, info = self.step_env(first, state, action, params)
        truncated = self.is_truncated(after, params)
        done = terminated | truncated
        if bug == "resets at the next step":
            done = self.is_truncated(state, params) | (state.x >= params.goal)
        fresh_seen, fresh = self.reset_env(jax.random.PRNGKey(7) if bug == "frozen first state" else second, params)
        state = jax.tree.map(lambda x, y: jnp.where(done, x, y), fresh, after)
        if bug == "counter survives":
            state = state.replace(time=after.time)
        if bug == "stale field":
            state = state.replace(x=after.x)
        shown = jnp.where(done & (bug != "stale observation"), fresh_seen, seen)
        last = shown if bug == "terminal observation lost" else seen
        return shown, state, reward, terminated, truncated, {**info, "final_observation": last}

    def _seen(self, state):
        bug = self.bug
        parts = [state.x, state.v, state.heading, jnp.sin(state.heading)]
        if bug == "channels permuted":
            parts = [parts[0], parts[1], parts[3], parts[2]]
        if bug == "not a number":
            parts[1] = jnp.where(state.x <= -0.9, jnp.nan, parts[1])
        if bug == "observation shape":
            parts = parts[:3]
        seen = jnp.stack(parts).astype(jnp.float32)
        return seen.astype(jnp.int32) if bug == "observation dtype" else seen


def port(bug=None, **options):
    """``ports.drift:port?bug=...`` by name."""
    return GymnaxDrift(bug, **options)


def switched(**options):
    """``ports.drift:switched`` by name, with the bug that ``SWITCH`` names when it is opened."""
    return GymnaxDrift(SWITCH, **options)


class PlainState(NamedTuple):
    """The reference's own names, and the drawn quantities in another order."""

    fuel: Any
    angle: Any
    velocity: Any
    position: Any
    elapsed: Any


class PlainDrift:
    """The same port as two plain functions."""

    action_space, observation_space, max_steps_in_episode = ACTION, OBSERVATION, LIMIT

    def __init__(self, bug=None, **options):
        self._inner = GymnaxDrift(bug, **options)
        self._params = self._inner.default_params

    def reset(self, key):
        seen, cart = self._inner.reset_env(key, self._params)
        return self._outside(cart), seen

    def step(self, state, action, key):
        cart = Cart(state.position, state.velocity, state.angle, state.fuel, state.elapsed)
        seen, after, reward, terminated, _ = self._inner.step_env(key, cart, action, self._params)
        return self._outside(after), seen, reward, terminated, self._inner.is_truncated(after, self._params)

    @staticmethod
    def _outside(cart):
        return PlainState(cart.tank, cart.heading, cart.v, cart.x, cart.time)


class CachedState(NamedTuple):
    """The reference's own names, and the sine of the angle: the reference shows it, but does not keep it."""

    fuel: Any
    angle: Any
    velocity: Any
    position: Any
    elapsed: Any
    sine: Any


class CachedDrift(PlainDrift):
    """The same port, which keeps the sine of the angle for its next step. ``stale``: it is never renewed."""

    def __init__(self, stale=False):
        super().__init__()
        self._stale = stale

    def reset(self, key):
        state, seen = super().reset(key)
        return CachedState(*state, jnp.sin(state.angle)), seen

    def step(self, state, action, key):
        asked = jnp.clip(action[0], -1.0, 1.0)
        push = jnp.where(state.fuel == 0, 0.0, asked)
        fuel = state.fuel - jnp.where((jnp.abs(asked) > 0.5) & (state.fuel > 0), 1, 0)
        tilt = 2.0 * state.sine * jnp.cos(state.angle)  # the sine of twice the angle
        v = jnp.clip(state.velocity + 0.02 * push - 0.003 * tilt, -FAST, FAST)
        x = state.position + v
        v = jnp.where(x <= WALL, jnp.maximum(v, 0.0), v)
        x = jnp.clip(x, WALL, 0.5)
        angle = jnp.mod(state.angle + 5.0 * v + jnp.pi, 2.0 * jnp.pi) - jnp.pi
        sine, elapsed, terminated = jnp.sin(angle), state.elapsed + 1, x >= 0.5
        reward = jnp.maximum(10.0 * v, -0.3) - 0.1 * push**2 + jnp.where(terminated, 5.0, 0.0)
        after = CachedState(fuel, angle, v, x, elapsed, state.sine if self._stale else sine)
        return after, jnp.stack([x, v, angle, sine]), reward, terminated, elapsed >= LIMIT


# -- numpy, a whole batch at once ------------------------------------------------------------------------------------


class VectorDrift:
    """A backend of its own: arrays in, arrays out, with the generators the reference has."""

    def __init__(self, bug=None):
        self.bug = bug
        whole = {"tank": "int64", "time": "int64"}
        names = [n for n in ("x", "v", "heading", "tank", "time") if n != "heading" or bug != "state not offered"]
        self.spec = Spec(
            name="VectorDrift",
            kind="vector",
            action=named_spaces("action", ACTION),
            observation=named_spaces("observation", OBSERVATION),
            fields={name: Leaf((), whole.get(name, "float64")) for name in names},
            state="fields",
            draws="seed",
            batched=True,
            time_limit=LIMIT,
        )

    def reset(self, seeds, tape=None):
        if self.bug == "beginning by the clock":
            seeds = seeds + np.random.randint(1 << 20, size=len(seeds))  # noqa: NPY002
        drawn = []
        for seed in seeds:
            rng = np.random.default_rng(int(seed))
            drawn.append([rng.uniform(*bounds) for bounds in ((-0.6, -0.2), (-0.04, 0.04), (-np.pi, np.pi))])
            drawn[-1].append(rng.integers(8, 20))
        x, v, heading, tank = np.array(drawn).T
        return self._outcome(x, v, heading, tank.astype(int), np.zeros(len(seeds), int))

    def step(self, state, action, seeds, tape=None):
        fields = state.fields
        x, v, tank, time = (fields[k] for k in ("x", "v", "tank", "time"))
        hidden = np.zeros(len(x)) if state.hidden is None else state.hidden
        heading = hidden if self.bug == "state not offered" else fields["heading"]
        push = np.clip(action["action"][:, 0].astype(float), -1.0, 1.0)
        asked = np.abs(push) > 0.5
        push = np.where(tank == 0, 0.0, push)
        tank = np.where(asked & (tank > 0), tank - 1, tank)
        if self.bug == "broadcast":  # (N, 1) against (N,), summed: what one row gets depends on all
            push = push * (v[:1] + v > 2.0 * v.min()).mean()
        if self.bug == "batch mean":
            push = push + 0.1 * (push.mean() - push)
        v = v + 0.02 * push - 0.003 * np.sin(2.0 * heading)
        if self.bug == "global noise":
            v = v + np.random.normal(0.0, 1e-3, len(v))  # noqa: NPY002
        v = np.clip(v, -FAST, FAST)
        x = x + v
        v = np.where(x <= WALL, np.maximum(v, 0.0), v)
        x = np.clip(x, WALL, 0.5)
        heading = (heading + 5.0 * v + np.pi) % (2.0 * np.pi) - np.pi
        after = self._outcome(x, v, heading, tank, time + 1)
        terminated = x >= 0.5
        reward = np.maximum(10.0 * v, -0.3) - 0.1 * push**2 + np.where(terminated, 5.0, 0.0)
        if self.bug == "inputs changed":
            fields["time"] += 1
        ends = {"reward": reward, "terminated": terminated, "truncated": time + 1 >= LIMIT}
        return Outcome(after.state, {**after.outputs, **ends})

    def _outcome(self, x, v, heading, tank, time):
        fields = {"x": x, "v": v, "heading": heading, "tank": tank, "time": time}
        hidden = fields.pop("heading") if self.bug == "state not offered" else None
        seen = np.stack([x, v, heading, np.sin(heading)], 1).astype(np.float32)
        return Outcome(State(fields, hidden), {"observation": seen})

    def close(self):
        """Nothing is held open."""
