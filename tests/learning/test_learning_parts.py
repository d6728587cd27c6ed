"""The parts of learning, each against another way to compute the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import lessons
from scipy.stats import norm

from pytest_envequiv.backends.protocol import Space, Spec
from pytest_envequiv.errors import Limitation
from pytest_envequiv.learning import PPO, choosing, networks, normalise, ppo
from pytest_envequiv.learning.interface import Choice, Seen, action_of, as_numpy, interface_of, look

# -- normaliser --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_the_running_moments_are_those_of_all_rows_at_once(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(3.0, 2.0, (n, 2)).astype(np.float32) * [1.0, 100.0] for n in sizes]
    running = normalise.nothing(2)
    for part in parts:
        running = normalise.merged(running, jnp.asarray(part, jnp.float32))
    rows = np.concatenate(parts)
    assert float(running.count) == len(rows)
    np.testing.assert_allclose(running.mean, rows.mean(0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(running.variance, rows.var(0), rtol=1e-3, atol=1e-3)
    expected = np.clip((rows - rows.mean(0)) / np.sqrt(rows.var(0) + normalise.TINY), -10, 10)
    if len(rows) > 1:
        np.testing.assert_allclose(normalise.normalised(running, rows), expected, rtol=2e-2, atol=2e-2)


def test_a_reward_keeps_its_sign_and_its_zero():
    running = normalise.merged(normalise.nothing(1), jnp.array([[100.0], [104.0]]))
    np.testing.assert_allclose(normalise.scaled(running, jnp.array([0.0, 4.0, -2.0, 1e9])), [0, 2, -1, 10], rtol=1e-5)


# -- choices -----------------------------------------------------------------------------------------------------------

SEVERAL = lessons.compiled(lessons.Several())


def several(masked=False):
    outputs = SEVERAL.reset(np.arange(3)).outputs
    return interface_of(SEVERAL.spec, {**outputs, **({"mask": np.ones((3, 10), bool)} if masked else {})})


def test_what_several_actions_and_a_number_in_words_become():
    interface = several()
    assert interface.choices == (2, 5, 3) and interface.reals == 2 and interface.width == 4
    seen = look(interface, {"observation": np.array([0, 3, 1])})
    assert np.array_equal(seen.features, np.eye(4)[[0, 3, 1]])
    choice = Choice(jnp.array([[1, 4, 2]], jnp.int32), jnp.array([[0.5, -9.0]], jnp.float32))
    action = as_numpy(interface, action_of(interface, choice))
    assert action["action.pick"].tolist() == [[1, 4, 2]] and action["action.pick"].dtype == np.int64
    assert action["action.dose"].tolist() == [[3.0, -2.0]]  # of 0..4 the middle and half as much again; clipped


def test_numbers_that_do_not_begin_at_nought():
    low, high = np.array(3), np.array(4)
    spec = Spec("x", "x", {"action": Space("discrete", (), "int8", low, high)}, {}, {}, "fields", "none")
    box = Space("box", (2,), "float32", np.array(-1.0), np.array(1.0))
    spec = Spec("x", "x", spec.action, {"observation": box}, {}, "fields", "none")
    interface = interface_of(spec, {"observation": np.zeros((1, 2))})
    action = as_numpy(interface, action_of(interface, Choice(jnp.array([[1]], jnp.int32), jnp.zeros((1, 0)))))
    assert action["action"].tolist() == [4] and action["action"].dtype == np.int8


def test_log_probabilities_are_those_of_the_distributions():
    interface = several()
    rng = np.random.default_rng(0)
    output = jnp.asarray(rng.normal(size=(6, 12)), jnp.float32)
    spread = jnp.array([0.3, -0.7], jnp.float32)
    seen = look(interface, {"observation": np.arange(6) % 4})
    choice, told = choosing.drawn(interface, output, spread, seen, jax.random.PRNGKey(1))
    expected, entropy, at = np.zeros(6), np.zeros(6), 0
    for k, count in enumerate((2, 5, 3)):
        scores = np.asarray(output[:, at : at + count], float)
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        expected += np.log(p[np.arange(6), np.asarray(choice.picks)[:, k]])
        entropy -= (p * np.log(p)).sum(1)
        at += count
    deviation = np.exp(np.asarray(spread, float))
    expected += norm.logpdf(np.asarray(choice.reals), np.asarray(output[:, 10:]), deviation).sum(1)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-5)
    again, certain = choosing.log_probability(interface, output, spread, seen.legal, choice)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(certain, entropy, rtol=1e-4, atol=1e-5)


def test_choices_come_as_often_as_they_should():
    interface = several()
    scores = np.log(np.array([0.1, 0.9, 0.2, 0.2, 0.3, 0.2, 0.1, 0.6, 0.3, 0.1]))
    output = jnp.asarray(np.tile([*scores, 0.0, 0.5], (20_000, 1)), jnp.float32)
    seen = look(interface, {"observation": np.zeros(20_000, int)})
    choice, _ = choosing.drawn(interface, output, jnp.array([0.0, -1.0]), seen, jax.random.PRNGKey(0))
    for k, p in enumerate(([0.1, 0.9], [0.2, 0.2, 0.3, 0.2, 0.1], [0.6, 0.3, 0.1])):
        np.testing.assert_allclose(np.bincount(choice.picks[:, k], minlength=len(p)) / 20_000, p, atol=0.015)
    np.testing.assert_allclose(choice.reals.mean(0), [0.0, 0.5], atol=0.03)
    np.testing.assert_allclose(choice.reals.std(0), [1.0, np.exp(-1)], rtol=0.03)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_illegal_is_never_chosen_and_has_no_gradient(seed):
    rng = np.random.default_rng(seed)
    interface = several(masked=True)
    mask = rng.random((8, 10)) < 0.4
    outputs = {"observation": rng.integers(0, 4, 8), "mask": mask}
    seen: Seen = look(interface, outputs)
    output = jnp.asarray(rng.normal(size=(8, 12)) * 20, jnp.float32)
    choice, _ = choosing.drawn(interface, output, jnp.zeros(2), seen, jax.random.PRNGKey(seed))
    best = choosing.likeliest(interface, output, seen)
    for picks in (np.asarray(choice.picks), np.asarray(best.picks)):
        for k, (begin, count) in enumerate(((0, 2), (2, 5), (7, 3))):
            legal = mask[:, begin : begin + count]
            chosen = legal[np.arange(8), picks[:, k]]
            assert (chosen | ~legal.any(1)).all() and (picks[:, k] < count).all()

    def told(output):
        likelihood, entropy = choosing.log_probability(interface, output, jnp.zeros(2), seen.legal, choice)
        return (likelihood + entropy).sum()

    slope = np.asarray(jax.grad(told)(output))
    somewhere = np.concatenate(
        [mask[:, a:b] | ~mask[:, a:b].any(1, keepdims=True) for a, b in ((0, 2), (2, 7), (7, 10))], 1
    )
    assert np.isfinite(slope).all() and (slope[:, :10][~somewhere] == 0).all()


def test_a_mask_of_another_width_is_said():
    outputs = SEVERAL.reset(np.arange(3)).outputs
    with pytest.raises(Limitation, match=r"mask has 30 columns, its actions have 10 values"):
        interface_of(SEVERAL.spec, {**outputs, "mask": np.ones((3, 30), bool)})


# -- networks ----------------------------------------------------------------------------------------------------------


def test_weights_begin_orthogonal():
    params = networks.begun(0, 5, (16, 8), 4, 3, 0)
    weight = np.asarray(params["policy"]["layers"][1][0])
    np.testing.assert_allclose(weight.T @ weight, 2 * np.eye(8), atol=1e-5)
    assert np.abs(params["policy"]["out"][0]).max() < 0.011


def test_what_is_remembered_ends_with_the_episode():
    """Sequences that are run through in one go, with an episode beginning in the middle, against each by itself."""
    params = networks.begun(1, 3, (8,), 6, 2, 0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2, 3)), jnp.float32)
    begins = np.zeros((9, 2), bool)
    begins[0], begins[4, 1] = True, True
    old = jax.tree.map(lambda leaf: leaf + 5.0, networks.empty_memory(2, 6))  # of another episode: must not matter
    whole = networks.outputs(params, x, old, jnp.asarray(begins))
    empty = networks.empty_memory(2, 6)
    never = jnp.zeros((9, 2), bool)
    alone = networks.outputs(params, x, empty, never)
    for one, other in zip(whole[:2], alone[:2], strict=True):
        np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one[:4, 1], other[:4, 1], rtol=1e-5, atol=1e-6)
        assert np.abs(one[4:, 1] - other[4:, 1]).max() > 1e-3
    later = networks.outputs(params, x[4:], empty, never[4:])
    np.testing.assert_allclose(whole[0][4:, 1], later[0][:, 1], rtol=1e-5, atol=1e-6)
    # Step by step is the same as in one go.
    memory, outputs = old, []
    for t in range(9):
        output, _, memory = networks.outputs(params, x[t : t + 1], memory, jnp.asarray(begins[t : t + 1]))
        outputs.append(output[0])
    np.testing.assert_allclose(jnp.stack(outputs), whole[0], rtol=1e-5, atol=1e-6)


# -- advantages --------------------------------------------------------------------------------------------------------


def plain_advantages(reward, value, beyond, terminated, truncated, last, gamma, trace):
    """One lane, as in a textbook: the sum of discounted surprises, each episode by itself."""
    steps = len(reward)
    delta = np.zeros(steps)
    for t in range(steps):
        if terminated[t]:
            then = 0.0
        elif truncated[t]:
            then = last[t]
        else:
            then = value[t + 1] if t + 1 < steps else beyond
        delta[t] = reward[t] + gamma * then - value[t]
    found = np.zeros(steps)
    for t in range(steps):
        for k in range(t, steps):
            found[t] += (gamma * trace) ** (k - t) * delta[k]
            if terminated[k] or truncated[k]:
                break
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_advantages_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    method = PPO(lanes=3, steps=7, minibatches=1, discount=0.9, trace=0.7)
    reward, value, last = rng.normal(size=(3, 7, 3))
    beyond = rng.normal(size=3)
    terminated, truncated = rng.random((2, 7, 3)) < 0.2
    cut = truncated & ~terminated
    after = np.where(terminated, 0.0, np.where(cut, last, np.concatenate([value[1:], beyond[None]])))
    batch = ppo.Batch(*[None] * len(ppo.Batch._fields))._replace(
        reward=jnp.asarray(reward),
        value=jnp.asarray(value),
        after=jnp.asarray(after),
        done=jnp.asarray(terminated | cut),
    )
    found = ppo.advantages(method, batch)
    for lane in range(3):
        expected = plain_advantages(
            reward[:, lane],
            value[:, lane],
            beyond[lane],
            terminated[:, lane],
            truncated[:, lane],
            last[:, lane],
            0.9,
            0.7,
        )
        np.testing.assert_allclose(found[:, lane], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lanes": 0}, "lanes = 0: give a whole number from 1 up"),
        ({"discount": 1.5}, "discount = 1.5: give a number from 0 to 1"),
        ({"rate": 0.0}, "rate = 0.0: give a number above 0"),
        ({"hidden": (64, 0)}, r"hidden = \(64, 0\): give whole numbers"),
        ({"lanes": 3, "steps": 5}, r"lanes \* steps = 15 cannot be divided into 4"),
        ({"lanes": 6, "memory": 8}, "lanes = 6 cannot be divided into 4"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        PPO(**wrong)
    assert PPO.from_json(PPO(hidden=(8,)).as_json()) == PPO(hidden=(8,))
