"""What a step computes from what: read from small functions, from known environments, and found by perturbing."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ports import drift, judging

from pytest_envequiv import flow as command
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import ContractError
from pytest_envequiv.report import flowchart
from pytest_envequiv.whitebox import program
from pytest_envequiv.whitebox.dataflow import flow
from pytest_envequiv.whitebox.identity import shown
from pytest_envequiv.whitebox.jaxprs import Traced

pytest.importorskip("gymnax")


def traced(function, *sizes):
    """``function(a, b, ...)`` of float arrays; gives {output: value}. A size of None is a single number."""
    given = [np.zeros((), np.float32) if n is None else np.zeros(n, np.float32) for n in sizes]
    closed, tree = jax.make_jaxpr(function, return_shape=True)(*given)
    return Traced(closed, tuple("abcdef"[: len(sizes)]), tuple(sorted(tree)), {})


def reads(function, *sizes):
    """Output -> the inputs it reads, in a word: "a c"."""
    found = flow(traced(function, *sizes))
    return {name: " ".join(sorted(found.reads[name])) for name in found.outputs}


def apart(function, *sizes):
    """Of the output "y": the inputs each element reads. One entry where all read the same."""
    found = flow(traced(function, *sizes))
    own = found.elements.get("y", {0: found.reads["y"]})
    return [" ".join(sorted(own[i])) for i in sorted(own)]


def decided(a, b, c):
    """A loop whose number of rounds a decides, whose body adds b, and which c only passes through."""
    n, y, z = lax.while_loop(lambda s: s[0] < a, lambda s: (s[0] + 1, s[1] + b, s[2]), (0.0, 0.0, c))
    return {"y": y, "n": n, "z": z}


def fed_back(a, b, c):
    """The second carry reaches the first only after a round, and what is stacked is the first."""

    def turn(carry, x):
        return (carry[0] + carry[1], carry[1] * x), carry[0]

    (first, second), seen = lax.scan(turn, (a, b), c)
    return {"first": first, "second": second, "seen": seen}


READS = {
    "each its own": (lambda a, b: {"x": a + 1, "y": jnp.sin(b), "z": 2.0}, (None, None), {"x": "a", "y": "b", "z": ""}),
    "an input as it is": (lambda a, b: {"x": b, "y": a}, (None, None), {"x": "b", "y": "a"}),
    "through jit": (lambda a, b: {"y": jax.jit(lambda u, v: jax.jit(jnp.sin)(u))(a, b)}, (None, None), {"y": "a"}),
    "what decides, and both branches": (
        lambda a, b, c: {"y": lax.cond(a > 0, lambda: b, lambda: c), "z": jnp.where(b > 0, c, 1.0)},
        (None, None, None),
        {"y": "a b c", "z": "b c"},
    ),
    "each output of a branch by itself": (
        lambda a, b, c: dict(zip("yz", lax.cond(a > 0, lambda: (b, c), lambda: (b + 1, c + 1)), strict=True)),
        (None, None, None),
        {"y": "a b", "z": "a c"},
    ),
    "switch": (
        lambda a, b, c, d: {"y": lax.switch(a.astype(int), [lambda: b, lambda: c, lambda: b + d])},
        (None,) * 4,
        {"y": "a b c d"},
    ),
    "scan": (fed_back, (None, None, 3), {"first": "a b c[0] c[1]", "second": "b c[0] c[1] c[2]", "seen": "a b c[0]"}),
    "while": (decided, (None, None, None), {"y": "a b", "n": "a", "z": "c"}),
    "a loop of known length": (
        lambda a, b: {"y": lax.fori_loop(0, 3, lambda _, s: (s[0] + s[1], s[1]), (a, b))[0]},
        (None, None),
        {"y": "a b"},
    ),
    "vmap": (lambda a, b: {"y": jax.vmap(lambda u, v: u)(a, b)}, (2, 2), {"y": "a[0] a[1]"}),
    "custom_jvp": (lambda a, b: {"x": jax.nn.relu(a), "y": jax.nn.relu(b)}, (None, None), {"x": "a", "y": "b"}),
    "checkpoint": (lambda a, b: {"x": jax.checkpoint(jnp.sin)(a), "y": b}, (None, None), {"x": "a", "y": "b"}),
    "more than are followed apart": (lambda a, b: {"y": a[3]}, (100, None), {"y": "a"}),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_reads(name):
    function, sizes, expected = READS[name]
    assert reads(function, *sizes) == expected


def test_of_a_loop_too_long_to_unroll_every_turn_may_read_every_row(monkeypatch):
    monkeypatch.setattr(program, "MOST_UNROLLED", 0)
    every = "c[0] c[1] c[2]"
    assert reads(fed_back, None, None, 3) == {"first": f"a b {every}", "second": f"b {every}", "seen": f"a b {every}"}


ALL = "a[0] a[1] a[2]"
APART = {
    "an observation of fields": (lambda a, b: {"y": jnp.stack([b, a.sum(), b])}, (2, None), ["b", "a[0] a[1]", "b"]),
    "one by one": (lambda a: {"y": jnp.clip(a * 2, -1, 1)}, (3,), ["a[0]", "a[1]", "a[2]"]),
    "reversed": (lambda a: {"y": a[::-1]}, (3,), ["a[2]", "a[1]", "a[0]"]),
    "rolled": (lambda a: {"y": jnp.roll(a, 1)}, (3,), ["a[2]", "a[0]", "a[1]"]),
    "transposed": (lambda a: {"y": a.reshape(2, 2).T}, (4,), ["a[0]", "a[2]", "a[1]", "a[3]"]),
    "one of them": (lambda a: {"y": a[1]}, (3,), ["a[1]"]),
    "split and joined": (lambda a: {"y": jnp.concatenate(jnp.split(a, 3)[::-1])}, (3,), ["a[2]", "a[1]", "a[0]"]),
    "along one axis": (lambda a: {"y": a.reshape(2, 2).sum(0)}, (4,), ["a[0] a[2]", "a[1] a[3]"]),
    "one decides for all": (lambda a, b: {"y": jnp.where(b > 0, a, -a)}, (2, None), ["a[0] b", "a[1] b"]),
    "rounded to fewer bits": (lambda a: {"y": lax.reduce_precision(a, 5, 7)}, (2,), ["a[0]", "a[1]"]),
    "largest": (lambda a: {"y": a.max()}, (3,), [ALL]),
    "a matrix mixes": (lambda a: {"y": jnp.ones((3, 3)) @ a}, (3,), [ALL]),
    "a sum so far mixes": (lambda a: {"y": jnp.cumsum(a)}, (3,), [ALL]),
    "sorting mixes": (lambda a: {"y": jnp.sort(a)}, (3,), [ALL]),
    "a window mixes": (
        lambda a: {"y": lax.reduce_window(a, -jnp.inf, lax.max, (3,), (1,), "SAME")}, (3,), [ALL],
    ),
    "a filter mixes": (lambda a: {"y": jnp.convolve(a, jnp.ones(3), "same")}, (3,), [ALL]),
    "a lookup": (lambda a, b: {"y": a[b.astype(int)]}, (3, None), [ALL + " b"]),
    "shuffled": (lambda a: {"y": jax.random.permutation(jax.random.PRNGKey(0), a)}, (3,), [ALL + " draw 0"]),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_elements_apart(name):
    function, sizes, expected = APART[name]
    assert apart(function, *sizes) == expected


def test_draws_are_sources():
    def drawn(a, b):
        first, second = jax.random.split(jax.random.PRNGKey(0))
        noise = jax.random.normal(first)
        return {"x": a + noise, "y": b + jax.random.bernoulli(second, a), "z": a}

    found = flow(traced(drawn, None, None))
    assert [found.reads[n] for n in "xyz"] == [{"a", "draw 0"}, {"a", "b", "draw 1"}, {"a"}]
    line = drawn.__code__.co_firstlineno + 2
    assert found.draws == {
        "draw 0": f"normal at test_dataflow.py:{line}",
        "draw 1": f"bernoulli at test_dataflow.py:{line + 1}",
    }
    assert found.inputs == ("a", "b", "draw 0", "draw 1")


# -- outputs among each other ----------------------------------------------------------------------------------------


def cart(a, b, c):
    v = a + 0.1 * c
    x = b + v
    hot = jnp.cos(c)
    return {"1 v": v, "2 x": x, "3 seen": jnp.stack([x, v]), "4 paid": -(x**2) - hot, "5 cost": hot * 2, "6 end": b}


def test_outputs_computed_from_outputs():
    found = flow(traced(cart, None, None, None))
    assert {n[2:]: " ".join(o[2:] for o in sorted(found.shows[n])) for n in found.outputs} == {
        "v": "", "x": "v", "seen": "v x", "paid": "v x", "cost": "", "end": "",
    }  # fmt: skip
    assert found.follows("4 paid", "1 v") and not found.follows("1 v", "4 paid")
    assert {n[2:]: " ".join(o[2:] for o in sorted(found.kin[n])) for n in found.outputs} == {
        "v": "x seen paid", "x": "v seen paid", "seen": "v x paid", "paid": "v x seen cost", "cost": "paid", "end": "",
    }  # fmt: skip
    assert found.meetings("1 v") == [("a", "c")] and found.meetings("5 cost") == []


def test_an_output_that_is_another_follows_the_first():
    found = flow(traced(lambda a: {"1 x": a + 1, "2 y": a + 0}, None))
    assert found.shows == {"1 x": frozenset(), "2 y": frozenset()}
    twice = flow(traced(lambda a: (lambda x: {"1 x": x, "2 y": x.astype(jnp.float16)[None]})(a + 1), None))
    assert twice.shows == {"1 x": frozenset(), "2 y": {"1 x"}}


def test_elements_that_are_one_value():
    def step(a, b):
        x = a + 1
        return {"state.b": b, "state.x": x, "y": jnp.stack([b, x[1], 2 * b, x[0].astype(jnp.int32)])}

    assert shown(traced(step, 2, None)) == {"y": {0: ("b", 0), 1: ("x", 1), 3: ("x", 0)}}


# -- known environments ----------------------------------------------------------------------------------------------


def fields(found, output):
    """What an output reads, without settings and seed."""
    return {n.partition(".")[2] or n for n in found.reads[output] if not n.startswith(("constants", "seed"))}


@pytest.fixture(scope="module")
def cartpole():
    return flow(open_backend("gymnax:CartPole-v1", {}).traced("step"))


def test_cartpole(cartpole):
    assert fields(cartpole, "state.theta") == {"theta", "theta_dot"}
    assert fields(cartpole, "state.theta_dot") == {"theta", "theta_dot", "action"}
    assert fields(cartpole, "reward") == {"x", "theta"}
    assert cartpole.shows["terminated"] == {"state.x", "state.theta"}
    for place, name in enumerate(("x", "x_dot", "theta", "theta_dot")):
        assert cartpole.elements["observation"][place] == cartpole.reads[f"state.{name}"]
    assert ("state.theta", "state.theta_dot") in cartpole.meetings("state.x_dot")
    assert not cartpole.draws


STEPS = ["gymnax:CartPole-v1", "gymnax:MountainCar-v0", "gymnax:Acrobot-v1", "ports.drift:port?wind=0.1&slip=0.1"]
STEPS += ["ports.maze:port", "ports.stones:port"]


@pytest.mark.parametrize("name", STEPS)
def test_the_order_of_mending(name):
    found = flow(open_backend(name, {}).traced("step"))
    place = {output: n for n, output in enumerate(found.order)}
    assert sorted(place) == sorted(found.outputs)
    assert all(place[other] < place[output] for output in found.outputs for other in found.shows[output])
    assert any(found.shows.values()) and not any(found.follows(n, n) for n in found.outputs)


def of_drift(found, names):
    """Output -> fields, in the reference's words."""
    return {
        names.get(output, output): {
            names.get(f"state.{n}", n) for n in {i.partition("[")[0] for i in fields(found, output)}
        }
        for output in found.outputs
    }


