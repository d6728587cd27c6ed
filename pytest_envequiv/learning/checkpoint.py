"""A training run on disk: one .npz file from which it goes on bit for bit.

The file also says what it is of. A run that is not the same in every setting does not take it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pytest_envequiv import whole
from pytest_envequiv.errors import EnvequivError

FORMAT = 1


class CheckpointError(EnvequivError):
    """A checkpoint that cannot be used: which, why, and how to mend it."""


def save(path: Path, about: Mapping[str, Any], tree: Any, told: np.ndarray) -> None:
    """Write it whole or not at all. ``about``: JSON-safe, what the run is; ``tree``: arrays; ``told``: the curve.

    Raises OSError.
    """
    arrays = {f"leaf_{n}": np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(tree))}
    with whole.writing(path) as file:
        np.savez(file, about=np.array(_text(about)), told=told, **arrays)  # type: ignore[arg-type]


def load(path: Path, about: Mapping[str, Any], like: Any) -> tuple[Any, np.ndarray] | None:
    """The tree, in the structure of ``like``, and the curve; None if there is no file.

    Raises CheckpointError for a file that is of another run, or not whole.
    """
    try:
        with np.load(path) as file:
            written = str(file["about"])
            if written != _text(about):
                raise CheckpointError(f"checkpoint {path}: {_difference(written, about)}; delete it or name another")
            leaves, structure = jax.tree.flatten(like)
            found = [file[f"leaf_{n}"] for n in range(len(leaves))]
            if [(a.shape, a.dtype) for a in found] != [(np.shape(b), np.asarray(b).dtype) for b in leaves]:
                raise CheckpointError(f"checkpoint {path}: its arrays have other shapes; delete it or name another")
            return jax.tree.unflatten(structure, found), file["told"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"checkpoint {path}: not whole, or no checkpoint; delete it or name another") from error


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **about}, sort_keys=True)


def _difference(written: str, about: Mapping[str, Any]) -> str:
    try:
        old = json.loads(written)
    except ValueError:
        return "it cannot be read"
    new = json.loads(_text(about))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    name = names[0]
    if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
        inner = next(k for k in sorted({*old[name], *new[name]}) if old[name].get(k) != new[name].get(k))
        return f"it is of a run with {inner} = {old[name].get(inner)!r}, not {new[name].get(inner)!r}"
    return f"it is of a run with {name} = {old.get(name)!r}, not {new.get(name)!r}"
