"""A target from nothing: a module that opens, has the reference's interface, and does nothing right.

The reference is looked at in a process of its own; what it declares becomes the stub's spaces and state.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from keyword import iskeyword
from pathlib import Path
from typing import Any

from repair_agent import apart, suite
from repair_agent.question import Question

Leaf = dict[str, Any]  # {"shape", "dtype"}
LANGUAGES = ("jax", "rust")
WORKFLOWS = ("translate", "verify", "specification")

LOOK = """
import json, os, sys
sys.path.insert(0, os.getcwd())
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import EnvequivError
try:
    spec = open_backend(sys.argv[1], {}).spec
except EnvequivError as error:
    sys.exit(str(error))
def told(space):
    low, high = (None if b is None else b.tolist() for b in map(as_array, (space.low, space.high)))
    return {"kind": space.kind, "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
def as_array(bound):
    import numpy
    return None if bound is None else numpy.asarray(bound)
print(json.dumps({
    "action": {k: told(s) for k, s in spec.action.items()},
    "observation": {k: told(s) for k, s in spec.observation.items()},
    "fields": {k: {"shape": list(f.shape), "dtype": str(f.dtype)} for k, f in spec.fields.items()},
    "time_limit": spec.time_limit,
}))
"""


def interface(reference: str, root: Path, seconds: float = 300.0) -> dict[str, Any]:
    """What a reference declares: action, observation, fields, time limit. Raises ValueError with its own words."""
    env = apart.clean(suite.environment(Question(reference, ""), root))
    code, out, said = apart.process([sys.executable, "-c", LOOK, reference], root, env, "", seconds)
    if code is None:
        raise ValueError(f"ref={reference} did not open within {seconds:g} s")
    if code:
        last = (said.strip().splitlines() or ["it died without a word"])[-1]
        raise ValueError(f"ref={reference} does not open: {last}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def source(reference: str, declared: dict[str, Any]) -> str:
    """The stub's text: a JAX module with the reference's spaces and state fields."""
    leaves = fields(declared)
    called, seen = names(leaves), observation(declared)
    lines = [
        f'"""A port of {reference} to JAX. This is a stub: it opens, and does nothing right."""',
        "",
        "from typing import NamedTuple",
        "",
        "import jax",
        "import jax.numpy as jnp",
        "",
        "",
        "class State(NamedTuple):",
        *(f"    {called[name]}: jax.Array  # {words(leaf)}" for name, leaf in leaves.items()),
        "",
        "",
        "def reset(key):",
        '    """(state, observation) of a new episode; ``key``: a jax.random key."""',
        "    state = State(",
        *(f"        {called[name]}=jnp.zeros({_shape(leaf)}, {_dtype(leaf)})," for name, leaf in leaves.items()),
        "    )",
        "    return state, observe(state)",
        "",
        "",
        "def step(state, action, key):",
        '    """(state, observation, reward, terminated, truncated) of one step."""',
        "    return state, observe(state), jnp.float32(0), jnp.bool_(False), jnp.bool_(False)",
        "",
        "",
        "def observe(state):",
        f'    """{words(seen)}"""',
        f"    return jnp.zeros({_shape(seen)}, {_dtype(seen)})",
    ]
    return "\n".join(lines) + "\n"


def fields(declared: dict[str, Any]) -> dict[str, Leaf]:
    """The reference's state fields; a counter where none can be seen."""
    return declared["fields"] or {"time": {"shape": [], "dtype": "int32"}}


def observation(declared: dict[str, Any]) -> Leaf:
    """The reference's observation, or the first part of it."""
    return next(iter(declared["observation"].values()), {"shape": [1], "dtype": "float32"})


def names(leaves: dict[str, Leaf], reserved: Collection[str] = ()) -> dict[str, str]:
    """Field -> what it can be called in a source: ``reserved`` are words that it cannot."""
    plain = {name: name.rpartition(".")[2].strip("_") for name in leaves}  # a named tuple's fields begin with a letter
    taken = [*plain.values(), *reserved]
    return {
        name: word if word.isidentifier() and not iskeyword(word) and taken.count(word) == 1 else f"field_{number}"
        for number, (name, word) in enumerate(plain.items())
    }


def words(leaf: Leaf) -> str:
    """ "float64[4]"."""
    return f"{leaf['dtype']}{leaf['shape'] or ''}"


def _shape(leaf: Leaf) -> str:
    return str(tuple(leaf["shape"]))


def _dtype(leaf: Leaf) -> str:
    narrow = {"float64": "float32", "int64": "int32", "uint64": "uint32"}  # JAX's default widths
    return f"jnp.{narrow.get(leaf['dtype'], leaf['dtype'].replace('bool', 'bool_'))}"


def place(target: str, root: Path) -> Path:
    """Where a target that does not exist yet will stand: ``pkg.module`` below ``root``. Raises ValueError."""
    parts = target.split(".")
    if ":" in target or "?" in target or not all(part.isidentifier() for part in parts):
        raise ValueError(f"target={target}: --init makes a new module, named like my_port or my_package.port")
    path = root.joinpath(*parts).with_suffix(".py")
    if path.exists() or root.joinpath(*parts).is_dir():
        raise ValueError(f"target={target} exists already ({path.name}): leave --init out to repair it")
    return path
