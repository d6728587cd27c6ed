"""Branch coverage of code without branches: a traced step that also says which way each of its choices went.

A choice is a comparison, an ``and`` or ``or`` of flags, a ``select_n``, ``cond``, ``switch``, ``clamp``, ``min`` or
``max``, if a line outside JAX made it and its operands are not known when tracing. ``jnp.clip``, ``jnp.where`` and
``relu`` count as the line that calls them; what other functions of JAX choose within themselves (how ``%`` rounds,
whether an index is negative) is theirs. The jaxpr of one row is run equation by equation and batched afterwards, so a
branch that is not taken exercises nothing; over the turns of a loop, "ever went this way" is carried along.

A ``cond`` that the port itself has put under ``vmap`` is a ``select_n``, and what stands in its branches always runs.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from pytest_envequiv.whitebox.draws import OnDraw, case_of, choose, draws_inside, kind_of
from pytest_envequiv.whitebox.jaxprs import CALLS, Site, bind, closed, evaluate, inner, site

COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
TIE = "tie"  # a side that is told where it was seen, and never asked for: two floats need not be able to meet
WRITTEN = {"clip", "_where", "relu"}  # functions of JAX that are choices of whoever calls them
# Files of JAX whose own choices are nobody's: indices made non-negative, loop counters, keys.
HIDDEN = {"indexing.py", "slicing.py", "scatter.py", "loops.py", "random.py", "prng.py", "ufuncs.py"}
OURS = str(Path(__file__).parent.parent) + os.sep
WORD, VECTOR = 32, 16  # flags that are handed out as one number, numbers that are handed out as one vector
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
class Covered:
    """A function that also tells which way it went.

    run(on_draw, *args) -> (result, told)   of one row, to be batched; ``read`` makes arrays of what was told
    comparisons                             the branches (their numbers) that have a distance
    """

    branches: tuple[Branch, ...]
    comparisons: tuple[int, ...]
    run: Callable[..., Any]

    def read(self, told: Any) -> tuple[np.ndarray, np.ndarray]:
        """(hits, distances) of B rows.

        hits       bool[B, sides]: all sides of all branches, in order; any element of an array counts
        distances  float32[B, comparisons]: left minus right operand, of an array the element nearest to 0; NaN where
                   nothing was compared
        """
        words, near = told
        flags = np.concatenate([(word[:, None] >> np.arange(WORD, dtype=np.uint32)) & 1 for word in words], 1)
        distances = np.concatenate([np.zeros((len(flags), 0), np.float32), *near], 1)
        hits = np.zeros((len(flags), len(self.sides)), bool)
        hits[:, self.wanted] = flags[:, : int(self.wanted.sum())]
        ties = [self.comparisons.index(number) for number, side in self.sides if side == TIE]
        hits[:, ~self.wanted] = distances[:, ties] == 0
        return hits, distances

    @property
    def sides(self) -> tuple[tuple[int, str], ...]:
        """(branch, side) of each column of hits."""
        return tuple((n, side) for n, branch in enumerate(self.branches) for side in branch.sides)

    @property
    def wanted(self) -> np.ndarray:
        """bool[sides]: those that have to be exercised: all but ties."""
        return np.array([side != TIE for _, side in self.sides], bool)


@dataclass(frozen=True)
class Plan:
    """What is kept at the equations of one body: ``marks`` has the branch of an equation, ``parts`` the plans of the
    bodies inside it, by the equation's place; ``branches`` are all of them by number, those inside included."""

    body: Any
    marks: Mapping[int, int]
    parts: Mapping[int, tuple[Plan, ...]]
    branches: Mapping[int, Branch]


@dataclass
class Seen:
    """What was seen so far: (branch, side) -> bool, and branch -> the distance nearest to 0. All of one row."""

    hits: dict[tuple[int, int], Any] = field(default_factory=dict)
    near: dict[int, Any] = field(default_factory=dict)

    def add(self, hits: Mapping[tuple[int, int], Any], near: Mapping[int, Any]) -> None:
        for key, value in hits.items():
            self.hits[key] = self.hits[key] | value if key in self.hits else value
        for number, value in near.items():
            self.near[number] = _nearer(self.near[number], value) if number in self.near else value


def instrumented(function: Callable[..., Any], *example: Any) -> Covered:
    """Trace ``function`` on arguments shaped like ``example`` and find its branches."""
    body, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    tree = jax.tree.structure(shape)
    found: dict[Branch, int] = {}
    plan = _planned(body, [True] * len(body.jaxpr.invars), None, "", found)
    branches = tuple(found)
    sides = [(n, i) for n, branch in enumerate(branches) for i, side in enumerate(branch.sides) if side != TIE]
    comparisons = tuple(n for n, branch in enumerate(branches) if _measured(branch.primitive))

    def run(on_draw: OnDraw | None, *args: Any) -> Any:
        seen = Seen()
        outputs = _run(plan, jax.tree.leaves(args), on_draw, seen)
        near = [seen.near.get(number, jnp.float32(np.nan)) for number in comparisons]
        words = _packed([seen.hits.get(key, False) for key in sides])
        return jax.tree.unflatten(tree, outputs), (words, _gathered(near))

    return Covered(branches, comparisons, run)


