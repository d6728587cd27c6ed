"""Where the branches of a traced step are: what its jaxpr chooses, and in which line of the source.

A choice is a comparison, an ``and`` or ``or`` of flags, a ``select_n``, ``cond``, ``switch``, ``clamp``, ``min`` or
``max``, if a line outside JAX made it and its operands are not known when tracing. ``jnp.clip``, ``jnp.where`` and
``relu`` count as the line that calls them; what other functions of JAX choose within themselves (how ``%`` rounds,
whether an index is negative) is theirs.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex

from pytest_envequiv.whitebox import TIE
from pytest_envequiv.whitebox.draws import draws_inside, kind_of
from pytest_envequiv.whitebox.jaxprs import CALLS, Site, closed, inner, site

COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
WRITTEN = {"clip", "_where", "relu"}  # functions of JAX that are choices of whoever calls them
# Files of JAX whose own choices are nobody's: indices made non-negative, loop counters, keys.
HIDDEN = {"indexing.py", "slicing.py", "scatter.py", "loops.py", "random.py", "prng.py", "ufuncs.py"}
OURS = str(Path(__file__).parent.parent) + os.sep
LONGEST = 100  # characters of code


@dataclass(frozen=True)
class Branch:
    """One choice in the source. ``sides`` are the ways it can go; ``code`` is the expression, on one line.

    Equations made at the same place (a helper called four times, a loop unrolled by Python) are one branch.
    """

    site: Site
    primitive: str
    sides: tuple[str, ...]
    code: str


@dataclass(frozen=True)
class Plan:
    """What is kept at the equations of one body: ``marks`` has the branch of an equation, ``parts`` the plans of the
    bodies inside it, by the equation's place; ``branches`` are all of them by number, those inside included."""

    body: Any
    marks: Mapping[int, int]
    parts: Mapping[int, tuple[Plan, ...]]
    branches: Mapping[int, Branch]


def planned(body: Any, moving: Sequence[bool], above: Site | None, within: str, found: dict[Branch, int]) -> Plan:
    """``moving``: which arguments are not known when tracing; ``above``: the site of the equation around the body;
    ``within``: the function that was called there."""
    varying = {var for var, moves in zip(body.jaxpr.invars, moving, strict=True) if moves}
    marks, parts, branches = {}, {}, {}
    for place, equation in enumerate(body.jaxpr.eqns):
        moves = [not isinstance(atom, jex.Literal) and atom in varying for atom in equation.invars]
        if any(moves) or not equation.invars:
            varying.update(equation.outvars)
        if kind_of(equation) is not None:
            continue
        own = site(equation)
        where = own or above
        if where is None or where.file.startswith(OURS):
            written = False
        else:
            written = not _hidden(equation) if own else within in WRITTEN
        sides = _sides_of(equation, moves, within if own is None else "")
        if sides and written and where is not None:
            branch = Branch(where, *sides, code(where))
            marks[place] = found.setdefault(branch, len(found))
            branches[marks[place]] = branch
        name = equation.params.get("name", "") if equation.primitive.name in ("jit", "pjit") else ""
        inside = name if name and (own or not within) else within
        plans = tuple(planned(b, m, where, inside, found) for b, m in _bodies(equation, moves))
        if any(plan.branches or draws_inside(plan.body) for plan in plans):
            parts[place] = plans
            for plan in plans:
                branches.update(plan.branches)
    return Plan(body, marks, parts, branches)


def _bodies(equation: Any, moves: list[bool]) -> list[tuple[Any, list[bool]]]:
    """The closed jaxprs that are run as code, and which of their arguments vary (all, in a loop)."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        body = closed(inner(equation)[0])
        return [(body, moves)] if len(body.jaxpr.invars) == len(moves) else []
    if name == "cond":
        return [(body, moves[1:]) for body in params["branches"]]
    loops = {"scan": ("jaxpr",), "while": ("cond_jaxpr", "body_jaxpr")}.get(name, ())
    return [(params[key], [True] * len(params[key].jaxpr.invars)) for key in loops]


def _sides_of(equation: Any, moves: list[bool], within: str) -> tuple[str, tuple[str, ...]] | None:
    """(what it is called, its sides), or None if the equation chooses nothing that is not known."""
    name = equation.primitive.name
    types = [atom.aval.dtype for atom in equation.invars]
    numbers = bool(types) and all(jnp.issubdtype(t, jnp.number) for t in types)
    if name in ("cond", "select_n"):
        if not moves[0]:
            return None
        count = len(equation.params["branches"]) if name == "cond" else len(types) - 1
        cases = ("false", "true") if count == 2 else tuple(f"case {i}" for i in range(count))
        return ("where" if within == "_where" else name), cases
    if not any(moves):
        return None
    if name in COMPARISONS:
        return name, ("false", "true", TIE) if numbers and name not in ("eq", "ne") else ("false", "true")
    if name in ("and", "or") and all(t == jnp.bool_ for t in types):
        return name, ("false", "true")
    if name == "clamp":
        return name, ("below", "inside", "above")
    if name in ("min", "max") and numbers:
        if within == "clip":
            return f"clip {name}", ("below", "not below", TIE) if name == "max" else ("above", "not above", TIE)
        return name, ("first", "second", TIE)
    return None


def measured(primitive: str) -> bool:
    """Whether a branch of that name compares numbers, so that there is a distance to its threshold."""
    return primitive.removeprefix("clip ") in COMPARISONS | {"min", "max", "clamp"}


def _hidden(equation: Any) -> bool:
    """Whether a function of JAX that the line calls made the equation for purposes of its own."""
    try:
        from jax._src import source_info_util

        for frame in equation.source_info.traceback.frames:
            if source_info_util.is_user_filename(frame.file_name):
                return False
            name = os.path.basename(frame.file_name)
            if name in HIDDEN or (equation.primitive.name == "clamp" and name == "conditionals.py"):
                return True
    except Exception:  # a private module of JAX: then some branches of JAX are shown, and can be ignored by a contract
        return False
    return False


def code(where: Site) -> str:
    """The expression at a site on one line, or the whole line where its columns are not known; "" without a file."""
    lines = [linecache.getline(where.file, n) for n in range(where.line, max(where.end_line, where.line) + 1)]
    if where.end_column and where.end_line >= where.line:  # columns count bytes
        lines[-1] = lines[-1].encode()[: where.end_column].decode(errors="ignore")
        lines[0] = lines[0].encode()[where.column :].decode(errors="ignore")
    text = " ".join(" ".join(lines).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
