"""The oracle finds what is there, rare or not, and nothing where nothing is."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import drift

from pytest_envequiv.backends.loading import loaded, sources
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.power.oracle import Oracle, broken
from pytest_envequiv.power.programs import Programs, same_program
from pytest_envequiv.power.samples import different, unlike

pytest.importorskip("gymnax")
NAME = "gymnax:MountainCar-v0"
SMALL = {"rows": 1 << 15, "resets": 1 << 14}


@pytest.fixture(scope="module")
def car():
    """judge(before, after): the oracle's word on MountainCar with one piece of its text replaced."""
    file = sources(NAME)[0]
    source = open(file).read()
    oracle = Oracle(open_backend(NAME), **SMALL)

    def judge(before, after):
        assert source.count(before) == 1, before
        with loaded(NAME, None, file, source.replace(before, after)) as mutant:
            return oracle.judge(mutant)

    return judge


@pytest.mark.parametrize(
    ("where", "field", "before", "after"),
    [
        ("spec", "action_space", "return spaces.Discrete(3)", "return spaces.Discrete(4)"),
        ("spec", "time_limit", "max_steps_in_episode: int = 200", "max_steps_in_episode: int = 201"),
        ("spec", "observation", "return jnp.array([state.position, state.velocity])", "return jnp.zeros(3)"),
        ("reset", "observation", "maxval=-0.4", "maxval=-0.404"),
        ("step", "observation", "gravity: float = 0.0025", "gravity: float = 0.002525"),
        ("step", "reward", "reward = -1.0", "reward = -1.001"),
        # the left wall: a few rows in a thousand
        ("step", "observation", "position == params.min_position", "position == params.max_position"),
        ("step", "observation", "(velocity < 0)", "(velocity < -0.06)"),
        ("step", "truncated", "time=state.time + 1", "time=state.time"),
        (
            "step",
            "terminated",
            "state.position >= params.goal_position",
            "state.position >= params.goal_position + 0.01",
        ),
    ],
)
def test_found(car, where, field, before, after):
    found = car(before, after)
    assert (found.word, found.where, found.field) == ("detectable", where, field), found
    if where == "step":
        assert 0 < found.rows <= found.of
        assert found.example["origin"] in ("play", "limit")
        assert found.example["expected"] != found.example["actual"]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("# Update state dict", "# Update", "the same program"),
        ("state.position + velocity", "velocity + state.position", "rounding"),
        ('{"discount": self.discount(state, params)}', "{}", "the same program"),
        ("jnp.cos(3 * state.position) * params.gravity", "params.gravity * jnp.cos(-3 * state.position)", "rounding"),
        ("position == params.min_position", "position <= params.min_position", "no difference"),  # it was clipped to it
    ],
)
def test_equivalent(car, before, after, text):
    found = car(before, after)
    assert found.word == "equivalent" and text in found.text, found


def test_a_difference_in_made_up_states_only_says_so(car):
    # who is beyond the goal has passed it, and there the episode ended
    found = car("position = jnp.clip(position, params.min_position, params.max_position)", "position = position")
    assert found.example["origin"] == "play"  # the left wall
    clip = "jnp.clip(position, params.min_position, params.max_position)"
    found = car(clip, "jnp.maximum(position, params.min_position)")
    assert (found.word, found.where, found.example["origin"]) == ("detectable", "step", "broad")


def test_another_key_is_not_another_distribution(car):
    found = car("jax.random.uniform(key, shape=(),", "jax.random.uniform(jax.random.split(key)[1], shape=(),")
    assert found.word == "equivalent" and "the same distribution" in found.text, found


@pytest.fixture(scope="module")
def track():
    return Oracle(open_backend(drift.GymnaxDrift()), **SMALL)


def test_broken(track):
    assert broken(ValueError("no\nluck")).text == "ValueError: no luck"
    mutant = open_backend(drift.GymnaxDrift())

    def fails(*_):
        raise IndexError("late")

    mutant.functional = dataclasses.replace(mutant.functional, step=fails)
    found = track.judge(mutant)
    assert (found.word, found.text) == ("broken", "IndexError: late")


def test_an_auto_reset_that_does_not_run_is_seen(car):
    found = car("velocity=jnp.array(0.0), time=0", "velocity=0, time=jnp.array(0.0)")
    assert (found.word, found.where) == ("detectable", "auto"), found


@pytest.mark.parametrize(
    ("bug", "where", "field"),
    [
        ("action not clipped", "illegal", "observation"),  # with actions outside of their space only
        ("correlated slots", "reset", "observation"),
        ("reused key", "reset", "observation"),
        ("frozen first state", "auto", "observation"),
        ("terminal observation lost", "auto", "final_observation"),
        ("counter survives", "auto", "state.time"),
        ("wall keeps velocity", "step", "observation"),
        ("fuel not carried", "step", "state.tank"),
        ("goal strict", "step", "reward"),
    ],
)
def test_bugs_of_a_port(track, bug, where, field):
    found = track.judge(open_backend(drift.GymnaxDrift(bug)))
    assert (found.word, found.where, found.field) == ("detectable", where, field), found


