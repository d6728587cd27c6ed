"""Slips that a person makes, and whether the edit that undoes each is among the first candidates."""

from __future__ import annotations

import ast
import re
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from repair_agent.offline.candidates import candidates
from repair_agent.offline.mining import Mined, Words, mined, translated

REFERENCE = """
import math
import numpy as np

class Car:
    def __init__(self):
        self.max_speed = 0.07
        self.min_position = -1.2
        self.max_position = 0.6
        self.goal = 0.45
        self.power = 0.0015

    def step(self, action):
        position, velocity = self.state
        force = min(max(action[0], -1.0), 1.0)
        velocity += force * self.power - 0.0025 * math.cos(3 * position)
        velocity = np.clip(velocity, -self.max_speed, self.max_speed)
        position += velocity
        if position == self.min_position and velocity < 0:
            velocity = 0
        terminated = bool(position >= self.goal and velocity >= 0)
        reward = 0
        if terminated:
            reward = 100.0
        reward -= math.pow(action[0], 2) * 0.1
        return np.array([position, velocity]), reward, terminated
"""

TARGET = """
import jax
import jax.numpy as jnp
from flax import struct

@struct.dataclass
class State:
    position: jax.Array
    velocity: jax.Array
    time: int

@struct.dataclass
class Params:
    max_speed: float = 0.07
    min_position: float = -1.2
    max_position: float = 0.6
    goal: float = 0.45
    power: float = 0.0015

def step(key, state: State, action, params: Params):
    key, other = jax.random.split(key)
    force = jnp.clip(action, -1.0, 1.0)
    velocity = state.velocity + force * params.power - jnp.cos(3 * state.position) * 0.0025
    velocity = jnp.clip(velocity, -params.max_speed, params.max_speed)
    position = state.position + velocity
    velocity = jnp.where((position == params.min_position) & (velocity < 0), 0, velocity)
    home = position < 0
    near = position < 0.5
    fast = (jnp.abs(velocity) > 0.06) & ~home
    calm = near & ~fast
    terminated = (position >= params.goal) & (velocity >= 0)
    reward = 100 * terminated - 0.1 * action**2 - fast + 2 * calm
    state = state.replace(position=position, velocity=velocity, time=state.time + 1)
    return jnp.array([position, velocity]), state, reward, terminated
"""
SOURCE = mined(REFERENCE, {"max_speed": 0.07, "power": 0.0015})

SLIPS = [
    ("force * params.power", "force / params.power"),
    ("position >= params.goal)", "position > params.goal)"),
    ("jnp.cos(3", "jnp.sin(3"),
    ("power: float = 0.0015", "power: float = 0.002"),
    ("max_speed: float = 0.07", "max_speed: float = 0.0"),  # nothing is left to guess it from but the reference
    ("* 0.0025", "* 0.00225"),
    ("0.1 * action", "0.0 * action"),
    ("state.time + 1", "state.time + 2"),
    ("-params.max_speed, params.max_speed", "params.max_speed, -params.max_speed"),
    ("-params.max_speed, params.max_speed", "params.max_speed, params.max_speed"),
    ("[position, velocity]", "[velocity, position]"),
    ("0, velocity)", "velocity, 0)"),
    ("velocity=velocity, ", ""),
    ("velocity=velocity", "velocity=position"),
    ("state.position + velocity", "state.position + state.velocity"),
    ("state.position + velocity", "state.velocity + velocity"),
    ("force * params.power", "force * params.goal"),
    ("jnp.clip(velocity, -params.max_speed, params.max_speed)", "velocity"),
    ("jnp.clip(velocity, -params.max_speed, params.max_speed)", "jnp.minimum(velocity, params.max_speed)"),
    ("jnp.cos(3 * state.position)", "(3 * state.position)"),
    ("100 * terminated - 0.1 * action**2", "100 * terminated"),
    ("100 * terminated - 0.1 * action**2", "100 * terminated - 0.1 * action"),
    ("(position >= params.goal) & (velocity >= 0)", "(position >= params.goal) & True"),
    ("(jnp.abs(velocity) > 0.06) & ~home", "jnp.abs(velocity) > 0.06"),
    ("0.1 * action**2", "0.1"),
    ("jnp.cos(3 * state.position) * 0.0025", "0.0025"),
    ("3 * state.position", "3"),
    ("near & ~fast", "~fast"),
    ("near & ~fast", "near"),
]


