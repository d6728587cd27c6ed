"""Branch coverage of traced code: which choices are branches, which way they went, and what does not count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pytest_envequiv.whitebox.branches import TIE
from pytest_envequiv.whitebox.coverage import instrumented
from pytest_envequiv.whitebox.draws import keeping, labelled, supplying


def went(function, *rows, draws=None):
    """What each branch of a function of scalars did, over rows: [(primitive, {sides seen}, code)], in order."""
    arrays = [np.asarray(r, np.int32 if np.asarray(r).dtype.kind == "i" else np.float32) for r in rows]
    covered = instrumented(function, *(a[0] for a in arrays))
    result, told = jax.jit(jax.vmap(lambda *args: covered.run(draws, *args)))(*arrays)
    expected = jax.vmap(function)(*arrays)
    assert all(np.allclose(a, b) for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True))
    hits, distances = covered.read(jax.device_get(told))
    assert hits.shape == (len(arrays[0]), len(covered.sides)) and distances.shape[1] == len(covered.comparisons)
    seen = {n: set() for n in range(len(covered.branches))}
    for (number, side), any_row in zip(covered.sides, hits.any(0), strict=True):
        if any_row:
            seen[number].add(side)
    return [(b.primitive, seen[n], b.code) for n, b in enumerate(covered.branches)]


def sides(function, *rows):
    return {primitive: seen for primitive, seen, _ in went(function, *rows)}


# -- each primitive --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, sign, ties",
    [("lt", -1, False), ("le", -1, True), ("gt", 1, False), ("ge", 1, True)],
)
def test_comparisons(name, sign, ties):
    operator = getattr(lax, name)
    assert sides(lambda x: operator(x, 2.0), [2.0 + sign]) == {name: {"true"}}
    assert sides(lambda x: operator(x, 2.0), [2.0 - sign]) == {name: {"false"}}
    assert sides(lambda x: operator(x, 2.0), [2.0]) == {name: {"true" if ties else "false", TIE}}


def test_equality_and_flags():
    assert sides(lambda i: i == 3, [1, 2]) == {"eq": {"false"}}
    assert sides(lambda i: i != 3, [3]) == {"ne": {"false"}}
    both = sides(lambda x: (x > 1) & (x < 3), [0.0, 4.0])
    assert both == {"gt": {"false", "true"}, "lt": {"false", "true"}, "and": {"false"}}
    assert sides(lambda x: jnp.logical_or(x > 1, x < 0), [0.5])["or"] == {"false"}


def test_a_product_of_flags_is_an_and():
    """As gymnax's MountainCarContinuous has it: no select anywhere."""
    assert sides(lambda x, v: v * (1 - (x >= 1) * (v < 0)), [0.0, 2.0], [1.0, 1.0])["and"] == {"false"}


def test_choices_by_value():
    assert sides(lambda x: jnp.where(x > 0, x, -x), [1.0]) == {"gt": {"true"}, "where": {"true"}}
    assert sides(lambda i, x: lax.select_n(i, x, -x, 2 * x), [0, 2], [1.0, 1.0]) == {"select_n": {"case 0", "case 2"}}
    assert sides(lambda x: lax.select(x > 0, x, -x), [-1.0])["select_n"] == {"false"}


def test_clips():
    assert sides(lambda x: lax.clamp(0.0, x, 1.0), [-1.0, 0.0]) == {"clamp": {"below", "inside"}}
    clip = sides(lambda x: jnp.clip(x, 0.0, 1.0), [0.5, 2.0])
    assert clip == {"clip max": {"not below"}, "clip min": {"above", "not above"}}
    assert sides(lambda x: jnp.clip(x, 0.0, 1.0), [0.0])["clip max"] == {TIE}


