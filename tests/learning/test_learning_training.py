"""Training from end to end: what is learned, the two loops, resuming, and what is said when it cannot be done."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import drift, lessons, maze

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import Space, Spec
from pytest_envequiv.errors import Limitation
from pytest_envequiv.learning import PPO, CheckpointError, networks, plot_curves, train, training
from pytest_envequiv.learning.interface import interface_of

SMALL = PPO(lanes=8, steps=16, minibatches=2, rate=1e-3)
QUICK = PPO(lanes=32, rate=1e-3)


def numbers(trained):
    """Everything that came of a training, as arrays."""
    return [*trained.curve.values(), *jax.tree.leaves((trained.policy.params, trained.policy.sight))]


def same(one, other) -> bool:
    pairs = zip(numbers(one), numbers(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


# -- what is learned ---------------------------------------------------------------------------------------------------


def test_cartpole_is_solved():
    """On gymnax, and the policy then holds the pole on Gymnasium too. 475 is Gymnasium's threshold."""
    trained = train("gymnax:CartPole-v1", QUICK, steps=160_000)
    assert trained.curve["return"][0] < 40
    assert trained.evaluate("gymnax:CartPole-v1", 64).mean() > 475
    assert trained.evaluate("gymnasium:CartPole-v1", 64).mean() > 475


def test_mountain_car_continuous_is_solved():
    """90 is Gymnasium's threshold."""
    trained = train("gymnax:MountainCarContinuous-v0", QUICK, steps=130_000)
    assert trained.evaluate("gymnax:MountainCarContinuous-v0", 64, greedy=True).mean() > 90


def test_memory_is_needed_and_used():
    without = train(lessons.compiled(lessons.Recall()), PPO(lanes=16, steps=24, rate=3e-3), steps=40_000)
    assert abs(without.curve["return"][-20:].mean()) < 0.3
    method = PPO(lanes=16, steps=24, rate=3e-3, memory=16)
    trained = train(lessons.compiled(lessons.Recall()), method, steps=40_000)
    assert trained.curve["return"][-1] > 0.95
    assert trained.evaluate(lessons.compiled(lessons.Recall()), 64).mean() > 0.95


def test_masks_are_kept_to_while_learning():
    """An illegal order costs 100: not one is given, from the first step on."""
    trained = train(lessons.compiled(lessons.Menu()), PPO(lanes=16, steps=32, rate=3e-3), steps=40_000)
    assert np.nanmin(trained.curve["return"]) >= 0
    assert trained.evaluate(lessons.compiled(lessons.Menu()), 64).min() >= 0
    assert trained.curve["return"][-1] > 7.5 > 5 > trained.curve["return"][0]


def test_several_actions_at_once():
    trained = train(lessons.compiled(lessons.Several()), PPO(lanes=16, steps=32, rate=3e-3), steps=60_000)
    greedy = trained.evaluate(lessons.compiled(lessons.Several()), 64, greedy=True)
    assert greedy.mean() > 11 and trained.curve["return"][0] < 0  # 12 is the best


def test_a_game_of_two_is_learned_by_seat_0():
    """The other seat plays at random; a policy that has learned wins nearly always."""
    trained = train("pgx:tic_tac_toe", PPO(lanes=32, steps=32, rate=3e-3), steps=80_000)
    assert trained.evaluate("pgx:tic_tac_toe", 128).mean() > 0.85
    assert trained.curve["return"][0] < 0.6


LEFT = np.mean([sum(0.9**k for k in range(left)) for left in (1, 2, 3, 4, 5)])  # at an unknown step of five


@pytest.mark.parametrize(("lesson", "worth"), [(lessons.Endless, 10.0), (lessons.Doomed, LEFT)])
def test_what_is_cut_off_has_a_future(lesson, worth):
    """At a discount of 0.9 an endless 1 a step is worth 10, whatever begins afterwards in the lane."""
    method = PPO(lanes=16, steps=20, rate=3e-3, discount=0.9, normalise=False, anneal=False)
    trained = train(lessons.compiled(lesson()), method, steps=60_000)
    seen = jnp.array([[[0.0], [1.0]]])
    value = networks.outputs(trained.policy.params, seen, networks.empty_memory(2, 0), jnp.ones((1, 2), bool))[1][0]
    np.testing.assert_allclose(value, [0.0, worth], atol=0.5)


# -- the same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lesson", "memory"), [(lessons.Walk, 0), (lessons.Menu, 8)])
def test_both_loops_give_the_same_numbers(lesson, memory):
    method = PPO(lanes=8, steps=16, minibatches=2, rate=1e-3, memory=memory)
    one, other = (train(make(lesson()), method, steps=768, seed=3) for make in (lessons.compiled, lessons.stepwise))
    assert same(one, other)
    assert np.isfinite(one.curve["return"]).any()


def test_another_seed_gives_other_numbers_and_the_same_the_same():
    first, again, other = (train(lessons.compiled(lessons.Walk()), SMALL, steps=512, seed=s) for s in (0, 0, 1))
    assert same(first, again) and not same(first, other)


class Stop(Exception):
    pass


