"""Slips in ports as others write them: spaces at the top of a module, helpers that hand values to one another.

The ports are those of ``benchmarks/styles``; each slip is one that power once drew there and that was not named.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from ports import judging
from trials import case_of, line_of

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import OpenError
from pytest_envequiv.whitebox.blame.ranking import blame
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.provenance import came_by

STYLES = Path(__file__).parents[1] / "benchmarks" / "styles"
CART, HILL, CLOSURE, PENDULUM = "cart_tuple", "hill_where", "hill_closure", "pend_vec"
NAMES = {CART: "CartPole-v1", HILL: "MountainCar-v0", CLOSURE: "MountainCarContinuous-v0", PENDULUM: "Pendulum-v1"}


def slipped(port, old, new, tmp_path, monkeypatch) -> tuple[str, int]:
    """(module with the slip in it, the line of the slip)"""
    text = (STYLES / f"{port}.py").read_text()
    assert text.count(old) == 1
    name = f"slipped_{abs(hash((port, old, new)))}"
    (tmp_path / f"{name}.py").write_text(text.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name, text[: text.index(old)].count("\n") + 1


# What was written otherwise -> (port, its line, the line that is written, check, within, why).
SLIPS = {
    "a number in a bound": (CART, "[DEFAULT.x_threshold * 2", "[DEFAULT.x_threshold * 3", "L1-spec-*", 2, "4.8 in the"),
    "bounds exchanged": (
        HILL,
        "low=np.array([MIN_POSITION, -MAX_SPEED]",
        "low=np.array([-MAX_SPEED, MIN_POSITION]",
        "L1-spec-*",
        1,
        "exchanged",
    ),
    "a sign in a bound": (
        HILL,
        "low=np.array([MIN_POSITION, -MAX",
        "low=np.array([MIN_POSITION, MAX",
        "L1-spec-*",
        5,
        "",
    ),
    "a constant that a bound is": (
        HILL,
        "MAX_POSITION = 0.6",
        "MAX_POSITION = 1.2",
        "L1-spec-*",
        1,
        "0.6 in the place",
    ),
    "a default that a bound is": (
        CLOSURE,
        "max_action=1.0",
        "max_action=1.01",
        "L1-spec-*",
        1,
        "1 in the place of 1.01",
    ),
    "the number of actions": (CART, "spaces.Discrete(2)", "spaces.Discrete(3)", "L1-spec-*", 1, "2 in the place of 3"),
    "the size of a space": (PENDULUM, "shape=(1,)", "shape=(2,)", "L1-spec-action", 1, "1 in the place of 2"),
    "the type of a space": (
        PENDULUM,
        "shape=(1,), dtype=np.float32",
        "shape=(1,), dtype=np.int32",
        "L1-spec-action",
        1,
        "",
    ),
    "the type of what is shown": (
        HILL,
        'state["velocity"]], dtype=jnp.float32',
        'state["velocity"]], dtype=jnp.int32',
        "L1-spec-*",
        1,
        "is given a type here",
    ),
    "a factor of a variable": (
        CART,
        "state.x_dot + p.tau * x_acc",
        "state.x_dot + x_acc",
        "L2-play-x_dot",
        2,
        "times 0.02",
    ),
    "what a function returns": (
        CART,
        "return x_acc, theta_acc",
        "return theta_acc, theta_acc",
        "L2-play-x_dot",
        2,
        "hands on",
    ),
    "what a call is handed": (
        CART,
        "integrate(state, x_acc, theta_acc",
        "integrate(state, x_acc, x_acc",
        "L2-play-theta_dot",
        2,
        "hands on",
    ),
    "what a property returns": (
        CART,
        "return self.mass_cart + self.mass_pole",
        "return self.mass_cart",
        "L2-play-x_dot",
        1,
        "1.1 in the reference",
    ),
    "elements exchanged where they are returned": (
        CLOSURE,
        "return position, jnp.where(stopped, 0.0, velocity)",
        "return jnp.where(stopped, 0.0, velocity), position",
        "L2-play-kinematics",
        4,
        "hands on",
    ),
    "a helper that computes nothing": (
        PENDULUM,
        "return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi",
        "return -jnp.pi",
        "L2-play-reward",
        1,
        "nothing reads angle",
    ),
}


@pytest.mark.parametrize("kind", SLIPS)
def test_a_slip_is_named(kind, tmp_path, monkeypatch):
    port, old, new, check, within, why = SLIPS[kind]
    name, line = slipped(port, old, new, tmp_path, monkeypatch)
    verdicts = judging.run(judging.opened(f"gymnasium:{NAMES[port]}", name), check)
    roots = judging.different(verdicts)
    assert roots, judging.words(verdicts)
    found = verdicts[roots[0]].evidence["blame"]
    assert [s["why"] for s in found[:within] if s["line"] == line and why in s["why"]], found[:5]


def test_bounds_that_are_right_are_nobodys_fault(tmp_path, monkeypatch):
    """A slip elsewhere does not name what declares the space."""
    name, _ = slipped(HILL, "START_HIGH = -0.4", "START_HIGH = -0.2", tmp_path, monkeypatch)
    verdicts = judging.run(judging.opened("gymnasium:MountainCar-v0", name), "L1-spec-*", "L1-reset-*", "L1-seeds-*")
    roots = judging.different(verdicts)
    assert roots and not any("spec" in root for root in roots), judging.words(verdicts)
    assert all("space" not in s["why"] for root in roots for s in verdicts[root].evidence["blame"])


@pytest.mark.parametrize("space", ["0.5", "True", "'Box'"])
def test_what_is_no_space_is_refused(space, tmp_path, monkeypatch):
    name, _ = slipped(
        CLOSURE, "observation_space=observation_space", f"observation_space={space}", tmp_path, monkeypatch
    )
    with pytest.raises(OpenError, match="observation_space is"):
        open_backend(name)


# -- operands and elements -----------------------------------------------------------------------------------------


def turning(v, dv):
    drag = v[:, 0] * v[:, 1]
    return jnp.sin(drag + dv) + drag * dv


def turning_too_much(v, dv):
    drag = v[:, 0] * v[:, 1]
    return jnp.sin(drag + dv) + drag


def lifting(v, dv):
    return jnp.cos(dv + v[:, 0]) * v[:, 1] ** 2


def lifting_without(v, dv):
    return jnp.cos(dv + v[:, 0])


def twice(f):
    def run(x, length, mass, force):
        first = f(x, x[:, 0])
        return first + f(x, first * length)

    return run


@pytest.mark.parametrize(
    ("right", "wrong", "within", "why"),
    [
        (turning, turning_too_much, 1, "an operand times"),
        (lifting, lifting_without, 1, "squared is missing"),
    ],
)
def test_a_function_that_is_called_twice_lacks_a_factor_in_each_call(right, wrong, within, why):
    found = blame(case_of(twice(wrong), twice(right)), {}, {})
    named = [s.site.line for s in found[:within] if why in s.why]
    assert line_of(wrong, "return") in named, found[:3]


# -- where a value came by -------------------------------------------------------------------------------------------

HANDED = """\
def speeds(a):
    up = a * 2
    down = up - 1
    return down, up

def moved(x, speed, other):
    here = speed
    return x + here

def step(a):
    low, high = speeds(a)
    y = moved(a, high, low)
    return y
"""


def test_a_value_is_followed_to_where_it_is_computed(tmp_path):
    file = tmp_path / "port.py"
    file.write_text(HANDED)
    call = Site(str(file), 12, 12, function="step")
    assert [s.line for s in came_by(Site(str(file), 8, 8), [call])] == [
        12,
        7,
        4,
        11,
    ]  # at 11 nothing is told by the names
    assert [s.line for s in came_by(Site(str(file), 8, 8), [])] == [7]
    file = tmp_path / "twice.py"
    file.write_text(HANDED.replace("return down, up", "return up, up"))
    assert came_by(Site(str(file), 8, 8), [Site(str(file), 12, 12, function="step")])[0].line == 4
