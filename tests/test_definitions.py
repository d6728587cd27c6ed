"""Numbers that are set where nothing is traced: found in the text, followed into the program, and blamed."""

from __future__ import annotations

import fnmatch
import textwrap

import jax
import jax.numpy as jnp
import pytest

from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import DIFFERENT, Settings
from pytest_envequiv.whitebox.definitions import changed, definitions, instead, moved, otherwise
from pytest_envequiv.whitebox.program import flat

TEXT = textwrap.dedent('''
    """A text is no number, 3.0 as little."""
    import math
    from typing import NamedTuple
    TWO, THREE = 2.0, 3
    WHOLE = TWO * THREE
    TABLE = (1.0, [2, -3.0], {"a": 4.0})
    NAME = "x"
    PUSHES = np.array([-0.5, 0.75]) * TABLE["a"]
    KEYED = TABLE["a"]
    class Params(NamedTuple):
        g: float = 9.8
        on: bool = True
    class Car:
        power = 0.5
        def __init__(self, limit=10, *, slope: float = 0.25):
            self.höhe = "ü", 1.5
            self.limit = limit
        def step(self, x, wind=0.125):
            y = x * 7.0
            half = math.radians(90.0) / 2
            return y + half
''')
FOUND = {
    "TWO": ["2.0"], "THREE": ["3"], "WHOLE": ["TWO * THREE"], "TABLE": ["1.0", "2", "-3.0"], "a": ["4.0"],
    "PUSHES": ['np.array([-0.5, 0.75]) * TABLE["a"]', "-0.5", "0.75", 'TABLE["a"]'], "KEYED": ['TABLE["a"]'],
    "g": ["9.8"], "on": ["True"], "power": ["0.5"], "limit": ["10", "limit"], "slope": ["0.25"], "höhe": ["1.5"],
    "wind": ["0.125"], "half": ["math.radians(90.0) / 2"],
}  # fmt: skip


def test_what_is_a_definition():
    busy = {n for n, line in enumerate(TEXT.splitlines(), 1) if "7.0" in line or "return" in line}
    found: dict[str, list[str]] = {}
    for d in definitions(TEXT, "f.py", busy):
        found.setdefault(d.name, []).append(TEXT[d.start : d.end])
        assert TEXT.splitlines()[d.place.line - 1].encode()[d.place.column :].startswith(found[d.name][-1].encode())
    assert found == FOUND
    assert definitions("this is no Python", "f.py", set()) == []


@pytest.mark.parametrize(
    ("expression", "value", "old", "new"),
    [
        ("2.0", None, 2.0, 2.03125),
        ("0.0", None, 0.0, 1 / 64),
        ("3", None, 3, 4),
        ("True", None, 1, 0),
        ("2.0", 5.0, 2, 5),
    ],
)
def test_a_definition_is_replaced_while_it_lasts(expression, value, old, new):
    text = f"x = {expression}\n"
    (definition,) = definitions(text, "f.py", set())
    names: dict = {}
    with instead([value]) as seen:
        exec(changed(text, [definition]), names)
    assert names["x"] == new and seen == {0: (old, new)} and type(names["x"]) is type(eval(expression))
    with pytest.raises(NameError):
        exec(changed(text, [definition]), {})


def test_two_definitions_are_replaced_at_once():
    text = "x, y = 2.0, 30.0\n"
    names: dict = {}
    with instead([5.0, None]) as seen:
        exec(changed(text, definitions(text, "f.py", set())[::-1]), names)
    assert (names["x"], names["y"]) == (2.03125, 5.0) and seen == {0: (30.0, 5.0), 1: (2.0, 2.03125)}


def program(gain, table=(1.0, 2.0), reverse=False):
    def step(x):
        parts = (x * gain, x + jnp.array(table).sum() * jnp.cos(x))
        return parts[1] - parts[0] if reverse else parts[0] - parts[1]

    return flat(jax.make_jaxpr(step)(jnp.float32(1)))


def test_what_another_number_moves():
    assert not moved(program(2.0), program(2.0))
    how = moved(program(2.0), program(3.0))
    ((number, slots),) = how.ops.items()
    assert program(2.0).ops[number].name == "mul" and [(float(a), float(b)) for a, b in slots.values()] == [(2, 3)]
    how = moved(program(2.0), program(2.0, (1.0, 3.0)))
    assert how and not how.ops.keys() & {number}
    assert moved(program(2.0), program(2.0, reverse=True)) is None


def test_what_an_expression_would_be_if_it_were_written_otherwise():
    names = {"CART": 1.0, "POLE": 0.25, "np": jnp, "_hidden": 7.0, "TOTAL": 1.25}
    found = otherwise("CART - POLE", names)
    assert {1.25, 0.25, 4.0, 1.0, 0.75 + 1.25, 0.75 * 1.25, 1.25 - 0.25} <= found.keys() and 7.0 not in found
    assert all(eval(text, dict(names)) == value for value, text in found.items())
    assert otherwise("POLE /", names) == {} and otherwise("missing(1) * 2", {}) == {2.0: "2"}


