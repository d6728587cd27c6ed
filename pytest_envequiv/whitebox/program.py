"""A jaxpr laid flat: one list of operations that can be run, followed and edited one by one, in numpy.

Calls are inlined and both branches of a ``cond`` stand side by side, followed by a choice, as ``vmap`` has them. A
``scan`` of few turns has them one after the other; other loops stay one operation. Draws of ``jax.random`` are
operations too: their insides are nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from pytest_envequiv.whitebox.draws import NAMED, draws_inside
from pytest_envequiv.whitebox.jaxprs import CALLS, Site, bind, callers, closed, inner, site, walk

MOST_UNROLLED = 16_384  # operations of all turns of a loop


@dataclass(frozen=True, eq=False)
class Constant:
    """A number that stands in the program."""

    value: Any


Atom = int | Constant  # the number of a value, or a constant
Way = tuple[Site | None, tuple[Site, ...]]  # a place in the source, and the calls that led to it, the innermost first
Run = Callable[[Sequence[Any]], list[Any]]  # the outputs of an operation, for its inputs


@dataclass(frozen=True)
class Op:
    """One operation. ``name`` is its primitive's, "choose" or "draw"; ``run(values)`` gives the list of its outputs."""

    name: str
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    site: Site | None
    run: Run
    params: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]  # of the outputs
    dtypes: tuple[np.dtype[Any], ...]
    kind: str = ""  # of a draw
    callers: tuple[Site, ...] = ()  # the calls that led to its site, the innermost first


@dataclass(frozen=True)
class Program:
    """``ops`` in the order they run; the places of inputs and outputs; the values of constants, by place."""

    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[Atom, ...]
    constants: dict[int, Any]

    def run(self, arguments: Sequence[Any], draws: Sequence[Any] = ()) -> dict[int, Any]:
        """Every value of the program, by place. ``draws`` replace the outputs of its draws, in order."""
        values: dict[int, Any] = {**self.constants, **dict(zip(self.inputs, arguments, strict=True))}
        left = list(draws)
        with np.errstate(all="ignore"):
            for op in self.ops:
                if op.name == "draw" and draws:
                    value = left.pop(0)
                    if op.kind == "bernoulli":  # given as the uniform number that decides it
                        chance = np.asarray(read(values, op.inputs[1]))
                        value = value < chance.reshape(chance.shape + (1,) * (np.ndim(value) - chance.ndim))
                    values[op.outputs[0]] = np.broadcast_to(value, op.shapes[0]).astype(op.dtypes[0])
                else:
                    values.update(zip(op.outputs, op.run([read(values, a) for a in op.inputs]), strict=True))
        return values


def read(values: Mapping[int, Any], atom: Atom) -> Any:
    return atom.value if isinstance(atom, Constant) else values[atom]


