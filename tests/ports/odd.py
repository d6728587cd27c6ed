"""Odd: small environments of the kinds on which a comparison may raise a false alarm. Both sides run one rule, the
reference in numpy and double precision, the port in JAX.

A rule is a class with ``begin`` (name -> bounds of a uniform draw), ``advance(xp, state, push)``, which returns the
next state, observation, reward and terminated, and spaces.
"""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

PUSH = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)


def box(*shape):
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)


class Rule:
    action_space, observation_space, limit = PUSH, box(2), 25


class Large(Rule):
    """A position of a million, of which only the last digits are shown."""

    begin = {"position": (1e6, 1e6 + 4), "speed": (-0.5, 0.5)}

    def advance(xp, s, push):
        speed = 0.9 * s["speed"] + 0.25 * push
        position = s["position"] + speed
        after = {"position": position, "speed": speed}
        return after, xp.stack([position - 1e6, speed]), -xp.abs(position - 1e6 - 2), position > 1e6 + 8


class Tiny(Rule):
    """Two quantities of about 1e-9."""

    begin = {"charge": (-1e-9, 1e-9), "drift": (0.0, 1e-9)}

    def advance(xp, s, push):
        charge, drift = 0.9 * s["charge"] + 1e-10 * push, 0.8 * s["drift"] + 2e-11 * push * push
        return {"charge": charge, "drift": drift}, xp.stack([charge, drift]) * 1e9, 1e9 * charge, drift < 0


class Chaos(Rule):
    """The logistic map: free-running copies are strangers after fifty steps."""

    begin, observation_space, limit = {"x": (0.1, 0.9)}, box(1), 80

    def advance(xp, s, push):
        x = 3.9 * s["x"] * (1 - s["x"])
        x = xp.clip(x + 0.01 * push, 0.0, 1.0)
        return {"x": x}, xp.stack([x]), x * push, x > 2


class Cells(Rule):
    """What is shown is the whole number of the cell a real position lies in: rounding decides at the borders."""

    begin = {"x": (0.0, 4.0)}
    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.int32)

    def advance(xp, s, push):
        x = s["x"] + 0.3 * push
        cell = xp.floor(4.0 * x)
        return {"x": x}, xp.stack([cell, xp.floor(x)]).astype(np.int32), cell / 4, (x < -6) | (x > 10)


class Unknown(Rule):
    """A sensor that shows NaN half of the time, and infinity when it is overdriven."""

    begin = {"x": (-1.0, 1.0)}

    def advance(xp, s, push):
        x = xp.clip(s["x"] + 0.3 * push, -1.0, 1.0)
        seen = xp.where(x < 0, np.nan, x)
        return {"x": x}, xp.stack([seen, xp.where(x >= 1.0, np.inf, x)]), x, x > 2


class Still(Rule):
    """Fields and observations that never move, beside one that does."""

    begin, observation_space = {"x": (-1.0, 1.0), "mass": (2.0, 2.0), "zero": (0.0, 0.0)}, box(3)

    def advance(xp, s, push):
        x = xp.clip(s["x"] + 0.2 * push / s["mass"], -2.0, 2.0)
        return {**s, "x": x}, xp.stack([x, s["zero"], s["mass"]]), 0.0 * x, x >= 2.0


class Twins(Rule):
    """Two like quantities with the same law: they may not be taken for each other."""

    begin = {"left": (-1.0, 1.0), "right": (-1.0, 1.0)}

    def advance(xp, s, push):
        left, right = 0.9 * s["left"] + 0.1 * push, 0.9 * s["right"] - 0.1 * push
        return {"left": left, "right": right}, xp.stack([left, right]), left + right, left > 5


class Bearing(Rule):
    """An angle that jumps by a whole turn, and a counter of the turns."""

    begin, observation_space = {"angle": (-3.1, 3.1), "spin": (-0.5, 0.5)}, box(3)

    def advance(xp, s, push):
        spin = 0.95 * s["spin"] + 0.2 * push
        angle = s["angle"] + spin
        angle = xp.arctan2(xp.sin(angle), xp.cos(angle))
        return {"angle": angle, "spin": spin}, xp.stack([angle, xp.cos(angle), spin]), -xp.abs(angle), spin > 99


