"""Expressions read from operations as a line of source has them, and an operator put back with its brackets."""

from __future__ import annotations

import ast

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_envequiv.whitebox.blame import brackets
from pytest_envequiv.whitebox.blame.trial import Case, Trial
from pytest_envequiv.whitebox.jaxprs import Traced

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
WORDS = {"Add": "add", "Sub": "sub", "Mult": "mul", "Div": "div", "Pow": "pow"}
NAMES = "abcdefg"


def parsed(text: str) -> brackets.Tree:
    """What Python itself makes of an expression."""

    def tree(node: ast.expr) -> brackets.Tree:
        if isinstance(node, ast.Name):
            return NAMES.index(node.id)
        assert isinstance(node, ast.BinOp)
        return WORDS[type(node.op).__name__], tree(node.left), tree(node.right)

    return tree(ast.parse(text, mode="eval").body)


def written(operators: list[str]) -> str:
    return NAMES[0] + "".join(f" {SIGNS[o]} {n}" for o, n in zip(operators, NAMES[1:], strict=False))


@given(st.lists(st.sampled_from(sorted(SIGNS)), min_size=1, max_size=6))
def test_brackets_are_where_python_has_them(operators):
    assert brackets._tree(operators) == parsed(written(operators))


def trial_of(function, meant, columns: int) -> Trial:
    """A divergence: the function runs, another was meant."""
    rows = np.random.default_rng(0).uniform(0.5, 2.0, (columns, 64)).astype(np.float32)
    traced = jax.make_jaxpr(lambda *c: function(*c))(*rows)
    case = Case(
        traced=Traced(traced, tuple(f"state.{n}" for n in NAMES[:columns]), ("reward",), {}),
        arguments=list(rows),
        draws=(),
        expected={"reward": (wanted := np.asarray(meant(*rows)).reshape(-1, 1))},
        tolerance={"reward": np.full(wanted.shape, 1e-4)},
        counts={"reward": np.ones(len(wanted), bool)},
        wrong=frozenset({"reward"}),
        root=frozenset({"reward"}),
    )
    return Trial(case)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["add", "sub", "mul", "div"]), min_size=2, max_size=5))
def test_an_expression_is_read_as_it_was_written(operators):
    function = eval(f"lambda {', '.join(NAMES[: len(operators) + 1])}: {written(operators)}")
    (chain,) = brackets.chains(trial_of(function, function, len(operators) + 1))
    assert list(chain.operators) == operators
    assert list(chain.operands) == list(range(len(operators) + 1)), "the inputs, in their order"


MOVED = {
    "a + b + c": "a + b * c",
    "a - b + c": "a - b * c",
    "a * b * c": "a + b * c",
    "a + b / c": "a * b / c",
    "a * b * c * d": "a * b + c * d",
    "a + b + c - d": "a + b * c - d",
    "a * b * 2": "a * b**2",
    "a * b**2": "a * b * 2",
    "a * b + 2 / c": "a * b**2 / c",
}


@pytest.mark.parametrize("now", MOVED)
def test_an_operator_is_put_back(now):
    run, meant = (eval(f"lambda a, b, c=0.0, d=0.0: {text}") for text in (now, MOVED[now]))
    columns = 4 if "d" in now + MOVED[now] else 3 if "c" in now + MOVED[now] else 2
    trial = trial_of(run, meant, columns)
    assert trial.diverging.all()
    kind = brackets.restoring(trial)
    found = [edit for n in range(len(trial.program.ops)) for edit in kind(trial, [n])]
    right = [edit for edit in found if trial.explains(edit.tried(trial, []))]
    assert right and all("brackets" in edit.why for edit in right)
    assert len(right) < len(found), "not every change explains it"


def test_what_is_used_twice_is_one_operand():
    def function(a, b):
        both = a + b
        return both * a + both

    trial = trial_of(function, function, 2)
    assert sorted(chain.operators for chain in brackets.chains(trial)) == [("add",), ("mul", "add")]
