"""Draws of an unmodified JAX function: seen, recorded with their bounds, and given from outside."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.random import uniform  # imported under a name of its own, as ports do

from pytest_envequiv.backends.functional import Functional, JaxBackend
from pytest_envequiv.backends.protocol import Space
from pytest_envequiv.whitebox.draws import NAMED, Unalignable, keys_among, labelled

KEY, OTHER = jax.random.PRNGKey(1), jax.random.PRNGKey(2)
NAN = float("nan")

# What is called -> the draws it makes: (kind, shape, low, high).
CALLS = {
    "uniform": (lambda key: uniform(key, (2,), minval=-1.0, maxval=3.0), [("uniform", (2,), -1.0, 3.0)]),
    "normal": (lambda key: 5.0 + 2.0 * jax.random.normal(key), [("normal", (), 0.0, 1.0)]),
    "integers": (lambda key: jax.random.randint(key, (3,), -2, 9), [("integers", (3,), -2.0, 9.0)]),
    "bernoulli": (lambda key: jax.random.bernoulli(key, 0.25), [("bernoulli", (), 0.25, NAN)]),
    "permutation": (lambda key: jax.random.permutation(key, 5), [("permutation", (5,), NAN, NAN)]),
    "choice": (lambda key: jax.random.choice(key, 4), [("integers", (), 0.0, 4.0)]),
    "gumbel": (lambda key: jax.random.gumbel(key), [("gumbel", (), NAN, NAN)]),
    "categorical": (lambda key: jax.random.categorical(key, jnp.zeros(3)), [("gumbel", (3,), NAN, NAN)]),
    "exponential": (lambda key: jax.random.exponential(key), [("exponential", (), NAN, NAN)]),
    "truncated_normal": (
        lambda key: jax.random.truncated_normal(key, -1.0, 2.0),
        [("truncated_normal", (), -1.0, 2.0)],
    ),
    "beta": (lambda key: jax.random.beta(key, 1.0, 2.0), [("beta", (), 1.0, 2.0)]),
    "gamma": (lambda key: jax.random.gamma(key, 2.0), [("gamma", (), 2.0, NAN)]),
    "poisson": (lambda key: jax.random.poisson(key, 3.0), [("poisson", (), 3.0, NAN)]),
    "laplace": (lambda key: jax.random.laplace(key), [("laplace", (), NAN, NAN)]),
    "typed key": (lambda key: uniform(jax.random.wrap_key_data(key)), [("uniform", (), 0.0, 1.0)]),
    "bits": (lambda key: jax.random.bits(key), [("bits", (), NAN, NAN)]),
}


def recorded(function, *args):
    found = labelled(function, *args)
    result, made = found.record(*args)
    return found, result, made


def as_tape(found, made):
    """Values to play: a bernoulli is played as the uniform number that decides it."""
    return [
        jnp.where(value, 0.0, 1.0) if label.kind == "bernoulli" else value
        for label, (value, _, _) in zip(found.labels, made, strict=True)
    ]


@pytest.mark.parametrize("name", CALLS)
def test_a_draw_is_labelled_recorded_and_played(name):
    function, expected = CALLS[name]
    found, result, made = recorded(function, KEY)
    seen = [
        (label.kind, label.shape, *(float(b) for b in draw[1:])) for label, draw in zip(found.labels, made, strict=True)
    ]
    assert str(seen) == str(expected)
    assert all(label.site.startswith("test_draws.py:") for label in found.labels)
    np.testing.assert_array_equal(result, function(KEY))
    np.testing.assert_allclose(found.play(as_tape(found, made), OTHER), result, rtol=1e-6)


def test_every_named_draw_is_tried():
    assert set(NAMED.values()) - {"categorical"} <= {kind for _, draws in CALLS.values() for kind, *_ in draws}


def inside_jit(key):
    return jax.jit(lambda key: uniform(key) * 2)(key)


def inside_cond(key):
    return jax.lax.cond(
        uniform(key) < 2.0, lambda k: jax.random.normal(k), lambda k: -uniform(k), jax.random.fold_in(key, 1)
    )


def inside_custom_jvp(key):
    @jax.custom_jvp
    def noisy(x, key):
        return x + uniform(key)

    noisy.defjvp(lambda primals, tangents: (noisy(*primals), tangents[0]))
    return noisy(1.0, key)


def inside_vmap(key):
    return jax.vmap(lambda k: uniform(k) * 3)(jax.random.split(key, 4)).sum()


def inside_checkpoint(key):
    return jax.checkpoint(lambda key: uniform(key) + 1)(key)


NESTED = {inside_jit: 1, inside_cond: 3, inside_custom_jvp: 1, inside_vmap: 1, inside_checkpoint: 1}


@pytest.mark.parametrize("function", NESTED, ids=lambda function: function.__name__)
def test_draws_inside_calls_are_in_the_open(function):
    found, result, made = recorded(function, KEY)
    assert len(found.labels) == NESTED[function]
    np.testing.assert_allclose(result, function(KEY), rtol=1e-6)
    np.testing.assert_allclose(found.play(as_tape(found, made), OTHER), result, rtol=1e-6)
    zeros = [jnp.zeros(label.shape) for label in found.labels]
    assert not np.allclose(found.play(zeros, KEY), result), "what is played is what counts"


def test_both_branches_are_taken_from_the_tape_and_the_right_one_counts():
    found = labelled(inside_cond, KEY)
    assert [label.kind for label in found.labels] == ["uniform", "uniform", "normal"]  # the branch of False is first
    assert [float(found.play([u, 0.5, 7.0], KEY)) for u in (1.0, 3.0)] == [7.0, -0.5]


def test_a_bernoulli_is_decided_by_a_uniform_number_below_its_probability():
    play = labelled(lambda key: jax.random.bernoulli(key, 0.25), KEY).play
    assert [bool(play([u], KEY)) for u in (0.0, 0.2499, 0.25, 0.9)] == [True, True, False, False]


def test_bounds_that_are_computed_are_recorded_as_they_came_out():
    def function(key, low):
        return uniform(key, minval=low, maxval=2 * low + 1)

    _, _, made = recorded(function, KEY, 3.0)
    assert [float(bound) for bound in made[0][1:]] == [3.0, 7.0]


@pytest.mark.parametrize("loop", ["scan", "while", "fori"])
def test_a_draw_in_a_loop_is_not_alignable(loop):
    def step(i, x, key):
        return x + uniform(jax.random.fold_in(key, i))

    def function(key):
        if loop == "scan":
            return jax.lax.scan(lambda x, i: (step(i, x, key), None), 0.0, jnp.arange(3))[0]
        if loop == "while":
            return jax.lax.while_loop(lambda x: x < 1, lambda x: step(0, x, key), 0.0)
        return jax.lax.fori_loop(0, 3, partial(step, key=key), 0.0)

    with pytest.raises(Unalignable, match="loop"):
        labelled(function, KEY)


def test_a_loop_without_draws_is_left_alone():
    def function(key):
        return jax.lax.fori_loop(0, 3, lambda i, x: x * 2, uniform(key))

    _, result, _ = recorded(function, KEY)
    np.testing.assert_allclose(result, function(KEY))


ACTION = {"action": Space("discrete", (), "int32", np.array(0), np.array(1))}


def backend(step, reset=lambda key: ({"x": jnp.float32(0)}, {"observation": jnp.float32(0)})):
    return JaxBackend(Functional("test", "plain", reset, step, ACTION, {}))


def outputs(x):
    return {"observation": x, "reward": x, "done": x > 99}


def test_a_step_that_draws_in_a_loop_is_seeded():
    def step(key, state, action):
        x = jax.lax.fori_loop(0, 3, lambda i, x: x + uniform(jax.random.fold_in(key, i)), state["x"])
        return {"x": x}, outputs(x)

    opened = backend(step)
    assert opened.spec.draws == "seed"
    state, action = opened.reset(np.arange(3)).state, {"action": np.zeros(3, int)}
    first, again, other = (
        opened.step(state, action, seeds) for seeds in (np.arange(3), np.arange(3), np.arange(3) + 9)
    )
    assert first.draws is None
    assert np.array_equal(first.outputs["reward"], again.outputs["reward"])
    assert not np.array_equal(first.outputs["reward"], other.outputs["reward"])


def test_a_tape_of_many_rows_is_played_row_by_row():
    def step(key, state, action):
        a, b = jax.random.split(key)
        x = state["x"] + uniform(a) + jax.random.bernoulli(b, 0.5)
        return {"x": x}, outputs(x)

    opened = backend(step)
    assert opened.spec.draws == "tape"
    rows = 70  # more than one compiled batch of the small size
    state, action = opened.reset(np.arange(rows)).state, {"action": np.zeros(rows, int)}
    made = opened.step(state, action, np.arange(rows))
    assert [(d.kind, d.value.shape, d.present.all()) for d in made.draws] == [
        ("uniform", (rows,), True),
        ("bernoulli", (rows,), True),
    ]
    back = np.arange(rows)[::-1]
    played = opened.step(state, action, np.zeros(rows, int), tuple(d.take(back) for d in made.draws))
    np.testing.assert_allclose(played.outputs["reward"], made.outputs["reward"][back], rtol=1e-6)
    assert played.draws is not None and np.array_equal(played.draws[0].value, made.draws[0].value[back])


@pytest.mark.parametrize("inside", [False, True], ids=["plainly", "inside jit"])
def test_a_key_kept_in_the_state_is_known_by_its_use(inside):
    def step(state, action):
        use = jax.jit(jax.random.split) if inside else jax.random.split
        key, now = use(state["carried"])
        return {"carried": key, "words": state["words"] + 1, "x": state["x"] + uniform(now)}

    state = {"carried": KEY, "words": jnp.zeros(2, jnp.uint32), "x": 0.0}
    assert keys_among(step, state, 0) == {0}

    def reset(key):
        return {**state, "carried": key}, {"observation": 0.0}

    def full(key, state, action):
        after = step(state, action["action"])
        return after, outputs(after["x"])

    opened = backend(full, reset)
    assert set(opened.spec.fields) == {"words", "x"}, "a key is no state that could be compared"
    begun = opened.reset(np.arange(4))
    again, other = (opened.step(begun.state, {"action": np.zeros(4, int)}, np.arange(4) + n) for n in (0, 7))
    assert not np.array_equal(again.outputs["reward"], other.outputs["reward"]), "the row's seed stands for it"
