"""Cliff walking (CliffWalking-v1, dry rock: every move goes where it is meant to) in JAX.

row 0   . . . . . . . . . . . .
row 1   . . . . . . . . . . . .
row 2   . . . . . . . . . . . .
row 3   S x x x x x x x x x x G
"""

from typing import NamedTuple

import jax.numpy as jnp

BOTTOM, RIGHTMOST = 3, 11
WIDTH = RIGHTMOST + 1

# one line per action: up, right, down, left; as (rows, columns)
MOVES = jnp.array([[-1, 0], [0, 1], [1, 0], [0, -1]], dtype=jnp.int32)


class Walker(NamedTuple):
    row: jnp.ndarray
    column: jnp.ndarray


def cell(walker):
    """Number of the cell, counted line by line from the top left corner."""
    return walker.row * WIDTH + walker.column


def reset(key):
    del key  # there is one start only
    walker = Walker(row=jnp.int32(BOTTOM), column=jnp.int32(0))
    return cell(walker), walker


def step(key, state, action):
    del key
    move = MOVES[action]
    row = jnp.clip(state.row + move[0], 0, BOTTOM)
    column = jnp.clip(state.column + move[1], 0, RIGHTMOST)

    lowest = row == BOTTOM
    fell = lowest & (column > 0) & (column < RIGHTMOST)
    home = lowest & (column == RIGHTMOST)

    # the start is in the row of the cliff, so only the column has to be put back
    walker = Walker(row=row, column=jnp.where(fell, 0, column))
    reward = jnp.where(fell, -100.0, -1.0)
    return cell(walker), walker, reward, home, jnp.bool_(False), {"prob": jnp.float32(1.0)}