def stopped(environment, method, steps, path, after):
    """A training that is killed when it has taken more than ``after`` steps."""

    def tell(what, done, total):
        if done > after:
            raise Stop

    with pytest.raises(Stop):
        train(environment, method, steps=steps, checkpoint=path, progress=tell)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lessons.compiled(lessons.Walk()),
        lambda: open_backend(drift.reference),
        drift.VectorDrift,
        lambda: open_backend(maze.snapshot),
    ],
    ids=["compiled", "Gymnasium", "batched numpy", "snapshots"],
)
def test_an_interrupted_training_goes_on_bit_for_bit(make, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHUNK", 2 * SMALL.batch)
    path = tmp_path / "run" / "checkpoint.npz"
    method = PPO(lanes=8, steps=16, minibatches=2, rate=1e-3, memory=8 * hasattr(make(), "row_step"))
    steps = 8 * SMALL.batch
    whole = train(make(), method, steps=steps)
    stopped(make(), method, steps, path, 4 * SMALL.batch)
    calls = []
    resumed = train(make(), method, steps=steps, checkpoint=path, progress=lambda *a: calls.append(a))
    assert calls[0][1] >= 4 * SMALL.batch  # it did go on
    assert same(whole, resumed)
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.npz"]
    assert same(whole, train(make(), method, steps=steps, checkpoint=path))  # nothing is left to do


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    environment = lessons.compiled(lessons.Walk())
    train(environment, SMALL, steps=256, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz: it is of a run with seed = 0, not 1; delete it"):
        train(environment, SMALL, steps=256, seed=1, checkpoint=path)
    other = PPO(lanes=8, steps=16, minibatches=2, rate=5e-4)
    with pytest.raises(CheckpointError, match=r"rate = 0\.001, not 0\.0005"):
        train(environment, other, steps=256, checkpoint=path)
    with pytest.raises(CheckpointError, match="mark = '', not 'x'"):
        train(environment, SMALL, steps=256, checkpoint=path, mark="x")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="not whole"):
        train(environment, SMALL, steps=256, checkpoint=path)
    path.write_text("something else")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(environment, SMALL, steps=256, checkpoint=path)


def test_training_ends_when_it_is_enough():
    trained = train(
        lessons.compiled(lessons.Walk()), SMALL, steps=100_000, enough=lambda curve: curve["return"][-1] > 5
    )
    assert trained.curve["return"][-1] > 5 and trained.steps < 100_000


def test_a_policy_acts_alike_wherever_it_is(tmp_path):
    """The evaluation of one policy on both faces of one environment, episode by episode; and it can be drawn."""
    trained = train(lessons.compiled(lessons.Walk()), SMALL, steps=512)
    ours = trained.evaluate(lessons.compiled(lessons.Walk()), 70)
    theirs = trained.evaluate(lessons.stepwise(lessons.Walk()), 70)
    assert len(ours) == 70 and np.array_equal(ours, theirs) and len(set(ours.tolist())) > 2
    assert not np.array_equal(ours, trained.evaluate(lessons.compiled(lessons.Walk()), 70, seed=2))
    plot_curves({"seed 0": trained.curve}, tmp_path / "curve.png", "Walk")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_the_curve_counts_episodes():
    """With actions that do not matter the mean return and length are known."""
    trained = train(lessons.compiled(lessons.Endless()), PPO(lanes=8, steps=20, minibatches=2), steps=1_600)
    assert (trained.curve["episodes"] == 8 * 4).all() and (trained.curve["length"] == 5).all()
    assert set(np.unique(trained.curve["return"] * 32 / 5).tolist()) <= set(range(33))
    assert trained.steps == 1_600 and trained.curve["steps"].tolist() == list(range(160, 1_601, 160))


# -- what cannot be done -----------------------------------------------------------------------------------------------


class Broken(lessons.Walk):
    def step(self, state, action):
        after, seen, reward, *ends = super().step(state, action)
        return after, seen, jnp.where(after.time == 9, jnp.nan, reward), *ends


def test_what_is_not_finite_is_said():
    for make in (lessons.compiled, lessons.stepwise):
        with pytest.raises(Limitation, match="ended after 0 steps: an observation or a reward is not finite"):
            train(make(Broken()), SMALL, steps=512)


def test_without_optax_the_plugin_works_and_learning_says_what_it_needs():
    code = """
        import sys
        sys.modules["optax"] = None
        import pytest_envequiv.plugin, pytest_envequiv.judge, pytest_envequiv.learning
        try:
            from pytest_envequiv.learning import train
        except ImportError as error:
            print(error)
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    said = "pytest_envequiv.learning: it needs optax; install it with: pip install 'pytest-envequiv[learning]'"
    assert told.stdout.strip() == said, told


def test_an_endless_choice_is_refused():
    space = Space("discrete", (), "int64", np.array(-np.inf), np.array(np.inf))
    seen = Space("box", (1,), "float32", np.array(0.0), np.array(1.0))
    spec = Spec("x", "x", {"action": space}, {"observation": seen}, {}, "fields", "none")
    with pytest.raises(Limitation, match="action: a choice among endlessly many values cannot be learned"):
        interface_of(spec, {"observation": np.zeros((1, 1))})
