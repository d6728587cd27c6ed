"""One side of a pair: what a backend does wrong is named."""

from __future__ import annotations

from ports import drift, judging

from pytest_envequiv.verdict import DIFFERENT


class Reshaped(drift.PlainDrift):
    """A step shows less than a reset does."""

    def step(self, state, action, key):
        after, seen, *rest = super().step(state, action, key)
        return (after, seen[:1], *rest)


def test_an_output_that_changes_its_shape_is_an_error_of_that_side():
    verdict = judging.one(judging.opened(drift.reference, Reshaped()), "L1-runs-step")
    assert verdict.word == DIFFERENT
    assert "the target failed in step: observation has shape (1,) for one row after step" in verdict.summary
