"""The line to blame in small functions: vectors made of others, elements of lists, what is returned, and where nothing
explains the difference."""

from __future__ import annotations

import inspect
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import case_of, line_of

from pytest_envequiv.levels import blaming
from pytest_envequiv.whitebox import sources
from pytest_envequiv.whitebox.blame import trial as trials
from pytest_envequiv.whitebox.blame.arguments import handed
from pytest_envequiv.whitebox.blame.ranking import blame
from pytest_envequiv.whitebox.blame.suspects import Suspect
from pytest_envequiv.whitebox.blame.trial import Trial
from pytest_envequiv.whitebox.jaxprs import Site, Traced
from pytest_envequiv.whitebox.sources import operand_place


def slope(y, mass):
    return jnp.stack([y[:, 1], -mass * jnp.sin(y[:, 0])], 1)


def heun(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x + length * k1, mass)
    return x + length * (k1 + 3 * k2)


def heun_of_one(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x + length * k1, mass)  # noqa: F841 -- that is the slip
    return x + length * (k1 + 3 * k1)


def heun_from_the_start(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x, mass)
    return x + length * (k1 + 3 * k2)


def heun_without_slope(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x + length, mass)
    return x + length * (k1 + 3 * k2)


def heun_of_slopes(x, length, mass, force):
    k1 = slope(x, mass)
    k2 = slope(x + length * k1, mass)
    return length * (k1 + 3 * k2)


