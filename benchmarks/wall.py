"""gymnax's MountainCarContinuous without its wall bug: as it is installed, that pair is not equal."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "MountainCarContinuous-v0"
BUG = "(1 - (position >= params.goal_position) * (velocity < 0))"
MENDED = "(1 - (position == params.min_position) * (velocity < 0))"


def mended(text: str) -> str:
    """The text of the module without the bug. Raises ValueError if that is not there."""
    if text.count(BUG) != 1:
        raise ValueError("gymnax has changed: is the wall bug still there?")
    return text.replace(BUG, MENDED)


def target(folder: str) -> str:
    """A mended copy in ``folder``, which Python finds modules in from now on; its name as a target."""
    spec = importlib.util.find_spec("gymnax.environments.classic_control.continuous_mountain_car")
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    Path(folder, "mended_mountain_car.py").write_text(mended(text), encoding="utf-8")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return "mended_mountain_car:ContinuousMountainCar"
