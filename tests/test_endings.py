"""What an auto-reset gave is judged by what resets give: no false alarms in the tails, and not blind for the rest."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_envequiv.levels.endings import out_of_range

MANY, FEW = (1_000, 9), (64, 9)


@pytest.mark.parametrize("draw", ["normal", "uniform", "exponential"])
def test_fresh_values_are_in_range(draw):
    """Of 9 normal numbers in 64 episodes one lies beyond all of a thousand others in about every fifth run."""
    rng = np.random.default_rng(0)
    beyond = 0
    for _ in range(300):
        values, usual = (getattr(rng, draw)(size=size) for size in (FEW, MANY))
        beyond += bool((values > usual.max(0)).any())
        assert not out_of_range(values, usual)
    assert beyond > 100


def test_whole_numbers_have_no_tails():
    usual = np.random.default_rng(1).integers(0, 5, MANY)
    assert not out_of_range(usual[:64], usual)
    assert out_of_range(np.full((1, 9), 5), usual)


@pytest.mark.parametrize("count", [1, 64])
def test_a_value_far_away_is_out_of_range(count):
    usual = np.random.default_rng(2).normal(size=MANY)
    assert out_of_range(np.full((count, 9), 15.0), usual)


def test_a_constant_has_to_be_met():
    assert out_of_range(np.full((1, 1), 0.1), np.zeros((1_000, 1)))
    assert not out_of_range(np.zeros((64, 1)), np.zeros((1_000, 1)))


def test_many_values_just_outside_are_out_of_range():
    rng = np.random.default_rng(3)
    assert out_of_range(rng.uniform(-0.2, 0.2, FEW), rng.uniform(-0.1, 0.1, MANY))
