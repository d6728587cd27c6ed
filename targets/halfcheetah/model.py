"""The cheetah's constants, from ``constants.json``, which ``extract.py`` wrote from MuJoCo's model.

Bodies are numbered 0 (torso), 1-3 (back thigh, shin, foot), 4-6 (front); every body but the torso hangs on the hinge of
the same number less one. The nine degrees of freedom are the torso's x, z and angle, then the six hinges.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

_READ: dict[str, Any] = json.loads(Path(__file__).with_name("constants.json").read_text())


class Body(NamedTuple):
    """``offset``: where its joint is in its parent's axes (m; the torso's: in the world at rest). ``mass`` kg;
    ``centre`` of mass in its own axes; ``inertia`` kg m^2 about y through that centre; ``weight``: MuJoCo's
    body_invweight0, 1/kg, how easily a force moves it in the initial pose."""

    name: str
    parent: int
    offset: tuple[float, float]
    mass: float
    centre: tuple[float, float]
    inertia: float
    weight: float


class Joint(NamedTuple):
    """A hinge. ``armature`` kg m^2, ``damping`` N m s, ``stiffness`` N m about the angle ``rest``; ``range`` rad;
    ``weight``: dof_invweight0, 1/(kg m^2); ``gear``: N m at a control of 1; ``control``: the range it is clipped to."""

    name: str
    armature: float
    damping: float
    stiffness: float
    rest: float
    range: tuple[float, float]
    weight: float
    gear: float
    control: tuple[float, float]


class Sphere(NamedTuple):
    """The end of a capsule: what can touch the ground. ``centre`` in its body's axes."""

    name: str
    body: int
    centre: tuple[float, float]
    radius: float


class Softness(NamedTuple):
    """How a constraint gives way: MuJoCo's solref and solimp."""

    solref: tuple[float, float]
    solimp: tuple[float, float, float, float, float]


BODIES = tuple(Body(**entry) for entry in _READ["bodies"])
JOINTS = tuple(Joint(**entry) for entry in _READ["joints"])
SPHERES = tuple(Sphere(**entry) for entry in _READ["spheres"])
LIMIT, CONTACT = (Softness(**_READ[kind]) for kind in ("limit", "contact"))
TIMESTEP: float = _READ["timestep"]  # s
GRAVITY: float = _READ["gravity"]  # m/s^2
FRICTION: float = _READ["friction"]
DOFS = 3 + len(JOINTS)
