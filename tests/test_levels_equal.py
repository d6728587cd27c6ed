"""Pairs that are equal, in many ways of being written: no check says DIFFERENT, and each says EQUAL."""

from __future__ import annotations

import jax
import pytest
from ports import drift, judging, maze, odd, stones
from ports.judging import ICY, WINDY

PAIRS = {
    "in the manner of gymnax": lambda: judging.of("drift"),
    "plain functions, the same names": lambda: judging.of("plain"),
    "numpy, batched": lambda: judging.of("vector"),
    "draws at each step": lambda: judging.of("drift", None, WINDY),
    "draws that cannot be shared": lambda: judging.of("drift", None, ICY),
    "draws used in another way": lambda: judging.of("drift", "slips for large numbers", {"slip": 0.1}),
    "whole numbers and pictures": lambda: judging.of("maze"),
    "pictures in a wider type": lambda: judging.of("maze", "wide pixels"),
    "a game of two": lambda: judging.of("stones"),
    "a game against itself": lambda: judging.opened(stones.Stones, stones.Stones),
    "Gymnasium against itself": lambda: judging.opened(
        lambda: drift.reference(**WINDY), lambda: drift.reference(**WINDY)
    ),
    "the other way round": lambda: judging.opened(drift.GymnaxDrift(), drift.reference),
    "JAX against JAX": lambda: judging.opened(drift.PlainDrift(), drift.GymnaxDrift()),
    "pictures against themselves": lambda: judging.opened(maze.reference, maze.reference),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal(name: str):
    judge = PAIRS[name]()
    verdicts = judging.run(judge, "*")
    assert judging.words(verdicts) == {}
    assert {"L1", "L2", "L3"} == {check[:2] for check in verdicts}


@pytest.mark.parametrize("rule", odd.RULES)
def test_equal_though_odd(rule: str):
    judge = judging.opened(lambda: odd.reference(rule), odd.PlainOdd(rule))
    verdicts = judging.run(
        judge, "L1-map*", "L1-contains*", "L1-finite*", "L1-reset*", "L2-*", "L3-resync*", "L3-lock*"
    )
    assert judging.words(verdicts) == {}
    assert judge.pair.injectable()


def test_equal_in_double_precision():
    """With 64 bits on the JAX side the tolerance is that of 64 bits: a float32 port's error is a difference then."""
    with jax.enable_x64(True):
        wide = judging.opened(lambda: odd.reference("Bearing"), odd.PlainOdd("Bearing", wide=True))
        assert wide.pair.target.spec.fields["angle"].dtype == "float64"
        checks = "L1-reset-angle", "L2-*", "L3-*-angle"
        assert judging.words(judging.run(wide, *checks)) == {}
        # Single precision inside, double outside: off by a hundred millionth.
        loose = judging.opened(lambda: odd.reference("Bearing"), Rounded("Bearing", wide=True))
        assert "L2-play-spin" in judging.different(judging.run(loose, "L2-play-*"))


class Rounded(odd.PlainOdd):
    """Double precision in name only."""

    def step(self, state, action):
        after, *rest = super().step(state, action)
        return {**after, "spin": after["spin"].astype("float32").astype("float64")}, *rest


def test_a_reference_whose_state_cannot_be_written():
    """Histories are shared instead; that states cannot be injected stays visible."""
    judge = judging.opened(maze.snapshot, maze.PlainMaze())
    verdicts = judging.run(judge, "L1-map*", "L1-time*", "L2-*", "L3-lock*")
    assert list(judging.words(verdicts)) == ["L1-map-state"]
    assert "snapshot" in verdicts["L1-map-state"].summary
