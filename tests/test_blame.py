"""The line to blame: a slip of each kind is put into a port, and judging names the line it is in."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import drift, judging

from pytest_envequiv.backends.loading import loaded, sources
from pytest_envequiv.judge import Judge
from pytest_envequiv.levels import blaming
from pytest_envequiv.report import terminal
from pytest_envequiv.verdict import DIFFERENT, Settings
from pytest_envequiv.whitebox.blame import trial

pytest.importorskip("gymnax")
CARTPOLE = ("gymnasium:CartPole-v1", "gymnax:CartPole-v1")
CAR = ("gymnasium:MountainCar-v0", "gymnax:MountainCar-v0")
PENDULUM = ("gymnasium:Pendulum-v1", "gymnax:Pendulum-v1")
ACROBOT = ("gymnasium:Acrobot-v1", "gymnax:Acrobot-v1")
DRIFT = (drift.DRIFT, "ports.drift:port")


@contextmanager
def slipped(pair, old, new, output):
    """(a judge of the pair whose target has ``new`` for ``old``, the numbers of the lines that differ)."""
    ref, target = pair
    file, plain = next((f, text) for f in sources(target) if old in (text := Path(f).read_text(encoding="utf-8")))
    edited = plain.replace(old, new, 1)
    before, after = plain.splitlines(), edited.splitlines()
    lines = {n for n, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b}
    with loaded(target, None, file, edited) as backend:
        yield Judge(Settings(ref, target, output=str(output)), target=backend, shrink=False), lines


def blamed(judge, *patterns):
    """The suspects of the first root."""
    verdicts = judging.run(judge, *patterns)
    roots = judging.different(verdicts)
    assert roots, judging.words(verdicts)
    assert "blame_failed" not in verdicts[roots[0]].evidence, verdicts[roots[0]].evidence["blame_failed"]
    return verdicts[roots[0]].evidence["blame"]


# Kind of slip -> (pair, what stood there, what stands there now).
SLIPS = {
    "operator": (CARTPOLE, "x = state.x + params.tau * state.x_dot", "x = state.x - params.tau * state.x_dot"),
    "sign": (CARTPOLE, "sintheta - costheta * temp", "sintheta + costheta * temp"),
    "constant": (CARTPOLE, "4.0 / 3.0", "4.0 / 3.1"),
    "power": (CARTPOLE, "state.theta_dot**2 * sintheta", "state.theta_dot**3 * sintheta"),
    "setting": (CARTPOLE, "gravity: float = 9.8", "gravity: float = 9.9"),
    "comparison": (CAR, "position == params.min_position", "position != params.min_position"),
    "comparison turned": (CARTPOLE, "state.x > params.x_threshold", "state.x < params.x_threshold"),
    "branches exchanged": (
        DRIFT,
        "push = jnp.where(state.tank == 0, 0.0, push)",
        "push = jnp.where(state.tank == 0, push, 0.0)",
    ),
    "factor dropped": (CARTPOLE, "state.theta_dot**2 * sintheta", "state.theta_dot**2"),
    "term dropped": (PENDULUM, "newth = state.theta + newthdot * params.dt", "newth = state.theta + 0.0 * newthdot"),
    "another variable": (
        CARTPOLE,
        "theta = state.theta + params.tau * state.theta_dot",
        "theta = state.theta + params.tau * state.x_dot",
    ),
    "another variable, in a function that is called four times": (
        ACROBOT,
        "lc2 * dtheta2 * dtheta1 * jnp.sin(theta2)",
        "lc2 * dtheta2 * theta1 * jnp.sin(theta2)",
    ),
    "an operator that moves the brackets, in a function that is called four times": (
        ACROBOT,
        "a + d2 / d1 * phi1 -",
        "a + d2 + d1 * phi1 -",
    ),
    "a term dropped in a function that is called four times": (
        ACROBOT,
        "lc2**2 + 2 * l1 * lc2 * jnp.cos(theta2)) + i1",
        "lc2**2) + i1",
    ),
    "a vector dropped": (ACROBOT, "dsdt(y0 + params.dt * k3,", "dsdt(params.dt * k3,"),
    "a setting in the place of another, where it is only passed on": (
        ACROBOT,
        "m1, m2 = params.link_mass_1, params.link_mass_2",
        "m1, m2 = params.link_com_pos_1, params.link_mass_2",
    ),
    "what a call is handed": (ACROBOT, "k4 = dsdt(y0 + params.dt * k3,", "k4 = dsdt(y0,"),
    "an element of a setting": (
        ACROBOT,
        "EnvParams(available_torque=jnp.array([-1.0, 0.0, +1.0]))",
        "EnvParams(available_torque=jnp.array([-1.0, 0.5, +1.0]))",
    ),
    "bounds exchanged": (
        PENDULUM,
        "jnp.clip(newthdot, -params.max_speed, params.max_speed)",
        "jnp.clip(newthdot, params.max_speed, -params.max_speed)",
    ),
    "another bound": (
        PENDULUM,
        "jnp.clip(newthdot, -params.max_speed, params.max_speed)",
        "jnp.clip(newthdot, -params.max_steps_in_episode, params.max_speed)",
    ),
    "a factor dropped in a function that is called four times": (
        ACROBOT,
        "* g * jnp.cos(theta1 - jnp.pi / 2)",
        "* g",
    ),
    "a setting half as large by another name": (ACROBOT, "dt2 = params.dt / 2.0", "dt2 = params.dt"),
    "a number whose effect has no slope": (CAR, "jnp.cos(3 * state.position)", "jnp.cos(0 * state.position)"),
    "an element of the observation, on a line of its own": (
        PENDULUM,
        "                state.theta_dot,\n",
        "                state.theta,\n",
    ),
    "clip too much": (
        CAR,
        "state.velocity\n            + (action - 1) * params.force",
        "jnp.clip(state.velocity, -0.05, 0.05)\n            + (action - 1) * params.force",
    ),
    "order of what is shown": (
        CARTPOLE,
        "[state.x, state.x_dot, state.theta, state.theta_dot]",
        "[state.x_dot, state.x, state.theta, state.theta_dot]",
    ),
    "keyword": (CARTPOLE, "            theta=theta,", "            theta=state.theta,"),
    "assignment": (CARTPOLE, "x_dot = state.x_dot + params.tau * xacc", "x_dot = state.x_dot"),
    "reward": (CAR, "reward = -1.0", "reward = -0.9"),
    "a number, where a condition turned round would do as well": (
        CARTPOLE,
        "reward = 1.0 - prev_terminal",
        "reward = 2.0 - prev_terminal",
    ),
    "a setting in the place of another, on a line of its own": (
        CARTPOLE,
        "            params.length\n",
        "            params.polemass_length\n",
    ),
    "a name in the place of another in what makes the state": (
        CAR,
        "velocity=velocity, time",
        "velocity=position, time",
    ),
    "a comparison turned for every row": (
        CARTPOLE,
        "state.theta > params.theta_threshold_radians",
        "state.theta <= params.theta_threshold_radians",
    ),
    "a factor dropped, on a line of its own": (
        CAR,
        "- jnp.cos(3 * state.position) * params.gravity",
        "- params.gravity",
    ),
    "a setting forgotten where only numbers are left": (ACROBOT, "dt2 = params.dt / 2.0", "dt2 = 1 / 2.0"),
    "a term of values that have a name dropped from below a fraction": (ACROBOT, " - d2**2 / d1)", ")"),
    "a term dropped in a function that a value goes through": (
        ACROBOT,
        "x_out = x - how_often * diff * go_down",
        "x_out = -(how_often * diff * go_down)",
    ),
    "elements of a setting exchanged": (
        ACROBOT,
        "EnvParams(available_torque=jnp.array([-1.0, 0.0, +1.0]))",
        "EnvParams(available_torque=jnp.array([-1.0, +1.0, 0.0]))",
    ),
    "a type too narrow": (ACROBOT, "time=jnp.int32(state.time + 1)", "time=jnp.int8(state.time + 1)"),
    "a vector that counts twice": (ACROBOT, "(k1 + 2 * k2 +", "(k1 + k2 +"),
    "a state that is not made": (
        CAR,
        "        state = EnvState(position=position, velocity=velocity, time=state.time + 1)\n",
        "        pass\n",
    ),
    "order of the observation": (
        (drift.DRIFT, "ports.drift:CachedDrift"),
        "jnp.stack([x, v, angle, sine])",
        "jnp.stack([x, angle, v, sine])",
    ),
}
# Where other lines explain the difference just as well: an "or" of the two comparisons made an "and".
TIES = {
    "comparison turned": 3,
    "a comparison turned for every row": 3,
    "a factor dropped, on a line of its own": 5,
    "a term dropped in a function that a value goes through": 5,
    "numbers a draw is given": 2,  # after the line that draws
    "a name in the place of another in what makes the state": 2,  # what reads it could as well read another
    "a state that is not made": 5,
    "a clip that is gone": 3,
    "a branch that is gone": 5,
    "arguments exchanged in what a reset begins with": 2,
    "type of the bounds": 5,
}


@pytest.mark.parametrize("kind", SLIPS)
def test_a_slip_in_a_step(kind, tmp_path):
    with slipped(*SLIPS[kind], tmp_path) as (judge, lines):
        found = blamed(judge, "L2-play-*")
    assert lines & {s["line"] for s in found[: TIES.get(kind, 1)]}, (lines, found)
    assert all(s["code"] and s["why"] and 0 < s["score"] <= 1 for s in found)
    assert found == sorted(found, key=lambda s: -s["score"])


CLIP = "velocity = jnp.clip(velocity, -params.max_speed, params.max_speed)"
MOVE = "position = state.position + velocity"
# The same, and the checks that see it.
ELSEWHERE = {
    "clip after use": (
        CAR,
        f"{CLIP}\n        {MOVE}\n",
        f"{MOVE}\n        {CLIP}\n",
        "L2-boundary-*",
    ),
    "bounds of the first draw": (CAR, "minval=-0.6, maxval=-0.4", "minval=-0.6, maxval=-0.3", "L1-reset-*"),
    "what a reset begins with": (CAR, "velocity=jnp.array(0.0)", "velocity=jnp.array(0.01)", "L1-reset-*"),
    "numbers a draw is given": (
        PENDULUM,
        "high = jnp.array([jnp.pi, 1])",
        "high = jnp.array([jnp.pi, 2])",
        "L1-draws-*",
    ),
    "a clip that is gone": (
        CAR,
        "position = jnp.clip(position, params.min_position, params.max_position)",
        "pass",
        "L2-boundary-*",
    ),
    "a branch that is gone": (
        CAR,
        "velocity = velocity * (1 - (position == params.min_position) * (velocity < 0))",
        "pass",
        "L2-boundary-*",
    ),
    "arguments exchanged in what a reset begins with": (
        CAR,
        "position=init_state, velocity=jnp.array(0.0)",
        "velocity=init_state, position=jnp.array(0.0)",
        "L1-reset-*",
    ),
    "type of the bounds": (
        CAR,
        "[params.max_position, params.max_speed],\n            dtype=jnp.float32",
        "[params.max_position, params.max_speed],\n            dtype=jnp.int32",
        "L1-spec-*",
    ),
    "a type that a reset does not have": (
        ACROBOT,
        "time=jnp.int32(state.time + 1)",
        "time=jnp.float32(state.time + 1)",
        "L1-auto_reset-*",
    ),
    "bounds of a space": (CARTPOLE, "params.x_threshold * 2,", "params.x_threshold * 3,", "L1-spec-*"),
    "number of actions": (CARTPOLE, "return spaces.Discrete(2)", "return spaces.Discrete(3)", "L1-spec-*"),
}


# What stands in the body of a loop: a scan over the engines, a fori_loop of moves.
TURNS = {
    "sign": ("push + power * wish", "push - power * wish"),
    "variable": ("drag * state.speed", "drag * state.place"),
    "constant": ("jnp.sin(2.0 * place)", "jnp.sin(3.0 * place)"),
    "function": ("jnp.sin(2.0 * place)", "jnp.cos(2.0 * place)"),
    "number": ("place + 0.05 * speed", "place + 0.06 * speed"),
    "operator": ("reward - place**2", "reward + place**2"),
}


@pytest.mark.parametrize("kind", TURNS)
def test_a_slip_in_a_loop(kind, tmp_path):
    pair = ("gymnasium:ports.coaster:Coaster-v0", "ports.coaster:Port")
    with slipped(pair, *TURNS[kind], tmp_path) as (judge, lines):
        assert lines == {blamed(judge, "L2-play-*")[0]["line"]}


# Kind -> (what stood there, what stands there now, the field that differs): lines that only hand on. All fields move
# by it, and both sides call them alike: by their values paddle_yl would be taken for paddle_yr.
HANDED_ON = {
    "one of several arguments of a call": (
        "(yl, yr, x, y, vx, vy), rally.court",
        "(yr, yr, x, y, vx, vy), rally.court",
        "paddle_yl",
    ),
    "unpacked in another order": ("yl, yr, x, y, vx, vy = rally.court", "yl, yr, x, vx, y, vy = rally.court", "ball_x"),
    "handed on in another order": ("state.ball_y, state.ball_vx,", "state.ball_vx, state.ball_y,", "ball_x"),
}


@pytest.mark.parametrize("kind", HANDED_ON)
def test_a_slip_where_values_are_only_handed_on(kind, tmp_path):
    old, new, field = HANDED_ON[kind]
    with slipped(("targets.pong.reference", "targets.pong"), old, new, tmp_path) as (judge, lines):
        verdicts = judging.run(judge, "L2-play-*")
        roots = judging.different(verdicts)
        assert roots[0] == f"L2-play-{field}", roots
        assert lines & {s["line"] for s in verdicts[roots[0]].evidence["blame"][:2]}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_slip_elsewhere(kind, tmp_path):
    *slip, checks = ELSEWHERE[kind]
    with slipped(*slip, tmp_path) as (judge, lines):
        found = blamed(judge, checks)
    assert lines & {s["line"] for s in found[: TIES.get(kind, 1)]}, (lines, found)


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """MountainCarContinuous of gymnax as it is published: the wall does not stop the car."""
    settings = Settings(
        "gymnasium:MountainCarContinuous-v0",
        "gymnax:MountainCarContinuous-v0",
        output=str(tmp_path_factory.mktemp("out")),
    )
    return judging.one(Judge(settings), "L2-play-velocity")


def test_the_wall_of_gymnax(wall):
    first = wall.evidence["blame"][0]
    assert first["code"].startswith("velocity = velocity * (1 - ")
    assert first["file"] == "gymnax/environments/classic_control/continuous_mountain_car.py"


def test_three_lines_on_the_terminal_and_more_in_the_report(wall):
    shown = [line for line in terminal.failure(wall, {"ref": None}) if "continuous_mountain_car.py:" in line]
    assert len(shown) == terminal.BLAMED == 3 < len(wall.evidence["blame"])
    assert shown[0].split()[0] == "blame" and "velocity = velocity * (1 - " in shown[0]


def test_files_are_told_from_here():
    found = blamed(judging.of("drift", "integrator order"), "L2-play-x")
    assert found[0]["file"] == os.path.relpath(drift.__file__) and found[0]["code"].startswith("x = state.x + ")


@pytest.mark.parametrize("check", ["L2-play-v", "L1-reset-x"])
def test_blame_that_fails_leaves_the_verdict_alone(check, monkeypatch):
    bug = {"L2-play-v": "wrong constant", "L1-reset-x": "reset range"}[check]
    usual = judging.one(judging.of("drift", bug), check)

    def fails(*_):
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr(blaming, "_suspects", fails)
    found = judging.one(judging.of("drift", bug), check)
    assert usual.evidence["blame"] and found.evidence["blame"] == []
    assert found.evidence["blame_failed"] == "ZeroDivisionError: of its own"
    assert (found.word, found.summary, found.divergence) == (DIFFERENT, usual.summary, usual.divergence)


def test_blame_does_not_search_for_ever(monkeypatch, tmp_path):
    monkeypatch.setattr(trial, "MOST_WORK", 200)
    with slipped(*SLIPS["sign"], tmp_path) as (judge, _):
        found = blamed(judge, "L2-play-*")
    assert 0 < max(s["score"] for s in found) < 0.5, "what was found until then is kept, and it is not much"


def test_a_clip_that_was_dropped_is_named(tmp_path):
    clip = "newthdot = jnp.clip(newthdot, -params.max_speed, params.max_speed)"
    with slipped(PENDULUM, clip, "pass", tmp_path) as (judge, _):
        found = blamed(judge, "L2-play-*")
    assert found[0]["why"] == "clipped to [-8, 8] is right", found


def test_a_setting_unlike_the_references_is_suspected_though_other_lines_explain_more(tmp_path):
    slip = "torque_noise_max: float = 0.0", "torque_noise_max: float = -1.0"
    with slipped(ACROBOT, *slip, tmp_path) as (judge, lines):
        found = blamed(judge, "L2-play-*")
    why = {s["line"]: s["why"] for s in found[:3]}
    assert why[lines.pop()] == "torque_noise_max is 0 in the reference, -1 here", found


def test_nobody_is_blamed_where_nothing_can_be_traced():
    found = judging.one(judging.of("vector", "batch mean"), "L2-play-v")
    assert found.word == DIFFERENT and found.evidence["blame"] == [] and "blame_failed" not in found.evidence


def test_a_field_that_runs_away_is_found_where_it_is_shown(tmp_path):
    """Without it no states could be injected, and only what follows a reset would be compared."""
    with slipped(CAR, "- jnp.cos(3 * state.position) * params.gravity", "- params.gravity", tmp_path) as (judge, _):
        links = {link.field: link for link in judge.pair.map.links}
        assert judge.pair.map.usable and str(links["velocity"]) == "state[1]"
        assert links["velocity"].how == "what is shown, as another field is"
