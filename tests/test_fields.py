"""The comparison of one step, field by field: what rounding explains, what it does not, and what is not decided."""

from __future__ import annotations

import numpy as np
import pytest
from ports import judging

from pytest_envequiv.backends.protocol import Leaf, Outcome, Space, Spec, State
from pytest_envequiv.comparison import fields
from pytest_envequiv.comparison.fields import Calibration, compare
from pytest_envequiv.comparison.roots import roots
from pytest_envequiv.contract import Tolerance
from pytest_envequiv.pair import Field
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE

EPS = float(np.finfo(np.float64).eps)
WIDE = Space("box", (3,), "float64", np.full(3, -np.inf), np.full(3, np.inf))


class Line:
    """A batched environment whose every output is what a test says: ``change(name, value, x)`` is applied to each."""

    def __init__(self, change=None, state="fields", dtype="float64"):
        self.change = change or (lambda name, value, x: value)
        self.spec = Spec(
            name="Line",
            kind="line",
            action={"action": Space("box", (), "float64", np.array(-1.0), np.array(1.0))},
            observation={"observation": WIDE},
            fields={"x": Leaf((), dtype), "count": Leaf((), "int64")},
            state=state,
            draws="seed",
            batched=True,
        )

    def reset(self, seeds, tape=None):
        x = np.array([np.random.default_rng(int(s)).uniform(-1, 1) for s in seeds])
        return self._outcome(x, np.zeros(len(x), np.int64), x)

    def step(self, state, action, seeds, tape=None):
        if self.spec.state != "fields":
            state = State(self._kept(state))
        x, count = state.fields["x"], state.fields["count"]
        after = 0.9 * x + 0.1 * action["action"]
        outcome = self._outcome(after, count + 1, x)
        outputs = {
            "reward": self.change("reward", 3.0 * after, x),
            "terminated": self.change("terminated", after > 5, x),
            "truncated": self.change("truncated", x > 7, x),
        }
        return Outcome(outcome.state, {**outcome.outputs, **outputs})

    def _outcome(self, x, count, before):
        seen = np.stack([x, 100.0 * x, np.sin(40.0 * x)], 1)
        kept = {"x": self.change("x", x, before), "count": self.change("count", count, before)}
        shown = {"observation": self.change("observation", seen, before)}
        if self.spec.state == "fields":
            return Outcome(State(kept), shown)
        hidden = np.empty(len(x), object)
        hidden[:] = [{k: v[i] for k, v in kept.items()} for i in range(len(x))]
        return Outcome(State({}, hidden), shown)

    @staticmethod
    def _kept(state):
        return {k: np.array([h[k] for h in state.hidden]) for k in ("x", "count")}

    def close(self):
        """Nothing is held."""


def found(change, **kinds):
    """How each field compares over play, with ``change`` on the target's side after resets."""
    judge = judging.opened(Line(**kinds), Line())
    changing(judge, change)
    return judge.bench.step("play").found


def changing(judge, change):
    """Let the target of an opened pair change what it returns from now on."""
    judge.pair.target.backend._backend.change = change  # behind the wall that keeps foreign arrays apart


def on(name, what):
    return lambda field, value, x: what(value, x) if field == name else value


def noise(value, x):
    """-1 or 1 for each element, the same for the same."""
    return np.where(np.sin(1e6 * np.asarray(value, float)) > 0, 1.0, -1.0)


# -- floats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x", "observation", "reward"])
def test_rounding_passes_and_a_hundred_times_as_much_fails(name):
    def off(ulps):
        return found(on(name, lambda v, x: v * (1 + ulps * EPS * noise(v, x))))[name]

    assert not off(8).rows.any() and not off(8).unsure.any()
    assert off(800).rows.sum() > 900  # as many as are calibrated


def test_an_error_is_measured_by_the_references_own_sensitivity():
    """The third element of the observation turns over forty times faster than the state: so does its rounding."""

    def off(ulps):
        return found(on("observation", lambda v, x: v + ulps * slope(v, x)))["observation"]

    steep = off(32)
    assert (steep.error > 2 * 64 * EPS * steep.field.scale).any() and not steep.rows.any()
    assert off(3200).rows.any()


def slope(seen, x):
    """What one unit in the last place of x does to the third element."""
    return np.stack([0 * x, 0 * x, 36.0 * EPS * np.abs(x * np.cos(40.0 * seen[:, 0]))], 1)


