"""The picture of both sides: it is there, it shows the court, and it turns red where they differ."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from targets.pong import Params, render

PIL = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def played():
    return render.both(steps=60, frameskip=8, skill=0.0, seed=3)


def test_both_sides_play_the_same_episode(played):
    ours, theirs = played
    for a, b in zip(ours, theirs, strict=True):
        for name, value in a.state.fields.items():
            assert np.allclose(value, b.state.fields[name], rtol=0, atol=1e-6), name
    scores = [sum(int(o.state.fields[n][0]) for n in ("score_l", "score_r")) for o in ours]
    assert scores[-1] > 0, "a serve was drawn on the way"


def test_the_court_is_where_the_state_says(played):
    state = {name: value.copy() for name, value in played[0][0].state.fields.items()}
    state |= {"ball_x": np.array([300.0]), "ball_y": np.array([100.0]), "paddle_yr": np.array([400.0])}
    picture = render.drawn(state, Params())
    width, height = picture.size

    def at(x, y):
        """The colour at a place of C's field, y upwards."""
        return picture.getpixel((int(render.SCALE * (x + 60)), int(height - render.SCALE * y)))

    assert at(316, 116) == render.BALL and at(316, 140) == render.BACK
    assert at(510, 435) == render.RIGHT and at(510, 395) == render.BACK
    assert at(-10, 320) == render.LEFT
    assert (width, height) == (248, 256)


def test_a_difference_is_red_and_named(played):
    ours, theirs = played
    same = render.beside(ours[5], theirs[5], Params(), 5)
    moved = theirs[5].state.edited(ball_x=theirs[5].state.fields["ball_x"] + 1)
    apart = render.beside(ours[5], type(theirs[5])(moved, theirs[5].outputs), Params(), 5)
    assert same.getpixel((0, 0)) != render.APART == apart.getpixel((0, 0))


def test_the_command_writes_a_gif(tmp_path, monkeypatch, capsys):
    file = tmp_path / "pong.gif"
    monkeypatch.setattr(sys, "argv", ["render", str(file), "--steps", "12", "--every", "3"])
    render.main()
    with PIL.open(file) as picture:
        assert picture.n_frames == 5 and picture.size == (532, 290)
    assert "5 pictures of 12 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["pong.png"], "OUT is a .gif"), (["nowhere/pong.gif", "--steps", "1"], "nowhere/pong.gif: No such file")],
)
def test_a_place_that_cannot_be_written_is_named(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["render", *arguments])
    with pytest.raises(SystemExit) as stopped:
        render.main()
    assert said in f"{stopped.value} {capsys.readouterr().err}"
