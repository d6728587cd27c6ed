"""A jaxpr laid flat runs as JAX runs it: every primitive it runs by itself, calls, branches, loops and draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.whitebox import program
from pytest_envequiv.whitebox.draws import labelled
from pytest_envequiv.whitebox.program import flat, read

pytest.importorskip("gymnax")
ROWS = 32
RNG = {
    "f": lambda rng: rng.normal(0, 3, (ROWS, 4)).astype(np.float32),
    "u": lambda rng: rng.uniform(-0.99, 0.99, (ROWS, 4)).astype(np.float32),
    "p": lambda rng: rng.uniform(0.1, 3, (ROWS, 4)).astype(np.float32),
    "i": lambda rng: rng.integers(-7, 8, (ROWS, 4), dtype=np.int32),
    "n": lambda rng: rng.integers(0, 9, (ROWS, 4), dtype=np.uint32),
    "b": lambda rng: rng.random((ROWS, 4)) < 0.5,
    "s": lambda rng: rng.normal(0, 3, ROWS).astype(np.float32),
    "w": lambda rng: rng.integers(-1, 4, ROWS, dtype=np.int32),
}


def same(function, *arguments, draws=()):
    """The program of ``function``, after its outputs were compared with JAX's."""
    found = flat(jax.make_jaxpr(function)(*arguments))
    values = found.run(arguments, draws)
    for atom, expected in zip(found.outputs, jax.tree.leaves(jax.jit(function)(*arguments)), strict=True):
        actual, expected = np.asarray(read(values, atom)), np.asarray(expected)
        assert actual.dtype == expected.dtype and actual.shape == expected.shape
        np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol=2e-6, atol=2e-6)
    return found


ALONE = {
    "f": "neg abs sign floor ceil sin cos tan sinh cosh tanh exp expm1 is_finite square stop_gradient",
    "u": "asin acos atan log1p",
    "p": "log sqrt",
    "i": "neg abs sign not",
    "n": "not",
    "b": "not",
    "ff": "add sub mul div rem max min atan2 lt le gt ge eq ne",
    "pf": "pow",
    "ii": "add sub mul div rem max min lt le gt ge eq ne and or xor",
    "nn": "add sub mul div rem max min and or xor",
    "bb": "and or xor eq ne max min",
}
NAMES = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "not": "bitwise_not"}
REDUCE = ("sum", "max", "min", "prod", "all", "any")

