"""A Rust target from nothing: a module that keeps state and draws, and a crate that it imports for the step.

Both open, have the reference's interface, and do nothing right. ``stub.py`` says the same in JAX.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

from repair_agent import apart, stub
from repair_agent.stub import Leaf

FIXED = ("Cargo.toml", "Cargo.lock", "pyproject.toml")  # of the crate, besides its sources

CARGO = """[package]
name = "{crate}"
version = "0.1.0"
edition = "2021"
publish = false

[lib]
crate-type = ["cdylib"]

[dependencies]
pyo3 = {{ version = "0.28", features = ["extension-module", "abi3-py311"] }}
"""
PYPROJECT = """[build-system]
requires = ["maturin>=1.9,<2"]
build-backend = "maturin"

[project]
name = "{crate}"
version = "0.1.0"
requires-python = ">=3.11"
"""
LIBRARY = """//! The step of {reference}. This is a stub: it builds, and does nothing right.

use pyo3::prelude::*;

/// The reference's state fields. Arrays are flat, row by row.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct State {{
{members}
}}

/// (state, reward, terminated, truncated) after one step.
#[pyfunction]
fn step(state: State, {action}) -> (State, f64, bool, bool) {{
    let _ = ({chosen},);
    (state, 0.0, false, false)
}}

/// {seen}, flat
#[pyfunction]
fn observe(state: State) -> Vec<f64> {{
    let _ = state;
    vec![0.0; {size}]
}}

#[pymodule]
fn {crate}(module: &Bound<'_, PyModule>) -> PyResult<()> {{
    module.add_function(wrap_pyfunction!(step, module)?)?;
    module.add_function(wrap_pyfunction!(observe, module)?)
}}
"""
MODULE = '''"""A port of {reference} with its step in Rust. This is a stub: it opens, and does nothing right."""

import numpy as np

import {crate}

FIELDS = {{  # of the state: dtype, shape
{fields}
}}


def reset(rng):
    """The state of a new episode; ``rng``: a numpy Generator, to draw from as the reference does."""
    return {{name: np.zeros(shape, dtype) for name, (dtype, shape) in FIELDS.items()}}


def observe(state):
    """{seen}"""
    return np.array({crate}.observe(flat(state)), np.{dtype}).reshape({shape})


def step(state, action, rng):
    """(state, observation, reward, terminated, truncated) of one step. What it draws is drawn here, from ``rng``."""
    after, reward, terminated, truncated = {crate}.step(flat(state), {actions})
    new = {{name: np.array(after[name], dtype).reshape(shape) for name, (dtype, shape) in FIELDS.items()}}
    return new, observe(new), reward, terminated, truncated


def flat(state):
    """The state as the crate takes it."""
    kept = {{name: np.ravel(state[name]).tolist() for name in FIELDS}}
    return {{name: kept[name] if shape else kept[name][0] for name, (_, shape) in FIELDS.items()}}
'''
# Words of Rust that can be no name of a field, besides those of Python.
RESERVED = {
    "abstract", "as", "async", "await", "become", "box", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "final", "fn", "gen", "impl", "let", "loop", "macro", "match", "mod", "move", "mut", "override",
    "priv", "pub", "ref", "self", "static", "struct", "super", "trait", "try", "type", "typeof", "unsafe", "unsized",
    "use", "virtual", "where",
}  # fmt: skip


def allowed(name: str) -> tuple[str, ...]:
    """What is the target's, relative to the module's folder, of a module ``name`` and its crate."""
    crate = crate_of(name)
    return (f"{name}.py", f"{crate}/src/**/*.rs", *(f"{crate}/{file}" for file in FIXED))


def crate_of(name: str) -> str:
    return f"{name}_rs"


def files(reference: str, declared: dict[str, Any], name: str) -> dict[str, str]:
    """Path, relative to the module's folder, -> text, of a module ``name`` and its crate; without Cargo.lock."""
    leaves = stub.fields(declared)
    fields = dict(zip(stub.names(leaves, RESERVED).values(), leaves.values(), strict=True))
    parts = declared["action"]
    lone = len(parts) == 1
    actions = {"action" if lone else f"action_{n}": leaf for n, leaf in enumerate(parts.values())}
    chosen = ["action" if lone else f"action[{part!r}]" for part in parts]
    seen = stub.observation(declared)
    words = {
        "reference": reference,
        "crate": crate_of(name),
        "members": "\n".join(f"    {field}: {_type(leaf)}, // {stub.words(leaf)}" for field, leaf in fields.items()),
        "action": ", ".join(f"{action}: {_type(leaf)}" for action, leaf in actions.items()),
        "chosen": ", ".join(actions),
        "fields": "\n".join(f'    "{n}": (np.{_numpy(leaf)}, {tuple(leaf["shape"])}),' for n, leaf in fields.items()),
        "actions": ", ".join(_plain(value, leaf) for value, leaf in zip(chosen, parts.values(), strict=True)),
        "seen": stub.words(seen),
        "size": math.prod(seen["shape"]),
        "dtype": _numpy(seen),
        "shape": tuple(seen["shape"]),
    }
    return {
        f"{name}.py": MODULE.format(**words),
        f"{words['crate']}/pyproject.toml": PYPROJECT.format(**words),
        f"{words['crate']}/Cargo.toml": CARGO.format(**words),
        f"{words['crate']}/src/lib.rs": LIBRARY.format(**words),
    }


def lock(crate: Path, seconds: float = 300.0) -> None:
    """Has cargo write down the versions of what a crate depends on: each build has the same. Raises ValueError."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise ValueError("cargo is not installed here: install Rust")
    code, _, said = apart.process([cargo, "generate-lockfile"], crate, apart.clean(os.environ), "", seconds)
    if code != 0:
        raise ValueError(f"cargo does not get what the crate depends on: {' '.join(said.split())[:300]}")


def _type(leaf: Leaf) -> str:
    """Of an argument or a result. Arrays go flat, row by row."""
    kind = leaf["dtype"].rstrip("0123456789")
    one = {"float": "f64", "uint": "u64", "bool": "bool"}.get(kind, "i64")
    return f"Vec<{one}>" if leaf["shape"] else one


def _plain(value: str, leaf: Leaf) -> str:
    """An array of numpy's as PyO3 takes it."""
    return f"np.ravel({value}).tolist()" if leaf["shape"] else f"np.asarray({value}).item()"


def _numpy(leaf: Leaf) -> str:
    return leaf["dtype"].replace("bool", "bool_")
