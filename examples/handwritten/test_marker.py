"""A pair held by a test file: `pytest examples/handwritten/test_marker.py`."""

import port
import pytest
import reference


@pytest.mark.envequiv(ref=reference, target=port, levels=["L1", "L2"])
def test_port():
    """Each check of the pair becomes a test; one that is not EQUAL fails."""


@pytest.mark.envequiv(ref="reference", target="buggy", levels=["L2"])
def test_the_bug_is_found(verdict):
    """With a parameter `verdict` the body decides what passes."""
    if verdict.check.field == "truncated" and verdict.check.subject == "limit":
        assert verdict.word == "DIFFERENT"
    else:
        assert verdict.word == "EQUAL", verdict.summary
