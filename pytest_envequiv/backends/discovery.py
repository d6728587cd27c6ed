"""State discovery: the numeric attributes of a Python object that a step changes.

An unmodified environment keeps its state wherever it likes: an array, four floats, a list of lists, a counter in
a wrapper. ``walk`` names every such place; whoever steps the environment sees which of them move; ``Codec``
reads and writes those as arrays.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Places that hold the machinery of an environment, never its state.
SKIPPED = {
    "np_random", "_np_random", "_np_random_seed", "np_random_seed", "spec", "_cached_spec", "metadata", "render_mode",
    "action_space", "observation_space", "_action_space", "_observation_space", "action_spaces", "observation_spaces",
    "_observation_spaces", "_action_spaces", "screen", "window", "surf", "viewer", "renderer", "mujoco_renderer",
    "window_surface", "checked_reset", "checked_step", "checked_render", "close_called", "_ezpickle_args",
    "_ezpickle_kwargs", "_saved_kwargs", "_has_reset", "_has_rendered", "has_reset", "has_rendered",
}  # fmt: skip
DEEPEST = 6
MOST_CODES = 64  # distinct texts a field may take
LARGEST = 1_000_000  # elements

# (owner, keys): the environment or wrapper, which stays the same object, and the way from it. What lies between
# may be replaced by a reset, so it is looked up at each use.
Place = tuple[Any, tuple[Any, ...]]


def walk(root: Any) -> dict[str, Place]:
    """Name -> place of every leaf that could be state: numbers, texts, None, and arrays or lists of numbers.

    Wrappers are walked through their ``env`` attribute without lengthening the name; objects, dicts with text
    keys and lists of objects are walked into. A name taken twice gets the owner's class in front.
    """
    places: dict[str, Place] = {}
    seen: set[int] = set()

    def visit(root: Any, keys: tuple[Any, ...], here: Any, prefix: str) -> None:
        if id(here) in seen or len(keys) > DEEPEST:
            return
        seen.add(id(here))
        for key, value in _children(here):
            if isinstance(key, str) and (key in SKIPPED or key.startswith("__")):
                continue
            if key in ("env", "_env", "aec_env", "unwrapped") and hasattr(value, "step"):
                visit(value, (), value, prefix)
                continue
            name = f"{prefix}{key}"
            if _is_leaf(value):
                if name in places:
                    name = f"{type(here).__name__}.{name}"
                places[name] = (root, (*keys, key))
            elif isinstance(value, types.SimpleNamespace):  # a plain holder of leaves adds nothing to their names
                visit(root, (*keys, key), value, prefix)
            elif _is_walkable(value):
                visit(root, (*keys, key), value, f"{name}.")

    visit(root, (), root, "")
    return places


def _children(owner: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(owner, dict):
        yield from ((k, v) for k, v in owner.items() if isinstance(k, str))
    elif isinstance(owner, list):
        yield from enumerate(owner)
    else:
        yield from list(getattr(owner, "__dict__", {}).items())
        for slot in getattr(type(owner), "__slots__", ()):
            if hasattr(owner, slot):
                yield slot, getattr(owner, slot)


def _is_leaf(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float, str, np.number, np.bool_)):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf" and value.size <= LARGEST
    return isinstance(value, (list, tuple)) and as_array(value) is not None


def _is_walkable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value)
    if isinstance(value, list):
        return bool(value) and len(value) <= 64 and all(hasattr(v, "__dict__") for v in value)
    if isinstance(value, (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return False
    owner = type(value).__module__.split(".")[0]
    return hasattr(value, "__dict__") and owner not in ("numpy", "pygame", "builtins", "collections", "random", "jax")


def as_array(value: Any) -> np.ndarray | None:
    """The value as a numeric array, or None if it is not one (ragged, empty, texts, objects)."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "biuf" else None
    if isinstance(value, (list, tuple)):
        if not value:
            return None
        try:
            array = np.asarray(value)
        except ValueError:
            return None
        return array if array.dtype.kind in "biuf" else None
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return np.asarray(value)
    return None


