"""Divergences of small functions that are written in a test's own file, laid out for blame."""

from __future__ import annotations

import inspect

import jax
import numpy as np

from pytest_envequiv.whitebox.blame.trial import Case
from pytest_envequiv.whitebox.jaxprs import Traced

ROWS = 64


def case_of(function, meant) -> Case:
    """A batch of vectors (ROWS, 2): the function runs, another was meant. Both also take three numbers, settings."""
    x = np.random.default_rng(0).uniform(0.2, 1.0, (ROWS, 2)).astype(np.float32)
    settings = [np.float32(v) for v in (0.5, 2.0, 3.0)]
    inputs = ("state.x", *(f"constants.{n}" for n in ("length", "mass", "force")))
    expected = np.asarray(meant(x, *settings)).reshape(ROWS, -1)
    return Case(
        traced=Traced(jax.make_jaxpr(function)(x, *settings), inputs, ("state.y",), {}),
        arguments=[x, *settings],
        draws=(),
        expected={"state.y": expected},
        tolerance={"state.y": np.full(expected.shape, 1e-4)},
        counts={"state.y": np.ones(ROWS, bool)},
        wrong=frozenset({"state.y"}),
        root=frozenset({"state.y"}),
    )


def line_of(function, text: str) -> int:
    """The line of a function that a text stands on."""
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if text in line)