def flat(body: Any) -> Program:
    """The closed jaxpr ``body`` as a Program."""
    ops: list[Op] = []
    constants: dict[int, Any] = {}
    count = 0

    def fresh() -> int:
        nonlocal count
        count += 1
        return count - 1

    def inline(part: Any, given: Sequence[Atom], above: Way) -> list[Atom]:
        names: dict[Any, Atom] = dict(zip(part.jaxpr.invars, given, strict=True))
        for var, value in zip(part.jaxpr.constvars, part.consts, strict=True):
            place = fresh()
            names[var], constants[place] = place, _plain(value)

        def atom(found: Any) -> Atom:
            return Constant(_plain(found.val)) if isinstance(found, jex.Literal) else names[found]

        for equation in part.jaxpr.eqns:
            if not equation.outvars:  # a message to the screen
                continue
            inputs = [atom(a) for a in equation.invars]
            where = _way(equation, above)
            primitive = equation.primitive.name
            kind = NAMED.get(equation.params.get("name", "")) if primitive in ("jit", "pjit") else None
            if primitive in CALLS and kind is None:
                outputs = inline(closed(inner(equation)[0]), inputs, where)
            elif primitive == "cond":
                branches = [inline(b, inputs[1:], where) for b in equation.params["branches"]]
                outputs = []
                for var, *choices in zip(equation.outvars, *branches, strict=True):
                    place = fresh()
                    choose = _choose_key if _is_key(var.aval) else _choose
                    ops.append(_op("choose", (inputs[0], *choices), (place,), equation, where, choose, [var]))
                    outputs.append(place)
            elif primitive == "scan" and _size(equation) <= MOST_UNROLLED:
                outputs = unrolled(equation, inputs, where)
            else:
                places = tuple(fresh() for _ in equation.outvars)
                if primitive in STRUCTURAL:
                    inputs = [_typed(a, v.aval.dtype) for a, v in zip(inputs, equation.invars, strict=True)]
                name, run = ("draw", _bound(equation)) if kind or primitive == "random_bits" else _runner(equation)
                ops.append(_op(name, tuple(inputs), places, equation, where, run, equation.outvars, kind or ""))
                outputs = list(places)
            names.update(zip(equation.outvars, outputs, strict=True))
        return [atom(a) for a in part.jaxpr.outvars]

    def unrolled(loop: Any, given: Sequence[Atom], where: Way) -> list[Atom]:
        """The turns of a ``scan``: each has its rows of what is gone through, and adds a row to what is gathered."""
        turns, fixed, carried = (loop.params[k] for k in ("length", "num_consts", "num_carry"))
        constants, carry, through = given[:fixed], list(given[fixed : fixed + carried]), given[fixed + carried :]

        def moved(name: str, var: Any, shape: Sequence[int], run: Run, *values: Atom) -> Atom:
            place, dtype = fresh(), np.dtype(var.aval.dtype)
            ops.append(
                Op(
                    name,
                    tuple(_typed(v, dtype) for v in values),
                    (place,),
                    where[0],
                    run,
                    {},
                    (tuple(shape),),
                    (dtype,),
                    callers=where[1],
                )
            )
            return place

        told: list[list[Atom]] = [[] for _ in range(turns)]
        for turn in reversed(range(turns)) if loop.params["reverse"] else range(turns):
            pairs = zip(loop.invars[fixed + carried :], through, strict=True)
            rows = [moved("slice", v, v.aval.shape[1:], partial(_row, turn), whole) for v, whole in pairs]
            ended = inline(loop.params["jaxpr"], [*constants, *carry, *rows], where)
            carry, told[turn] = ended[:carried], ended[carried:]
        gathered = zip(loop.outvars[carried:], zip(*told, strict=True), strict=True)
        return carry + [moved("stack", v, v.aval.shape, _stacked, *each) for v, each in gathered]

    inputs = tuple(fresh() for _ in body.jaxpr.invars)
    outputs = inline(body, inputs, (None, ()))
    return Program(tuple(ops), inputs, tuple(outputs), constants)


def _op(
    name: str,
    inputs: tuple[Atom, ...],
    outputs: tuple[int, ...],
    equation: Any,
    where: Way,
    run: Run,
    variables: Sequence[Any],
    kind: str = "",
) -> Op:
    params = {} if name == "choose" else equation.params
    shapes = tuple(tuple(v.aval.shape) for v in variables)
    dtypes = tuple(np.dtype(v.aval.dtype) if not _is_key(v.aval) else np.dtype(object) for v in variables)
    return Op(name, inputs, outputs, where[0], run, params, shapes, dtypes, kind, where[1])


def _is_key(aval: Any) -> bool:
    return bool(jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key))


def _plain(value: Any) -> Any:
    return (
        value
        if hasattr(value, "dtype") and jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)
        else np.asarray(value)
    )


def _way(equation: Any, above: Way) -> Way:
    """Where an equation was written, and the calls that led there; what JAX made by itself is at the call above it."""
    own = site(equation)
    return above if own is None else (own, callers(equation))


