"""Variables read from the source behind operations, and what calls are handed: the line that is named."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pytest_envequiv.whitebox.arguments import handed
from pytest_envequiv.whitebox.jaxprs import Traced
from pytest_envequiv.whitebox.names import renamed, variables
from pytest_envequiv.whitebox.trial import Case, Trial

ROWS = 64


def trial_of(function, meant, columns: int = 2) -> Trial:
    """A divergence of a batch of vectors (ROWS, columns): the function runs, another was meant. Both also take the
    settings: three numbers."""
    x = np.random.default_rng(0).uniform(0.2, 1.0, (ROWS, columns)).astype(np.float32)
    settings = [np.float32(v) for v in (0.5, 2.0, 3.0)]
    inputs = ("state.x", *(f"constants.{n}" for n in ("length", "mass", "force")))
    expected = np.asarray(meant(x, *settings)).reshape(ROWS, -1)
    case = Case(
        traced=Traced(jax.make_jaxpr(function)(x, *settings), inputs, ("state.y",), {}),
        arguments=[x, *settings],
        draws=(),
        expected={"state.y": expected},
        tolerance={"state.y": np.full(expected.shape, 1e-4)},
        counts={"state.y": np.ones(ROWS, bool)},
        wrong=frozenset({"state.y"}),
    )
    return Trial(case)


def line_of(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if text in line)


def pull(x, length, mass, force):
    m, f, k = mass, force, length
    a = x[:, 0]
    b = x[:, 1]
    up = f * jnp.sin(a) + m * b
    return jnp.stack([up * k, b * m - f], 1)


def pull_with_another_setting(x, length, mass, force):
    m, f, k = mass, mass, length
    a = x[:, 0]
    b = x[:, 1]
    up = f * jnp.sin(a) + m * b
    return jnp.stack([up * k, b * m - f], 1)


def pull_in_another_order(x, length, mass, force):
    f, m, k = mass, force, length
    a = x[:, 0]
    b = x[:, 1]
    up = f * jnp.sin(a) + m * b
    return jnp.stack([up * k, b * m - f], 1)


def numbered(x, length, mass, force):
    g = 9.8
    up = x * g
    return up + g * length


def numbered_otherwise(x, length, mass, force):
    g = 9.9
    up = x * g
    return up + g * length


def twice(x, length, mass, force):
    def slope(y):
        a, b = y[:, 0], y[:, 1]
        c = mass * a * jnp.cos(b)
        return jnp.stack([a * c, b - c], 1)

    return slope(x) + slope(x * length)


def twice_exchanged(x, length, mass, force):
    def slope(y):
        b, a = y[:, 0], y[:, 1]
        c = mass * a * jnp.cos(b)
        return jnp.stack([a * c, b - c], 1)

    return slope(x) + slope(x * length)


SLIPS = {
    "another setting": (pull_with_another_setting, pull, "m, f, k ="),
    "another order": (pull_in_another_order, pull, "f, m, k ="),
    "another number": (numbered_otherwise, numbered, "g ="),
    "another order, in a function that is called twice": (twice_exchanged, twice, "b, a ="),
}


@pytest.mark.parametrize("kind", SLIPS)
def test_a_variable_with_another_value(kind):
    wrong, meant, text = SLIPS[kind]
    trial = trial_of(wrong, meant)
    assert trial.diverging.any()
    found = {(place.line, why) for place, why, _, values in renamed(trial) if trial.explains(values)}
    assert {line for line, _ in found} == {line_of(wrong, text)}, found


def test_two_variables_that_hold_the_same_are_told_apart():
    trial = trial_of(pull_with_another_setting, pull)
    named = {v.name: v for group in variables(trial) for v in group}
    uses = {name: set(named[name].uses[0]) for name in ("m", "f")}
    assert len(uses["m"]) == len(uses["f"]) == 2 and not uses["m"] & uses["f"]


def test_a_variable_that_is_set_twice_is_left_alone():
    def function(x, length, mass, force):
        m = mass
        y = m * x
        m = force
        return y + m * x

    assert not any(v.name == "m" for group in variables(trial_of(function, twice)) for v in group)


def slope(y, mass):
    return jnp.stack([y[:, 1], -mass * jnp.sin(y[:, 0])], 1)


def midpoint(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x + length * k1, mass)
    return x + length * k2


def midpoint_from_the_start(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x, mass)
    return x + length * k2 + 0.0 * k1


def test_what_a_call_is_handed():
    trial = trial_of(midpoint_from_the_start, midpoint)
    found = [(place.line, why) for place, why, _, values in handed(trial) if trial.explains(values)]
    assert found and {line for line, _ in found} == {line_of(midpoint_from_the_start, "k2 = ")}, found
    assert any("times" in why for _, why in found)


def test_a_call_that_is_handed_the_right_thing_is_not_named():
    trial = trial_of(lambda x, length, mass, force: midpoint(x, length, mass, force) + 0.5, midpoint)
    assert not [why for _, why, _, values in handed(trial) if trial.explains(values)]
