"""Which diverging field is the cause, and which merely follow."""

from __future__ import annotations

import numpy as np

from pytest_envequiv.backends.protocol import DONE, REWARD
from pytest_envequiv.comparison.fields import Found
from pytest_envequiv.pair import Field
from pytest_envequiv.whitebox.dataflow import Flow

ORDER = {"state": 0, "output": 1}
SHARE = 0.95  # of a field's diverging rows that must lie within the root's


def roots(found: dict[str, Found], done: np.ndarray, flow: Flow | None = None) -> dict[str, str]:
    """Diverging field -> its root (itself for a root).

    A field follows a root on whose diverging rows its own lie, if the target's data flow lets the one be a cause of
    the other: it is computed from the root, or both from something that is wrong before. Without a data flow, the
    rows alone decide. What is computed first comes first; then state before what is shown of it, more diverging rows
    before fewer, and the reward, which is computed from all else, after what diverges on as many. The last step of an
    episode does not count against following, since nobody compares a state there.
    """
    wrong = {name: f.rows for name, f in found.items() if f.rows.any()}
    ranked = sorted(
        wrong, key=lambda n: (ORDER[found[n].field.role], -int(wrong[n].sum()), n == REWARD, -_gravity(found[n]), n)
    )
    if flow is not None:
        ranked = _upstream_first(ranked, found, flow)
    chosen: dict[str, str] = {}
    for name in ranked:
        own = wrong[name] & ~done if (wrong[name] & ~done).any() else wrong[name]
        for root in [n for n in ranked if chosen.get(n) == n]:
            inside = float((own & wrong[root]).sum()) / max(1, int(own.sum()))
            if inside >= SHARE and (flow is None or _may_follow(flow, found[name].field, found[root].field)):
                chosen[name] = root
                break
        else:
            chosen[name] = name
    return chosen


def output_name(field: Field) -> str:
    """What a field is called among the outputs of the target's data flow."""
    if field.role == "state":
        return f"state.{field.target}"
    return field.target


def _upstream_first(ranked: list[str], found: dict[str, Found], flow: Flow) -> list[str]:
    """The same fields, none before one it is computed from; otherwise in the order given."""
    left, ordered = list(ranked), []
    while left:
        first = next(
            (n for n in left if not any(_computed(flow, found[n].field, found[o].field) for o in left if o != n)),
            left[0],
        )
        ordered.append(first)
        left.remove(first)
    return ordered


def _computed(flow: Flow, field: Field, other: Field) -> bool:
    name = output_name(field)
    names = ("terminated", "truncated", DONE) if name == DONE else (name,)
    return any(flow.follows(n, output_name(other)) for n in names if n in flow.outputs)


def _may_follow(flow: Flow, field: Field, root: Field) -> bool:
    """Whether what is wrong with the root may be what is wrong with the field."""
    a, b = output_name(field), output_name(root)
    if a not in flow.outputs or b not in flow.outputs:
        return True
    return _computed(flow, field, root) or a in flow.kin.get(b, ())


def _gravity(found: Found) -> float:
    """How far beyond its tolerance a float field usually goes; whole numbers come after floats of the same extent.

    Usually and not at most: an angle that wraps is a whole turn off for a moment, whatever the cause.
    """
    if found.field.exact or not found.wrong.any():
        return 0.0
    with np.errstate(all="ignore"):
        share = found.error / np.where(found.tolerance > 0, found.tolerance, 1)
    return float(np.median(np.nan_to_num(share[found.wrong], posinf=np.finfo(float).max)))
