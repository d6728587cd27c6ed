"""An operator put back where that also moves the brackets: ``a + b * c`` was meant, ``a + b + c`` is what runs.

Operations of one expression are read as a line of source has them, operands with operators between. Another operator
in one place is then read anew, by the precedence that Python gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame.edits import Edit, Kind
from pytest_envequiv.whitebox.blame.trial import PASSING, Trial
from pytest_envequiv.whitebox.program import ELEMENTWISE, Atom, Constant, Op

BINDS = {"add": 1, "sub": 1, "mul": 2, "div": 2, "pow": 3}
POWERS = {"integer_pow": lambda op: op.params["y"], "square": lambda op: 2}  # of one operand, the other is known
MOST = 24  # operands of one expression

Tree = int | tuple[str, "Tree", "Tree"]  # an operand's number, or (operator, left, right)


@dataclass(frozen=True)
class Chain:
    """One more operand than operators. ``numbers``: the operation that each operator is; ``top``: the last to run."""

    operands: tuple[Atom, ...]
    operators: tuple[str, ...]
    numbers: tuple[int, ...]
    top: int


def restoring(trial: Trial) -> Kind:
    """Another operator in one place of an expression, where it moves the brackets or is a power."""
    where = {number: chain for chain in chains(trial) for number in chain.numbers}

    def kind(trial: Trial, group: Sequence[int]) -> Iterator[Edit]:
        if any(number not in where for number in group):
            return
        places = [(chain := where[number], chain.numbers.index(number)) for number in group]
        old = places[0][0].operators[places[0][1]]
        for name in sorted(BINDS.keys() - {old}):
            others: dict[int, Op] = {}
            for chain, at in places:
                operators = (*chain.operators[:at], name, *chain.operators[at + 1 :])
                tree = _tree(operators)
                if "pow" in (old, name) or _brackets(tree) != _brackets(_tree(chain.operators)):
                    top = trial.program.ops[chain.top]
                    others[chain.top] = _evaluating(top, chain.operands, tree)
            if others:
                yield Edit(f"{name} in the place of {old}, and brackets where they were then", others)

    return kind


def chains(trial: Trial) -> list[Chain]:
    """Every expression of at least one operator, as long as it can be read."""
    ops = trial.program.ops
    makers = {place: number for number, op in enumerate(ops) for place in op.outputs}
    found: list[Chain] = []
    taken: set[int] = set()
    for number in reversed(range(len(ops))):
        if _operator(ops[number]) and number not in taken:
            chain = _chain(trial, number, makers)
            taken.update(chain.numbers)
            if len(chain.operands) <= MOST:
                found.append(chain)
    return found


def _chain(trial: Trial, top: int, makers: dict[int, int]) -> Chain:
    operands: list[Atom] = []
    operators: list[str] = []
    numbers: list[int] = []

    def read(number: int) -> None:
        op = trial.program.ops[number]
        left, right = (*op.inputs, Constant(np.asarray(POWERS[op.name](op)))) if op.name in POWERS else op.inputs
        binds = BINDS[_operator(op)]
        operand(left, op, binds + (binds == BINDS["pow"]))
        operators.append(_operator(op))
        numbers.append(number)
        operand(right, op, binds + 1)

    def operand(atom: Atom, above: Op, least: int) -> None:
        """What binds at least so much needs no brackets: it is taken for part of the expression."""
        number = _behind(trial, atom, makers)
        if number is not None:
            op = trial.program.ops[number]
            same = op.site and above.site and (op.site.file, op.site.function) == (above.site.file, above.site.function)
            if same and _operator(op) and BINDS[_operator(op)] >= least:
                return read(number)
        operands.append(atom)

    read(top)
    return Chain(tuple(operands), tuple(operators), tuple(numbers), top)


def _behind(trial: Trial, atom: Atom, makers: dict[int, int]) -> int | None:
    """The operation whose result an operand is, if it is nobody else's; one number may have been spread out."""
    while not isinstance(atom, Constant) and len(trial.users.get(atom, ())) == 1 and atom in makers:
        number = makers[atom]
        op = trial.program.ops[number]
        if op.name not in PASSING:
            return number
        atom = op.inputs[0]
        if isinstance(atom, Constant) or np.size(trial.values[atom]) != 1:
            return None
    return None


def _operator(op: Op) -> str:
    """The operator an operation is in the source; "" if it is none."""
    return "pow" if op.name in POWERS else op.name if op.name in BINDS else ""


def _tree(operators: Sequence[str]) -> Tree:
    """How Python brackets operands with these operators between (precedence climbing)."""
    at = 0

    def climb(least: int) -> Tree:
        nonlocal at
        left: Tree = at
        while at < len(operators) and BINDS[operators[at]] >= least:
            name = operators[at]
            at += 1
            left = (name, left, climb(BINDS[name] + (name != "pow")))  # powers from the right, others from the left
        return left

    return climb(0)


def _brackets(tree: Tree) -> Any:
    return tree if isinstance(tree, int) else (_brackets(tree[1]), _brackets(tree[2]))


def _evaluating(top: Op, operands: tuple[Atom, ...], tree: Tree) -> Op:
    """An operation that computes the whole expression."""

    def value(part: Tree, values: Sequence[Any]) -> Any:
        if isinstance(part, int):
            return values[part]
        name, left, right = part
        return ELEMENTWISE[name](value(left, values), value(right, values))

    def run(values: Sequence[Any]) -> list[Any]:
        return [np.broadcast_to(np.asarray(value(tree, values)), top.shapes[0]).astype(top.dtypes[0])]

    return replace(top, inputs=operands, run=run)
