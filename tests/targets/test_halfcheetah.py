"""The HalfCheetah port as an environment: the whole step in float64 and float32, settings, resets, endings, faces."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mujoco")

import jax
import jax.numpy as jnp
from PIL import Image

from pytest_envequiv.backends.protocol import State as Injected
from pytest_envequiv.errors import OpenError
from targets.halfcheetah import HalfCheetah, State, make, proof, reference, render, scene

KEY = jax.random.PRNGKey(0)


@pytest.fixture(scope="module")
def errors():
    return proof.joined([errors for _, errors in proof.measure(500, seed=3)])


def test_float64_is_mujoco(errors):
    text, right = proof.report(errors)
    assert right, text
    assert (errors.rows == 0).sum() > 50 and (errors.rows > 10).sum() > 30


def test_float32_is_as_near_as_the_proof_says(errors):
    """Quantiles of 100,000 states are in the README; these are a few times those."""
    free, touching = errors.rows == 0, errors.rows > 0
    for here, name, middle, most in (
        (free, "qpos", 1e-6, 1e-5),
        (free, "qvel", 5e-6, 5e-5),
        (touching, "qvel", 5e-5, 5e-2),
    ):
        error = errors.error[name, "float32"][here]
        assert np.median(error) < middle and error.max() < most


def test_the_warm_start_is_no_state(errors):
    assert errors.warm.max() < 1e-9


def stepped(env, params, states, dtype="float64"):
    with jax.enable_x64(dtype == "float64"):
        given = State(*(jnp.asarray(v, dtype) for v in states[:2]), jnp.full(len(states.qpos), 998, jnp.int32))
        return jax.tree.map(np.asarray, jax.jit(env.step_env)(KEY, given, jnp.asarray(states.action), params))


@pytest.mark.parametrize(
    "settings",
    [
        {"forward_reward_weight": 2.5, "ctrl_cost_weight": 0.7, "frame_skip": 2},
        {"exclude_current_positions_from_observation": False, "frame_skip": 1},
    ],
    ids=["weights", "positions"],
)
def test_settings_are_those_of_gymnasium(settings):
    theirs = reference.backend(**settings)
    states = proof.sample(60, np.random.default_rng(1))
    with jax.enable_x64(True):
        env, params = make(dtype="float64", **settings)
    observation, after, reward, terminated, info = stepped(env, params, states)
    given = Injected({"qpos": states.qpos, "qvel": states.qvel, "time": np.full(60, 998)})
    expected = theirs.step(given, {"action": states.action}, np.zeros(60, int))
    np.testing.assert_allclose(observation, expected.outputs["observation"], atol=1e-7)
    # Gymnasium adds up the squares of a float32 action in float32.
    np.testing.assert_allclose(reward, expected.outputs["reward"], atol=1e-6)
    np.testing.assert_allclose(info["reward_forward"] + info["reward_ctrl"], reward, atol=1e-12)
    np.testing.assert_array_equal(after.time, expected.state.fields["time"])
    assert not terminated.any()


def test_resets_and_the_noise_they_take():
    env, params = make(reset_noise_scale=0.3)
    observation, state = env.reset_env(KEY, params, (4_000,))
    assert observation.shape == (4_000, 17) and observation.dtype == jnp.float32
    assert abs(state.qpos).max() <= 0.3 and state.qpos.std() == pytest.approx(0.3 / 3**0.5, rel=0.02)
    assert state.qvel.std() == pytest.approx(0.3, rel=0.02) and not state.time.any()


def test_the_reference_gives_and_takes_its_draws():
    backend = reference.backend()
    begun = backend.reset(np.arange(5))
    assert [(d.kind, d.shape) for d in begun.draws] == [("uniform", (9,)), ("normal", (9,))]
    again = backend.reset(np.arange(5) + 100, begun.draws)
    np.testing.assert_array_equal(again.state.fields["qvel"], begun.state.fields["qvel"])
    np.testing.assert_array_equal(begun.state.fields["qvel"], 0.1 * begun.draws[1].value)


def test_an_episode_is_truncated_and_begun_anew():
    env, params = make(max_steps_in_episode=3, frame_skip=1)
    _, state = env.reset_env(KEY, params, (2,))
    state = state.replace(time=jnp.array([2, 1]))
    observation, after, _, terminated, truncated, info = jax.jit(env.step)(KEY, state, jnp.zeros((2, 6)), params)
    assert truncated.tolist() == [True, False] and not terminated.any()
    assert after.time.tolist() == [0, 2] and abs(after.qpos[0]).max() <= 0.1
    np.testing.assert_array_equal(observation, env.get_obs(after, params))
    np.testing.assert_array_equal(info["final_observation"][1], observation[1])
    assert (info["final_observation"][0] != observation[0]).any()


def test_one_row_and_many_are_the_same():
    """Also under vmap, which is how gymnax's users step: that is the same call with a batch."""
    env, params = make(frame_skip=1)
    states = proof.sample(12, np.random.default_rng(2))
    rows = State(*(jnp.asarray(v, jnp.float32) for v in states[:2]), jnp.zeros(12, jnp.int32))
    action = jnp.asarray(states.action)
    together = jax.jit(env.step_env)(KEY, rows, action, params)[1]

    def mapped(rows, action, axes):
        return jax.jit(jax.vmap(env.step_env, (None, *axes, None)))(KEY, rows, action, params)[1]

    np.testing.assert_array_equal(mapped(rows, action, (0, 0)).qvel, together.qvel)
    pairs = jax.tree.map(lambda leaf: leaf.reshape(6, 2, *leaf.shape[1:]), (rows, action))
    np.testing.assert_array_equal(mapped(*pairs, (0, 0)).qvel.reshape(12, -1), together.qvel)
    same = jax.jit(env.step_env)(KEY, rows, jnp.broadcast_to(action[0], action.shape), params)[1]
    np.testing.assert_allclose(mapped(rows, action[0], (0, None)).qvel, same.qvel, rtol=1e-5, atol=1e-5)
    one = jax.jit(env.step_env)(KEY, jax.tree.map(lambda leaf: leaf[3], rows), action[3], params)[1]
    np.testing.assert_allclose(one.qvel, together.qvel[3], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frame_skips": 5}, "no setting 'frame_skips'"),
        ({"frame_skip": 0}, "frame_skip"),
        ({"dtype": "int32"}, "dtype"),
    ],
)
def test_settings_that_are_none(settings, said):
    with pytest.raises(ValueError, match=said):
        make(**settings)