def _packed(flags: list[Any]) -> list[Any]:
    """Flags as words of bits: an array of flags would take XLA several times as long to compile."""
    words = []
    for start in range(0, max(len(flags), 1), WORD):
        word = jnp.uint32(0)
        for place, flag in enumerate(flags[start : start + WORD]):
            word = word | (jnp.asarray(flag).astype(jnp.uint32) << np.uint32(place))
        words.append(word)
    return words


def _gathered(numbers: list[Any]) -> list[Any]:
    """Numbers as short vectors, each put in place by a choice: XLA makes one loop of it, where each number by itself,
    or a concatenation, would be a loop of its own and compile for as long as the step."""
    vectors = []
    for start in range(0, len(numbers), VECTOR):
        first, *rest = numbers[start : start + VECTOR]
        places = jnp.arange(1 + len(rest))
        vector = jnp.broadcast_to(first, places.shape)
        for place, number in enumerate(rest, 1):
            vector = jnp.where(places == place, number, vector)
        vectors.append(vector)
    return vectors


# -- where the branches are ------------------------------------------------------------------------------------------


def _planned(body: Any, moving: Sequence[bool], above: Site | None, within: str, found: dict[Branch, int]) -> Plan:
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
        plans = tuple(_planned(b, m, where, inside, found) for b, m in _bodies(equation, moves))
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


def _measured(primitive: str) -> bool:
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


# -- running ---------------------------------------------------------------------------------------------------------


def _run(plan: Plan, arguments: Sequence[Any], on_draw: OnDraw | None, seen: Seen) -> list[Any]:
    places = {id(equation): place for place, equation in enumerate(plan.body.jaxpr.eqns)}

    def on_equation(equation: Any, inputs: Sequence[Any]) -> list[Any]:
        place = places[id(equation)]
        kind = kind_of(equation)
        if kind is not None and on_draw is not None:
            return on_draw(equation, kind, inputs)
        if place in plan.parts:
            outputs = _through(equation, plan.parts[place], inputs, on_draw, seen)
        else:
            outputs = bind(equation, inputs)
        if place in plan.marks:
            number = plan.marks[place]
            went, distance = _went(equation, inputs, outputs)
            near = {} if distance is None else {number: distance}
            seen.add({(number, side): value for side, value in enumerate(went)}, near)
        return outputs

    return evaluate(plan.body, arguments, on_equation)


