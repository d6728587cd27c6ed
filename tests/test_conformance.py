"""Every backend keeps the protocol: real environments of every kind, asked the same questions."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pytest_envequiv.backends import discovery, tapes
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import State
from pytest_envequiv.errors import OpenError
from pytest_envequiv.stimuli.policies import uniform
from pytest_envequiv.whitebox.draws import Unalignable, labelled

NAMES = {
    "gymnasium:CartPole-v1": "fields",
    "gymnasium:MountainCarContinuous-v0": "fields",
    "gymnasium:Pendulum-v1": "fields",
    "gymnasium:FrozenLake-v1": "fields",
    "gymnasium:Blackjack-v1": "snapshot",
    "gymnax:Pendulum-v1": "fields",
    "pgx:tic_tac_toe": "fields",
    "pettingzoo:classic.connect_four_v3": "fields",
}
opened = functools.cache(open_backend)


@pytest.fixture(params=NAMES, scope="module")
def backend(request):
    return opened(request.param)


def actions(backend, count, outputs=None, seed=0):
    rng = np.random.default_rng(seed)
    chosen = {k: uniform(s, count, rng) for k, s in backend.spec.action.items()}
    if outputs is not None and "mask" in outputs:
        chosen["action"] = np.where(outputs["mask"], rng.random(outputs["mask"].shape), -1).argmax(1)
    return chosen


def same(a, b):
    return all(np.array_equal(a.outputs[k], b.outputs[k], equal_nan=a.outputs[k].dtype.kind == "f") for k in a.outputs)


def test_it_says_what_it_can_do(backend):
    assert backend.spec.state == NAMES[backend.spec.name if backend.spec.name in NAMES else "gymnax:Pendulum-v1"]
    assert backend.spec.action and backend.spec.observation


@pytest.mark.parametrize("count", [1, 3, 65])
def test_a_batch_of_any_size_has_its_shape(backend, count):
    begun = backend.reset(np.arange(count))
    after = backend.step(begun.state, actions(backend, count, begun.outputs), np.arange(count))
    for name, space in backend.spec.observation.items():
        assert after.outputs[name].shape == (count, *space.shape)
    seats = (backend.spec.seats,) if backend.spec.seats > 1 else ()
    assert after.outputs["reward"].shape == (count, *seats)
    assert after.outputs["terminated"].shape == after.outputs["truncated"].shape == (count,)
    for name, leaf in backend.spec.fields.items():
        assert after.state.fields[name].shape == (count, *leaf.shape)


def test_the_same_seed_begins_the_same_episode(backend):
    first, second = backend.reset(np.array([5, 6, 7])), backend.reset(np.array([5, 6, 7]))
    assert same(first, second)


def test_rows_may_be_taken_and_reordered(backend):
    seeds = np.arange(6)
    begun = backend.reset(seeds)
    chosen = actions(backend, 6, begun.outputs)
    order = np.array([4, 1, 1, 0])
    some = backend.step(begun.state.take(order), {k: v[order] for k, v in chosen.items()}, seeds[order])
    again = backend.reset(seeds)
    if some.draws and not backend.spec.traceable:  # lanes draw from generators of their own; the tape makes them agree
        assert {d.kind for d in some.draws} <= {"uniform", "integers"}
        return
    assert same(backend.step(again.state, chosen, seeds).take(order), some)


def test_injecting_is_continuing(backend):
    """A state that was read and is written back steps as if nothing had happened; nothing given is changed."""
    if backend.spec.state != "fields":
        assert backend.spec.state == "snapshot"
        return
    seeds = np.arange(8)
    begun = backend.reset(seeds)
    chosen = actions(backend, 8, begun.outputs)
    middle = backend.step(begun.state, chosen, seeds)
    live = np.flatnonzero(~middle.done)
    middle = middle.take(live)
    chosen = actions(backend, len(live), middle.outputs, seed=1)
    kept = {k: v.copy() for k, v in middle.state.fields.items()}
    written = backend.step(State(middle.state.fields), chosen, seeds[live])
    tape = written.draws if written.draws else None
    continued = backend.step(State(middle.state.fields), chosen, seeds[live], tape)
    assert same(written, continued)
    if not tape:
        assert same(written, backend.step(middle.state, chosen, seeds[live]))
    for name, value in kept.items():
        assert np.array_equal(value, middle.state.fields[name], equal_nan=value.dtype.kind == "f"), name


def test_a_time_limit_is_state():
    backend = opened("gymnasium:CartPole-v1")
    begun = backend.reset(np.arange(2))
    late = begun.state.edited(_elapsed_steps=np.array([498, 499]))
    after = backend.step(late, {"action": np.array([0, 1])}, np.arange(2))
    assert after.outputs["truncated"].tolist() == [False, True]


def test_a_recorded_tape_plays():
    for name in ("gymnasium:FrozenLake-v1", "gymnax:Pendulum-v1"):
        backend = opened(name)
        recorded = backend.reset(np.arange(9))
        played = backend.reset(np.arange(100, 109), recorded.draws)
        assert recorded.draws and same(recorded, played), name


def test_what_cannot_be_found_is_not_called_fields():
    import gymnasium

    class Hidden(gymnasium.Env):
        action_space = gymnasium.spaces.Discrete(2)
        observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.numbers = itertools.count()
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.array([next(self.numbers) % 7], np.float32), 0.0, False, False, {}

    assert open_backend(Hidden).spec.state != "fields"


def test_discovery_walks_where_people_keep_state():
    class Inner:
        def __init__(self):
            self.cells = [[0, 1], [2, 3]]

    class Outer:
        def __init__(self):
            self.inner, self.table, self.word, self.nothing = Inner(), {"a": 1.5}, "red", None

    found, _ = discovery.walk(Outer())
    assert {"inner.cells", "table.a", "word", "nothing"} <= set(found)


def test_the_recorder_draws_as_numpy_does():
    plain = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3)))
    recorder = tapes.generator(3)
    for draw in (
        lambda g: g.random(3),
        lambda g: g.uniform(-1, 2, 4),
        lambda g: g.normal(1, 2),
        lambda g: g.integers(0, 9, 5),
        lambda g: g.choice(7),
        lambda g: g.permutation(6),
    ):
        assert np.array_equal(draw(plain), draw(recorder))
    assert [m.kind for m in recorder.log][:4] == ["uniform", "uniform", "normal", "integers"]


def test_draws_of_a_jaxpr_are_recorded_and_played():
    def function(key):
        first, second = jax.random.split(key)
        x = jax.jit(lambda k: jax.random.uniform(k, (2,), minval=-1.0, maxval=3.0))(first)
        return x.sum() + jax.random.bernoulli(second, 0.25)

    found = labelled(function, jax.random.PRNGKey(0))
    assert [label.kind for label in found.labels] == ["uniform", "bernoulli"]
    value, made = found.record(jax.random.PRNGKey(4))
    assert value == function(jax.random.PRNGKey(4))
    assert (float(made[0][1]), float(made[0][2]), float(made[1][1])) == (-1.0, 3.0, 0.25)
    assert found.play([jnp.array([1.0, 2.0]), 0.2], jax.random.PRNGKey(9)) == 4.0
    assert found.play([jnp.array([1.0, 2.0]), 0.3], jax.random.PRNGKey(9)) == 3.0


def test_a_draw_in_a_loop_cannot_be_aligned():
    def function(key):
        return jax.lax.fori_loop(0, 3, lambda i, x: x + jax.random.normal(jax.random.fold_in(key, i)), 0.0)

    with pytest.raises(Unalignable):
        labelled(function, jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    "name, parts",
    [
        ("gymnasum:CartPole-v1", ["no backend kind", "'gymnasium'"]),
        ("gymnasium:CartPol-v1", ["CartPol"]),
        ("gymnax:Cartpole-v1", ["did you mean 'CartPole-v1'"]),
        ("pgx:connectfour", ["did you mean 'connect_four'"]),
        ("nopackage.port", ["no module 'nopackage'"]),
        ("json", ["looked for"]),
        ("process:no-such-program", ["no-such-program"]),
        ("pettingzoo:classic.nothing_v1", ["no module"]),
    ],
)
def test_a_name_that_does_not_open_is_one_line(name, parts):
    with pytest.raises(OpenError) as caught:
        open_backend(name)
    text = str(caught.value)
    assert "\n" not in text and all(part in text for part in parts), text


def test_a_missing_extra_names_the_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(OpenError, match=r"pip install 'pytest-envequiv\[gymnax\]'"):
        open_backend("gymnax:CartPole-v1")


@pytest.mark.parametrize(
    "line", ["raise SystemExit(0)", "import pytest; pytest.skip('no', allow_module_level=True)", "1 / 0"]
)
def test_an_import_that_raises_is_one_line(tmp_path, monkeypatch, line):
    (tmp_path / "raising_port.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OpenError, match="importing it raised"):
        open_backend("raising_port")
