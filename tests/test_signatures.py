"""What a plain port's step returns is read from how its return statement is written: nothing may be taken for another
thing, or dropped, because it has no name there."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import OpenError

# A step from x: what was seen is 10 x, so that neither the state before nor after is it, the reward is 2 x.


def begin(key):
    state = {"x": jnp.float32(1.0)}
    return 10 * state["x"][None], state


def seen(state):
    return 10 * state["x"][None]


def looks(state, action):
    new_state, reward = {"x": state["x"] + 1}, 2 * state["x"]
    terminated, truncated = state["x"] > 3, state["x"] > 5
    return seen(state), new_state, reward, terminated, truncated, {}


def looks_and_says_done(state, action):
    new_state, reward, done = {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    return seen(state), new_state, reward, done, {}


def ends_nameless(state, action):
    obs, new_state, reward = seen(state), {"x": state["x"] + 1}, 2 * state["x"]
    return obs, new_state, reward, state["x"] > 3, state["x"] > 5, {}


def half_of_the_end_nameless(state, action):
    obs, new_state, reward, truncated = seen(state), {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 5
    return obs, new_state, reward, state["x"] > 3, truncated, {}


def truncated_nameless(state, action):
    new_state, reward, terminated = {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    return new_state, seen(state), reward, terminated, state["x"] > 5


def a_discount_follows(state, action):
    obs, new_state, reward, done = seen(state), {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    discount = 1.0 - done
    return obs, new_state, reward, done, discount


def done_nameless(state, action):
    obs, new_state, reward = seen(state), {"x": state["x"] + 1}, 2 * state["x"]
    return obs, new_state, reward, state["x"] > 3, {}


def state_first(state, action):
    new_state, reward, done = {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    return new_state, seen(state), reward, done


def reward_nameless(state, action):
    new_state = {"x": state["x"] + 1}
    return seen(state), new_state, 2 * state["x"], state["x"] > 3, state["x"] > 5, {}


def nothing_named(state, action):
    return seen(state), {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3, state["x"] > 5, {}


def seen_as_a_dict(state, action):
    new_state, reward, done = {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    return {"view": seen(state)}, new_state, reward, done


def another_order(state, action):
    new_state, obs, reward, done = {"x": state["x"] + 1}, seen(state), 2 * state["x"], state["x"] > 3
    return new_state, reward, obs, done


STEPS = [
    looks, looks_and_says_done, ends_nameless, half_of_the_end_nameless, done_nameless, state_first, reward_nameless,
    nothing_named, seen_as_a_dict, another_order, truncated_nameless, a_discount_follows,
]  # fmt: skip


def port(step, reset=begin, **more):
    return SimpleNamespace(reset=reset, step=step, action_space=gymnasium.spaces.Discrete(2), **more)


@pytest.mark.parametrize("observe", [{}, {"observe": lambda state: -state["x"][None]}], ids=["", "observe"])
@pytest.mark.parametrize("step", STEPS)
def test_what_is_returned_is_what_is_taken(step, observe):
    """An ``observe`` next to it is for what shows nothing itself: what was returned counts, were it wrong."""
    backend = open_backend(port(step, **observe))
    begun = backend.reset(np.arange(4))
    begun.state.fields["x"][:] = [1, 3.5, 4, 6]
    after = backend.step(begun.state, {"action": np.zeros(4, int)}, np.arange(4))
    (name,) = (n for n in after.outputs if n.startswith("observation"))
    np.testing.assert_array_equal(after.outputs[name][:, 0], [10, 35, 40, 60])
    np.testing.assert_array_equal(after.outputs["reward"], [2, 7, 8, 12])
    np.testing.assert_array_equal(after.state.fields["x"], [2, 4.5, 5, 7])
    ends = {n: after.outputs[n].tolist() for n in ("done", "terminated", "truncated") if n in after.outputs}
    over, cut = [False, True, True, True], [False, False, False, True]
    assert ends in ({"done": over}, {"terminated": over, "truncated": cut})


def shows_nothing(state, action):
    new_state, reward, done = {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    return new_state, reward, done


def test_who_shows_nothing_is_looked_at():
    backend = open_backend(port(shows_nothing, lambda key: {"x": jnp.float32(1.0)}, observe=seen))
    after = backend.step(backend.reset(np.arange(1)).state, {"action": np.zeros(1, int)}, np.arange(1))
    np.testing.assert_array_equal(after.outputs["observation"], [[20.0]])


def two_nameless(state, action):
    new_state, reward, done = {"x": state["x"] + 1}, 2 * state["x"], state["x"] > 3
    return seen(state), -seen(state), new_state, reward, done, state["x"] > 5


def test_what_cannot_be_told_is_refused():
    with pytest.raises(OpenError, match="step returns 5 values besides the state"):
        open_backend(port(two_nameless))


def asks_python(state, action):
    new_state = {"x": state["x"] + (1 if state["x"] > 0 else 2)}
    reward, done = 2 * state["x"], bool(state["x"] > 3)
    return seen(state), new_state, reward, done, {}


def test_why_a_port_in_jax_is_not_traced_is_said():
    """It is judged, row by row; what that costs and which line is in the way would else be seen by nobody."""
    (note,) = open_backend(port(asks_python)).spec.notes
    assert "JAX cannot trace its step" in note and "traced array with shape bool[]" in note
    assert not open_backend(port(looks)).spec.notes
