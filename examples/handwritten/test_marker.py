"""Pairs held by a test file: `pytest examples/handwritten/test_marker.py`."""

import port
import pytest
import reference


@pytest.mark.envequiv(ref=reference, target=port, levels=["L1", "L2"])
def test_port():
    """Each check of the pair is a test of its own; one that is not EQUAL fails."""


@pytest.mark.envequiv(ref="reference", target="buggy", levels=["L2"])
def test_the_bug_is_found(verdict):
    """With a parameter `verdict` the body decides what passes."""
    assert verdict.word == ("DIFFERENT" if verdict.check.field == "truncated" else "EQUAL"), verdict.summary