def _typed(atom: Atom, dtype: Any) -> Atom:
    """A number as what it stands for: what only moves it has no type to make it of."""
    return Constant(np.asarray(atom.value, dtype)) if isinstance(atom, Constant) else atom


def _size(loop: Any) -> float:
    """How many operations all turns of a ``scan`` have together; no end where one is a draw or holds a key."""
    body, turns = loop.params["jaxpr"], loop.params["length"]
    if draws_inside(body) or any(_is_key(v.aval) for v in (*loop.invars, *loop.outvars)):
        return np.inf
    inside = sum(_size(e) if e.primitive.name == "scan" else 1 for e in walk(body))
    return turns * inside if turns else np.inf


def _row(number: int, values: Sequence[Any]) -> list[Any]:
    return [np.asarray(values[0])[number]]


def _stacked(values: Sequence[Any]) -> list[Any]:
    return [np.stack(values)]


# -- running one operation in numpy ----------------------------------------------------------------------------------


def _choose(values: Sequence[Any]) -> list[Any]:
    which, *cases = values
    index = np.clip(np.asarray(which).astype(np.int64), 0, len(cases) - 1)
    index = index.reshape(index.shape + (1,) * (np.ndim(cases[0]) - index.ndim))
    found = cases[0]
    for number, case in enumerate(cases[1:], 1):
        found = np.where(index == number, case, found)
    return [np.asarray(found, np.asarray(cases[0]).dtype)]


def _choose_key(values: Sequence[Any]) -> list[Any]:
    """Which branch's key: of all that is chosen, the one kind of value that numpy cannot hold."""
    which, *cases = values
    return [cases[int(np.clip(which, 0, len(cases) - 1))]]


def _remainder(x: Any, y: Any) -> Any:
    x, y = np.asarray(x), np.asarray(y)
    return np.where(y == 0, x, np.fmod(x, y)) if x.dtype.kind in "iu" else np.fmod(x, y)


def _quotient(x: Any, y: Any) -> Any:
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    safe = np.where(y == 0, np.ones_like(y), y)
    down = x // safe
    toward_zero = down + ((down * safe != x) & ((x < 0) != (safe < 0)))
    return np.where(y == 0, np.array(-1).astype(x.dtype), toward_zero)


def _cast(value: Any, dtype: np.dtype[Any]) -> Any:
    """As XLA casts: a float that no whole number is near enough to becomes the last one there is, NaN becomes 0."""
    value = np.asarray(value)
    if dtype.kind not in "iu" or value.dtype.kind in "iub":
        return value.astype(dtype)
    ends = np.iinfo(dtype)
    found = np.where(np.isnan(value), np.zeros_like(value), value).astype(dtype)
    return np.where(value >= ends.max, ends.max, np.where(value <= ends.min, ends.min, found)).astype(dtype)


# Primitives of a value each, by name, on operands of one dtype. JAX has made all broadcasting explicit but of scalars.
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "rem": _remainder,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "atan2": np.arctan2,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "square": np.square,
    "is_finite": np.isfinite,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "stop_gradient": lambda x: x,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
}
LOGICAL = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert}
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_and": np.bitwise_and.reduce,
    "reduce_or": np.bitwise_or.reduce,
}
# Primitives whose outputs only rearrange their first operands: run on places, they say which element goes where.
STRUCTURAL = {
    "reshape",
    "squeeze",
    "expand_dims",
    "broadcast_in_dim",
    "transpose",
    "tile",
    "pad",
    "concatenate",
    "stack",
    "unstack",
    "slice",
    "rev",
    "split",
}


