"""Variables read from the source behind operations: what if one of them held another value."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from trials import case_of, line_of

from pytest_envequiv.whitebox.blame.names import renamed, variables
from pytest_envequiv.whitebox.blame.trial import Trial


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
    trial = Trial(case_of(wrong, meant))
    assert trial.diverging.any()
    found = {(place.line, why) for place, why, _, values in renamed(trial) if trial.explains(values)}
    assert {line for line, _ in found} == {line_of(wrong, text)}, found


def test_two_variables_that_hold_the_same_are_told_apart():
    trial = Trial(case_of(pull_with_another_setting, pull))
    named = {v.name: v for group in variables(trial) for v in group}
    uses = {name: set(named[name].uses[0]) for name in ("m", "f")}
    assert len(uses["m"]) == len(uses["f"]) == 2 and not uses["m"] & uses["f"]


def test_a_variable_that_is_set_twice_is_left_alone():
    def function(x, length, mass, force):
        m = mass
        y = m * x
        m = force
        return y + m * x

    assert not any(v.name == "m" for group in variables(Trial(case_of(function, twice))) for v in group)
