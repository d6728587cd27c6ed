"""The process backend against small programs that behave, and against programs that fail in every way we know."""

from __future__ import annotations

import math
from pathlib import Path

import msgpack
import numpy as np
import pytest
from processes import action, equal

from pytest_envequiv.backends import process
from pytest_envequiv.backends.protocol import Backend, Leaf, State
from pytest_envequiv.backends.wire import DTYPES, pack, unpack

ROOT = Path(__file__).resolve().parent.parent
JAVASCRIPT = ROOT / "examples" / "javascript"

# Arrays on the wire.


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_packed_arrays_are_exact(dtype):
    array = np.frombuffer(np.random.default_rng(0).bytes(96), np.uint8 if dtype == "bool" else dtype)[:12]
    array = (array % 2).astype(bool) if dtype == "bool" else array
    for shape in ((12,), (3, 4), (2, 0)):
        sent = array[: math.prod(shape)].reshape(shape)
        back = unpack(msgpack.unpackb(msgpack.packb(pack(sent))))
        assert (back.dtype, back.shape, back.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
        assert back.flags.writeable


def test_packing_ignores_memory_order_and_endianness():
    array = np.arange(6.0).reshape(2, 3).T.astype(">f8")
    assert unpack(pack(array)).tolist() == array.tolist()
    with pytest.raises(TypeError, match="arrays of object cannot be sent"):
        pack(np.array([None]))


@pytest.mark.parametrize(
    ("wire", "dtype", "message"),
    [
        ([0.5], "int64", "holds 0.5, which is not int64"),
        ([float("nan")], "int32", "holds nan, which is not int32"),
        ([300], "uint8", "holds 300, which is not uint8"),
        ([2], "bool", "holds 2, which is not bool"),
        ([[1, 2], [3]], "int64", "is a list whose rows differ in length"),
        (["a"], "float64", "is not numbers but \"['a']\""),
        ({"dtype": "float64", "shape": [1]}, None, "is a map of ['dtype', 'shape'] instead of"),
        ({"dtype": "f8", "shape": [1], "data": bytes(8)}, None, "has the unknown dtype 'f8'"),
        ({"dtype": "float64", "shape": [2], "data": bytes(8)}, None, "has 8 bytes of data, expected 16 bytes for"),
    ],
)
def test_what_is_not_an_array_is_said(wire, dtype, message):
    with pytest.raises(ValueError) as caught:
        unpack(wire, dtype)
    assert message in str(caught.value)


# A program that behaves.


def test_hello_becomes_the_spec(opened, program):
    backend = opened(
        program(
            """
            HELLO |= {"time_limit": 7, "seats": 1, "constants": {"g": 9.8, "legs": [1, 2]}, "notes": ["hi"],
                      "conventions": {"done": "merged"}, "versions": {"toy": "3"}}
            HELLO["observation"] = {"observation.a": HELLO["observation"],
                                    "observation.b": {"kind": "box", "shape": [2], "dtype": "float32", "low": [0, 1],
                                                      "high": [2, 3]}}
            """
        )
    )
    spec = backend.spec
    assert isinstance(backend, Backend)
    assert (spec.name, spec.kind, spec.state, spec.draws, spec.time_limit, spec.seats, spec.batched) == (
        ("counter", "process", "fields", "seed", 7, 1, True)
    )
    assert str(spec.action["action"]) == "Discrete(-9..9, shape=(), int64)"
    assert not spec.observation["observation.a"].bounded
    low = spec.observation["observation.b"].low
    assert (low.dtype, low.tolist()) == (np.float32, [0, 1])
    assert spec.fields["x"] == Leaf((), "int64")
    assert spec.constants["g"] == 9.8 and spec.constants["legs"].tolist() == [1, 2]
    assert (spec.notes, spec.conventions, spec.versions) == (("hi",), {"done": "merged"}, {"toy": "3"})
    assert process.claim(object()) is None


def test_reset_and_step_are_exact_and_batched(opened, program):
    backend = opened(program())
    first = backend.reset(np.array([1, 2, 10]))
    assert first.state.fields["x"].dtype == np.int64 and first.draws is None and first.state.hidden is None
    assert first.outputs["observation"][:, 1].tolist() == [1 / 3, 2 / 3, 10 / 3]
    then = backend.step(first.state, action(1, -5, 0), np.zeros(3, int))
    assert then.state.fields["x"].tolist() == [2, -3, 10]
    assert then.outputs["reward"].dtype == np.float64 and then.outputs["reward"].tolist() == [-2.0, 3.0, -10.0]
    assert then.outputs["terminated"].dtype == bool and then.done.tolist() == [False, False, True]
    edited = backend.step(
        first.state.take([2, 0, 0]).edited(x=np.array([4, 5, 2**53 + 1])), action(0, 1, 2), np.zeros(3)
    )
    assert edited.state.fields["x"].tolist() == [4, 6, 2**53 + 3]
    assert backend.reset(np.zeros(0, int)).outputs["observation"].shape == (0, 2)


def test_packed_arrays_both_ways_and_other_outputs(opened, program):
    backend = opened(
        program(
            """
            import numpy as np
            del HELLO["arrays"]
            def pack(a):
                return {"dtype": a.dtype.name, "shape": list(a.shape), "data": a.tobytes()}
            def reset(q):
                assert q["seeds"]["dtype"] == "int64" and q["seeds"]["shape"] == [2]
                x = np.frombuffer(q["seeds"]["data"], "<i8")
                return {"state": {"x": pack(x)}, "outputs": {"observation": pack(np.full((2, 2), 0.1, "float32")),
                        "mask": [[True, False]] * 2, "agent": [0, 1], "final_observation": [[1.5], [2.5]]}}
            """
        )
    )
    outputs = backend.reset(np.array([5, 6])).outputs
    assert outputs["observation"].dtype == np.float32  # what was sent, not what was declared: for the judge to see
    assert outputs["mask"].tolist() == [[True, False]] * 2 and outputs["agent"].tolist() == [0, 1]
    assert outputs["final_observation"].tolist() == [[1.5], [2.5]]


def test_nan_and_infinity_pass_through(opened, program):
    backend = opened(
        program(
            """
            def reset(q):
                return {"state": {"x": [0]}, "outputs": {"observation": [[float("nan"), float("-inf")]]}}
            """
        )
    )
    assert str(backend.reset(np.array([0])).outputs["observation"].tolist()) == "[[nan, -inf]]"


def test_rewards_of_several_seats(opened, program):
    body = """
        HELLO["seats"] = 2
        one = step
        def step(q):
            answer = one(q)
            answer["outputs"]["reward"] = [[r, -r] for r in answer["outputs"]["reward"]]
            answer["outputs"]["done"] = answer["outputs"].pop("terminated")
            return answer
    """
    backend = opened(program(body))
    then = backend.step(backend.reset(np.array([6, 2])).state, action(0, 0), np.zeros(2, int))
    assert then.outputs["reward"].tolist() == [[-6, 6], [-2, 2]] and then.done.tolist() == [True, False]


def test_a_tape_is_recorded_and_replayed(opened, program):
    backend = opened(
        program(
            """
            import random
            HELLO["draws"] = "tape"
            def reset(q):
                xs = q["tape"][0]["value"] if "tape" in q else [random.Random(s).randrange(100) for s in q["seeds"]]
                draw = {"kind": "integers", "shape": [], "low": 0, "high": 100, "value": xs, "site": "p.py:7"}
                return {**outcome(xs), "draws": [draw]}
            plain = step
            def step(q):
                return {**plain(q), "draws": []}
            """
        )
    )
    first = backend.reset(np.array([3, 4]))
    (draw,) = first.draws
    assert (draw.kind, draw.shape, draw.site, draw.value.dtype) == ("integers", (), "p.py:7", np.int64)
    assert draw.low.tolist() == [0, 0] and draw.high.tolist() == [100, 100] and draw.present.all()
    equal(first, backend.reset(np.array([3, 4])))
    equal(first.take([1, 0]), backend.reset(np.array([8, 9]), tuple(d.take([1, 0]) for d in first.draws)))
    assert backend.step(first.state, action(0, 0), np.zeros(2, int)).draws == ()


def test_a_program_without_draws_takes_no_tape(opened, program):
    with pytest.raises(ValueError, match="reset: this program takes no tape"):
        opened(program()).reset(np.array([0]), ())


# State "none" and "snapshot".

HOLDS = """
    del HELLO["fields"]
    HELLO["state"] = "none"
    lanes = {}
    def reset(q):
        lanes.update(zip(q["lanes"], q["seeds"]))
        return {"outputs": outcome(q["seeds"])["outputs"]}
    plain = step
    def step(q):
        assert "state" not in q
        answer = plain({**q, "state": {"x": [lanes[lane] for lane in q["lanes"]]}})
        lanes.update(zip(q["lanes"], answer.pop("state")["x"]))
        return answer
"""


def test_a_program_can_hold_its_states(opened, program):
    backend = opened(program(HOLDS))
    one, other = backend.reset(np.array([10, 20, 30])), backend.reset(np.array([40]))
    assert one.state.fields == {} and len(one.state) == 3
    some = backend.step(one.state.take([2, 0]), action(1, 2), np.zeros(2, int))
    assert some.outputs["reward"].tolist() == [-31, -12]
    both = State.join([some.state.take([1]), other.state, one.state.take([1])])
    assert backend.step(both, action(0, 0, 0), np.zeros(3, int)).outputs["reward"].tolist() == [-12, -40, -20]


def test_a_stale_state_is_refused(opened, program):
    backend = opened(program(HOLDS))
    first = backend.reset(np.array([10, 20]))
    backend.step(first.state.take([1]), action(0), np.zeros(1, int))
    with pytest.raises(ValueError, match="row 1 is outcome 1 of lane 1, which is at outcome 2 by now") as caught:
        backend.step(first.state, action(0, 0), np.zeros(2, int))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="one lane in two rows"):
        backend.step(first.state.take([0, 0]), action(0, 0), np.zeros(2, int))
    with pytest.raises(ValueError, match="can only step the states it returned"):
        backend.step(first.state.edited(), action(0, 0), np.zeros(2, int))


