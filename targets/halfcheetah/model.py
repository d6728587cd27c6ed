"""The cheetah's constants, from ``constants.json``, which ``extract.py`` wrote from MuJoCo's model.

The cheetah is a torso with two legs of three links, and both legs are computed side by side. So what there is of every
body comes in two ``Parts``: the torso's, and the links' with two leading axes, (3, 2): thighs, shins and feet, each of
the back leg and of the front one. Arrays end in an axis for the batch, of size 1 here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

_READ: dict[str, Any] = json.loads(Path(__file__).with_name("constants.json").read_text())
_ORDER = [0, 3, 1, 4, 2, 5]  # MuJoCo numbers the back leg's three links first, then the front one's

TIMESTEP: float = _READ["timestep"]  # s
GRAVITY: float = _READ["gravity"]  # m/s^2
FRICTION: float = _READ["friction"]
TOLERANCE: float = _READ["solver"]["tolerance"]  # of a cost times SCALE, 1 / (mean inertia times freedoms)
SCALE: float = _READ["solver"]["scale"]
HINGES = len(_READ["joints"])
DOFS = 3 + HINGES  # the torso's x, z and angle, then the hinges

T = TypeVar("T")


class Parts(NamedTuple, Generic[T]):
    """One thing of the torso and of the links."""

    torso: T
    links: T


class Body(NamedTuple):
    """``offset``: x and z of its joint in its parent's axes (m; the torso's: in the world at rest). ``mass`` kg;
    ``centre`` of mass in its own axes; ``inertia`` kg m^2 about y through that centre; ``weight``: MuJoCo's
    body_invweight0, 1/kg, how easily a force moves it in the initial pose. The links' numbers are (3, 2, 1)."""

    offset: tuple[Any, Any]
    mass: Any
    centre: tuple[Any, Any]
    inertia: Any
    weight: Any


class Sphere(NamedTuple):
    """The ends of the capsules: what can touch the ground. ``centre``: x and z in the body's axes, m. The torso has
    four, (4, 1); each link two, (2, 3, 2, 1)."""

    centre: tuple[Any, Any]
    radius: Any


class Joint(NamedTuple):
    """The hinges. ``armature`` kg m^2, ``damping`` N m s, ``stiffness`` N m about the angle ``rest``; ``low``, ``high``
    rad; ``weight``: dof_invweight0, 1/(kg m^2); ``gear``: N m at a control of 1; ``least``, ``most``: what controls are
    clipped to. All (3, 2, 1)."""

    armature: np.ndarray
    damping: np.ndarray
    stiffness: np.ndarray
    rest: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    gear: np.ndarray
    least: np.ndarray
    most: np.ndarray


class Softness(NamedTuple):
    """How a constraint gives way: MuJoCo's solref and solimp."""

    solref: tuple[float, float]
    solimp: tuple[float, float, float, float, float]


class Model(NamedTuple):
    bodies: Parts[Body]
    spheres: Parts[Sphere]
    joints: Joint


LIMIT, CONTACT = (Softness(**_READ[kind]) for kind in ("limit", "contact"))


@cache
def model_of(dtype: str) -> Model:
    """The model, its arrays in this dtype."""

    def array(values: Any, *shape: int) -> np.ndarray:
        return np.asarray(values, dtype).reshape(*shape, 1)

    torso, links = _READ["bodies"][0], [_READ["bodies"][1 + n] for n in _ORDER]
    joints = [_READ["joints"][n] for n in _ORDER]
    ends = [[s for s in _READ["spheres"] if s["body"] == b] for b in (0, *(1 + n for n in _ORDER))]

    def body(read: Any) -> Body:
        offset, centre = ((read(key, 0), read(key, 1)) for key in ("offset", "centre"))
        return Body(offset, read("mass"), centre, read("inertia"), read("weight"))

    def of_torso(key: str, *axis: int) -> float:
        return float(torso[key][axis[0]] if axis else torso[key])

    def of_links(key: str, *axis: int) -> np.ndarray:
        return array([link[key][axis[0]] if axis else link[key] for link in links], 3, 2)

    def spheres(read: Any, *shape: int) -> Sphere:
        centre = tuple(array([end["centre"][axis] for end in read], *shape) for axis in (0, 1))
        return Sphere(centre, array([end["radius"] for end in read], *shape))  # type: ignore[arg-type]

    def of_joints(key: str, *axis: int) -> np.ndarray:
        return array([joint[key][axis[0]] if axis else joint[key] for joint in joints], 3, 2)

    return Model(
        Parts(body(of_torso), body(of_links)),
        Parts(spheres(ends[0], 4), spheres([pair[n] for n in (0, 1) for pair in ends[1:]], 2, 3, 2)),
        Joint(
            armature=of_joints("armature"),
            damping=of_joints("damping"),
            stiffness=of_joints("stiffness"),
            rest=of_joints("rest"),
            low=of_joints("range", 0),
            high=of_joints("range", 1),
            weight=of_joints("weight"),
            gear=of_joints("gear"),
            least=of_joints("control", 0),
            most=of_joints("control", 1),
        ),
    )


def in_legs(numbers: Any) -> Any:
    """An array (6, ...) in MuJoCo's order of hinges as (3, 2, ...)."""
    return numbers.reshape(2, 3, *numbers.shape[1:]).swapaxes(0, 1)


def in_order(numbers: Any) -> Any:
    """The other way."""
    return numbers.swapaxes(0, 1).reshape(HINGES, *numbers.shape[2:])