def _step_in(owner: Any, key: Any) -> Any:
    return owner[key] if isinstance(owner, (dict, list)) else getattr(owner, key)


def get(place: Place) -> Any:
    owner, keys = place
    for key in keys:
        owner = _step_in(owner, key)
    return owner


def put(place: Place, value: Any) -> None:
    owner, keys = place
    for key in keys[:-1]:
        owner = _step_in(owner, key)
    if isinstance(owner, (dict, list)):
        owner[keys[-1]] = value
    else:
        setattr(owner, keys[-1], value)


def snapshot(places: dict[str, Place]) -> dict[str, Any]:
    """A copy of every leaf's present value."""
    return {name: copied(get(place)) for name, place in places.items()}


def copied(value: Any) -> Any:
    """The value apart from what may be changed in place later."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list):
        return [copied(v) for v in value]
    return value


def same(a: Any, b: Any) -> bool:
    """Whether two leaf values are identical, NaN equal to itself."""
    if type(a) is not type(b) and (isinstance(a, str) or isinstance(b, str) or a is None or b is None):
        return False
    x, y = as_array(a), as_array(b)
    if x is None or y is None:
        return bool(a == b) if x is None and y is None else False
    return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f" and y.dtype.kind == "f"))


@dataclass
class Codec:
    """How one discovered leaf becomes an array element and goes back, with the type it had.

    ``codes`` lists the texts a text leaf has taken; a new one is appended when it is first read. ``optional``
    leaves are sometimes None, which is kept as NaN.
    """

    template: Any
    shape: tuple[int, ...]
    dtype: str
    codes: list[str] | None = None
    optional: bool = False

    @staticmethod
    def of(values: list[Any]) -> Codec | None:
        """A codec for the values a leaf took while episodes were alive; None if they are not regular."""
        if all(isinstance(v, str) for v in values):
            codes = sorted(set(values))
            return Codec(values[-1], (), "int32", codes) if len(codes) <= MOST_CODES else None
        if any(v is None for v in values):
            rest = [v for v in values if v is not None]
            if not all(isinstance(v, (int, float, np.number)) for v in rest):
                return None
            return Codec(rest[-1], (), "float64", optional=True)
        arrays = [as_array(v) for v in values]
        if any(a is None for a in arrays) or len({a.shape for a in arrays if a is not None}) != 1:
            return None
        known = [a for a in arrays if a is not None]
        dtype = np.result_type(*{a.dtype for a in known})
        # The last value's type is what a step leaves behind; a reset may store another.
        return Codec(values[-1], known[-1].shape, str(dtype))

    def encode(self, values: list[Any]) -> np.ndarray:
        if self.codes is not None:
            for value in values:
                if value not in self.codes:
                    self.codes.append(value)
            return np.array([self.codes.index(v) for v in values], np.int32)
        if self.optional:
            return np.array([np.nan if v is None else v for v in values], np.float64)
        array = np.array(values, self.dtype)
        if array.shape[1:] != self.shape:
            raise ValueError(f"a state field changed its shape from {self.shape} to {array.shape[1:]}")
        return array

    def decode(self, value: np.ndarray) -> Any:
        if self.codes is not None:
            return self.codes[int(value)]
        if self.optional and np.isnan(value):
            return None
        return _like(self.template, value)


def _like(template: Any, value: Any) -> Any:
    if isinstance(template, np.ndarray):
        array = np.array(value, template.dtype)
        # A reset may store more digits than a step does; they are kept.
        return array if np.array_equal(array, value, equal_nan=array.dtype.kind == "f") else np.array(value)
    if isinstance(template, (np.number, np.bool_)):
        return template.dtype.type(value)
    if isinstance(template, (list, tuple)):
        return type(template)(_like(t, v) for t, v in zip(template, value, strict=True))
    return type(template)(value)
