"""What is solved for, and the numbers somebody may have written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pytest_envequiv.whitebox.blame.solving import solved, target_of, written
from pytest_envequiv.whitebox.blame.trial import Case, Trial
from pytest_envequiv.whitebox.jaxprs import Traced


def trial_of(function, meant, outputs: tuple[str, ...]) -> Trial:
    x = np.linspace(0.1, 0.9, 64, dtype=np.float32)
    expected = {n: np.asarray(v).reshape(-1, 1) for n, v in zip(outputs, meant(x), strict=True)}
    case = Case(
        traced=Traced(jax.make_jaxpr(function)(x), ("state.x",), outputs, {}),
        arguments=[x],
        draws=(),
        expected=expected,
        tolerance={n: np.full((64, 1), 1e-5) for n in outputs},
        counts={n: np.ones(64, bool) for n in outputs},
        wrong=frozenset(outputs),
        root=frozenset(outputs),
    )
    return Trial(case)


@pytest.mark.parametrize("outputs", [("state.v", "observation"), ("observation", "state.v")])
def test_what_the_least_is_computed_for_is_solved_for(outputs):
    """And not what happens to come first: sets are walked in an order that each process draws for itself."""

    def both(shift):
        def function(x):
            values = {"state.v": x + shift, "observation": jnp.sin(3 * (x + shift))}
            return tuple(values[n] for n in outputs)

        return function

    assert target_of(trial_of(both(1.0), both(0.5), outputs)) == ("state.v", 0)


@pytest.mark.parametrize("number", [0.5, 4 / 3, np.pi / 6, -28.27433388])
def test_a_number_that_was_solved_for_is_tried_as_somebody_would_write_it(number):
    assert any(abs(near - number) < 1e-9 * abs(number) for near in written(number * (1 + 1e-6)))


def test_what_nobody_would_write_is_left():
    assert written(0.7316437) == []


def test_numbers_in_the_place_of_another():
    trial = trial_of(lambda x: (x * 2.0,), lambda x: (x * 2.5,), ("reward",))
    found = solved(trial, lambda n: trial.edited([0], lambda op, values: [values[0] * np.float32(n)]), 2.0)
    assert found[0] == (2.5, 0.93) and found[-1][1] == 0.6
