"""State discovery: every place in a Python object that could hold state.

An unmodified environment keeps its state wherever it likes: an array, four floats, a list of lists, a counter in
a wrapper. ``walk`` names every such place; whoever steps the environment sees which of them move.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
import random
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from pytest_envequiv.backends.codec import as_array, as_word, is_jax

# Places that hold the machinery of an environment, never its state.
SKIPPED = {
    "_np_random_seed", "np_random_seed", "spec", "_cached_spec", "metadata", "_metadata", "render_mode",
    "action_space", "observation_space", "_action_space", "_observation_space", "action_spaces", "observation_spaces",
    "_observation_spaces", "_action_spaces", "screen", "window", "surf", "viewer", "renderer", "mujoco_renderer",
    "window_surface", "checked_reset", "checked_step", "checked_render", "close_called", "_ezpickle_args",
    "_ezpickle_kwargs", "_saved_kwargs", "_has_reset", "_has_rendered", "has_reset", "has_rendered",
    # what Gymnasium's RecordEpisodeStatistics writes down for people
    "episode_start_time", "return_queue", "length_queue", "time_queue",
}  # fmt: skip
INNER = ("env", "_env", "aec_env")  # how wrappers call what they wrap
SCENERY = {
    "pygame",
    "matplotlib",
    "PIL",
    "logging",
    "threading",
    "weakref",
    "functools",
    "imageio",
    "gymnasium.spaces",
    "gymnax.environments.spaces",
}
MUJOCO = ("qpos", "qvel", "act", "time", "qacc_warmstart", "mocap_pos", "mocap_quat")  # the state of a simulation
KEYS = {"key", "rng", "prng", "prng_key", "rng_key", "random_key", "np_random", "rng_state"}
PLAIN = {"builtins", "collections", "numpy", "jax", "jaxlib", "torch", "mujoco"}  # not walked into
DEEPEST = 6
MOST_ITEMS = 64


class Bare(dict[str, Any]):
    """A dict whose keys are the names of its places, without the name it has itself."""


@dataclass(frozen=True)
class Item:
    """container[key], where an attribute's name would stand."""

    key: Any


@dataclass(frozen=True)
class Part:
    """A part of an object that cannot be changed (a named tuple, a frozen dataclass): it is replaced instead."""

    key: Any


Path = tuple[Any, ...]  # from the environment inwards: attribute names, Items and Parts


def walk(root: Any) -> tuple[dict[str, Path], dict[str, Path]]:
    """(places, generators), by name: what could be state, and the random generators that are held.

    Wrappers are walked through their ``env`` attribute without lengthening the name; objects, dicts, lists of objects
    and named tuples are walked into. A name taken twice gets the owner's class in front.
    """
    places: dict[str, Path] = {}
    generators: dict[str, Path] = {}
    seen: set[int] = set()

    def visit(path: Path, here: Any, prefix: str) -> None:
        if id(here) in seen:
            return
        seen.add(id(here))
        for step, key, value in _children(here):
            skipped = key in SKIPPED and not isinstance(here, Bare)  # what is passed around as state is state
            if skipped or key.startswith("__") or _is_scenery(value):
                continue
            name, place = f"{prefix}{key}", (*path, step)
            if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)) or is_key(key, value):
                generators[name if name not in generators else f"{type(here).__name__}.{name}"] = place
            elif (key in INNER and hasattr(value, "step")) or (_is_holder(value) and not isinstance(step, Item)):
                visit(place, value, prefix)  # adds nothing to the names
            elif _is_walkable(value) and len(place) <= DEEPEST + sum(k in INNER for k in place):
                visit(place, value, f"{name}.")
            elif id(value) not in seen:
                places[name if name not in places else f"{type(here).__name__}.{name}"] = place

    visit((), root, "")
    return places, generators


def is_key(name: str, value: Any) -> bool:
    """Whether it is a key of ``jax.random``: of the typed kind, or two words under a telling name."""
    if type(value).__name__ == "PRNGKeyArray":
        return True
    return is_jax(value) and value.dtype == np.uint32 and value.shape[-1:] == (2,) and name.strip("_").lower() in KEYS