def test_the_widest_element_does_not_widen_the_others():
    """Elements of one observation have tolerances of their own."""
    first = found(on("observation", lambda v, x: v + np.array([64 * 200 * EPS, 0, 0])))["observation"]
    second = found(on("observation", lambda v, x: v + np.array([0, 64 * 50 * EPS, 0])))["observation"]
    assert first.wrong[:, 0].any() and not first.wrong[:, 1:].any()
    assert not second.rows.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_is_never_one_that_is_not(value):
    wrong = found(on("reward", lambda v, x: np.where(x > 0, value, v)))["reward"]
    assert wrong.rows.any() and np.isinf(wrong.error[wrong.rows]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_same_on_both_sides_is_the_same(value):
    strange = on("reward", lambda v, x: np.where(x > 0, value, v))
    judge = judging.opened(Line(strange), Line(strange))
    assert not judge.bench.step("play").found["reward"].rows.any()


def test_infinities_of_other_sign_differ():
    up, down = (on("reward", lambda v, x, s=sign: np.full_like(v, s * np.inf)) for sign in (1, -1))
    assert judging.opened(Line(up), Line(down)).run("L2-play-reward").word == DIFFERENT


def test_a_jump_at_a_threshold_has_its_own_rounding():
    """The reference jumps by 5 within 64 units of the last place; the port's jump is 5 and a rounding."""
    pair = judging.opened(Line(), Line()).pair
    reward = next(f for f in pair.fields if f.name == "reward")
    floor = np.array([[64 * EPS * 6]])
    first = np.array([[5.0 + 2 * EPS]]), floor, np.array([[0.0]]), np.array([[5.0]])
    jump = Calibration(np.array([0]), {"reward": np.array([[5.0 / 64]])})
    assert not fields._judged(pair, reward, first, jump).rows.any()
    above = np.array([[5.1]]), *first[1:]
    assert fields._judged(pair, reward, above, jump).rows.all()


def test_beyond_a_jump_rounding_is_as_large_as_before_it():
    """A steep angle that is wrapped: what the pushes reach lies further beyond the edge than the port's answer."""

    def judged(off):
        def wrapped(shift, add=0.0):
            return on("reward", lambda v, x: np.mod(500 * x * (1 + shift), 6.0) + add)

        judge = judging.opened(Line(wrapped(0.0)), Line(wrapped(0.0)))
        changing(judge, wrapped(12 * EPS, off))
        rows = judge.bench.step("play").rows.take(np.zeros(8, int))
        state = rows.state.edited(x=np.full(8, 0.6 * (1 - 10 * EPS)))  # the edge is at 0.6
        rows = type(rows)(state, *[getattr(rows, n) for n in ("seen", "clock", "action", "seeds", "episode", "step")])
        return compare(judge.pair, rows, *judge.pair.ask(rows))["reward"]

    assert (judged(0.0).error > 5.9).all() and not judged(0.0).rows.any()
    assert judged(-1e-9).rows.all()


# -- whole numbers ---------------------------------------------------------------------------------------------------


def test_whole_numbers_are_exact():
    one = found(on("count", lambda v, x: v + (np.abs(x) > 0.6)))["count"]
    assert one.field.exact and one.rows.any() and not one.rows.all()
    assert np.array_equal(one.rows, one.expected[:, 0] != one.actual[:, 0])


def test_large_whole_numbers_are_not_rounded():
    """Two numbers that are one double."""
    big = 2**62
    judge = judging.opened(Line(on("count", lambda v, x: v + big)), Line(on("count", lambda v, x: v + big)))
    changing(judge, on("count", lambda v, x: v + big + 1))
    assert judge.run("L2-play-count").word == DIFFERENT


def test_a_flag_at_the_edge_is_a_tie_and_beside_it_is_not():
    """Where the reference's own flag flips within 64 units of the last place nothing is decided; further off it is."""

    def judged(shift):
        edge = 0.3
        judge = judging.opened(
            Line(on("terminated", lambda v, x: x > edge)), Line(on("terminated", lambda v, x: x > edge))
        )
        changing(judge, on("terminated", lambda v, x: x > edge + shift))
        rows = judge.bench.step("play").rows.take(np.zeros(8, int))
        # The states are in the gap between the two edges.
        rows = rows.doing(rows.action)
        state = rows.state.edited(x=np.full(8, edge + shift / 2))
        rows = type(rows)(state, *[getattr(rows, n) for n in ("seen", "clock", "action", "seeds", "episode", "step")])
        return compare(judge.pair, rows, *judge.pair.ask(rows))["terminated"]

    near, far = judged(8 * EPS), judged(1e-9)
    assert near.ties.all() and not near.rows.any()
    assert far.rows.all() and not far.ties.any()


# -- what cannot be calibrated ---------------------------------------------------------------------------------------


def test_where_the_state_cannot_be_pushed_only_gross_errors_count():
    """With histories alone an error may be drift; one of a hundredth of the range is none."""
    small = on("reward", lambda v, x: v * (1 + 1e-9))
    gross = on("reward", lambda v, x: v + 1.0)
    judge = judging.opened(Line(state="snapshot"), Line())
    changing(judge, small)
    step = judge.bench.step("play")
    assert step.found["reward"].unsure.any() and not step.found["reward"].rows.any()
    assert judge.run("L2-play-reward").word == INCONCLUSIVE
    other = judging.opened(Line(state="snapshot"), Line())
    changing(other, gross)
    assert other.run("L2-play-reward").word == DIFFERENT
    assert judging.opened(Line(state="snapshot"), Line()).run("L2-play-reward").word == EQUAL


def test_more_suspects_than_can_be_calibrated(monkeypatch):
    """The worst are asked about first; the rest by few pushes, and what those leave open by all."""
    monkeypatch.setattr(fields, "MOST_CALIBRATED", 64)
    steep = on("observation", lambda v, x: v + 32 * slope(v, x))
    judge = judging.opened(Line(), Line())
    changing(judge, steep)
    step = judge.bench.step("play")
    assert (step.found["observation"].error > 64 * EPS * step.found["observation"].field.scale).sum() > 64
    assert judge.run("L2-play-observation").word == EQUAL


# -- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, word",
    [
        ("atol = 1e-6", EQUAL),
        ("atol = 1e-8", DIFFERENT),
        ("rtol = 1e-5", EQUAL),
        ("ratio = 1e9", EQUAL),
        ("ratio = 1", DIFFERENT),
    ],
)
def test_tolerances_of_the_contract(given, word):
    contract = f'[tolerance.reward]\n{given}\nreason = "known"\n'
    judge = judging.opened(Line(), Line(), contract=contract)
    changing(judge, on("reward", lambda v, x: v + 1e-6 * np.sign(v) * np.abs(v) / 3.3))
    verdict = judge.run("L2-play-reward")
    assert verdict.word == word
    if word == DIFFERENT and "tol" in given:
        assert "atol 1e-08" in verdict.divergence.why