def tree(text: str) -> str:
    """A program as it is compared: the order of keywords is nothing."""
    parsed = ast.parse(text)
    for node in ast.walk(parsed):
        if isinstance(node, ast.Call):
            node.keywords.sort(key=lambda keyword: keyword.arg or "")
    return ast.dump(parsed)


def same(one: str, other: str) -> bool:
    return tree(one) == tree(other)


def line_of(right: str) -> int:
    return TARGET[: TARGET.index(right)].count("\n") + 1


class Fields(SimpleNamespace):
    def replace(self, **changed):
        return Fields(**{**vars(self), **changed})


# position, velocity, action: at the wall, a clipped action, the middle, both clips, exactly at the goal, away from it.
STATES = ((-1.2, -0.03, 0.7), (0.41, 0.069, 1.4), (-0.3, 0.01, -0.2), (0, -9, -3), (0.38, 9, 0), (0.9, -0.03, 0))


def values(text: str) -> list[float] | None:
    """What the port's step gives in some states, with numpy in JAX's place; None if it fails."""
    shims = "class struct:\n    dataclass = staticmethod(lambda c: c)\n"
    code = (
        re.sub("import jax.*|from flax.*", "", text)
        .replace("jax.random.split(key)", "(0, 0)")
        .replace(": jax.Array", ": float")
    )
    known = {"jnp": np}
    try:
        exec(shims + code, known)
        found = []
        for position, velocity, action in STATES:
            state = Fields(position=position, velocity=velocity, time=3)
            seen, state, *rest = known["step"](0, state, action, known["Params"])
            found += [*np.ravel(seen), state.position, state.velocity, state.time, *map(float, rest)]
        return np.round(np.asarray(found, float), 6).tolist()
    except Exception:
        return None


@pytest.mark.filterwarnings("ignore")  # wrong programs divide by zero
@pytest.mark.parametrize("right, wrong", SLIPS)
def test_a_slip_is_undone_by_one_of_the_first_candidates_of_its_line(right, wrong):
    broken = TARGET.replace(right, wrong, 1)
    assert values(broken) != values(TARGET) is not None, "the slip shows"
    found = candidates(broken, "port.py", SOURCE, {line_of(right): 0})
    first = [candidate.applied(broken) for candidate, _ in zip(found, range(250), strict=False)]
    # The same text, or one that computes the same: a sum in another order, the reference's own words.
    assert TARGET in first or any(values(text) == values(TARGET) for text in first)


def test_a_number_of_the_reference_that_the_port_lacks_is_likely_to_be_the_one():
    """Put in the place of another, and as a factor that was lost. Its expressions are not known."""
    right = "jnp.cos(3 * state.position) * 0.0025"
    for wrong, most in (("jnp.cos(3 * state.position) * 7.5", 60), ("jnp.cos(3 * state.position)", 250)):
        broken = TARGET.replace(right, wrong, 1)
        found = candidates(broken, "port.py", Mined(SOURCE.numbers), {line_of(right): 0})
        texts = (candidate.applied(broken) for candidate in found)
        rank = next(n for n, text in enumerate(texts) if values(text) == values(TARGET))
        assert rank < most, (wrong, rank)


def test_a_statement_of_the_reference_is_put_back():
    line = "    velocity = jnp.where((position == params.min_position) & (velocity < 0), 0, velocity)\n"
    broken = TARGET.replace(line, "    pass\n")
    found = candidates(broken, "port.py", SOURCE, {line_of(line): 0})
    assert any(same(c.applied(broken), TARGET) for c, _ in zip(found, range(300), strict=False))


def test_what_was_computed_and_is_not_stored_is_stored():
    """No line is blamed, and the reference has no such statement."""
    line = "    state = state.replace(position=position, velocity=velocity, time=state.time + 1)\n"
    right = TARGET.replace("jnp.array([position, velocity])", "observed(state)")
    assert line in right
    for left in ("    pass\n", ""):
        found = candidates(right.replace(line, left), "port.py", SOURCE, {})
        texts = [c.applied(right.replace(line, left)) for c, _ in zip(found, range(60), strict=False)]
        assert any(same(text, right) for text in texts), left