def test_minimum_and_maximum():
    assert sides(lambda x, y: jnp.minimum(x, y), [1.0, 3.0], [2.0, 2.0]) == {"min": {"first", "second"}}
    assert sides(lambda x, y: jnp.maximum(x, y), [1.0, 2.0], [2.0, 2.0]) == {"max": {"second", TIE}}
    assert sides(lambda x: jax.nn.relu(x), [-1.0]) == {"max": {"second"}}  # custom_jvp


def test_any_element_counts():
    found = sides(lambda x: jnp.where(x + jnp.arange(3.0) > 2, 1, 0), [0.5, 1.5])
    assert found == {"gt": {"false", "true"}, "where": {"false", "true"}}


# -- nested ----------------------------------------------------------------------------------------------------------


def hot(x):
    return jnp.where(x > 10, 0.0, x)


def test_through_calls():
    assert sides(jax.jit(hot), [1.0]) == sides(hot, [1.0]) == {"gt": {"false"}, "where": {"false"}}
    assert sides(jax.checkpoint(hot), [11.0]) == {"gt": {"true"}, "where": {"true"}}
    assert sides(lambda x: jax.vmap(hot)(jnp.stack([x, x + 10])), [1.0])["gt"] == {"false", "true"}

    @jax.custom_vjp
    def custom(x):
        return hot(x)

    custom.defvjp(lambda x: (hot(x), x), lambda x, g: (g,))
    assert sides(custom, [1.0])["where"] == {"false"}


def test_a_branch_that_is_not_taken_exercises_nothing():
    def step(x):
        return lax.cond(x > 0, lambda v: jnp.where(v > 5, 1.0, 2.0), lambda v: jnp.where(v < -5, 3.0, 4.0), x)

    assert went(step, [1.0, 2.0])[0][:2] == ("gt", {"true"})
    assert {code: seen for _, seen, code in went(step, [1.0, 2.0])[1:] if code.startswith("jnp")} == {
        "jnp.where(v > 5, 1.0, 2.0)": {"false"},
        "jnp.where(v < -5, 3.0, 4.0)": set(),
    }
    assert [seen for _, seen, code in went(step, [-9.0]) if code == "v < -5"] == [{"true"}]


def test_distances_of_a_branch_not_taken_are_unknown():
    def step(x):
        return lax.cond(x > 0, lambda v: v > 5, lambda v: v > -5, x)

    covered = instrumented(step, np.float32(0))
    _, told = jax.vmap(lambda x: covered.run(None, x))(np.array([1.0, -2.0], np.float32))
    distances = covered.read(told)[1]
    by_code = {covered.branches[n].code: distances[:, k] for k, n in enumerate(covered.comparisons)}
    assert by_code["x > 0"].tolist() == [1.0, -2.0]
    assert by_code["v > 5"][0] == -4.0 and np.isnan(by_code["v > 5"][1])
    assert np.isnan(by_code["v > -5"][0]) and by_code["v > -5"][1] == 3.0


def test_switch():
    def step(i, x):
        return lax.switch(i, [lambda v: v, lambda v: jnp.abs(v), lambda v: jnp.where(v > 0, v, 1.0)], x)

    assert sides(step, [0, 1], [1.0, 1.0]) == {"cond": {"case 0", "case 1"}, "gt": set(), "where": set()}
    assert sides(step, [2], [1.0]) == {"cond": {"case 2"}, "gt": {"true"}, "where": {"true"}}


def test_loops_remember():
    def scanned(x):
        return lax.scan(lambda c, k: (jnp.where(c > 3, c, c + k), c), x, jnp.arange(4.0))

    assert sides(scanned, [0.0])["gt"] == {"false", TIE}  # 0 1 3: the last turn begins with it
    assert sides(scanned, [1.0])["where"] == {"false", "true"}

    def repeated(x):
        return lax.while_loop(lambda v: v < 10, lambda v: jnp.where(v > 7, v + 5, 2 * v), x)

    assert sides(repeated, [1.0, 11.0]) == {
        "lt": {"false", "true"},
        "gt": {"false", "true"},
        "where": {"false", "true"},
    }
    assert sides(repeated, [11.0]) == {"lt": {"false"}, "gt": set(), "where": set()}
    assert sides(repeated, [5.0])["gt"] == {"false"}
    # Rows of one batch that turn less often than others see no more than they do alone.
    assert sides(repeated, [5.0, 11.0])["gt"] == {"false"}