def test_a_tighter_ratio_finds_rounding():
    judge = judging.opened(Line(), Line(), contract="[tolerance.reward]\nratio = 0.5\n")
    changing(judge, on("reward", lambda v, x: v * (1 + 8 * EPS)))
    assert judge.run("L2-play-reward").word == DIFFERENT


# -- roots -----------------------------------------------------------------------------------------------------------


def compared(name, role, rows, error=1.0, exact=False):
    wrong = np.zeros((10, 1), bool)
    wrong[list(rows)] = True
    field = Field(name, role, name, name, exact, EPS, np.ones(1))
    value = np.where(wrong, error, 0.0)
    nothing = np.zeros(10, bool)
    return fields.Found(field, np.zeros((10, 1)), value, value, np.full((10, 1), 1e-3), wrong, nothing, nothing)


@pytest.mark.parametrize(
    "given, expected",
    [
        # State comes before what is computed from it.
        ([("obs", "output", range(5)), ("v", "state", range(5))], {"obs": "v", "v": "v"}),
        # More rows before fewer; a field elsewhere has its own root.
        ([("v", "state", range(6)), ("x", "state", range(3)), ("y", "state", [8])], {"v": "v", "x": "v", "y": "y"}),
        # On the same rows the reward comes last, and a flag before it.
        ([("reward", "output", [1]), ("over", "output", [1], 1.0, True)], {"over": "over", "reward": "over"}),
        # Of two states the one that is further off.
        ([("x", "state", [1, 2], 0.01), ("v", "state", [1, 2], 0.5)], {"v": "v", "x": "v"}),
    ],
)  # fmt: skip
def test_roots(given, expected):
    assert roots({g[0]: compared(*g) for g in given}, np.zeros(10, bool)) == expected


def test_a_turn_of_the_circle_does_not_make_an_angle_the_root():
    """Usually off by a little, and once by a whole turn: what is usual counts."""
    angle, speed = compared("angle", "state", range(5), 0.01), compared("speed", "state", range(5), 0.1)
    angle.error[0] = 6.28
    assert roots({"angle": angle, "speed": speed}, np.zeros(10, bool)) == {"speed": "speed", "angle": "speed"}


def test_the_last_step_does_not_hide_a_root():
    """Where the episode ends no state is compared: an output that differs there too follows all the same."""
    done = np.zeros(10, bool)
    done[9] = True
    both = {"v": compared("v", "state", range(5)), "obs": compared("obs", "output", [*range(5), 9])}
    assert roots(both, done) == {"v": "v", "obs": "v"}


def test_why_says_where_the_tolerance_comes_from():
    one = compared("v", "state", [1])
    assert "64 times" in one.why(Tolerance()) and "contract" not in one.why(Tolerance())
    assert "atol 0.1" in one.why(Tolerance(atol=0.1, reason="known"))
    assert compared("n", "state", [1], exact=True).why(Tolerance()).startswith("exact")


def test_pictures_and_masks_are_exact():
    judge = judging.of("maze")
    assert {f.name for f in judge.pair.fields if not f.exact} == {"reward"}
    game = judging.of("stones")
    assert {f.name for f in game.pair.fields if not f.exact} == {"reward"}
