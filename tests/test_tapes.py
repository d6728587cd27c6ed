"""The generator that records and plays: the same stream as numpy's, one entry a draw, matched by label."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest

from pytest_envequiv.backends import tapes
from pytest_envequiv.backends.tapes import Made, Recorder, TapeError, gather, generator, scatter

P = [0.2, 0.3, 0.5]
# A method, its arguments, and what is written down: kind, low, high (None: nothing is known).
DRAWS = [
    ("random", (), ("uniform", 0, 1)),
    ("random", (3,), ("uniform", 0, 1)),
    ("uniform", (-1, 2), ("uniform", -1, 2)),
    ("uniform", ([1, 2], [3, 4]), ("uniform", [1, 2], [3, 4])),
    ("standard_normal", (2,), ("normal", 0, 1)),
    ("normal", (), ("normal", 0, 1)),
    ("normal", (1.5, 0.3), ("normal", 0, 1)),
    ("normal", ([1.0, 2.0], 3.0), ("normal", 0, 1)),
    ("normal", (np.float64(1), 2, (2, 2)), ("normal", 0, 1)),
    ("integers", (5,), ("integers", 0, 5)),
    ("integers", (2, 9, (3,)), ("integers", 2, 9)),
    ("choice", (5,), ("integers", 0, 5)),
    ("choice", ([30, 40, 90],), ("integers", 0, 3)),
    ("choice", (5, 3, False), ("choice", 0, 5)),
    ("choice", (3, None, True, P), ("choice", 0, 3)),
    ("choice", (np.arange(6).reshape(3, 2), 2), ("integers", 0, 3)),
    ("permutation", (6,), ("permutation", None, None)),
    ("permutation", (np.arange(4.0),), ("permutation", None, None)),
    ("permuted", (np.arange(5),), ("permuted", None, None)),
    ("exponential", (2.0,), ("exponential", None, None)),
    ("standard_exponential", (), ("exponential", None, None)),
    ("laplace", (1.0, 2.0), ("laplace", None, None)),
    ("gumbel", (1.0, 2.0, 4), ("gumbel", None, None)),
    ("gamma", (2.0, 3.0), ("gamma", 2, None)),
    ("standard_gamma", (2.0,), ("gamma", 2, None)),
    ("poisson", (3.0,), ("poisson", 3, None)),
    ("beta", (1.0, 2.0), ("beta", 1, 2)),
    ("binomial", (5, 0.3), ("binomial", 5, 0.3)),
    ("geometric", (0.3,), ("geometric", 0.3, None)),
    ("triangular", (0, 1, 2), ("triangular", 0, 1)),
    ("multivariate_normal", ([0, 1], np.eye(2)), ("multivariate_normal", None, None)),
    ("dirichlet", ([1, 2],), ("dirichlet", None, None)),
    ("multinomial", (4, [0.2, 0.8]), ("multinomial", 4, None)),
    ("bytes", (4,), ("bytes", 4, None)),
]


def plain(seed=7):
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def name_of(draw):
    return f"{draw[0]}{draw[1]}" if isinstance(draw, tuple) else str(draw)


@pytest.mark.parametrize("method, arguments, label", DRAWS, ids=[name_of(d) for d in DRAWS])
def test_the_stream_is_numpys_and_every_draw_is_written_down_once(method, arguments, label):
    recorder, numpys = generator(7), plain()
    values = [getattr(recorder, method)(*arguments) for _ in range(3)]
    for value in values:
        expected = getattr(numpys, method)(*arguments)
        assert type(value) is type(expected)
        np.testing.assert_array_equal(value, expected)
    kind, *bounds = label
    assert [made.kind for made in recorder.log] == [kind] * 3
    for found, expected in zip((recorder.log[0].low, recorder.log[0].high), bounds, strict=True):
        np.testing.assert_array_equal(
            np.asarray(found, float), np.asarray(np.nan if expected is None else expected, float)
        )
    player = generator(99)
    player.left = list(recorder.log)
    for value in values:
        played = getattr(player, method)(*arguments)
        assert type(played) is type(value)
        np.testing.assert_array_equal(played, value)
    assert player.left == []


def test_every_method_that_draws_is_written_down():
    methods = {n for n in dir(np.random.Generator) if not n.startswith("_")} - {"bit_generator", "spawn"}
    tried = {method for method, _, _ in DRAWS} | {"shuffle"}
    untouched = [n for n in methods if getattr(Recorder, n) is getattr(np.random.Generator, n)]
    assert not untouched
    assert tried <= methods


@pytest.mark.parametrize(
    "deck", [np.arange(10), list(range(10)), list("abcdef"), np.arange(12).reshape(6, 2)], ids=repr
)
def test_shuffling_in_place(deck):
    recorder, numpys = generator(7), plain()
    ours, theirs, played = (copy.deepcopy(deck) for _ in range(3))
    recorder.shuffle(ours)
    numpys.shuffle(theirs)
    player = generator(9)
    player.left = list(recorder.log)
    player.shuffle(played)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(played, theirs)
    assert [made.kind for made in recorder.log] == ["permutation"]


def test_writing_into_an_array_of_the_callers():
    recorder, here = generator(7), np.zeros(3)
    recorder.random(out=here)
    np.testing.assert_array_equal(here, plain().random(3))
    player, there = generator(9), np.zeros(3)
    player.left = list(recorder.log)
    player.random(out=there)
    np.testing.assert_array_equal(here, there)


def test_it_is_the_generator_gymnasium_makes():
    numpys, _ = gymnasium.utils.seeding.np_random(123)
    np.testing.assert_array_equal(generator(123).random(5), numpys.random(5))


def test_a_stream_that_has_begun_goes_on():
    source = np.random.default_rng(3)
    source.random(4)
    twin = copy.deepcopy(source)
    np.testing.assert_array_equal(tapes.recording(source).random(4), twin.random(4))


def test_what_is_written_down_is_not_changed_later():
    recorder = generator(1)
    value = recorder.random(3)
    value += 1
    assert (recorder.log[0].value < 1).all()


def test_restarting_depends_on_the_seed_alone():
    recorder = generator(1)
    drawn = {}
    for seed in (5, 6, 5):
        recorder.random(2)
        recorder.restart(seed)
        drawn.setdefault(seed, []).append(recorder.random(4).tolist())
    assert drawn[5][0] == drawn[5][1] != drawn[6][0]


def test_restarted_streams_are_uniform_and_unrelated():
    recorder, first = generator(1), []
    for seed in range(4000):
        recorder.restart(seed)
        first.append(recorder.random(2))
    first = np.array(first)
    assert abs(first.mean() - 0.5) < 0.02 and abs(np.corrcoef(first.T)[0, 1]) < 0.06
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 0.06


def test_a_copy_draws_the_same_and_is_a_recorder():
    recorder = generator(1)
    recorder.restart(8)
    twin = copy.deepcopy(recorder)
    assert isinstance(twin, Recorder) and twin.random() == recorder.random()
    assert pickle.loads(pickle.dumps(recorder)).random() == recorder.random()


def test_a_player_matches_by_kind_and_shape_not_by_place():
    player = generator(0)
    player.left = [
        Made("normal", (), 0, 1, 0.5, ""),
        Made("uniform", (2,), 0, 1, np.array([0.1, 0.2]), ""),
        Made("uniform", (), 0, 1, 0.7, ""),
    ]
    assert player.random() == 0.7
    assert player.random(2).tolist() == [0.1, 0.2]
    assert player.normal(1.0, 4.0) == 3.0
    assert player.left == []


def test_a_tape_that_is_used_up_is_an_error_that_says_where():
    player = generator(0)
    player.left = [Made("uniform", (), 0, 1, 0.7, "")]
    player.random()
    with pytest.raises(TapeError, match=r"no uniform draw of shape \(\), asked for at test_tapes.py:\d+"):
        player.random()
    with pytest.raises(TapeError, match=r"no uniform draw of shape \(2,\)"):
        player.uniform(size=2)


def test_one_draw_a_label_over_all_rows():
    """Rows that made the same draws, and rows that did not: the label is kind, shape, place and occurrence."""

    def log(seed, extra):
        recorder = generator(seed)
        recorder.random()
        if extra:
            recorder.normal()
        recorder.random()
        return recorder.log

    for extras in ([True, True, True], [True, False, True]):
        logs = [log(seed, extra) for seed, extra in enumerate(extras)]
        tape = gather(logs)
        assert sorted((d.kind, d.present.tolist()) for d in tape) == sorted(
            [("uniform", [True] * 3), ("normal", extras), ("uniform", [True] * 3)]
        )
        for row, (made, back) in enumerate(zip(logs, scatter(tape, 3), strict=True)):
            assert sorted(m.value for m in made) == sorted(m.value for m in back), row
    assert gather([[], []]) == ()


def test_draws_of_one_place_keep_their_order():
    recorder = generator(0)
    for _ in range(3):
        recorder.random()
    tape = gather([recorder.log])
    assert [d.value.tolist() for d in tape] == [[m.value] for m in recorder.log]
    assert len({(d.kind, d.shape, d.site) for d in tape}) == 1