def test_nested_loops_and_branches():
    def step(x):
        def turn(k, v):
            return lax.cond(
                v > 2, lambda u: lax.fori_loop(0, 2, lambda _, w: jnp.minimum(w, 5.0), u), lambda u: u + k, v
            )

        return lax.fori_loop(0, 3, turn, x)

    assert sides(step, [0.0]) == {"gt": {"false"}, "cond": {"false"}, "min": set()}
    assert sides(step, [9.0])["min"] == {"second", TIE}


# -- what is no branch -----------------------------------------------------------------------------------------------


def test_what_jax_does_within_its_functions_is_no_branch():
    def step(i, x):
        table = jnp.arange(5.0)
        return (
            table[i]
            + table.at[i].set(x)[0]
            + x % 2
            + i // 2
            + jnp.round(x)
            + jnp.argmax(table * x)
            + jnp.interp(x, table, table)
        )

    assert went(step, [1], [0.5]) == []


def test_what_is_known_when_tracing_is_no_branch():
    limits = jnp.arange(3.0)
    assert went(lambda x: jnp.where(limits > 1, x, 0.0), [1.0]) == []
    assert went(lambda x: x * jnp.maximum(2.0, jnp.cos(1.0)), [1.0]) == []


def helper(x):
    return jnp.where(x > 3, x, 0.0)


def test_a_helper_called_twice_is_one_place():
    found = went(lambda x: helper(x) + helper(x + 10), [0.0])
    assert [(p, seen) for p, seen, _ in found] == [("gt", {"false", "true"}), ("where", {"false", "true"})]


def test_the_source_is_shown():
    covered = instrumented(helper, np.float32(0))
    compared = covered.branches[0]
    assert compared.code == "x > 3" and compared.site.file == __file__
    assert compared.site.line == helper.__code__.co_firstlineno + 1


# -- draws -----------------------------------------------------------------------------------------------------------


def slippery(seed, x):
    key = jax.random.PRNGKey(seed)
    return lax.cond(
        x > 0, lambda v: v + jnp.where(jax.random.uniform(key) < 0.5, 1.0, 2.0), lambda v: jnp.where(v < -1, v, 0.0), x
    )


def test_draws_stay_draws():
    seeds, x = np.arange(8, dtype=np.uint32), np.array([1.0, -1.0] * 4, np.float32)
    covered, known = instrumented(slippery, seeds[0], x[0]), labelled(slippery, seeds[0], x[0])
    assert {b.primitive for b in covered.branches} == {"gt", "cond", "lt", "where"}

    def record(seed, x):
        made = []
        return covered.run(keeping(made), seed, x), made

    (result, told), made = jax.vmap(record)(seeds, x)
    plain, drawn = jax.vmap(known.record)(seeds, x)
    assert np.array_equal(result, plain) and np.array_equal(made[0][0], drawn[0][0])

    def play(value, seed, x):
        return covered.run(supplying([value]), seed, x)

    result, told = jax.vmap(play)(np.full(8, 0.1, np.float32), seeds, x)
    hits, _ = covered.read(jax.device_get(told))
    assert result.tolist() == [2.0, 0.0] * 4
    seen = {(covered.branches[n].code, side): hits[:, k].tolist() for k, (n, side) in enumerate(covered.sides)}
    assert seen["jax.random.uniform(key) < 0.5", "true"] == [True, False] * 4
    assert seen["v < -1", "false"] == [False, True] * 4
    assert not any(seen["jax.random.uniform(key) < 0.5", "false"])
