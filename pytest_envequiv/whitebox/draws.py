"""Randomness of an unmodified JAX function, made visible: recorded as labelled draws, or taken from outside.

``jax.random.uniform`` and its kin appear in a jaxpr as calls of jitted functions with known names. Evaluating the
jaxpr equation by equation lets us export the value and the bounds of each such call (record) or put a given value
in its place (play). It does not matter how the port imported ``jax.random`` or what was jitted before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.whitebox.jaxprs import bind, closed, evaluate, inner, site, walk

# Name of the jitted function in the jaxpr -> the kind of draw. Their first operand is the key.
NAMED = {
    "_uniform": "uniform",
    "_normal": "normal",
    "_randint": "integers",
    "_bernoulli": "bernoulli",
    "_shuffle": "permutation",
    "_gumbel": "gumbel",
    "_exponential": "exponential",
    "_truncated_normal": "truncated_normal",
    "_categorical": "categorical",
    "_beta": "beta",
    "_gamma": "gamma",
    "_poisson": "poisson",
    "_laplace": "laplace",
}


class Unalignable(Exception):
    """A draw inside a loop: its number is not known before the run, so it cannot become one input."""


@dataclass(frozen=True)
class Label:
    """What is known about a draw before it is made."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    site: str


@dataclass(frozen=True)
class Labelled:
    """A traced function with its draws in the open.

    record(*args)        -> (result, [(value, low, high), ...])   one entry per label
    play(values, *args)  -> result                                values[i] replaces draw i; for a bernoulli it is
                                                                  a uniform number u, and the draw is u < p
    """

    labels: tuple[Label, ...]
    record: Callable[..., Any]
    play: Callable[..., Any]


def labelled(function: Callable[..., Any], *example: Any) -> Labelled:
    """Trace ``function`` on arguments shaped like ``example`` and find its draws.

    Raises Unalignable if one is made inside a scan or while loop.
    """
    body, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    tree = jax.tree.structure(shape)
    labels: list[Label] = []

    def note(equation: Any, kind: str, _: Sequence[Any]) -> list[Any]:
        out = equation.outvars[0].aval
        labels.append(Label(kind, tuple(out.shape), str(out.dtype), _site(equation)))
        return [jnp.zeros(v.aval.shape, v.aval.dtype) for v in equation.outvars]

    jax.eval_shape(lambda *args: _evaluate(body, jax.tree.leaves(args), note), *example)

    def record(*args: Any) -> Any:
        made: list[tuple[Any, Any, Any]] = []
        leaves = _evaluate(body, jax.tree.leaves(args), keeping(made))
        return jax.tree.unflatten(tree, leaves), made

    def play(values: Sequence[Any], *args: Any) -> Any:
        return jax.tree.unflatten(tree, _evaluate(body, jax.tree.leaves(args), supplying(values)))

    return Labelled(tuple(labels), record, play)


# What becomes of a draw while a jaxpr is run: (equation, kind, inputs) -> outputs.
OnDraw = Callable[[Any, str, Sequence[Any]], list[Any]]


def keeping(made: list[tuple[Any, Any, Any]]) -> OnDraw:
    """Each draw is made, and (value, low, high) appended to ``made``."""

    def keep(equation: Any, kind: str, inputs: Sequence[Any]) -> list[Any]:
        outputs = bind(equation, inputs)
        low, high = _bounds(kind, inputs)
        made.append((outputs[0], low, high))
        return outputs

    return keep


def supplying(values: Sequence[Any]) -> OnDraw:
    """Each draw is the next of ``values`` instead."""
    left = list(values)

    def supply(equation: Any, kind: str, inputs: Sequence[Any]) -> list[Any]:
        out = equation.outvars[0].aval
        value = left.pop(0)
        if kind == "bernoulli":
            value = value < inputs[1]
        return [jnp.broadcast_to(value, out.shape).astype(out.dtype)]

    return supply


def keys_among(function: Callable[..., Any], *example: Any) -> set[int]:
    """Which of the flattened inputs are wrapped as a ``jax.random`` key: two words that only look like a number."""
    body = jax.make_jaxpr(function)(*example)
    return {place for place, var in enumerate(body.jaxpr.invars) if _is_wrapped(body.jaxpr, var)}


def _is_wrapped(jaxpr: Any, var: Any) -> bool:
    for equation in jaxpr.eqns:
        places = [place for place, atom in enumerate(equation.invars) if atom is var]
        if not places:
            continue
        if equation.primitive.name == "random_wrap":
            return True
        for found in inner(equation):
            body = closed(found).jaxpr
            before = len(equation.invars) - len(body.invars)  # the index of a cond, which its branches do not take
            if any(place >= before and _is_wrapped(body, body.invars[place - before]) for place in places):
                return True
    return False


def _bounds(kind: str, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """(low, high) as floats: the interval, the mean and deviation, or the first two parameters (nan where none)."""
    nan = jnp.float32(np.nan)
    if kind in ("uniform", "integers", "beta", "truncated_normal"):
        return tuple(jnp.asarray(bound, jnp.float32) for bound in inputs[1:3])  # type: ignore[return-value]
    if kind == "normal":
        return jnp.float32(0), jnp.float32(1)
    if kind in ("bernoulli", "gamma", "poisson"):
        return jnp.asarray(inputs[1], jnp.float32), nan
    return nan, nan


def _site(equation: Any) -> str:
    """ "file.py:12" of the user's line that made the draw, or "" where JAX does not tell."""
    return str(site(equation) or "")


def kind_of(equation: Any) -> str | None:
    """What is drawn by an equation, or None if it is no draw."""
    if equation.primitive.name in ("jit", "pjit"):
        return NAMED.get(equation.params["name"])
    return "bits" if equation.primitive.name == "random_bits" else None


def draws_inside(jaxpr: Any) -> bool:
    """Whether a draw is made by a jaxpr, or by a body inside it."""
    return any(map(kind_of, walk(jaxpr)))


def _evaluate(body: Any, arguments: Sequence[Any], on_draw: OnDraw) -> list[Any]:
    """Run a jaxpr, handing each draw to ``on_draw(equation, kind, inputs)``; draws inside calls included."""

    def on_equation(equation: Any, inputs: Sequence[Any]) -> list[Any]:
        kind = kind_of(equation)
        if kind is not None:
            return on_draw(equation, kind, inputs)
        if not any(map(draws_inside, inner(equation))):
            return bind(equation, inputs)
        if equation.primitive.name == "cond":
            # Both branches are evaluated, as vmap would do, so that each draw is made once, whatever the branch.
            branches = [_evaluate(b, inputs[1:], on_draw) for b in equation.params["branches"]]
            which = case_of(inputs[0], len(branches))
            return [choose(which, choices) for choices in zip(*branches, strict=True)]
        if equation.primitive.name in ("scan", "while"):
            raise Unalignable(f"a draw inside a {equation.primitive.name} loop ({_site(equation)})")
        return _evaluate(closed(inner(equation)[0]), inputs, on_draw)

    return evaluate(body, arguments, on_equation)


def case_of(which: Any, count: int) -> Any:
    """The branch a ``cond`` takes: its index, kept inside."""
    return jnp.clip(jnp.asarray(which).astype(jnp.int32), 0, count - 1)


def choose(which: Any, choices: Sequence[Any]) -> Any:
    """The value of the branch taken, keys included."""
    dtype = getattr(choices[0], "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        data = jnp.stack([jax.random.key_data(c) for c in choices])
        return jax.random.wrap_key_data(data[which], impl=jax.random.key_impl(choices[0]))
    return jnp.stack([jnp.asarray(c) for c in choices])[which]