def _runner(equation: Any) -> tuple[str, Run]:
    """(name, function) of an equation: in numpy where we know how, else through JAX."""
    name, params = equation.primitive.name, equation.params
    if any(_is_key(atom.aval) for atom in (*equation.invars, *equation.outvars)):
        return name, _bound(equation)
    dtype, shape = np.dtype(equation.outvars[0].aval.dtype), equation.outvars[0].aval.shape
    if name in ELEMENTWISE or name in LOGICAL:
        function = ELEMENTWISE.get(name) or LOGICAL[name]
        return name, lambda v: [np.asarray(function(*v), dtype)]
    if name in REDUCTIONS and "axes" in params:
        reduce, axes = REDUCTIONS[name], tuple(params["axes"])
        return name, lambda v: [np.asarray(reduce(v[0], axis=axes), dtype)]
    if name == "convert_element_type":
        return name, lambda v: [_cast(v[0], dtype)]
    if name == "optimization_barrier":
        return name, list
    if name == "integer_pow":
        return name, lambda v: [np.asarray(np.asarray(v[0]) ** np.asarray(params["y"], _power(v[0])), dtype)]
    if name == "select_n":
        return name, _choose
    if name == "clamp":
        return name, lambda v: [np.asarray(np.minimum(np.maximum(v[1], v[0]), v[2]), dtype)]
    if name in ("reshape", "squeeze", "expand_dims"):
        return name, lambda v: [np.reshape(v[0], shape)]
    if name == "broadcast_in_dim":
        return name, lambda v: [_broadcast(v[0], shape, params["broadcast_dimensions"])]
    if name == "transpose":
        return name, lambda v: [np.transpose(v[0], params["permutation"])]
    if name == "concatenate":
        return name, lambda v: [np.concatenate(v, params["dimension"])]
    if name == "stack":
        return name, lambda v: [np.stack(v, params["axis"])]
    if name == "unstack":
        return name, lambda v: list(np.moveaxis(v[0], params["axis"], 0))
    if name == "tile":
        return name, lambda v: [np.tile(v[0], params["reps"])]
    if name == "pad" and all(low >= 0 and high >= 0 for low, high, _ in params["padding_config"]):
        return name, lambda v: [_padded(v[0], v[1], shape, params["padding_config"])]
    if name == "rev":
        return name, lambda v: [np.flip(v[0], params["dimensions"])]
    if name == "slice":
        steps = params["strides"] or (1,) * len(params["start_indices"])
        cut = tuple(map(slice, params["start_indices"], params["limit_indices"], steps))
        return name, lambda v: [np.asarray(v[0])[cut]]
    if name == "split":
        at = np.cumsum(params["sizes"])[:-1]
        return name, lambda v: list(np.split(v[0], at, params["axis"]))
    return name, _bound(equation)


def _power(base: Any) -> Any:
    return np.asarray(base).dtype if np.asarray(base).dtype.kind == "f" else np.int64


def _broadcast(value: Any, shape: tuple[int, ...], dimensions: Sequence[int]) -> Any:
    if np.shape(value) == shape:
        return np.asarray(value)
    widths = [1] * len(shape)
    for axis, dimension in enumerate(dimensions):
        widths[dimension] = np.shape(value)[axis]
    return np.broadcast_to(np.reshape(value, widths), shape)


def _padded(value: Any, padding: Any, shape: tuple[int, ...], config: Sequence[tuple[int, int, int]]) -> Any:
    found = np.full(shape, padding, np.asarray(value).dtype)
    found[
        tuple(slice(low, size - high, 1 + between) for (low, high, between), size in zip(config, shape, strict=True))
    ] = value
    return found


def _bound(equation: Any) -> Run:
    avals = [atom.aval for atom in equation.invars]

    def run(values: Sequence[Any]) -> list[Any]:
        given = [v if _is_key(a) else np.asarray(v, a.dtype) for v, a in zip(values, avals, strict=True)]
        return [v if _is_key(v) else np.asarray(v) for v in bind(equation, [_device(v) for v in given])]

    return run


def _device(value: Any) -> Any:
    return value if isinstance(value, jax.Array) else jax.numpy.asarray(value)