# -- blame -----------------------------------------------------------------------------------------------------------

PORT = textwrap.dedent("""
    import math
    from typing import NamedTuple
    import jax
    import jax.numpy as jnp

    GRAVITY = 9.8
    CART, POLE = 1.0, 0.1
    TOTAL = CART + POLE
    LENGTH = 0.5
    INERTIA = 4 / 3 * POLE * LENGTH**2
    START = 0.05
    BOUNDS = jnp.array([2.4, math.radians(12.0)])
    HORIZON = 500


    class State(NamedTuple):
        body: jax.Array
        clock: jax.Array


    class Pole:
        push = 10.0

        def __init__(self):
            self.tick = 0.02

        def reset(self, key):
            body = jax.random.uniform(
                key,
                (4,),
                minval=-START,
                maxval=START,
            )
            return body, State(body, jnp.int32(0))

        def step(self, key, state, action):
            angle, turn = state.body[2:]
            force = self.push * (2.0 * action - 1.0)
            pull, spin = self.solved(jnp.sin(angle), jnp.cos(angle), turn, force)
            slope = jnp.stack([state.body[1], pull, turn, spin])
            body = state.body + self.tick * slope
            over = (jnp.abs(body[jnp.array([0, 2])]) > BOUNDS).any()
            return body, State(body, state.clock + 1), jnp.float32(1.0), over, state.clock + 1 >= HORIZON, {}

        def solved(self, sin, cos, turn, force, *, scale=1.0):
            arm = POLE * LENGTH * cos
            side = force + POLE * LENGTH * turn**2 * sin
            up = scale * POLE * LENGTH * GRAVITY * sin
            below = TOTAL * INERTIA - arm * arm
            return (INERTIA * side - arm * up) / below, (TOTAL * up - arm * side) / below
""")
# What was written otherwise -> (its line, check, how far down the line may stand).
SLIPS = {
    "a constant": ("GRAVITY = 9.8", "GRAVITY = 10.8", "L2-play-body", 1),
    "one of two": ("CART, POLE = 1.0, 0.1", "CART, POLE = 1.2, 0.1", "L2-play-body", 2),
    "one that others are made of": ("CART, POLE = 1.0, 0.1", "CART, POLE = 1.0, 0.12", "L2-play-body", 1),
    "one that goes in squared": ("LENGTH = 0.5", "LENGTH = 0.6", "L2-play-body", 1),
    "one that goes in squared, twice of it": ("LENGTH = 0.5", "LENGTH = 1.0", "L2-play-body", 1),
    "a term": ("TOTAL = CART + POLE", "TOTAL = POLE", "L2-play-body", 1),
    "a little of an element": ("math.radians(12.0)", "math.radians(12.3)", "L2-boundary-terminated", 2),
    "an operator": ("TOTAL = CART + POLE", "TOTAL = CART - POLE", "L2-play-body", 2),
    "none of it": ("CART, POLE = 1.0, 0.1", "CART, POLE = 1.0, 0.0", "L2-play-body", 2),
    "an operator, and far off": ("4 / 3 * POLE * LENGTH", "4 / 3 / POLE * LENGTH", "L2-play-body", 1),
    "an attribute": ("self.tick = 0.02", "self.tick = 0.05", "L2-play-body", 1),
    "an attribute of the class": ("push = 10.0", "push = -10.0", "L2-play-body", 2),
    "a default": ("scale=1.0", "scale=0.5", "L2-play-body", 3),
    "an element": ("math.radians(12.0)", "math.radians(24.0)", "L2-boundary-terminated", 2),
    "two exchanged": ("CART, POLE = 1.0, 0.1", "CART, POLE = 0.1, 1.0", "L2-play-body", 1),
    "a limit": ("HORIZON = 500", "HORIZON = 450", "L2-limit-truncated", 2),
    "what is drawn from": ("START = 0.05", "START = 0.5", "L1-draws-reset", 1),
    "what a draw is given": ("minval=-START", "minval=START / 2", "L1-draws-reset", 5),
    "what the state is given": (
        "State(body, state.clock + 1), j",
        "State(body, state.clock), j",
        "L2-limit-truncated",
        1,
    ),
}


@pytest.mark.parametrize("kind", SLIPS)
def test_a_number_is_blamed_where_it_is_set(kind, tmp_path, monkeypatch):
    before, after, check, within = SLIPS[kind]
    assert PORT.count(before) == 1
    name = f"defined_{list(SLIPS).index(kind)}"
    text = PORT.replace(before, after)
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    judge = Judge(Settings("gymnasium:CartPole-v1", f"{name}:Pole", output=str(tmp_path)), shrink=False)
    (found,) = (judge.run(c.id) for c in judge.checks if fnmatch.fnmatchcase(c.id, check))
    judge.close()
    assert found.word == DIFFERENT and "blame_failed" not in found.evidence
    line = next(n for n, code in enumerate(text.splitlines(), 1) if after in code)
    assert line in [s["line"] for s in found.evidence["blame"][:within]], found.evidence["blame"]
