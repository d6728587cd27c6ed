"""Learning curves as a picture, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plot_curves(curves: Mapping[str, Mapping[str, np.ndarray]], path: str | Path, title: str = "") -> None:
    """Draw the mean return against environment steps, one line a name. ``path``: .png, .svg or .pdf.

    ``curves``: name -> ``Trained.curve``. Raises ImportError without matplotlib, OSError if it cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        ended = np.isfinite(curve["return"])
        axes.plot(curve["steps"][ended], curve["return"][ended], label=name)
    _label(axes, title)
    axes.legend()
    figure.savefig(path)


def plot_transfer(
    policies: Sequence[tuple[Mapping[str, np.ndarray], float, np.ndarray, np.ndarray]], path: str | Path, title: str
) -> None:
    """Draw, for each policy, its learning curve and, beside it, the shares of its episodes with at most so much return
    on either side. A policy is (curve, what uniform play gets, returns on the reference, returns on the target).

    Raises ImportError without matplotlib, OSError if it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    learning, scores = figure.subplots(1, 2)
    for number, (curve, random, *returns) in enumerate(policies):
        colour, ended = f"C{number}", np.isfinite(curve["return"])
        learning.plot(curve["steps"][ended], curve["return"][ended], colour, label=f"policy {number}")
        learning.axhline(random, color=colour, linestyle=":", label="uniform play" if not number else None)
        for values, style, side in zip(returns, ("-", "--"), ("reference", "target"), strict=True):
            share = np.arange(1, len(values) + 1) / max(len(values), 1)
            scores.step(np.sort(values), share, colour, linestyle=style, where="post", label=f"policy {number}, {side}")
    _label(learning, "learning")
    scores.set(xlabel="return", ylabel="share of episodes with at most that", title="on both sides")
    for axes in (learning, scores):
        axes.legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=120)


def _label(axes: Any, title: str) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set(xlabel="environment steps", ylabel="mean return of the episodes that ended", title=title)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