def test_the_reference_refuses_what_gymnasium_refuses():
    with pytest.raises(OpenError, match="frame_skips"):
        reference.backend(frame_skips=5)


def test_it_is_a_gymnax_environment():
    env = HalfCheetah()
    params = env.default_params
    assert env.action_space(params).sample(KEY).shape == (6,)
    assert env.observation_space(params.replace(exclude_current_positions_from_observation=False)).shape == (18,)


def test_the_vector_face_steps_and_begins_anew():
    from targets.halfcheetah.vector import HalfCheetahVector

    envs = HalfCheetahVector(3, max_steps_in_episode=2, frame_skip=1)
    first, _ = envs.reset(seed=4)
    assert envs.observation_space.contains(first) and envs.action_space.shape == (3, 6)
    _, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    assert reward.shape == (3,) and not (terminated | truncated).any() and "final_obs" not in info
    seen, _, _, truncated, info = envs.step(envs.action_space.sample())
    assert truncated.all() and info["_final_obs"].all() and abs(seen[:, :8]).max() <= 0.1
    assert (info["final_obs"] != seen).any(1).all()
    np.testing.assert_array_equal(envs.reset(seed=4)[0], first)


def test_the_brax_face_is_stepped_as_its_wrappers_do():
    """A scan over mapped steps; wrappers put entries of their own into info, and parts of other states into a state."""
    from targets.halfcheetah.brax import HalfCheetahBrax

    env = HalfCheetahBrax(ctrl_cost_weight=0.2, frame_skip=1)
    assert (env.observation_size, env.action_size, env.dt, env.unwrapped) == (17, 6, 0.01, env)
    begun = jax.vmap(env.reset)(jax.random.split(KEY, 4))
    begun.info["first_obs"] = begun.obs
    actions = jax.random.uniform(KEY, (2, 4, 6), minval=-1, maxval=1)

    def step(state, action):
        state = state.replace(done=jnp.zeros_like(state.done))
        after = jax.vmap(env.step)(state, action)
        return after, after.reward

    last, rewards = jax.jit(lambda state: jax.lax.scan(step, state, actions))(begun)
    plain, params = make(ctrl_cost_weight=0.2, frame_skip=1)
    state, whole = begun.pipeline_state, jax.jit(plain.step_env)
    for action, reward in zip(actions, rewards, strict=True):
        seen, state, expected, _, info = whole(KEY, state, action, params)
        np.testing.assert_allclose(reward, expected, rtol=1e-5)
    np.testing.assert_allclose(last.obs, seen, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last.metrics["reward_run"], info["reward_forward"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last.info["first_obs"], begun.obs)
    assert last.done.dtype == jnp.float32 and not last.done.any()


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_port_that_is_elsewhere_is_seen_in_the_scene():
    """In a process of its own: MuJoCo looks for OpenGL once, when it is imported."""
    program = """
import sys
import numpy as np
from targets.halfcheetah import scene
scene.choose_gl()
qpos = np.zeros((2, 9)); other = qpos.copy(); other[1, :2] = 0.4, 0.5
try:
    together, apart = scene.frames(qpos, other)
except scene.NoOpenGL as error:
    print(error)
    sys.exit(3)
assert together.shape == (*scene.SIZE, 3) and together.dtype == np.uint8
blue = [(f[..., 2] > f[..., 0].astype(int) + 60).sum() for f in (together, apart)]
skin = [(f[..., 0] > f[..., 2].astype(int) + 20).sum() for f in (together, apart)]
assert min(blue) > 3000 and skin[1] > skin[0] + 1000, (blue, skin)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode == 3:
        assert "libosmesa6" in done.stdout
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr


def test_without_opengl_the_plane_is_drawn(tmp_path, monkeypatch, capsys):
    def frames(*_):
        raise scene.NoOpenGL("MuJoCo finds no OpenGL (why): install libosmesa6, or set MUJOCO_GL")

    monkeypatch.setattr(scene, "frames", frames)
    monkeypatch.setattr(sys, "argv", ["render", str(tmp_path / "c.gif"), "--steps", "2"])
    render.main()
    with Image.open(tmp_path / "c.gif") as image:
        assert image.n_frames == 3
    assert "drawn by matplotlib instead" in capsys.readouterr().err
