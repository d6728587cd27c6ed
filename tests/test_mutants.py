"""Mutants: every kind is what it says, and nothing but the slip changes."""

import ast
import difflib
import textwrap

import pytest

from pytest_envequiv.power.mutants import KINDS, TOPICS, mutants

SOURCE = '''\
"""A document: 1 + 1."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Params:
    dt: float = 0.5
    max_steps: int = 200


class Cart:
    """Has a document, too: 2 + 2."""

    @property
    def name(self) -> str:
        return "Cart" + "0"

    def __repr__(self):
        return 1 + 1

    def step(self, key, state, action, params):
        first, second = jax.random.split(key)
        noise = jax.random.uniform(first) + jax.random.normal(second)
        speed = jnp.clip(state.speed + action, -1.0, 1.0)  # + is not -
        place = state.place + speed * params.dt
        place = jnp.where(place < 0, -place, place)
        cells = state.cells.at[0].set(place)
        total = jnp.sum(cells, axis=0)
        angle = (
            jnp.sin(place)
            - 2 * noise
        )
        terminated = jnp.logical_or(place > 10, ~state.alive)
        truncated = state.time + 1 >= params.max_steps
        assert total is not None, 1 + 2
        seen = jnp.array([place, speed, angle], dtype=jnp.float32)
        return seen, state.replace(place=place, speed=speed), terminated, truncated
'''


@pytest.fixture(scope="module")
def found():
    return mutants(SOURCE, "ports/cart.py")


def test_every_kind_and_known_words(found):
    assert {m.kind for m in found} == set(KINDS)
    assert {m.topic for m in found} <= set(TOPICS)


def test_each_parses_is_new_and_has_a_name(found):
    trees = {ast.dump(ast.parse(m.source)) for m in found}
    assert len(trees) == len(found) and ast.dump(ast.parse(SOURCE)) not in trees
    assert len({m.id for m in found}) == len(found)
    assert all(m.id.startswith(f"cart.py:{m.line}:") and f":{m.kind}:" in m.id for m in found)
    assert [m.start for m in found] == sorted(m.start for m in found)


def test_only_the_span_changes(found):
    for m in found:
        assert m.original == SOURCE
        assert SOURCE[m.start :].startswith(m.before)
        assert m.source == SOURCE[: m.start] + m.after + SOURCE[m.start + len(m.before) :]
        assert SOURCE[: m.start].count("\n") + 1 == m.line
        rows = set(range(m.line, m.end_line + 1))
        same = [line for i, line in enumerate(SOURCE.splitlines(), 1) if i not in rows]
        touched = [line[1:] for line in difflib.ndiff(SOURCE.splitlines(), m.source.splitlines()) if line[0] == "-"]
        assert len(touched) <= len(rows) and len(same) + len(rows) == len(SOURCE.splitlines())


def test_the_same_source_gives_the_same_mutants(found):
    assert mutants(SOURCE, "ports/cart.py") == found


def test_a_diff_is_small_and_names_no_machine(found):
    text = next(m for m in mutants(SOURCE, "/somewhere/else/cart.py") if m.before == "<").diff()
    assert "somewhere" not in text
    assert "-        place = jnp.where(place < 0, -place, place)" in text
    assert "+        place = jnp.where(place <= 0, -place, place)" in text


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("operator", "*", "/"),
        ("constant", "2", "3"),
        ("config", "0.5", "0.505"),
        ("config", "200", "201"),
        ("comparison", ">=", ">"),
        ("limit", "params.max_steps", "params.max_steps - 1"),
        ("branch", "-place, place", "place, -place"),
        ("branch", "place < 0", "True"),
        ("branch", "~state.alive", "state.alive"),
        ("drop", "state.speed + action", "state.speed"),
        ("drop", "jnp.clip(state.speed + action, -1.0, 1.0)", "(state.speed + action)"),
        ("drop", "jnp.logical_or(place > 10, ~state.alive)", "(place > 10)"),
        ("drop", "-place", "place"),
        ("drop", "place=place, ", ""),
        ("clip", "-1.0, 1.0", "1.0, -1.0"),
        ("clip", "jnp.clip(state.speed + action, -1.0, 1.0)", "jnp.minimum(state.speed + action, 1.0)"),
        ("clip", "jnp.clip(state.speed + action, -1.0, 1.0)", "(jnp.clip(state.speed, -1.0, 1.0) + action)"),
        ("dtype", "float32", "float16"),
        ("axis", "0", "1"),
        ("index", "0", "1"),
        ("set", "set", "add"),
        ("set", "state.cells.at[0].set(place)", "state.cells"),
        ("key", "first, second", "second, first"),
        ("key", "second", "first"),
        ("key", "first", "key"),
        ("arguments", "place, speed=speed", "speed, speed=place"),
        ("order", "place, speed", "speed, place"),
        ("flags", "terminated, truncated", "truncated, terminated"),
        ("flags", "state.time + 1 >= params.max_steps", "(state.time + 1 >= params.max_steps) & False"),
        ("function", "sin", "cos"),
        ("function", "logical_or", "logical_and"),
        ("variable", "place", "speed"),
        ("variable", "speed", "state.speed"),
        ("variable", "speed", "place"),
        ("statement", "place = jnp.where(place < 0, -place, place)", "pass"),
    ],
)
def test_kinds(found, kind, before, after):
    bare = {after, after.removeprefix("(").removesuffix(")")}
    assert any(m.kind == kind and m.before == before and m.after in bare for m in found)


