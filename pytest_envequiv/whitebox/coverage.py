"""Branch coverage of code without branches: a traced step that also says which way each of its choices went.

The jaxpr of one row is run equation by equation and batched afterwards, so a branch that is not taken exercises
nothing; over the turns of a loop, "ever went this way" is carried along. What the choices are is in branches.py.

A ``cond`` that the port itself has put under ``vmap`` is a ``select_n``, and what stands in its branches always runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pytest_envequiv.whitebox import TIE
from pytest_envequiv.whitebox.branches import COMPARISONS, Branch, Plan, measured, planned
from pytest_envequiv.whitebox.draws import OnDraw, case_of, choose, draws_inside, kind_of
from pytest_envequiv.whitebox.jaxprs import bind, evaluate

WORD, VECTOR = 32, 16  # flags that are handed out as one number, numbers that are handed out as one vector


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
    plan = planned(body, [True] * len(body.jaxpr.invars), None, "", found)
    branches = tuple(found)
    sides = [(n, i) for n, branch in enumerate(branches) for i, side in enumerate(branch.sides) if side != TIE]
    comparisons = tuple(n for n, branch in enumerate(branches) if measured(branch.primitive))

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
    return hits, {number: nan for number, branch in branches.items() if measured(branch.primitive)}


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
