"""What the tests of other programs share."""

from __future__ import annotations

import numpy as np


def action(*values) -> dict[str, np.ndarray]:
    return {"action": np.array(values)}


def equal(a, b) -> None:
    """The same outcome, bit for bit."""
    for one, other in ((a.state.fields, b.state.fields), (a.outputs, b.outputs)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
