"""A JAX environment as three programs over named rows, run compiled or operation by operation.

Operation by operation nothing of a mutant is compiled: each primitive was compiled for its shape before, by the
original or another mutant. A row is a dict: "state.<leaf>", "action.<name>", "seed"; its result is one too:
"state.<leaf>", "reward", "observation", ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.interpreters import partial_eval

from pytest_envequiv.backends.declared import leaf_names
from pytest_envequiv.backends.functional import JaxBackend
from pytest_envequiv.whitebox.jaxprs import CALLS, OnEquation, bind, closed, evaluate, inner, walk

Rows = dict[str, np.ndarray]


class Programs:
    """``reset``, ``step`` and (None without one) ``auto`` of a backend. Raises what tracing raises."""

    def __init__(self, backend: JaxBackend):
        self.backend = backend
        self.functional = backend.functional
        state, _ = jax.eval_shape(self.functional.reset, jax.random.PRNGKey(0))
        self._begun, self._tree = jax.tree.flatten(state)
        self.names = [f"state.{name.removeprefix(self.functional.prefix)}" for name in leaf_names(state)]
        # What is never compared: keys, and labels without a meaning.
        self.opaque = {n for n in self.names if n.removeprefix("state.") not in backend.spec.fields}
        self.free = {f"state.{name}" for name in self.functional.free}
        self.whats = ("reset", "step", *(["auto"] if self.functional.auto is not None else []))

    # -- one row -------------------------------------------------------------------------------------------------

    def row(self, what: str) -> Callable[[Any], dict[str, Any]]:
        return {"reset": self._reset, "step": self._step, "auto": self._auto}[what]

    def _reset(self, row: Any) -> dict[str, Any]:
        return self._named(*self.functional.reset(jax.random.PRNGKey(row["seed"])))

    def _step(self, row: Any) -> dict[str, Any]:
        return self._stepped(self.functional.step, row)

    def _auto(self, row: Any) -> dict[str, Any]:
        assert self.functional.auto is not None
        return self._stepped(self.functional.auto, row)

    def _stepped(self, step: Callable[..., Any], row: Any) -> dict[str, Any]:
        leaves = [_decoded(row[name], leaf) for name, leaf in zip(self.names, self._leaves, strict=True)]
        action = {key: jnp.asarray(row[f"action.{key}"], s.dtype) for key, s in self.functional.action.items()}
        return self._named(*step(jax.random.PRNGKey(row["seed"]), jax.tree.unflatten(self._tree, leaves), action))

    def _named(self, state: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        leaves = zip(self.names, jax.tree.leaves(state), self._leaves, strict=True)
        return {**{name: _encoded(leaf, like) for name, leaf, like in leaves}, **_arrays(outputs)}

    @cached_property
    def _leaves(self) -> list[Any]:
        """Shape and type of the state's leaves: wide enough for what a reset and a step leave."""

        def stepped(key: Any, state: Any, action: Any) -> Any:
            return jax.tree.leaves(self.functional.step(key, state, action)[0])

        action = {k: jax.ShapeDtypeStruct(s.shape, s.dtype) for k, s in self.functional.action.items()}
        state = jax.tree.unflatten(self._tree, self._begun)
        after = jax.eval_shape(stepped, jax.random.PRNGKey(0), state, action)
        return [_wide(a, b) for a, b in zip(self._begun, after, strict=True)]

    def example(self, what: str) -> dict[str, Any]:
        """Shapes and types of a row that goes in."""
        row: dict[str, Any] = {"seed": jax.ShapeDtypeStruct((), jnp.uint32)}
        if what != "reset":
            row |= {name: _plain(leaf) for name, leaf in zip(self.names, self._leaves, strict=True)}
            actions = self.functional.action.items()
            row |= {f"action.{key}": jax.ShapeDtypeStruct(s.shape, s.dtype) for key, s in actions}
        return row

    # -- many rows -----------------------------------------------------------------------------------------------

    def traced(self, what: str) -> tuple[Any, list[str]]:
        """The jaxpr of one row, without what its results do not need; the names of its results."""
        if what not in self._traced:
            body, self._results[what] = jax.make_jaxpr(self.row(what), return_shape=True)(self.example(what))
            jaxpr, _ = partial_eval.dce_jaxpr(body.jaxpr, [True] * len(body.jaxpr.outvars), instantiate=True)
            self._traced[what] = (jex.ClosedJaxpr(jaxpr, body.consts), sorted(self._results[what]))
        return self._traced[what]

    def results(self, what: str) -> dict[str, Any]:
        """Shapes and types of a row that comes out."""
        self.traced(what)
        return self._results[what]

    @property
    def bytes_per_row(self) -> int:
        """Of what goes into a step and comes out of it."""
        values = [*self.example("step").values(), *self.results("step").values()]
        return sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in values)

    @property
    def working_bytes(self) -> int:
        """Of all that is computed in a step of one row."""
        made = [v.aval for equation in walk(self.traced("step")[0]) for v in equation.outvars]
        return sum(int(np.prod(v.shape)) * 4 for v in made if hasattr(v, "shape")) or 4

    def compiled(self, what: str) -> Callable[[Rows], Rows]:
        if what not in self._compiled:
            function = jax.jit(jax.vmap(self.row(what)))
            self._compiled[what] = lambda rows: jax.device_get(function(rows))
        return self._compiled[what]

    def eager(self, what: str, rows: Rows) -> Rows:
        """The results of a batch, operation by operation. Rows may have more inputs than are read."""
        body, names = self.traced(what)
        example = self.example(what)
        arguments = [self._fitting(rows[name], example[name]) for name in sorted(example)]
        results = jax.vmap(lambda *given: evaluate(body, given, inlined))(*arguments)
        return dict(zip(names, jax.device_get(results), strict=True))

    @staticmethod
    def _fitting(values: np.ndarray, like: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(like.dtype).reshape(len(values), *like.shape)

    @cached_property
    def _results(self) -> dict[str, dict[str, Any]]:
        return {}

    @cached_property
    def _traced(self) -> dict[str, tuple[Any, list[str]]]:
        return {}

    @cached_property
    def _compiled(self) -> dict[str, Callable[[Rows], Rows]]:
        return {}


def inlined(equation: Any, inputs: Any, on_equation: OnEquation | None = None) -> list[Any]:
    """One equation as it stands, or, of a call, each of those in it: ``on_equation`` of each, or this again."""
    if equation.primitive.name in CALLS:
        return evaluate(closed(inner(equation)[0]), inputs, on_equation or inlined)
    return bind(equation, inputs)


def _typed(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _plain(leaf: Any) -> Any:
    """The shape and type of a leaf outside: a typed key is its numbers."""
    return jax.eval_shape(jax.random.key_data, leaf) if _typed(leaf) else leaf


def _decoded(value: Any, leaf: Any) -> Any:
    return (
        jax.random.wrap_key_data(value) if _typed(leaf) else jnp.asarray(value).astype(leaf.dtype).reshape(leaf.shape)
    )


def _encoded(value: Any, leaf: Any) -> Any:
    if _typed(leaf):
        return jax.random.key_data(value)
    return jnp.broadcast_to(jnp.asarray(value).astype(leaf.dtype), leaf.shape)


def _arrays(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: jnp.asarray(value) for name, value in outputs.items()}


def _wide(begun: Any, after: Any) -> Any:
    if _typed(begun):
        return begun
    shape = np.broadcast_shapes(begun.shape, after.shape)
    return jax.ShapeDtypeStruct(shape, jnp.result_type(begun.dtype, after.dtype))


def pieces(rows: Rows, size: int) -> Iterator[tuple[int, int, Rows]]:
    """(first, count, rows): consecutive pieces of exactly ``size`` rows, the last one filled up with its last row."""
    total = len(next(iter(rows.values())))
    for first in range(0, total, size):
        count = min(size, total - first)
        chosen = np.minimum(np.arange(first, first + size), total - 1)
        yield first, count, {name: value[chosen] for name, value in rows.items()}


def run(function: Callable[[Rows], Rows], rows: Rows, size: int) -> Rows:
    """All rows, ``size`` at a time."""
    results = [{n: v[:count] for n, v in function(piece).items()} for _, count, piece in pieces(rows, size)]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


# -- the same program ------------------------------------------------------------------------------------------------


def same_program(one: Programs, other: Programs, what: str) -> bool:
    """Whether the jaxprs are equal, equation by equation, so that nothing needs to be run."""
    if one.names != other.names or one.traced(what)[1] != other.traced(what)[1]:
        return False
    if [str(x) for x in one.example(what).values()] != [str(x) for x in other.example(what).values()]:
        return False
    return _same(one.traced(what)[0], other.traced(what)[0])


def _same(one: Any, other: Any) -> bool:
    consts = zip(one.consts, other.consts, strict=False)
    if len(one.consts) != len(other.consts) or not all(_equal(a, b) for a, b in consts):
        return False
    a, b = one.jaxpr, other.jaxpr
    known: dict[Any, Any] = {}

    def bound(x: list[Any], y: list[Any]) -> bool:
        known.update(zip(x, y, strict=False))
        return len(x) == len(y) and all(str(v.aval) == str(w.aval) for v, w in zip(x, y, strict=True))

    def read(x: Any, y: Any) -> bool:
        if isinstance(x, jex.Literal) or isinstance(y, jex.Literal):
            return type(x) is type(y) and str(x.aval) == str(y.aval) and _equal(x.val, y.val)
        return known.get(x) is y

    def all_read(x: list[Any], y: list[Any]) -> bool:
        return len(x) == len(y) and all(read(v, w) for v, w in zip(x, y, strict=True))

    if not bound(a.constvars, b.constvars) or not bound(a.invars, b.invars) or len(a.eqns) != len(b.eqns):
        return False
    for e, f in zip(a.eqns, b.eqns, strict=True):
        if e.primitive is not f.primitive or not all_read(e.invars, f.invars) or e.params.keys() != f.params.keys():
            return False
        if not all(_equal(e.params[k], f.params[k]) for k in e.params) or not bound(e.outvars, f.outvars):
            return False
    return all_read(a.outvars, b.outvars)


def _equal(a: Any, b: Any) -> bool:
    """Equality of parameters: jaxprs by what they do, arrays by their bits. What cannot be told is not equal."""
    if isinstance(a, (jex.ClosedJaxpr, jex.Jaxpr)):
        return type(a) is type(b) and _same(closed(a), closed(b))
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (np.ndarray, np.generic, jax.Array, float, int)):
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()
    try:
        return bool(a == b)
    except Exception:  # an equality that is not one
        return False