# Name -> (kinds of the arguments, a function of one row).
CASES = {
    f"{name} {kinds}": (kinds, getattr(lax, NAMES.get(name, name)))
    for kinds, names in ALONE.items()
    for name in names.split()
}
CASES |= {f"reduce {name} {kind}": (kind, getattr(jnp, name)) for name in REDUCE for kind in "fib"}
CASES |= {
    "bits reduced": ("i", lambda x: (jnp.bitwise_and.reduce(x), jnp.bitwise_or.reduce(x))),
    "integer powers": ("f", lambda x: (x**3, (x + 20) ** -2)),
    "integer powers of integers": ("i", lambda x: x**3),
    "cast": ("f", lambda x: (x.astype(int), x.astype(jnp.float16), x.astype(bool), (x > 0).astype(float))),
    "cast what does not fit": ("f", lambda x: (x * 1e9).astype(jnp.int32)),
    "cast what is no number": (
        "f",
        lambda x: jnp.array([jnp.nan, jnp.inf, -jnp.inf]).astype(int) + 0 * x[0].astype(int),
    ),
    "low precision": ("fp", lambda x, y: x.astype(jnp.bfloat16) / y.astype(jnp.bfloat16)),
    "reduced precision": ("f", lambda x: lax.reduce_precision(x, 5, 7)),
    "divided by nothing": ("i", lambda x: (lax.div(x, 0 * x), lax.rem(x, 0 * x), x // 3, x % -3)),
    "floor of division": ("ff", lambda x, y: (x // y, x % y, jnp.mod(x, 2 * jnp.pi))),
    "clip": ("f", lambda x: (jnp.clip(x, -1, 1), lax.clamp(-1.0, x, 1.0), lax.clamp(x - 1, x * 2, x + 1))),
    "where": ("bff", lambda b, x, y: jnp.where(b, x, y)),
    "select by number": ("iff", lambda i, x, y: lax.select_n(i % 3, x, y, x + y)),
    "select of arrays by one": ("sff", lambda s, x, y: lax.select_n(s > 0, x, y)),
    "moved": (
        "f",
        lambda x: (
            x[::-1],
            x[1:3],
            x[::2],
            x.reshape(2, 2).T,
            x[None, :, None],
            jnp.concatenate([x, x + 1]),
            jnp.stack([x, x]).squeeze(),
            jnp.split(x, [1, 3]),
            jnp.unstack(x.reshape(2, 2), axis=1),
            jnp.stack([x, x], 1),
            jnp.tile(x, (2, 3)),
            lax.pad(x, 9.0, [(1, 0, 2)]),
            lax.pad(x, 9.0, [(-1, 2, 0)]),
            jnp.broadcast_to(x, (3, 4)),
        ),
    ),
    "looked up": ("fw", lambda x, w: (x[w], x.at[w].set(0.0), x.at[w].add(1.0), lax.dynamic_slice(x, (w,), (2,)))),
    "updated": ("fw", lambda x, w: lax.dynamic_update_slice(x, x[:1] + 9, (w,))),
    "arg, sort, cumulative": ("f", lambda x: (x.argmax(), x.argmin(), jnp.sort(x), x.argsort(), x.cumsum())),
    "matrix": ("ff", lambda x, y: (x @ y, jnp.outer(x, y).sum(0))),
    "constants": ("f", lambda x: (x + jnp.arange(4.0), jnp.eye(4) @ x, jnp.ones(3), x)),
    "barrier": ("ff", lambda x, y: lax.optimization_barrier((x, y))),
    "jit": ("f", lambda x: jax.jit(lambda y: jax.jit(jnp.sin)(y) + 1)(x)),
    "checkpoint": ("f", jax.checkpoint(lambda x: jnp.sin(x) * x)),
    "vmap": ("ff", jax.vmap(lambda x, y: jnp.where(x > y, x - y, 0.0))),
    "custom_jvp": ("f", lambda x: (jax.nn.relu(x), jax.nn.silu(x))),
    "cond": ("sf", lambda s, x: lax.cond(s > 0, lambda v: v * s, lambda v: jnp.cos(v), x)),
    "switch": ("wf", lambda w, x: lax.switch(w, [lambda v: v, lambda v: -v, lambda v: v + w], x)),
    "nested branches": (
        "swf",
        lambda s, w, x: lax.cond(
            s > 0, lambda v: lax.switch(w, [jnp.sin, jnp.cos, jax.jit(jnp.tanh)], v), lambda v: v + 1, x
        ),
    ),
    "scan": ("sf", lambda s, x: lax.scan(lambda c, e: (c * 0.5 + e, c + s), s, x)),
    "scan backwards": ("f", lambda x: lax.scan(lambda c, e: (c + e, c), 0.0, x, reverse=True)),
    "while": ("s", lambda s: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 2, c[1] * 0.5), (s, s))),
    "fori_loop": ("f", lambda x: lax.fori_loop(0, 3, lambda k, v: jnp.where(v > k, v - 1, v + k), x)),
    "a branch of keys": (
        "w",
        lambda w: jax.random.uniform(lax.cond(w > 0, lambda: jax.random.key(1), lambda: jax.random.key(w)), (2,)),
    ),
    "a message": ("f", lambda x: (jax.debug.print("{}", x), x + 1)[1]),
    "draws": ("w", lambda w: jax.random.normal(jax.random.split(jax.random.PRNGKey(w))[0], (3,))),
}


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (halved(x), x), lambda x, g: (g,))
CASES["custom_vjp"] = ("f", halved)


def arguments(kinds):
    rng = np.random.default_rng(len(kinds))
    return [RNG[kind](rng) for kind in kinds]


@pytest.mark.parametrize("name", CASES)
def test_runs_as_in_jax(name):
    kinds, function = CASES[name]
    given = arguments(kinds)
    same(jax.vmap(function), *given)
    for row in (3,):
        same(function, *(g[row] for g in given))


def test_the_turns_of_a_loop_are_laid_out_where_they_are_few_and_draw_nothing():
    def turned(turns, drawn=False):
        def turn(carry, row):
            more = jax.random.uniform(jax.random.PRNGKey(0)) if drawn else 0.0
            return lax.scan(lambda c, r: (c + r, c), carry + more, jnp.stack([row, 2 * row]))

        return same(lambda x: lax.scan(turn, 0.0, jnp.resize(x, turns)), jnp.arange(4.0)).ops

    few = turned(3)
    assert not {op.name for op in few} & {"scan", "while"} and sum(op.name == "add" for op in few) == 3 * (1 + 2)
    assert any(op.site.function.endswith("turn") for op in few if op.name == "add")
    for more in (turned(program.MOST_UNROLLED), turned(3, drawn=True)):
        assert [op.name for op in more if op.name == "scan"] == ["scan"]
    same(lambda x: lax.scan(lambda c, r: (c + r, c), x[0], x[:0]), jnp.arange(4.0))  # no turn at all


def test_every_primitive_that_is_run_in_numpy_is_tried():
    met = set()
    for kinds, function in CASES.values():
        met |= {op.name for op in flat(jax.make_jaxpr(jax.vmap(function))(*arguments(kinds))).ops}
    unheard = {"add_any", "copy", "copy_p", "expand_dims"}  # of derivatives, and of other versions of JAX
    known = program.ELEMENTWISE.keys() | program.LOGICAL.keys() | program.REDUCTIONS.keys() | program.STRUCTURAL
    assert known - met <= unheard


# -- draws -----------------------------------------------------------------------------------------------------------


def gamble(seed, x):
    keys = jax.random.split(jax.random.PRNGKey(seed), 5)
    return {
        "normal": jax.random.normal(keys[0], (3,)) * x,
        "uniform": jax.random.uniform(keys[1], minval=-1, maxval=x.sum()),
        "integers": jax.random.randint(keys[2], (2,), 0, 9),
        "coins": jax.random.bernoulli(keys[3], x[0], (3,)) | jax.random.bernoulli(keys[3], 0.3),
        "shuffled": jax.random.permutation(keys[4], 4),
    }


def test_draws_that_are_given_take_the_place_of_its_own():
    rng = np.random.default_rng(3)
    known = labelled(gamble, np.uint32(0), np.zeros(3, np.float32))
    seeds, x = np.arange(ROWS, dtype=np.uint32), rng.random((ROWS, 3), np.float32)
    made = [m[0] for m in jax.vmap(known.record)(seeds, x)[1]]
    values = [
        rng.random(np.shape(m), np.float32) if label.kind == "bernoulli" else np.asarray(m)[::-1]
        for label, m in zip(known.labels, made, strict=True)
    ]
    expected = jax.vmap(lambda seed, x, *values: known.play(values, seed, x))(seeds, x, *values)
    batch, single = flat(jax.make_jaxpr(jax.vmap(gamble))(seeds, x)), flat(jax.make_jaxpr(gamble)(seeds[0], x[0]))
    found = batch.run([seeds, x], values)
    alone = single.run([seeds[5], x[5]], [v[5] for v in values])
    for many, one, goal in zip(batch.outputs, single.outputs, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(read(found, many), goal, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(read(alone, one), goal[5], rtol=1e-6, atol=1e-6)
    assert [op.kind for op in batch.ops if op.name == "draw"] == [label.kind for label in known.labels]


# -- whole steps -----------------------------------------------------------------------------------------------------

STEPS = ["ports.drift:port?wind=0.01&slip=0.1&gust=0.5", "ports.maze:port", "ports.stones:port"]
STEPS += [f"gymnax:{name}-v1" for name in ("CartPole", "Pendulum", "Acrobot")]


@pytest.mark.parametrize("name", STEPS)
def test_a_batch_of_steps(name):
    backend = open_backend(name, {})
    seeds = np.arange(ROWS, dtype=np.uint32)
    begun = backend.reset(seeds)
    rng = np.random.default_rng(2)
    action = {k: rng.uniform(s.low, s.high, (ROWS, *s.shape)).astype(s.dtype) for k, s in backend.spec.action.items()}
    after = backend.step(begun.state, action, seeds)
    expected = {f"state.{n}": v for n, v in after.state.fields.items()} | after.outputs
    given = {f"state.{n}": v for n, v in begun.state.fields.items()} | {f"action.{n}": v for n, v in action.items()}
    traced = backend.traced("step", ROWS)
    given |= {"seed": seeds} | {f"constants.{n}": v for n, v in traced.constants.items()}
    arguments = [
        np.asarray(given[n], var.aval.dtype) for n, var in zip(traced.inputs, traced.closed.jaxpr.invars, strict=True)
    ]
    whole = flat(traced.closed)
    values = whole.run(arguments)
    assert len(traced.outputs) > 4
    for output, atom in zip(traced.outputs, whole.outputs, strict=True):
        np.testing.assert_allclose(
            np.asarray(read(values, atom), float), expected[output].astype(float), rtol=1e-5, atol=2e-6, err_msg=output
        )