class Lamp:
    """A flag kept as a float: what it decides is no matter of rounding."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, ignored=False):
        self.ignored = ignored

    def reset(self, key):
        return {"x": jax.random.uniform(key), "on": jnp.float32(1)}

    def step(self, state, action):
        x = jnp.where((state["on"] == 1) & (not self.ignored), 0.9 * state["x"] + 0.1 * action[0], state["x"])
        after = {"x": x, "on": 1 - state["on"]}
        return after, x[None], x, x > 0.95

    def observe(self, state):
        return state["x"][None]


def test_flags_are_not_pushed():
    oracle = Oracle(open_backend(Lamp()), rows=1 << 12, resets=1 << 12)
    assert oracle.judge(open_backend(Lamp())).word == "equivalent"
    found = oracle.judge(open_backend(Lamp(ignored=True)))
    assert (found.word, found.where) == ("detectable", "step"), found


class Forgetful(Lamp):
    """As the lamp, with a note of the last action that nothing reads."""

    def __init__(self, first=0.0):
        super().__init__()
        self.first = first

    def reset(self, key):
        return {**super().reset(key), "noted": jnp.float32(self.first)}

    def step(self, state, action):
        after, *outputs = super().step(state, action)
        return {**after, "noted": action[0]}, *outputs


def test_what_the_reference_has_no_value_of_when_an_episode_begins():
    mutant = open_backend(Forgetful(-1.0))
    small = {"rows": 1 << 10, "resets": 1 << 10}
    strict, lenient = (Oracle(open_backend(Forgetful()), **small, untold=told) for told in ((), {"state.noted"}))
    assert (found := strict.judge(mutant)).word == "detectable" and found.field == "state.noted", found
    assert lenient.judge(mutant).word == "equivalent"


def test_steps_that_draw():
    windy = {"slip": 0.1, "wind": 0.01, "gust": 0.05}
    oracle = Oracle(open_backend(drift.GymnaxDrift(**windy)), rows=1 << 12, resets=1 << 12)
    assert oracle.judge(open_backend(drift.GymnaxDrift("slips for large numbers", **windy))).word == "equivalent"
    for bug in ("slip probability", "missing rare branch"):
        found = oracle.judge(open_backend(drift.GymnaxDrift(bug, **windy)))
        assert (found.word, found.where) == ("detectable", "step"), (bug, found)


def test_the_same_program_is_known_by_what_it_does():
    one, same = (Programs(open_backend(drift.GymnaxDrift())) for _ in range(2))
    other = Programs(open_backend(drift.GymnaxDrift("wrong constant")))
    assert all(same_program(one, same, what) for what in one.whats)
    assert not same_program(one, other, "step") and same_program(one, other, "reset")


def test_operation_by_operation_is_as_compiled():
    programs = Programs(open_backend(drift.GymnaxDrift()))
    rows = {"seed": np.arange(1024, dtype=np.uint32)}
    for name, value in programs.compiled("reset")(rows).items():
        np.testing.assert_allclose(programs.eager("reset", rows)[name], value, rtol=1e-6, atol=1e-6)


def test_samples():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20000))
    assert unlike(a, b) > 1e-6
    assert unlike(a, 1.2 * b) < 1e-9
    assert unlike(rng.integers(0, 6, 20000), rng.integers(0, 6, 20000)) > 1e-6
    assert unlike(rng.integers(0, 6, 20000), rng.integers(0, 5, 20000)) < 1e-9
    narrow, wide = rng.uniform(0, 1, 20000), rng.uniform(0, 1.005, 20000)
    assert unlike(narrow, wide) < 1e-9  # by the numbers beyond the end
    assert unlike(np.where(a > 2, np.nan, a), np.where(b > 2, np.nan, b)) > 1e-6
    pair = np.stack([a, b], 1).astype(np.float32)
    assert different({"x": pair}, {"x": rng.normal(size=(20000, 2)).astype(np.float32)}, 1e-9) is None
    joint = different({"x": pair}, {"x": np.stack([a, 0.6 * a + 0.8 * b], 1).astype(np.float32)}, 1e-9)
    assert joint is not None and "joint" in joint[1]
    nearly = {"x": np.nextafter(pair, np.float32(9))[::-1]}  # rounding is no difference
    assert different({"x": np.round(pair)}, {"x": np.nextafter(np.round(nearly["x"]), np.float32(9))}, 1e-9) is None
