"""Reading jaxprs: what the rooms of whitebox share. Equations, the bodies inside them, and where they were written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.extend import core as jex

PACKAGE = str(Path(__file__).parent.parent) + os.sep  # what is written here is nobody's port


@dataclass(frozen=True, order=True)
class Site:
    """Where the user's code made an equation. Lines count from 1, columns from 0; the end column is exclusive."""

    file: str
    line: int
    end_line: int = 0
    column: int = 0
    end_column: int = 0
    function: str = ""

    def __str__(self) -> str:
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}"


@dataclass(frozen=True)
class Traced:
    """One unbatched step (or reset) as a jaxpr.

    inputs     name of each invar: "state.x", "action.<name>", "seed", "constants.<name>"
    outputs    name of each outvar: "state.x", "reward", "observation.<key>", ...
    constants  the port's own values of the inputs "constants.<name>", by name
    """

    closed: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Any]


def site(equation: Any) -> Site | None:
    """The innermost frame outside JAX, or None where JAX does not tell."""
    try:
        from jax._src import source_info_util

        frame = source_info_util.user_frame(equation.source_info.traceback)
        if frame is None or frame.file_name.startswith(PACKAGE):
            return None
        return Site(
            frame.file_name, frame.start_line, frame.end_line, frame.start_column, frame.end_column, frame.function_name
        )
    except Exception:  # a private module of JAX: sites are shown, nothing is decided by them
        return None


def callers(equation: Any) -> tuple[Site, ...]:
    """The calls in the user's code that led to the innermost frame, the innermost first; () where JAX does not tell."""
    try:
        from jax._src import source_info_util

        frames = list(source_info_util.user_frames(equation.source_info.traceback))[1:]
        return tuple(
            Site(f.file_name, f.start_line, f.end_line, f.start_column, f.end_column, f.function_name)
            for f in frames
            if not f.file_name.startswith(PACKAGE)
        )
    except Exception:  # as above
        return ()


def inner(equation: Any) -> list[Any]:
    """Every jaxpr among the parameters of an equation."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (jex.ClosedJaxpr, jex.Jaxpr)):
                found.append(item)
    return found


def closed(body: Any) -> Any:
    return body if isinstance(body, jex.ClosedJaxpr) else jex.ClosedJaxpr(body, ())


def walk(body: Any) -> Iterator[Any]:
    """Every equation, those inside calls, branches and loops included, outer ones first."""
    for equation in (body.jaxpr if isinstance(body, jex.ClosedJaxpr) else body).eqns:
        yield equation
        for within in inner(equation):
            yield from walk(within)


def bind(equation: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one equation, computed or traced as it stands."""
    params = equation.primitive.get_bind_params(equation.params)
    subfunctions, params = params if isinstance(params, tuple) else ((), params)  # a pair before JAX 0.9
    outputs = equation.primitive.bind(*subfunctions, *inputs, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


# Primitives whose one body is run as it stands, on the equation's own inputs.
CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"}
CALLS |= {"remat", "remat2", "checkpoint", "custom_vmap_call"}

OnEquation = Callable[[Any, Sequence[Any]], list[Any]]


def evaluate(body: Any, arguments: Sequence[Any], on_equation: OnEquation) -> list[Any]:
    """Run a closed jaxpr; ``on_equation(equation, inputs)`` gives the outputs of each of its own equations."""
    jaxpr = body.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, body.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    for equation in jaxpr.eqns:
        outputs = on_equation(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