def _through(
    equation: Any, plans: tuple[Plan, ...], inputs: Sequence[Any], on_draw: OnDraw | None, seen: Seen
) -> list[Any]:
    """The outputs of a call, ``cond`` or loop whose bodies are run by their plans."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return _cond(plans, inputs, on_draw, seen)
    if name == "scan":
        return _scan(params, plans[0], inputs, seen)
    if name == "while":
        return _while(params, plans[0], plans[1], inputs, seen)
    return _run(plans[0], inputs, on_draw, seen)


def _cond(plans: tuple[Plan, ...], inputs: Sequence[Any], on_draw: OnDraw | None, seen: Seen) -> list[Any]:
    which = case_of(inputs[0], len(plans))
    if on_draw is not None and any(draws_inside(plan.body) for plan in plans):
        # All branches are run, so that each draw is made once, as in draws.py; what one that is not taken saw is void.
        results = []
        for case, plan in enumerate(plans):
            inside = Seen()
            results.append(_run(plan, inputs[1:], on_draw, inside))
            taken = which == case
            seen.add(
                {key: value & taken for key, value in inside.hits.items()},
                {number: jnp.where(taken, value, jnp.nan) for number, value in inside.near.items()},
            )
        return [choose(which, choices) for choices in zip(*results, strict=True)]
    empty = _nothing(*plans)

    def branch(plan: Plan) -> Callable[..., Any]:
        return lambda *operands: _alone(plan, operands, empty)

    outputs, hits, near = lax.switch(which, [branch(plan) for plan in plans], *inputs[1:])
    seen.add(hits, near)
    return list(outputs)


def _scan(params: Mapping[str, Any], plan: Plan, inputs: Sequence[Any], seen: Seen) -> list[Any]:
    constants, carried = params["num_consts"], params["num_consts"] + params["num_carry"]
    empty = _nothing(plan)

    def turn(carry: Any, x: Any) -> Any:
        values, *before = carry
        outputs, *now = _alone(plan, [*inputs[:constants], *values, *x], empty)
        return (outputs[: params["num_carry"]], *_both(before, now)), outputs[params["num_carry"] :]

    (carry, hits, near), ys = lax.scan(
        turn,
        (list(inputs[constants:carried]), *empty),
        list(inputs[carried:]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    seen.add(hits, near)
    return [*carry, *ys]


def _while(params: Mapping[str, Any], asked: Plan, body: Plan, inputs: Sequence[Any], seen: Seen) -> list[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    empty = _nothing(asked, body)

    def ask(values: Sequence[Any]) -> Any:
        (goes_on,), *now = _alone(asked, [*inputs[:first], *values], empty)
        return goes_on, now

    def turn(carry: Any) -> Any:
        values, _, *before = carry
        outputs, *now = _alone(body, [*inputs[first:second], *values], empty)
        goes_on, then = ask(outputs)
        return (outputs, goes_on, *_both(_both(before, now), then))

    goes_on, now = ask(inputs[second:])
    values, _, hits, near = lax.while_loop(lambda c: c[1], turn, (list(inputs[second:]), goes_on, *now))
    seen.add(hits, near)
    return list(values)


# -- what was seen ---------------------------------------------------------------------------------------------------


def _nothing(*plans: Plan) -> tuple[dict[tuple[int, int], Any], dict[int, Any]]:
    """(hits, near) of bodies that have not run: what a branch not taken, or a loop without a turn, gives."""
    branches = {number: branch for plan in plans for number, branch in plan.branches.items()}
    no, nan = jnp.zeros((), bool), jnp.full((), np.nan, jnp.float32)
    hits = {(n, i): no for n, branch in branches.items() for i, side in enumerate(branch.sides) if side != TIE}
    return hits, {number: nan for number, branch in branches.items() if _measured(branch.primitive)}


def _alone(plan: Plan, arguments: Sequence[Any], empty: tuple[Any, Any]) -> tuple[list[Any], Any, Any]:
    """A body run by itself: its outputs, and what was seen with the keys of ``empty``. No draws are taken out of it."""
    inside = Seen()
    outputs = _run(plan, arguments, None, inside)
    return outputs, {**empty[0], **inside.hits}, {**empty[1], **inside.near}


def _both(before: Sequence[Any], now: Sequence[Any]) -> tuple[Any, Any]:
    (hits, near), (more, other) = before, now
    return {k: v | more[k] for k, v in hits.items()}, {k: _nearer(v, other[k]) for k, v in near.items()}


def _nearer(a: Any, b: Any) -> Any:
    return jnp.where(jnp.isnan(a) | (jnp.abs(b) < jnp.abs(a)), b, a)


def _any(flags: Any) -> Any:
    return lax.reshape(jnp.asarray(flags), ()) if jnp.size(flags) == 1 else jnp.any(flags)


def _gap(left: Any, right: Any) -> Any:
    """The element of left - right that is nearest to 0."""
    wide = jnp.promote_types(jnp.result_type(left), jnp.int32)  # unsigned numbers have no negative difference
    gap = (jnp.asarray(left).astype(wide) - jnp.asarray(right).astype(wide)).astype(jnp.float32)
    if gap.size == 1:
        return lax.reshape(gap, ())
    return jnp.ravel(gap)[jnp.argmin(jnp.where(jnp.isnan(gap), jnp.inf, jnp.abs(gap)))]


def _went(equation: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[list[Any], Any]:
    """Whether any element went each way, in the order of the sides; the distance of a comparison, else None.

    A tie is a distance of 0; it needs no flag of its own.
    """
    name = equation.primitive.name
    if name == "cond":
        which = case_of(inputs[0], len(equation.params["branches"]))
        return [which == case for case in range(len(equation.params["branches"]))], None
    if name == "select_n":
        which = jnp.asarray(inputs[0])
        if which.dtype == jnp.bool_:
            return [_any(~which), _any(which)], None
        return [_any(which == case) for case in range(len(inputs) - 1)], None
    true = jnp.asarray(outputs[0])
    if true.dtype == jnp.bool_ and not jnp.issubdtype(equation.invars[0].aval.dtype, jnp.number):
        return [_any(~true), _any(true)], None
    if name == "clamp":
        low, x, high = inputs
        below, above = x < low, x > high
        return [_any(below), _any(~below & ~above), _any(above)], _nearer(_gap(x, low), _gap(x, high))
    left, right = inputs
    if name in COMPARISONS:
        return [_any(~true), _any(true)], _gap(left, right)
    ways = [left > right, left < right] if name == "max" else [left < right, left > right]
    return [*map(_any, ways)], _gap(left, right)