def test_what_is_not_mutated(found):
    lines = SOURCE.splitlines()
    untouched = [i for i, line in enumerate(lines, 1) if '"""' in line or "import" in line or "assert" in line]
    untouched += [i for i, line in enumerate(lines, 1) if '"Cart"' in line or "return 1 + 1" in line or "@" in line]
    assert not [m for m in found if m.line in untouched]
    assert not [m for m in found if m.line != m.end_line and m.kind == "operator"]


def test_comments_do_not_count():
    source = "def step(a, b):\n    return (\n        a  # + or -\n        + b\n    )\n"
    found = [m for m in mutants(source, "f.py") if m.kind == "operator"]
    assert [m.source.splitlines()[3].strip() for m in found] == ["- b", "* b"]


def test_unicode_and_several_lines():
    source = 'def step(θ, ω):\n    größe = "°" if θ else "π"; x = θ * (\n        ω + 1\n    )\n    return x, größe\n'
    found = mutants(source, "f.py")
    assert all(m.original == source for m in found)
    assert "x = θ / (" in next(m for m in found if m.before == "*").source
    assert next(m for m in found if m.before == "1" and m.after == "2").source.splitlines()[2] == "        ω + 2"


def test_parentheses_where_they_are_needed():
    found = mutants("def f(a, b, c):\n    return a * (b + c) - a % c\n", "f.py")
    texts = {m.source.splitlines()[1].strip() for m in found if m.kind == "drop"}
    assert {"return b + c - a % c", "return a - a % c", "return a * (b + c)", "return -(a % c)"} < texts
    assert {"return a * (b) - a % c", "return a * (c) - a % c"} < texts
    powers = {m.after for m in mutants("def f(x):\n    return x**2\n", "f.py") if m.before == "2"}
    assert powers == {"3", "1"}
    negative = {m.source.splitlines()[1].strip() for m in mutants("def f(x):\n    return 2.0**x\n", "f.py")}
    assert "return (-2.0)**x" in negative


def test_neighbouring_statements_are_exchanged_only_where_names_stay_defined():
    source = textwrap.dedent("""
        def step(x, v):
            v = v + 1
            x = x + v
            y = x
            return y
    """)
    swaps = [m for m in mutants(source, "f.py") if m.kind == "statement" and "\n" in m.before]
    assert [m.before.split()[0] for m in swaps] == ["v", "x"]
    assert "    x = x + v\n    v = v + 1\n" in swaps[0].source


def test_functions_can_be_left_out():
    found = mutants(SOURCE, "cart.py", only=lambda name: name != "Cart.step")
    assert {m.kind for m in found} == {"config"}
    assert all(m.function == "" for m in found)


def test_topics():
    found = mutants(SOURCE, "cart.py")
    topics = {(m.line, m.kind): m.topic for m in found}
    line = {text.strip().split(" ")[0]: i for i, text in enumerate(SOURCE.splitlines(), 1)}
    assert topics[line["dt:"], "config"] == "config"
    assert topics[line["max_steps:"], "config"] == "time/termination"
    assert topics[line["terminated"], "comparison"] == "time/termination"
    assert topics[line["seen"], "order"] == "observation"
    assert topics[line["noise"], "key"] == "stochastic"
    assert topics[line["speed"], "operator"] == "dynamics"


def test_gymnax():
    gymnax = pytest.importorskip("gymnax")
    del gymnax
    from gymnax.environments.classic_control import cartpole

    source = open(cartpole.__file__).read()
    found = mutants(source, cartpole.__file__)
    assert len(found) > 300
    assert all(m.original == source and ast.parse(m.source) for m in found)
    assert len({m.id for m in found}) == len(found)