class Wide(Rule):
    """A picture of real numbers."""

    begin, observation_space = {"x": (0.0, 24.0), "y": (0.0, 24.0)}, box(24, 24)

    def advance(xp, s, push):
        x, y = (s["x"] + push) % 24.0, (s["y"] + 0.5) % 24.0
        i, j = xp.arange(24.0)[:, None], xp.arange(24.0)[None, :]
        return {"x": x, "y": y}, xp.exp(-0.1 * ((i - x) ** 2 + (j - y) ** 2)), xp.sin(x), x > 99


class Bonus(Rule):
    """Pays at a line that also ends the episode: who is at the line may be paid on one side only, by rounding."""

    begin = {"x": (100.0, 103.0), "v": (-0.1, 0.3)}

    def advance(xp, s, push):
        v = s["v"] + 0.1 * push
        x = s["x"] + v
        over = x >= 104.0
        return {"x": x, "v": v}, xp.stack([x, v]), xp.where(over, 5.0, 0.0) + 0.3, over


class Once(Rule):
    """Every episode is one step long."""

    begin = {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}

    def advance(xp, s, push):
        return {**s}, xp.stack([s["x"], s["y"]]), s["x"] * push, s["x"] < 9.0


RULES = {rule.__name__: rule for rule in (Large, Tiny, Chaos, Cells, Unknown, Still, Twins, Bearing, Wide, Bonus, Once)}


class Odd(gymnasium.Env):
    """The reference of a rule."""

    def __init__(self, rule="Large"):
        self.rule = RULES[rule]
        self.action_space, self.observation_space = self.rule.action_space, self.rule.observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        for name, (low, high) in self.rule.begin.items():
            setattr(self, name, float(self.np_random.uniform(low, high)))
        return self._stepped(0.0, self._held())[1], {}

    def _held(self):
        return {name: getattr(self, name) for name in self.rule.begin}

    def _stepped(self, push, state):
        after, seen, reward, terminated = self.rule.advance(np, {k: np.float64(v) for k, v in state.items()}, push)
        return after, np.asarray(seen, self.observation_space.dtype), float(reward), bool(terminated)

    def step(self, action):
        after, seen, reward, terminated = self._stepped(float(np.clip(action[0], -1.0, 1.0)), self._held())
        for name, value in after.items():
            setattr(self, name, float(value))
        return seen, reward, terminated, False, {}


def reference(rule):
    return gymnasium.wrappers.TimeLimit(Odd(rule), RULES[rule].limit)


class PlainOdd:
    """The port of a rule. ``wide``: states and observations in the widest precision JAX is set to."""

    def __init__(self, rule, wide=False):
        self.rule = RULES[rule]
        self.action_space, self.observation_space = self.rule.action_space, self.rule.observation_space
        self.max_steps_in_episode = self.rule.limit
        self.dtype = jnp.float64 if wide else jnp.float32

    def reset(self, key):
        keys = jax.random.split(key, len(self.rule.begin))
        state = {
            name: jax.random.uniform(k, (), self.dtype, *bounds)
            for k, (name, bounds) in zip(keys, self.rule.begin.items(), strict=True)
        }
        seen = self.rule.advance(jnp, state, self.dtype(0.0))[1]
        return {**state, "steps": jnp.int32(0)}, seen.astype(self.observation_space.dtype)

    def step(self, state, action):
        held = {name: state[name] for name in self.rule.begin}
        push = jnp.clip(action[0], -1.0, 1.0).astype(self.dtype)
        after, seen, reward, terminated = self.rule.advance(jnp, held, push)
        steps = state["steps"] + 1
        seen = seen.astype(self.observation_space.dtype)
        return {**after, "steps": steps}, seen, reward, jnp.asarray(terminated), steps >= self.rule.limit
