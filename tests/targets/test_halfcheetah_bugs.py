"""Slips a port of HalfCheetah could have, each one edit of a copy of the package, which is EQUAL without."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from ports import judging

pytest.importorskip("mujoco")

from pytest_envequiv import shrinking
from pytest_envequiv.levels import blaming
from pytest_envequiv.verdict import DIFFERENT, EQUAL
from targets.halfcheetah import model, reference

PACKAGE = Path(model.__file__).parent


class Slip(NamedTuple):
    """``before`` becomes ``after`` in one of the package's files; ``field``: where it must show."""

    name: str
    file: str
    before: str
    after: str
    field: str = "qvel"


SLIPS = (
    Slip("damps_at_the_start", "dynamics.py", "given.own + TIMESTEP * model.joints.damping", "given.own"),
    Slip("slips_a_little_more", "constants.json", '"friction": 0.4', '"friction": 0.38'),
    Slip("searches_once", "solver.py", "ITERATIONS = 20", "ITERATIONS = 1"),
    Slip(
        "pays_less_for_control",
        "environment.py",
        "ctrl_cost_weight: float = 0.1",
        "ctrl_cost_weight: float = 0.09",
        "reward",
    ),
    Slip(
        "ignores_limits",
        "constraints.py",
        "depth = jnp.minimum(jnp.minimum(above, below), 0.0)",
        "depth = jnp.zeros_like(above)",
    ),
    Slip("touches_at_the_surface", "constraints.py", "sphere.radius - depth / 2", "sphere.radius"),
    Slip("turns_without_gravity", "bias.py", "nothing + GRAVITY", "nothing"),
    Slip(
        "moves_before_it_speeds_up",
        "dynamics.py",
        "place + TIMESTEP * rate, qpos, qvel)",
        "place + TIMESTEP * rate, qpos, old)",
        "qpos",
    ),
)


@pytest.fixture
def verdict_only(monkeypatch):
    """Neither a plainer counterexample nor lines to blame: both cost more than finding it."""
    monkeypatch.setattr(shrinking, "make", lambda bench, verdict, step: (verdict, None))
    monkeypatch.setattr(blaming, "suspects", lambda bench, verdict, step: [])


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package under another name, with a slip or without."""
    monkeypatch.syspath_prepend(tmp_path)

    def copy(slip: Slip | None):
        name = f"cheetah_{slip.name if slip else 'as_it_is'}"
        shutil.copytree(PACKAGE, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (tmp_path / name).glob("*.py"):
            file.write_text(file.read_text().replace("targets.halfcheetah", name))
        if slip:
            file = tmp_path / name / slip.file
            text = file.read_text()
            assert text.count(slip.before) == 1, f"{slip.file} has {text.count(slip.before)} times {slip.before!r}"
            text = text.replace(slip.before, slip.after)
            if ", old)" in slip.after:  # what it was is needed later
                text = text.replace("    qvel = jax.tree.map(", "    old = qvel\n    qvel = jax.tree.map(")
            file.write_text(text)
        return importlib.import_module(name)

    return copy


def judged(module, field: str):
    judge = judging.opened(reference.backend(), module)
    try:
        return judging.one(judge, f"L2-play-{field}")
    finally:
        judge.close()


def test_the_copy_is_equal(copied):
    assert judged(copied(None), "qvel").word == EQUAL


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.name)
def test_a_slip_is_different(copied, verdict_only, slip):
    verdict = judged(copied(slip), slip.field)
    assert verdict.word == DIFFERENT, verdict.summary
