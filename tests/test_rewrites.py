"""Lines that hand values on wrongly: what could be written instead, and that what explains everything is told."""

from __future__ import annotations

import ast
import fnmatch
import textwrap

import pytest

from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import DIFFERENT, Settings
from pytest_envequiv.whitebox.rewrites import rewrites, unread
from pytest_envequiv.whitebox.sources import nodes_of

TEXT = textwrap.dedent("""
    class Point:
        x: float
        y: float

    def far(x, höhe, *, left=1):
        return höhe, x + left

    def step(key, x, y, höhe, spare):
        a, b = far(y, höhe, left=x)
        whole = np.asarray(a, jnp.int32)
        return Point(a, a), spot.x, spot.y, b + 1
""")
REWRITTEN = {
    "far(x, höhe, left=x)": "x in the place of y",
    "a, b = far(y, spare, left=x)": "spare in the place of höhe",
    "b, a = far(y, höhe, left=x)": "a and b exchanged",
    "far(höhe, y, left=x)": "y and höhe exchanged",
    "far(y, x, left=höhe)": "höhe and x exchanged",
    "far(x, höhe, left=y)": "y and x exchanged",
    "Point(a, b), spot.x": "b in the place of a",
    "Point(a, a), spot.y, spot.x": "spot.x and spot.y exchanged",
    "Point(a, a), spot.y, spot.y": "y in the place of x",
    "(b + 1 - spare)": "- spare is missing",
    "spot.y, spare + 1": "spare in the place of b",
    "return spot.x, Point(a, a), spot.y": "Point(a, a) and spot.x exchanged",
    "np.asarray(a, jnp.float32)": "float32 in the place of int32",
    "np.asarray(x, jnp.int32)": "x in the place of a",
}


@pytest.fixture
def found(tmp_path):
    (tmp_path / "port.py").write_text(TEXT)
    return written(tmp_path / "port.py", {"step"}, ran=True)


def written(path, functions, ran):
    """The rewrites of a file's functions, if all it computes leaves an operation, or nothing does."""
    nodes = [n for n in nodes_of(str(path)) if isinstance(n, ast.BinOp | ast.Compare) and ran]
    run = {(n.lineno, n.end_lineno, n.col_offset, n.end_col_offset) for n in nodes}
    return list(rewrites([str(path)], functions, run))


BOUNDED = textwrap.dedent("""
    def bound(x, lo, hi):
        turn = hi - x
        return jnp.maximum(turn, lo)

    def wrap(x, lo, hi):
        return jnp.ceil((lo - hi) / x)

    def over(x, hi):
        return (hi < hi) & x

    def held(x, hi):
        return jnp.sqrt(x)
""")


@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_a_narrow_type_may_be_one_that_was_meant_to_be_wide(narrow, tmp_path):
    (tmp_path / "port.py").write_text(TEXT.replace("jnp.int32", f"jnp.{narrow}"))
    (rewrite,) = (r for r in written(tmp_path / "port.py", {"step"}, ran=True) if narrow not in r.text)
    assert rewrite.why == f"float32 in the place of {narrow}"


@pytest.mark.parametrize(
    ("function", "ran", "code"),
    [
        ("held", True, "return jnp.minimum(jnp.sqrt(x), hi)"),
        ("held", True, "return jnp.maximum(jnp.sqrt(x), hi)"),
        ("wrap", False, "return jnp.ceil((x - hi) / x)"),
        ("wrap", False, "return jnp.ceil((lo - x) / x)"),
        ("over", False, "return (x < hi) & x"),
        ("over", False, "return (hi < x) & x"),
    ],
)
def test_what_leaves_no_operation_may_lack_a_bound_or_be_of_another_name(function, ran, code, tmp_path):
    (tmp_path / "port.py").write_text(BOUNDED)
    (rewrite,) = (r for r in written(tmp_path / "port.py", {function}, ran) if code in r.text)
    assert code in rewrite.text.splitlines()[rewrite.place.line - 1]


def test_what_leaves_an_operation_and_lacks_nothing_is_for_others(tmp_path):
    (tmp_path / "port.py").write_text(BOUNDED)
    texts = [r.text for r in written(tmp_path / "port.py", {"bound"}, ran=True)]
    assert any("return jnp.maximum(lo, turn)" in text for text in texts) and not any("minimum" in t for t in texts)
    assert not written(tmp_path / "port.py", {"wrap"}, ran=True)