def test_one_of_several_lines_that_are_alike_is_undone_by_another():
    """Nothing of it is in the reference, which may not be Python."""
    right = textwrap.dedent("""
        from typing import NamedTuple

        class Court(NamedTuple):
            left: float
            right: float

        def seen(court: Court, low, high):
            return (
                (court.left - low) / (high - low),
                (court.right - low) / (high - low),
            )
        """)
    for left in ("court.right - low", "high - low"):
        broken = "1".join(right.rsplit(f"({left})", 1))
        line = next(n for n, (a, b) in enumerate(zip(broken.split("\n"), right.split("\n"), strict=True), 1) if a != b)
        texts = [c.applied(broken) for c in candidates(broken, "port.py", Mined(), {line: 0})]
        assert any(same(text, right) for text in texts[:600])


@pytest.mark.filterwarnings("ignore")  # wrong programs divide by zero
def test_a_name_that_nothing_reads_is_put_back_though_its_line_is_not_blamed():
    for wrong in ("action * params.power", "params.power", "0.5 * params.power"):
        broken = TARGET.replace("force * params.power", wrong)
        found = candidates(broken, "port.py", SOURCE, {1: 0})
        texts = [c.applied(broken) for c, _ in zip(found, range(250), strict=False)]
        assert any(values(text) == values(TARGET) for text in texts), wrong


def test_blamed_lines_come_first_and_no_program_comes_twice():
    broken = TARGET.replace("force * params.power", "force / params.power")
    line = line_of("force * params.power")
    found = list(candidates(broken, "port.py", SOURCE, {line: 0, line + 1: 5}))
    lines = [c.line for c in found]
    assert set(lines[:30]) == {line}
    assert lines.index(line + 1) < next(i for i, n in enumerate(lines) if n not in (line, line + 1))
    texts = [c.applied(broken) for c in found]
    assert len(texts) == len(set(texts)) and broken not in texts
    assert [c.cost for c in found] == sorted(c.cost for c in found)
    for text in texts[::50]:
        ast.parse(text)


def test_the_same_source_gives_the_same_candidates_in_the_same_order():
    """Processes that share a search count on it."""
    first, second = (list(candidates(TARGET, "p.py", SOURCE, {25: 0})) for _ in range(2))
    assert first == second


def test_the_reference_is_mined():
    assert SOURCE.settings["maxspeed"] == 0.07
    assert {0.0025, 3, 100.0} <= set(SOURCE.numbers)
    assert {"cos", "clip"} <= SOURCE.called
    assert "goal" in SOURCE.assigned and "reward" in SOURCE.assigned


@pytest.mark.parametrize(
    "text, expected",
    [
        ("self.max_speed * np.square(th)", "p.max_speed * s.theta ** 2"),
        ("a and not b", "a & jnp.logical_not(b)"),
        ("0 < a < 1", "(0 < a) & (a < 1)"),
        ("1.0 if bool(a) else -math.pi", "jnp.where(a, 1.0, -jnp.pi)"),
        ("min(max(a, -1), 1)", "jnp.minimum(jnp.maximum(a, -1), 1)"),
        ("s[0] + a[1]", None),  # which element is meant is not known
        ("self.np_random.uniform(low=a)", None),
        ("goal - a", "0.45 - a"),  # a name the target has not is what the reference assigned to it
    ],
)
def test_expressions_are_translated_by_name_or_not_at_all(text, expected):
    known = {"max_speed": "p.max_speed", "th": "s.theta", "a": "a", "b": "b"}
    found = translated(ast.parse(text, mode="eval").body, SOURCE, Words(known.get))
    assert found == expected or (expected and found and same(found, expected))


def test_what_the_reference_keeps_in_an_element_is_put_back_whole():
    """Runge and Kutta's sum of four, kept as ``yout[i + 1]`` there and as ``yout`` here; one term is lost."""
    reference = mined(
        "def rk4(y0, dt):\n    yout[i + 1] = y0 + dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)\n    return yout\n"
    )
    port = "def rk4(y0, dt, k1, k2, k3, k4):\n    yout = y0 + dt / 6.0 * (2 * k2 + 2 * k3 + k4)\n    return yout\n"
    made = [c.applied(port) for c in candidates(port, "port.py", reference, {2: 0})]
    assert port.replace("(2 * k2", "(k1 + 2 * k2") in made[:200]