WORDS = {"state.x": "position", "state.v": "velocity", "state.heading": "angle", "state.tank": "fuel"}
WORDS |= {"state.time": "_elapsed_steps"}


def test_perturbing_finds_what_the_jaxpr_says():
    """But for what hardly ever decides: a perturbed graph may lack an edge, and never has one too many."""
    read = of_drift(judging.of("drift").bench.flow, WORDS)
    own = {f"state.{n}": n for n in WORDS.values()}
    for judge, names in ((judging.of("vector"), WORDS), (judging.opened(drift.GymnaxDrift(), drift.reference), own)):
        found = of_drift(judge.bench.flow, names)
        assert found.keys() == read.keys() and all(found[output] <= read[output] for output in found)
        missing = {(output, n) for output in found for n in read[output] - found[output]}
        assert missing <= {("terminated", "angle"), ("terminated", "fuel")}
        assert not judge.bench.flow.draws


def test_perturbing_sees_draws():
    windy = judging.opened(drift.GymnaxDrift(wind=0.01), lambda: drift.reference(wind=0.01)).bench.flow
    assert "draw 0" in windy.reads["state.velocity"] and "draw 0" not in windy.reads["state.fuel"]


# -- for people ------------------------------------------------------------------------------------------------------


def test_text_and_charts(cartpole, tmp_path):
    text = flowchart.text(cartpole).splitlines()
    assert text[0].startswith("state.theta <- state.theta, state.theta_dot, constants.tau")
    assert text[text.index(next(t for t in text if t.startswith("terminated"))) + 1] == "  through state.theta, state.x"
    mermaid = flowchart.mermaid(cartpole)
    assert mermaid.startswith("flowchart LR\n") and mermaid.count("==>") == sum(map(len, cartpole.shows.values()))
    assert mermaid.count("-->") == sum(map(len, cartpole.reads.values()))
    assert flowchart.dot(cartpole).startswith("digraph") and '"terminated"' in flowchart.dot(cartpole)
    for ending, head in (("txt", b"state"), ("mmd", b"flow"), ("dot", b"digr"), ("png", b"\x89PNG"), ("svg", b"<?xml")):
        path = tmp_path / f"flow.{ending}"
        flowchart.write(cartpole, str(path))
        assert path.read_bytes().startswith(head)
    with pytest.raises(ContractError, match="written as"):
        flowchart.write(cartpole, "flow.jpg")


def test_draws_are_named():
    noisy = flow(open_backend("ports.drift:port?wind=0.1", {}).traced("step"))
    assert "draw 0 (normal at drift.py:" in flowchart.text(noisy)
    assert noisy.as_json()["draws"]["draw 0"].startswith("normal at drift.py:")


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert command.main(["gymnax:CartPole-v1"]) == 0
    assert "reward <- state.theta, state.x" in capsys.readouterr().out
    assert command.main(["target=ports.drift:Drift", str(tmp_path / "flow.mmd")]) == 0
    assert "flowchart" in (tmp_path / "flow.mmd").read_text()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["gymnax:CartPloe-v1"], "CartPloe"),
        (["no.such.module"], "no.such.module"),
        (["gymnax:CartPole-v1", "flow.jpg"], "flow.jpg"),
        (["gymnax:CartPole-v1", "missing/flow.txt"], "missing/flow.txt"),
        (["ports.maze:snapshot"], "cannot be written"),
        (["ports.drift:port?bug=1&nonsense=2"], "nonsense"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and said in err and err.startswith("envequiv-flow: ")