def test_lanes_are_bounded_and_grow_with_the_batch():
    lanes = process.Lanes()
    first = lanes.begin(10)
    for _ in range(200):
        latest = lanes.begin(10)
    assert latest["lane"].max() < process.LANES
    with pytest.raises(ValueError, match="by now"):
        lanes.advance(first)
    lanes.advance(latest)
    wide, wider = lanes.begin(5000), lanes.begin(5000)
    assert not set(wide["lane"]) & set(wider["lane"])
    lanes.advance(lanes.advance(wide))


def test_a_snapshot_comes_back_unchanged(opened, program):
    backend = opened(
        program(
            """
            del HELLO["fields"]
            HELLO["state"] = "snapshot"
            def answer(xs, **more):
                return {"hidden": [["x is", x] for x in xs], "outputs": outcome(xs, **more)["outputs"]}
            def reset(q):
                return answer(q["seeds"])
            def step(q):
                xs = [x + 1 for _, x in q["hidden"]]
                return answer(xs, reward=xs, done=[False] * len(xs))
            """
        )
    )
    first = backend.reset(np.array([1, 2, 3]))
    for _ in range(2):
        then = backend.step(first.state.take([2, 2, 0]), action(0, 0, 0), np.zeros(3, int))
        assert then.outputs["reward"].tolist() == [4, 4, 2]
