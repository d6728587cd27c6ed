"""The port of Pong against PufferLib's own C: by the plugin, and free-running, bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import judging

from pytest_envequiv.errors import OpenError
from targets.pong import Params, Pong, State, make, port, reference
from targets.pong.reference import FIELDS, LOG, SHOWN, Drawn, Driver, Lanes

ROOT = Path(port.__file__).parent.parent.parent
CONTRACT = (Path(port.__file__).parent / "envequiv.toml").read_text()
ODD = {  # nothing that a float holds exactly, and rounds that end soon
    "width": 501.3, "height": 613.7, "paddle_height": 71.9, "paddle_speed": 7.3, "ball_initial_speed_x": 9.7,
    "ball_initial_speed_y": 2.3, "ball_speed_y_increment": 2.9, "ball_max_speed_y": 12.7, "max_score": 2,
}  # fmt: skip
ULP = 2.0**-23  # of the observations, whose divisions XLA turns into multiplications


# -- by the plugin -----------------------------------------------------------------------------------------------------


def test_the_pair_is_equal():
    judge = judging.opened("targets.pong.reference", "targets.pong", CONTRACT)
    checks = judging.run(judge, "L1-*", "L2-*", "L3-resync-*", "L3-lockstep-*")
    assert judging.words(checks) == {}
    assert judge.pair.step_mode == judge.pair.reset_mode == "tape"
    assert checks["L2-branches-covered"].evidence["missed"] == []
    assert checks["L2-coverage-terminated"].evidence["terminations"] > 0


def test_every_frame_and_both_action_spaces_are_equal():
    options = "?frameskip=8&continuous=true"
    judge = judging.opened(f"targets.pong.reference{options}", f"targets.pong{options}", CONTRACT)
    checks = judging.run(judge, "L1-spec-*", "L1-draws-*", "L1-action_range-step", "L2-*", "L3-resync-*")
    assert judging.words(checks) == {}
    assert checks["L2-branches-covered"].evidence["missed"] == [], "a line that moved? see [coverage] in envequiv.toml"
    assert checks["L3-resync-terminated"].evidence["terminations"] > 0


def test_the_command_says_equal(tmp_path):
    names = ["ref=targets.pong.reference?frameskip=4", "target=targets.pong?frameskip=4"]
    output = ["--envequiv-levels=L2", f"--envequiv-output={tmp_path}", "-k", "L2-play", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "--envequiv", *names, *output]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "note: the contract envequiv.toml was found beside the target" in done.stdout


# -- free-running ------------------------------------------------------------------------------------------------------


class Both:
    """C and the port from the same resets, with the same draws, each on its own state."""

    def __init__(self, monkeypatch, count, unroll=None, **settings):
        monkeypatch.setattr(port, "coin", lambda key, shape: key)  # the draw is handed in instead of a key
        self.backend = reference.backend(**settings)
        self.env, params = make(unroll, **settings)
        self.port = jax.jit(lambda state, action, drawn: self.env.step(drawn, state, action, params))
        self.rng, self.count, self.continuous = np.random.default_rng(0), count, params.continuous
        self.ours = self.backend.reset(np.arange(count)).state
        self.theirs = ported(self.ours)

    def act(self):
        """Half of the lanes anything, also beyond what is allowed; half after the ball, so that rallies last."""
        fields, half = self.ours.fields, self.count // 2
        off = fields["ball_y"] + 16 - fields["paddle_yr"] - 35
        if self.continuous:
            action = np.clip(off / 8, -1, 1) + self.rng.normal(0, 0.3, self.count)
            action[:half] = self.rng.uniform(-1.5, 1.5, half)
            return action.astype(np.float32)[:, None]
        action = np.where(off > 8, 1, np.where(off < -8, 2, 0))
        action[:half] = self.rng.integers(-1, 5, half)
        return action.astype(np.int32)

    def step(self, action):
        """Steps both; returns (name, expected, actual) of everything they gave."""
        seeds = self.rng.integers(0, 2**31, self.count)
        outcome = self.backend.step(self.ours, {"action": action}, seeds)
        returned = self.port(self.theirs, action, jnp.asarray(outcome.draws[0].value % 2))
        self.ours, self.theirs = outcome.state, returned[1]
        actual = dict(zip(("observation", "reward", "terminated"), (returned[0], *returned[2:4]), strict=True))
        outputs = {name: outcome.outputs[name] for name in actual}
        for expected, found in ((outcome.state.fields, named(self.theirs)), (outputs, actual)):
            yield from ((name, value, np.asarray(found[name])) for name, value in expected.items())


def ported(state):
    fields = {name: jnp.asarray(value) for name, value in state.fields.items()}
    shown = tuple(fields[f"observations.{i}"] for i in range(SHOWN))
    return State(**{name: fields[name] for name in FIELDS}, observations=shown)


def named(state):
    return {
        **{name: getattr(state, name) for name in FIELDS},
        **{f"observations.{i}": state.observations[i] for i in range(SHOWN)},
    }


def assert_same(name, expected, actual):
    assert expected.dtype == actual.dtype, name
    if name.startswith("observation"):
        np.testing.assert_allclose(actual, expected, rtol=ULP, atol=ULP, err_msg=name)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 1_000),
        ({"unroll": False, "max_score": 1}, 1_000),
        ({"frameskip": 8}, 400),
        ({"frameskip": 3, "unroll": True, "continuous": True}, 400),
        ({"frameskip": 100, "max_score": 2, "continuous": True}, 100),
        ({**ODD, "continuous": True}, 1_000),
        ({"ball_initial_speed_x": 450, "max_score": 3}, 100),  # a point in the first frame, again and again
        ({"frameskip": 0}, 3),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in list(value.items())[-3:]) if isinstance(value, dict) else "",
)
def test_free_running_episodes_are_the_same_bit_by_bit(settings, steps, monkeypatch):
    both = Both(monkeypatch, 512, **settings)
    points = ends = 0
    for _ in range(steps):
        for name, expected, actual in both.step(both.act()):
            assert_same(name, expected, actual)
            points += int((np.abs(expected) == 1).sum()) if name == "reward" else 0
            ends += int(expected.sum()) if name == "terminated" else 0
    assert points > 0 or not settings.get("frameskip", 1)
    assert ends > 0 or "max_score" not in settings


def test_the_corners_that_play_does_not_reach(monkeypatch):
    """A ball that leaves the paddle at the very speed that is too flat or not, one that is in two places at once, and
    actions that are no numbers."""
    both = Both(monkeypatch, 8, continuous=True, ball_speed_y_increment=0)
    flat = np.float32(0.01)
    vy = [flat, np.nextafter(flat, np.float32(1)), -flat, np.float32(-0.011), 0, 1, 1, 1]
    changes = {
        "ball_vy": np.array(vy, np.float32),
        "ball_vx": np.full(8, 10, np.float32),
        "ball_x": np.array([465, 465, 465, 465, 465, 465, -50, -50], np.float32),
        "ball_y": np.full(8, 300, np.float32),
        "paddle_yl": np.array([300, 300, 300, 300, 300, 300, 300, 100], np.float32),
    }
    both.ours = both.ours.edited(**changes)
    both.theirs = ported(both.ours)
    action = np.array([0, 0, 0, 0, 0, np.nan, 0, 0], np.float32)[:, None]
    told = {}
    for name, expected, actual in both.step(action):
        assert_same(name, expected, actual)
        told[name] = expected
    assert told["ball_vy"][:5].tolist() == [0, vy[1], 0, vy[3], 0], "below 0.01 it is the increment, which is 0 here"
    assert told["reward"][5] == -1, "a paddle that is moved by no number is at the bottom"


def test_what_c_logs_is_in_the_info():
    """PufferLib's own way of drawing and logging: the C library's rand(), and a log that is added to."""
    settings = {**reference.DEFAULTS, "frameskip": 8, "max_score": 2}
    driver = Driver(reference.library())
    lanes = Lanes(driver, 256, settings)
    env, params = make(frameskip=8, max_score=2)
    step = jax.jit(lambda state, action: env.step(jax.random.key(0), state, action, params)[4])
    lanes.reset()
    rng, ended = np.random.default_rng(0), 0
    for _ in range(60):
        fields = {name: lanes.structs[name].copy() for name in FIELDS}
        shown = {f"observations.{i}": lanes.observations[:, i].copy() for i in range(SHOWN)}
        lanes.actions[:] = rng.integers(0, 3, lanes.count)
        for name in LOG:
            lanes.structs[f"log.{name}"] = 0
        lanes.step(Drawn(np.arange(lanes.count)))
        info = step(ported(reference.State({**fields, **shown})), jnp.asarray(lanes.actions))
        for name in LOG:
            np.testing.assert_array_equal(np.asarray(info[name]), lanes.structs[f"log.{name}"], err_msg=name)
        ended += int(lanes.structs["log.n"].sum())
    assert ended > 10


# -- the port by itself ------------------------------------------------------------------------------------------------


def test_a_batch_with_one_key_does_what_its_rows_do(monkeypatch):
    env, params = make(frameskip=2)
    drawn = jnp.arange(40) % 2
    monkeypatch.setattr(port, "coin", lambda key, shape: key)
    observation, state = env.reset(drawn, params, (40,))
    rows = jax.vmap(lambda one: env.reset(one, params))(drawn)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, (observation, state), rows))
    action = jnp.arange(40) % 3
    whole = jax.jit(lambda *batch: env.step(*batch, params))
    single = jax.jit(jax.vmap(lambda *row: env.step(*row, params)))
    for _ in range(60):
        batch, rows = whole(drawn, state, action), single(drawn, state, action)
        assert jax.tree.all(jax.tree.map(jnp.array_equal, batch, rows))
        state = batch[1]
    assert batch[0].shape == (40, 8)


def test_the_port_draws_fair_and_separate_coins():
    drawn = jax.vmap(lambda key: port.coin(key, (3, 33)))(jax.random.split(jax.random.key(0), 2_000))
    assert drawn.shape == (2_000, 3, 33) and drawn.dtype == jnp.int32 and set(np.unique(drawn)) == {0, 1}
    flat = np.asarray(drawn, float).reshape(2_000, -1) - 0.5
    assert np.abs(flat.mean(0)).max() < 0.06  # 5 standard deviations of 0.5 / sqrt(2000)
    alike = np.abs(flat.T @ flat / 2_000 - 0.25 * np.eye(99))
    assert alike.max() < 0.25 * 6 / np.sqrt(2_000)


def test_a_whole_rollout_is_one_program():
    env, params = make(frameskip=8, max_score=2)

    @jax.jit
    def rollout(key):
        def step(carry, key):
            observation, state = carry
            action = jnp.where(observation[:, 3] > observation[:, 1], 1, 2)
            observation, state, reward, done, _ = env.step(key, state, action, params)
            return (observation, state), (reward, done)

        return jax.lax.scan(step, env.reset(key, params, (64,)), jax.random.split(key, 500))[1]

    reward, done = rollout(jax.random.key(0))
    assert reward.shape == done.shape == (500, 64) and done.any()
    assert set(np.unique(reward).tolist()) <= {-1.0, 0.0, float(np.float32(0.1)), 1.0}


def test_spaces_and_defaults_are_those_of_pufferlib():
    params = Params()
    assert {f: getattr(params, f) for f in reference.DEFAULTS} == reference.DEFAULTS
    env = Pong()
    assert env.default_params == params and env.action_space(params).n == 3
    box = env.action_space(params.replace(continuous=True))
    assert (box.low, box.high, box.shape) == (-1.0, 1.0, (1,))
    assert all(-1 <= float(box.sample(jax.random.key(i))[0]) <= 1 for i in range(5))
    assert int(env.action_space(params).sample(jax.random.key(0))) in range(3)


# -- settings that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frame_skip": 8}, "no setting 'frame_skip'; it has .*frameskip"),
        ({"max_score": 0}, "max_score is a whole number from 1 on, not 0"),
        ({"frameskip": -1}, "frameskip is a whole number from 0 on, not -1"),
        ({"frameskip": 1.5}, "frameskip is a whole number from 0 on, not 1.5"),
        ({"width": "wide"}, "width is a number, not 'wide'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, said):
    with pytest.raises(OpenError, match=said):
        reference.backend(**settings)
    with pytest.raises(ValueError, match=said):
        make(**settings)
