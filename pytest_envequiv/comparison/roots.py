"""Which diverging field is the cause, and which merely follow."""

from __future__ import annotations

import numpy as np

from pytest_envequiv.backends.protocol import REWARD
from pytest_envequiv.comparison.fields import Found

ORDER = {"state": 0, "output": 1}
SHARE = 0.95  # of a field's diverging rows that must lie within the root's


def roots(found: dict[str, Found], done: np.ndarray) -> dict[str, str]:
    """Diverging field -> its root (itself for a root).

    State comes before what is computed from it, more diverging rows before fewer, and the reward, which is computed
    from all else, after what diverges on as many. A field follows a root on
    whose diverging rows its own lie; the last step of an episode does not count against that, since nobody compares
    a state there.
    """
    wrong = {name: f.rows for name, f in found.items() if f.rows.any()}
    ranked = sorted(
        wrong, key=lambda n: (ORDER[found[n].field.role], -int(wrong[n].sum()), n == REWARD, -_gravity(found[n]), n)
    )
    chosen: dict[str, str] = {}
    for name in ranked:
        own = wrong[name] & ~done if (wrong[name] & ~done).any() else wrong[name]
        for root in [n for n in ranked if chosen.get(n) == n]:
            inside = float((own & wrong[root]).sum()) / max(1, int(own.sum()))
            if inside >= SHARE:
                chosen[name] = root
                break
        else:
            chosen[name] = name
    return chosen


def _gravity(found: Found) -> float:
    """How far beyond its tolerance a float field usually goes; whole numbers come after floats of the same extent.

    Usually and not at most: an angle that wraps is a whole turn off for a moment, whatever the cause.
    """
    if found.field.exact or not found.wrong.any():
        return 0.0
    with np.errstate(all="ignore"):
        share = found.error / np.where(found.tolerance > 0, found.tolerance, 1)
    return float(np.median(np.nan_to_num(share[found.wrong], posinf=np.finfo(float).max)))
