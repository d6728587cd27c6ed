"""Learning curves as a picture, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
    axes.set(xlabel="environment steps", ylabel="mean return of the episodes that ended", title=title)
    axes.legend()
    figure.savefig(path)