VECTORS = {
    "what it was before": (heun_of_slopes, "return"),
    "another vector": (heun_of_one, "return"),
    "a factor is missing": (heun_without_slope, "k2 = "),
    "what a call is handed": (heun_from_the_start, "k2 = "),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_a_vector_made_of_others(kind):
    wrong, text = VECTORS[kind]
    found = blame(case_of(wrong, heun), {}, {})
    assert found[0].score > 0.9 and found[0].site.line == line_of(wrong, text), found[:3]


def test_a_call_that_is_handed_the_right_thing_is_not_named():
    trial = Trial(case_of(lambda *given: heun(*given) + 0.5, heun))
    assert trial.diverging.any() and not [why for _, why, _, values in handed(trial) if trial.explains(values)]


def low(x, length, mass, force):
    a, b = x[:, 0], x[:, 1]
    high = jnp.cos(mass * a) + jnp.cos(a + b)
    return (high > length) & (b < 0.9)


def low_but_for_one(x, length, mass, force):
    a, b = x[:, 0], x[:, 1]
    high = jnp.cos(mass * a) + jnp.cos(a)
    return (high > length) & (b < 0.9)


def test_what_a_flag_lacks_inside_of_a_function():
    found = blame(case_of(low_but_for_one, low), {}, {})
    line = line_of(low_but_for_one, "high = ")
    assert [(s.site.line, "its operand plus" in s.why) for s in found[:1]] == [(line, True)], found[:3]


def computed_twice(x, length, mass, force):
    there = low(x, length, mass, force)
    return there, low_but_for_one(x, length, mass, force)


def test_what_is_computed_once_more_and_otherwise():
    one = case_of(low_but_for_one, low)
    traced = jax.make_jaxpr(computed_twice)(*one.arguments)
    expected = np.asarray(computed_twice(*one.arguments)[0]).reshape(-1, 1)
    case = replace(
        one,
        traced=Traced(traced, one.traced.inputs, ("there", "again"), {}),
        expected={"there": expected, "again": expected},
        tolerance={name: np.zeros(expected.shape) for name in ("there", "again")},
        counts={name: np.ones(len(expected), bool) for name in ("there", "again")},
        wrong=frozenset({"again"}),
        root=frozenset({"again"}),
    )
    named = Site(inspect.getsourcefile(computed_twice), line_of(computed_twice, "return"), 0)
    found = blame(case, {}, {"again": [named]})
    assert found[0].site == named
    assert line_of(low_but_for_one, "high = ") in [s.site.line for s in found[1:4]], found[:5]


CHOSEN = """y = lax.switch(
    jnp.asarray(speed, jnp.int32),
    (left, right),
    x,
)
z = jnp.clip(
    x,
    low,
    high,
)
"""


def test_where_an_operand_stands(tmp_path):
    (tmp_path / "port.py").write_text(CHOSEN)
    switch = Site(str(tmp_path / "port.py"), 1, 5, 4, 1, "step")
    for number, count in ((0, 1), (1, 3), (0, 4)):  # converted, clamped, and what it is chosen by
        assert operand_place(switch, number, count, chosen=False).line == 2
    assert operand_place(switch, 1, 3, chosen=True) == switch
    clip = Site(str(tmp_path / "port.py"), 6, 10, 4, 1, "step")
    assert [operand_place(clip, n, 3, chosen=False).line for n in range(3)] == [7, 8, 9]


def listed(x, length, mass, force):
    return jnp.stack(
        [
            jnp.sin(x[:, 0]),
            x[:, 1],
            jnp.cos(x[:, 0]),
        ],
        1,
    )


def listed_otherwise(x, length, mass, force):
    return jnp.stack(
        [
            x[:, 1],
            jnp.sin(x[:, 0]),
            jnp.cos(x[:, 0]),
        ],
        1,
    )


def listed_as_it_is(x, length, mass, force):
    def shown(first, second):
        return jnp.array(
            [
                first,
                second,
                jnp.cos(first),
            ]
        )

    return jax.vmap(shown)(x[:, 0], x[:, 1])


def test_elements_that_are_exchanged_are_found_on_their_own_lines():
    found = blame(case_of(listed_otherwise, listed), {}, {})
    lines = {line_of(listed_otherwise, text) for text in ("x[:, 1],", "jnp.sin(")}
    assert {s.site.line for s in found[:2]} == lines, found[:3]


def test_an_element_that_should_have_been_a_function_of_itself():
    found = blame(case_of(listed_as_it_is, listed), {}, {})
    assert found[0].why == "sin of it is right" and found[0].site.line == line_of(listed_as_it_is, "    first,"), found[
        :3
    ]


def ended(x, length, mass, force):
    reward = x[:, 0] * force
    over = x[:, 1] > length
    return jnp.where(over, 1.0, 0.0), reward


def ended_otherwise(x, length, mass, force):
    reward = x[:, 0] * force
    over = x[:, 1] > length
    jnp.where(over, 1.0, 0.0)
    return reward


def test_what_is_returned_in_the_place_of_what_was_computed():
    case = case_of(ended_otherwise, lambda *given: ended(*given)[0])
    named, returned = Site(__file__, 1), Site(__file__, 2)
    unnamed = blame(case, {}, {"": [returned]})
    assert unnamed[0].site.line == 2 and unnamed[0].score > 0.9 and "what line" in unnamed[0].why, unnamed[:3]

    # A field of the state that is given its name somewhere is not returned under another.
    found = blame(case, {}, {"state.y": [named], "": [returned]})
    assert found[0].site.line == 1 and found[0].score > 0.9 and "what line" in found[0].why, found[:3]
    assert not [s for s in found if s.site.line == 2 and s.score > 0.9], found[:3]


def never(x, length, mass, force):
    return 0.0 * x[:, 0]


def test_where_always_the_same_is_right_what_is_returned_is_named_in_order():
    places = [Site(__file__, line) for line in (9, 4, 3)]
    found = blame(case_of(ended_otherwise, never), {}, {"state.y": places[:1], "": places[1:]})
    lines = [s.site.line for s in found if s.why == "it is computed, and always the same is right"]
    assert lines == [9, 4, 3], found


def is_over(x):
    return jnp.array(False)


def test_what_a_function_of_that_name_returns_is_where_it_gets_its_name():
    found = sources.named_places([__file__], set(), {"over"})
    assert line_of(is_over, "return") in {place.line for place in found}
    assert not sources.named_places([__file__], set(), {"overs"})


def long(x, length, mass, force):
    a = x[:, 0] + mass
    b = a * x[:, 1] - length * a + force / a - a * a * x[:, 0]
    return b - 0.5


def test_where_nothing_explains_the_line_with_the_most_on_it_comes_first(monkeypatch):
    monkeypatch.setattr(trials, "MOST_WORK", 0)
    found = blame(case_of(lambda *given: long(*given) + 1.0, long), {}, {})
    assert found[0].site.line == line_of(long, "b = a") and found[0].score <= 0.1, found[:3]


def folded(x, length, mass, force):
    return jnp.where(
        x > length,
        (3.0 - 1.0) / 4.0,
        jnp.sin(x),
    )


def test_lines_of_an_expression_on_which_nothing_is_left_to_run_are_named_after_it():
    traced = case_of(folded, folded).traced
    first = line_of(folded, "jnp.where")
    site = Site(__file__, first, first + 4)
    lines = [s.site.line for s in blaming._with_idle([Suspect(0.95, site, "why")], traced)]
    assert lines == [first, first + 2], lines
    assert blaming._with_idle([Suspect(0.1, site, "why")], traced) == [Suspect(0.1, site, "why")]


def test_a_kind_that_fails_loses_nothing_that_others_find(monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("of its own")
        yield

    monkeypatch.setattr("pytest_envequiv.whitebox.blame.ranking._settings", fails)
    found = blame(case_of(heun_of_one, heun), {}, {})
    assert found[0].score > 0.9 and found[0].site.line == line_of(heun_of_one, "return"), found[:3]