def _children(owner: Any) -> Iterator[tuple[Any, str, Any]]:
    """(step of a path, name, value)"""
    if isinstance(owner, dict):
        for key, value in list(owner.items()):
            yield Item(key), ".".join(map(str, key)) if isinstance(key, tuple) else str(key), value
    elif isinstance(owner, list):
        yield from ((Item(i), str(i), value) for i, value in enumerate(owner))
    elif hasattr(owner, "_fields"):
        yield from ((Part(key), key, getattr(owner, key)) for key in owner._fields)
    elif isinstance(owner, tuple):
        yield from ((Part(i), str(i), value) for i, value in enumerate(owner))
    elif type(owner).__name__ == "MjData":  # a C object; what it derives from these, its next step derives again
        yield from ((key, key, getattr(owner, key)) for key in MUJOCO if np.size(getattr(owner, key)))
    else:
        frozen = getattr(getattr(owner, "__dataclass_params__", None), "frozen", False)
        names = list(getattr(owner, "__dict__", ()))
        for base in type(owner).__mro__:
            slots = base.__dict__.get("__slots__", ())
            names += [slots] if isinstance(slots, str) else list(slots)
        for key in dict.fromkeys(names):
            if hasattr(owner, key):
                yield Part(key) if frozen else key, key, getattr(owner, key)


def _is_scenery(value: Any) -> bool:
    if isinstance(value, (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return True
    module = type(value).__module__
    return module.split(".")[0] in SCENERY or any(module.startswith(f"{name}.") for name in SCENERY if "." in name)


def _is_holder(value: Any) -> bool:
    """Whether all it does is to hold values under names of their own."""
    return isinstance(value, (types.SimpleNamespace, Bare)) or type(value).__name__ == "MjData"


def _is_walkable(value: Any) -> bool:
    if isinstance(value, dict):
        # Tables by number are looked into only where they hold values: the rest is scenery, such as P in FrozenLake.
        return 0 < len(value) <= MOST_ITEMS and (
            all(isinstance(k, str) for k in value) or all(_is_value(v) for v in value.values())
        )
    if isinstance(value, (list, tuple)):
        if hasattr(value, "_fields"):
            return True
        return 0 < len(value) <= MOST_ITEMS and not _is_value(value) and not any(map(_is_scenery, value))
    if isinstance(value, Enum) or is_jax(value):
        return False
    module = type(value).__module__.split(".")[0]
    return module not in PLAIN and (hasattr(value, "__dict__") or bool(getattr(type(value), "__slots__", ())))


def _is_value(value: Any) -> bool:
    return value is None or as_array(value) is not None or as_word(value) is not None


# -- reading and writing ---------------------------------------------------------------------------------------------


def reader(path: Path) -> Callable[[Any], Any]:
    """A function from the environment to what is at the place."""
    if path and all(isinstance(key, str) and "." not in key for key in path):
        return operator.attrgetter(".".join(path))
    steps = [_getter(key) for key in path]

    def read(root: Any) -> Any:
        for step in steps:
            root = step(root)
        return root

    return read


def reader_of_all(paths: Iterable[Path]) -> Callable[[Any], tuple[Any, ...]]:
    """A function from the environment to what is at each of the places."""
    several = list(paths)
    if len(several) > 1 and all(isinstance(key, str) and "." not in key for path in several for key in path):
        return operator.attrgetter(*[".".join(path) for path in several])
    readers = [reader(path) for path in several]
    return lambda root: tuple(read(root) for read in readers)


def _getter(key: Any) -> Callable[[Any], Any]:
    if isinstance(key, Item) or (isinstance(key, Part) and isinstance(key.key, int)):
        return operator.itemgetter(key.key)
    return operator.attrgetter(key.key if isinstance(key, Part) else key)


def writer(path: Path) -> Callable[[Any, Any], None]:
    """A function (environment, value) that puts the value at the place."""
    *before, last = path
    owner = reader(tuple(before))
    if isinstance(last, Item):

        def write_item(root: Any, value: Any) -> None:
            owner(root)[last.key] = value

        return write_item
    if isinstance(last, Part):
        replace = writer(tuple(before))
        return lambda root, value: replace(root, _replaced(owner(root), last.key, value))
    if not before:
        return lambda root, value: setattr(root, last, value)
    return lambda root, value: setattr(owner(root), last, value)


def _replaced(owner: Any, key: Any, value: Any) -> Any:
    if isinstance(key, int):
        return (*owner[:key], value, *owner[key + 1 :])
    return owner._replace(**{key: value}) if hasattr(owner, "_replace") else dataclasses.replace(owner, **{key: value})


def clone(environment: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy, attribute by attribute: many environments define a copy that forgets the episode (EzPickle)."""
    memo = {} if memo is None else memo
    if not hasattr(environment, "__dict__"):
        return copy.deepcopy(environment, memo)
    inner = {k: v for k, v in vars(environment).items() if k in INNER and hasattr(v, "step")}
    twin = object.__new__(type(environment))
    memo[id(environment)] = twin
    for value in inner.values():
        memo[id(value)] = memo.get(id(value)) or clone(value, memo)
    twin.__dict__.update({key: copy.deepcopy(value, memo) for key, value in vars(environment).items()})
    return twin
