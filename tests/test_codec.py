"""Places in objects, and attribute values as array elements and back."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import Mood, Pair, Spot

from pytest_envequiv.backends import discovery
from pytest_envequiv.backends.codec import ABSENT, Codec, Watch, copied, same
from pytest_envequiv.backends.discovery import Item, Part, reader, walk, writer


def test_walking_names_every_place_once():
    holder = SimpleNamespace(a=1)
    here = SimpleNamespace(
        holder=holder,
        again=holder,
        text="x",
        nothing=None,
        grid=[[1, 2]],
        table={"k": 2.5},
        pair=Pair(1.0, 2),
        metadata=7,
    )
    places, generators = walk(SimpleNamespace(env=None, here=here, rng=np.random.default_rng(0)))
    assert set(places) == {"env", "a", "text", "nothing", "grid", "table.k", "pair.x", "pair.t"}
    assert generators == {"rng": ("rng",)}


@pytest.mark.parametrize(
    "path", [("a",), ("b", "c"), ("d", Item("k")), ("e", Item(1)), ("f", Part("x")), ("g", Part(0))]
)
def test_a_place_is_written_where_it_is_read(path):
    root = SimpleNamespace(a=0, b=SimpleNamespace(c=0), d={"k": 0}, e=[0, 0], f=Spot(0, 0), g=(0, "fixed"))
    before = copied(root.e), root.f, root.g
    writer(path)(root, 7)
    assert reader(path)(root) == 7
    assert (root.f.t, root.g[1]) == (0, "fixed")
    assert before[1] == Spot(0, 0), "what cannot be changed is replaced"


def watched(*values):
    watch = Watch()
    for value in values:
        watch.see(value)
    return watch


@pytest.mark.parametrize(
    "values",
    [
        (1.5, 2.5),
        (True, False),
        (np.float32(0.1), np.float32(0.2)),
        (np.array([1, 2], np.int8), np.array([3, 4], np.int8)),
        ([1, 2.5], [3, 0.5]),
        ([[1.0], [2.0]], [[3.0], [4.0]]),
        ((1, np.float32(2)), (3, np.float32(4))),
        (deque([1.0, 2.0], 2), deque([3.0, 4.0], 2)),
        ("red", "green"),
        (["a", "b"], ["b", "a"]),
        (None, 2.0),
        (None, np.array([1.0, 2.0])),
        (Mood.CALM, None),
        (0, 0.37),
        (2**64 - 1, 3),
    ],
    ids=repr,
)
def test_values_come_back_with_their_type(values):
    codec = watched(*values).codec()
    column = codec.encode(list(values))
    for value, back in zip(values, codec.decode(column), strict=True):
        assert type(back) is type(value) and same(back, value), (back, value)
        if isinstance(value, np.ndarray):
            assert back.dtype == value.dtype
        if isinstance(value, deque):
            assert back.maxlen == value.maxlen
    kept = column.copy()
    for back in codec.decode(column):
        if isinstance(back, np.ndarray):
            back += 1
    assert np.array_equal(kept, column, equal_nan=kept.dtype.kind == "f"), "what is decoded is a copy"


@pytest.mark.parametrize(
    "values",
    [([1], [1, 2]), ({1}, {2}), ("red", 1), (1.0, ABSENT), ([], [1]), (2**70, 1)],
    ids=["lists of other lengths", "sets", "text and number", "number and nothing", "empty and not", "too large"],
)
def test_irregular_values_have_no_codec(values):
    watch = watched(*values)
    assert watch.moved and watch.codec() is None


def test_the_type_a_step_leaves_is_preferred_if_it_holds_the_value():
    watch = Watch()
    watch.see(np.array([0.1, 0.2]), stepped=False)
    watch.see(np.array([0.5, 0.25], np.float32))
    codec = watch.codec()
    values = [np.array([0.1, 0.5]), np.array([0.5, 0.5])]
    assert [back.dtype for back in codec.decode(codec.encode(values))] == [np.float64, np.float32]


def test_a_field_that_changes_its_shape_is_an_error():
    codec = watched([1, 2], [3, 4]).codec()
    with pytest.raises(ValueError):
        codec.encode([[1, 2, 3]])


def test_a_text_never_met_before_gets_a_number_of_its_own():
    codec: Codec = watched("red", "green").codec()
    assert codec.encode(["green", "blue", "red"]).tolist() == [0, 2, 1]
    assert codec.decode(np.array([2])) == ["blue"]


def test_not_a_number_is_itself():
    assert same(float("nan"), float("nan")) and same(np.array([np.nan]), np.array([np.nan]))
    assert not same(1.0, "1.0") and not same(None, 0) and not same([1], [1, 2])


def test_the_state_of_a_simulation_is_what_it_cannot_derive():
    class MjData:  # stands for MuJoCo's, which is a C object
        qpos, qvel, act, time = np.zeros(2), np.ones(2), np.zeros(0), 0.5
        qacc_warmstart, mocap_pos, mocap_quat = np.zeros(2), np.zeros((0, 3)), np.zeros((0, 4))
        xpos = np.ones((3, 3))

    places, _ = walk(SimpleNamespace(data=MjData()))
    assert set(places) == {"qpos", "qvel", "time", "qacc_warmstart"}
    assert discovery.reader(places["qvel"])(SimpleNamespace(data=MjData())).tolist() == [1, 1]
