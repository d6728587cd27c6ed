"""Draws the same episode of C and of the port side by side, as PufferLib's c_render (pong.h, 267) would.

    python -m targets.pong.render OUT.gif [--steps 400] [--every 2] [--frameskip 1] [--skill 0.9] [--seed 0]

Both sides run on their own, from the same reset, with the same actions and the same serves. The agent follows the ball
with the probability ``skill`` and does anything else. Where the sides differ, the frame of the picture turns red.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import Arrays, Outcome
from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.stimuli import draws
from targets.pong import Params

if TYPE_CHECKING:
    from PIL.Image import Image

SCALE, GAP, HEAD = 0.4, 12, 22  # of C's pixels; between the sides and above them, in the picture's
BACK, LEFT, RIGHT, BALL, TEXT = (6, 24, 24), (255, 0, 0), (0, 255, 255), (255, 255, 255), (0, 187, 187)
APART = (200, 0, 0)


def both(steps: int, frameskip: int, skill: float, seed: int) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes, of one row each, of C and of the port: the reset and ``steps`` steps."""
    ours, theirs = (open_backend(f"targets.pong{name}?frameskip={frameskip}") for name in (".reference", ""))
    seeds, rng = np.array([seed]), np.random.default_rng(seed)
    begun, own = ours.reset(seeds), theirs.reset(seeds).draws
    assert begun.draws is not None and own is not None
    match = draws.match(begun.draws, own)
    told = [begun], [theirs.reset(seeds, draws.feed(match, begun.draws, own))]
    for step in range(steps):
        state = told[0][-1].state.fields
        off = float(state["ball_y"][0] + 16 - state["paddle_yr"][0] - 35)
        follow = 1 if off > 8 else 2 if off < -8 else 0
        action = {"action": np.array([follow if rng.random() < skill else rng.integers(3)], np.int32)}
        now = ours.step(told[0][-1].state, action, seeds + step)
        assert now.draws is not None
        told[0].append(now)
        told[1].append(theirs.step(told[1][-1].state, action, seeds, draws.feed(match, now.draws, own)))
    return told


def drawn(state: Arrays, params: Params) -> Image:
    """One state, the agent on the right."""
    from PIL import Image, ImageDraw

    pad = 3 * params.paddle_width
    size = (round(SCALE * (params.width + 2 * pad)), round(SCALE * params.height))
    picture = Image.new("RGB", size, BACK)
    pen = ImageDraw.Draw(picture)

    def box(x: float, y: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        top = params.height - y - height  # y grows upwards
        pen.rectangle([SCALE * x, SCALE * top, SCALE * (x + width) - 1, SCALE * (top + height) - 1], fill=colour)

    value = {name: float(column[0]) for name, column in state.items()}
    box(pad - params.paddle_width, value["paddle_yl"], params.paddle_width, params.paddle_height, LEFT)
    box(params.width + pad, value["paddle_yr"], params.paddle_width, params.paddle_height, RIGHT)
    box(pad + value["ball_x"], value["ball_y"], params.ball_width, params.ball_height, BALL)
    for side, name in ((-1, "score_l"), (1, "score_r")):
        pen.text((size[0] / 2 + SCALE * side * 50, 6), str(int(value[name])), TEXT, anchor="ma", font_size=14)
    return picture


def beside(ours: Outcome, theirs: Outcome, params: Params, step: int) -> Image:
    """Both sides' states in one picture."""
    from PIL import Image, ImageDraw

    sides = [drawn(outcome.state.fields, params) for outcome in (ours, theirs)]
    width, height = sides[0].size
    apart = [n for n, v in ours.state.fields.items() if not np.allclose(v, theirs.state.fields[n], rtol=0, atol=1e-6)]
    picture = Image.new("RGB", (2 * width + 3 * GAP, height + HEAD + GAP), APART if apart else (40, 60, 60))
    pen = ImageDraw.Draw(picture)
    for place, (side, title) in enumerate(zip(sides, ("PufferLib's C", "JAX"), strict=True)):
        left = GAP + place * (width + GAP)
        picture.paste(side, (left, HEAD))
        pen.text((left, 4), title, BALL, font_size=12)
    said = f"step {step}: " + (f"{', '.join(apart)} differ" if apart else "the same")
    pen.text((2 * width + 2 * GAP, 4), said, BALL, anchor="ra", font_size=12)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a .gif")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=2, help="one picture for so many steps")
    parser.add_argument("--frameskip", type=int, default=1)
    parser.add_argument("--skill", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.suffix != ".gif":
        parser.error(f"OUT is a .gif, not {options.out}")
    try:
        import PIL  # noqa: F401

        ours, theirs = both(options.steps, options.frameskip, options.skill, options.seed)
    except ImportError:
        sys.exit("targets.pong.render draws with Pillow: pip install 'pytest-envequiv[pong]'")
    except EnvequivError as error:
        sys.exit(str(error))
    pictures = [beside(a, b, Params(), i) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))][:: options.every]
    try:
        pictures[0].save(options.out, save_all=True, append_images=pictures[1:], duration=33, loop=0)
    except OSError as error:
        sys.exit(f"{options.out}: {error.strerror}")
    print(f"{options.out}: {len(pictures)} pictures of {options.steps} steps")


if __name__ == "__main__":
    main()
