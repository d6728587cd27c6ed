"""What a library declares of an environment, as ours: its spaces, its settings, and the names of what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from pytest_envequiv.backends.protocol import Space

SHORT = 16  # elements of an array of settings that is taken for several numbers


def leaf_names(tree: Any) -> list[str]:
    """ "board", "inner.color", "0": one name per leaf, in flattening order; a lone array is called "state"."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return [".".join(str(_key(k)) for k in path) or "state" for path in paths]


def named_leaves(tree: Any, root: str) -> dict[str, Any]:
    """``{root: leaf}`` of a lone leaf, else ``{"root.name": leaf}`` for each."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    if len(leaves) == 1 and not leaves[0][0]:
        return {root: leaves[0][1]}
    return {f"{root}.{name}": leaf for name, (_, leaf) in zip(leaf_names(tree), leaves, strict=True)}


def _key(entry: Any) -> Any:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry


def space_of(space: Any) -> dict[str, Space]:
    """A gymnax- or Gymnasium-like space (``n``, or ``low``/``high``/``shape``, or ``spaces``) as named spaces.

    The names are "" for a lone space and the keys of a dict or tuple; join them to "action" or "observation".
    """
    if hasattr(space, "spaces"):
        parts = space.spaces.items() if isinstance(space.spaces, Mapping) else enumerate(space.spaces)
        return {
            ".".join(filter(None, (str(key), inner))): found
            for key, part in parts
            for inner, found in space_of(part).items()
        }
    if hasattr(space, "nvec"):
        low = np.broadcast_to(np.asarray(getattr(space, "start", 0)), np.shape(space.nvec))
        return {"": Space("discrete", low.shape, str(np.dtype(space.dtype)), low, low + np.asarray(space.nvec) - 1)}
    if type(space).__name__ == "MultiBinary":
        return {"": Space("discrete", tuple(space.shape), str(np.dtype(space.dtype)), np.array(0), np.array(1))}
    if hasattr(space, "num_values"):  # dm_env's specs, as in Jumanji
        high = np.asarray(space.num_values) - 1
        return {"": Space("discrete", high.shape, str(np.dtype(space.dtype)), np.zeros_like(high), high)}
    if hasattr(space, "minimum"):
        whole = np.dtype(space.dtype).kind in "iu"
        low, high = (np.broadcast_to(np.asarray(bound), space.shape) for bound in (space.minimum, space.maximum))
        return {"": Space("discrete" if whole else "box", low.shape, str(np.dtype(space.dtype)), low, high)}
    if hasattr(space, "n"):
        start = int(getattr(space, "start", 0))
        dtype = str(np.dtype(getattr(space, "dtype", np.int32)))
        return {"": Space("discrete", (), dtype, np.array(start), np.array(start + int(space.n) - 1))}
    if hasattr(space, "low"):
        shape = tuple(int(n) for n in space.shape)
        low, high = (np.broadcast_to(np.asarray(bound), shape) for bound in (space.low, space.high))
        return {"": Space("box", shape, str(np.dtype(space.dtype)), low, high)}
    raise TypeError(f"a space of type {type(space).__name__} is not understood (discrete, box, dict and tuple are)")


def named_spaces(root: str, space: Any) -> dict[str, Space]:
    """ "action" or "action.<key>" -> Space. A bounded box of whole numbers is a discrete choice of action."""
    named = {f"{root}.{key}" if key else root: found for key, found in space_of(space).items()}
    if root != "action":
        return named
    whole = {k for k, s in named.items() if s.kind == "box" and np.dtype(s.dtype).kind in "iu" and s.bounded}
    return {key: replace(found, kind="discrete") if key in whole else found for key, found in named.items()}


def numeric_constants(settings: Any) -> dict[str, np.ndarray]:
    """The numeric leaves of a parameter structure, by name, as float64."""
    if settings is None:
        return {}
    leaves = jax.tree.leaves(settings)
    found = {}
    for name, leaf in zip(leaf_names(settings), leaves, strict=True):
        if isinstance(leaf, (bool, int, float, np.ndarray, np.generic, jax.Array)) and np.size(leaf) <= 64:
            found[name] = np.asarray(leaf, np.float64)
    return found


def is_number(value: Any) -> bool:
    """A Python or numpy number; a truth value is none."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
