"""Slips a port of Pong could have, each in its own line of ``port.py``: all are DIFFERENT, at the field they are about.

What nobody changed is EQUAL under the same checks, in test_pong.py.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest
from ports import judging

from targets.pong import port, reference

PORT = Path(port.__file__)
CONTRACT = (PORT.parent / "envequiv.toml").read_text()


class Slip(NamedTuple):
    """Each text of ``before`` becomes its partner in ``after``; ``root``: the check that must find it."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    root: str
    frameskip: int = 1


SLIPS = (
    Slip("serves upwards too", ("(drawn - 1)",), ("(2 * drawn - 1)",), "L2-play-ball_vy"),
    Slip(
        "shows the serve at once",
        ("_chosen(done), court", "done | rally.shown"),
        ("_chosen(scored), court", "scored | rally.shown"),
        "L2-play-observations.2",
    ),
    Slip("divides scores as floats", ("score_l // p",), ("score_l / p",), "L2-play-observations.6"),
    Slip(
        "puts the ball back inside on both sides",
        ("where(bounced, _clipped(x",),
        ("where(bounced | returned, _clipped(x",),
        "L2-play-ball_x",
    ),
    Slip("counts ticks over rounds", ("tick=jnp.where(scored, 0, tick)",), ("tick=tick",), "L2-play-tick"),
    Slip("lets the ball fly level", ("jnp.where(flat, p.ball_speed_y_increment, off)",), ("off",), "L2-play-ball_vy"),
    Slip("plays to 22", ("== p.max_score",), ("== p.max_score + 1",), "L2-coverage-terminated"),
    Slip("keeps the score", (", jnp.where(done, 0, score_r)",), (", score_r",), "L2-coverage-score_r"),
    Slip(
        "pays for a bounce in the last frame only",
        ("jnp.float32(0.1), rally.reward)",),
        ("jnp.float32(0.1), 0)",),
        "L2-play-reward",
        frameskip=8,
    ),
)


def edited(slip):
    """The environment and its parameters, made of the port's source with the slip in it."""
    source = PORT.read_text()
    for before, after in zip(slip.before, slip.after, strict=True):
        assert source.count(before) == 1, (before, source.count(before))
        source = source.replace(before, after)
    module = types.ModuleType("pong_with_a_slip")
    sys.modules[module.__name__] = module  # where its dataclasses look for their annotations
    exec(compile(source, str(PORT), "exec", dont_inherit=True), module.__dict__)
    return module.make(frameskip=slip.frameskip)


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.name.replace(" ", "-"))
def test_a_slip_is_found_where_it_is(slip):
    judge = judging.opened(reference.backend(frameskip=slip.frameskip), edited(slip), CONTRACT)
    found = judging.run(judge, f"L2-{slip.root.split('-')[1]}-*")
    assert slip.root in judging.different(found), judging.words(found)