def test_a_function_could_hand_on_otherwise(found):
    texts = [rewrite.text for rewrite in found]
    for code, why in REWRITTEN.items():
        (rewrite,) = (r for r in found if code in r.text)
        assert rewrite.why == why
        assert code in rewrite.text.splitlines()[rewrite.place.line - 1]
    assert len(texts) == len(set(texts)) and TEXT not in texts
    for text in texts:
        compile(text, "port.py", "exec")
        assert text.startswith(TEXT[: TEXT.index("def step")])  # another function is not asked for


def test_the_likelier_comes_first(found):
    whys = [rewrite.why for rewrite in found]
    assert whys[0] == "x in the place of y"  # as it is called there
    order = ("spare in the place of höhe", "a and b exchanged", "b in the place of a", "float32 in the place of int32")
    places = [whys.index(why) for why in (*order, "y in the place of x", "höhe in the place of y")]
    assert places == sorted(places)


def test_what_is_never_read(tmp_path):
    (tmp_path / "port.py").write_text(TEXT)
    named = {getattr(n, "name", ""): n for n in nodes_of(str(tmp_path / "port.py"))}
    assert unread(named["step"]) == ["spare", "whole"]  # a key is not missed
    assert unread(named["far"]) == []


# -- blame -----------------------------------------------------------------------------------------------------------

PORT = textwrap.dedent("""
    from typing import NamedTuple
    import jax
    import jax.numpy as jnp


    class State(NamedTuple):
        position: jax.Array
        velocity: jax.Array
        time: jax.Array


    def look(state):
        return jnp.stack([state.position, state.velocity])


    def reset(key):
        state = State(jax.random.uniform(key, (), minval=-0.6, maxval=-0.4), jnp.float32(0), jnp.int32(0))
        return look(state), state


    def pushes(state, action):
        engine = 0.0015 * jnp.clip(action, -1.0, 1.0)
        hill = 0.0025 * jnp.cos(3 * state.position)
        return engine, hill


    def braked(position, velocity):
        wall = jnp.logical_and(position <= -1.2, velocity < 0)
        return jax.lax.cond(wall, lambda: 0.0, lambda: velocity)


    def paid(action, there):
        return 100.0 * there - 0.1 * action**2


    def step(key, state, action):
        throttle = jnp.asarray(action, jnp.float32).reshape(-1)[0]
        engine, hill = pushes(state, throttle)
        velocity = jnp.clip(state.velocity + engine - hill, -0.07, 0.07)
        position = jnp.clip(state.position + velocity, -1.2, 0.6)
        velocity = braked(position, velocity)
        after = State(position, velocity, state.time + 1)
        there = (position >= 0.45) & (velocity >= 0)
        return look(after), after, paid(throttle, there), there, after.time >= 999, {}
""")
TYPED = "jnp.asarray(action, jnp.int32)"
# What was written otherwise -> (its line, check, how far down the line may stand, why).
SLIPS = {
    "unpacked in another order": ("engine, hill = p", "hill, engine = p", "L2-play-position", 1, "exchanged"),
    "another type": ("jnp.asarray(action, jnp.float32)", TYPED, "L2-play-position", 1, "float32 in the place of int32"),
    "another argument": (
        "= braked(position, v",
        "= braked(throttle, v",
        "L2-boundary-velocity",
        2,
        "hands on what line",
    ),
    "nothing is read": (
        "0.0015 * jnp.clip(action, -1.0, 1.0)",
        "0.0015",
        "L2-play-position",
        3,
        "nothing reads action",
    ),
}


@pytest.mark.parametrize("kind", SLIPS)
def test_a_line_that_hands_on_wrongly_is_blamed(kind, tmp_path, monkeypatch):
    before, after, check, within, why = SLIPS[kind]
    assert PORT.count(before) == 1
    name = f"rewritten_{list(SLIPS).index(kind)}"
    text = PORT.replace(before, after)
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    judge = Judge(Settings("gymnasium:MountainCarContinuous-v0", name, output=str(tmp_path)), shrink=False)
    (found,) = (judge.run(c.id) for c in judge.checks if fnmatch.fnmatchcase(c.id, check))
    judge.close()
    assert found.word == DIFFERENT and "blame_failed" not in found.evidence
    line = next(n for n, code in enumerate(text.splitlines(), 1) if after in code)
    told = [s["why"] for s in found.evidence["blame"][:within] if s["line"] == line]
    assert told and why in told[0], found.evidence["blame"]
