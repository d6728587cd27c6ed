"""The taxi of Dietterich's MAXQ paper, after Gymnasium's (no rain, passengers who know where they are going)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SIZE = 5
SEATED = 4  # where the passenger "is" when in the cab
TIME_LIMIT = 200

# The four stands: red, green, yellow, blue.
STANDS = jnp.array([(0, 0), (0, 4), (4, 0), (4, 3)])

# WALLS[r, c]: is there a wall on the left of square (r, c)?  Column 5 is the right-hand edge of the town.
WALLS = jnp.array(
    [
        [1, 0, 1, 0, 0, 1],
        [1, 0, 1, 0, 0, 1],
        [1, 0, 0, 0, 0, 1],
        [1, 1, 0, 1, 0, 1],
        [1, 1, 0, 1, 0, 1],
    ],
    dtype=bool,
)


class Cab(NamedTuple):
    row: jax.Array
    column: jax.Array
    passenger: jax.Array
    destination: jax.Array
    steps: jax.Array


def encode(cab):
    """Mixed-radix number of (row, column, passenger, destination)."""
    number = jnp.int32(0)
    for radix, digit in ((5, cab.row), (5, cab.column), (5, cab.passenger), (4, cab.destination)):
        number = number * radix + digit
    return number


def here(cab):
    """For each stand, whether the cab is at it."""
    return (STANDS[:, 0] == cab.row) & (STANDS[:, 1] == cab.column)


def reset(key):
    for_cab, for_passenger, for_destination = jax.random.split(key, 3)
    row, column = jax.random.randint(for_cab, (2,), 0, SIZE)
    passenger = jax.random.randint(for_passenger, (), 0, 4)
    further = jax.random.randint(for_destination, (), 1, 4)  # so many stands further on: never the same one
    cab = Cab(row, column, passenger, (passenger + further) % 4, jnp.int32(0))
    return encode(cab), cab


# Each of the six takes a cab and returns (cab, reward, over).


def _south(cab):
    return cab._replace(row=jnp.minimum(cab.row + 1, SIZE - 1)), -1.0, False


def _north(cab):
    return cab._replace(row=jnp.maximum(cab.row - 1, 0)), -1.0, False


def _east(cab):
    return cab._replace(column=cab.column + (~WALLS[cab.row, cab.column + 1]).astype(jnp.int32)), -1.0, False


def _west(cab):
    return cab._replace(column=cab.column - (~WALLS[cab.row, cab.column]).astype(jnp.int32)), -1.0, False


def _pick_up(cab):
    # SEATED is no stand, so the comparison with all four is false for someone in the cab
    found = jnp.any(here(cab) & (jnp.arange(4) == cab.passenger))
    return cab._replace(passenger=jnp.where(found, SEATED, cab.passenger)), jnp.where(found, -1.0, -10.0), False


def _drop_off(cab):
    at = here(cab)
    allowed = at.any() & (cab.passenger == SEATED)
    stand = jnp.argmax(at).astype(jnp.int32)
    arrived = allowed & (stand == cab.destination)
    reward = jnp.where(arrived, 20.0, jnp.where(allowed, -1.0, -10.0))
    return cab._replace(passenger=jnp.where(allowed, stand, cab.passenger)), reward, arrived


def _typed(manoeuvre):
    """All branches of a switch must return the same types."""

    def run(cab):
        moved, reward, over = manoeuvre(cab)
        return (
            jax.tree.map(lambda number: jnp.asarray(number, jnp.int32), moved),
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(over, bool),
        )

    return run


MANOEUVRES = [_typed(m) for m in (_south, _north, _east, _west, _pick_up, _drop_off)]


def step(key, state, action):
    del key  # nothing is left to chance after the reset
    cab, reward, terminated = lax.switch(action, MANOEUVRES, state)
    cab = cab._replace(steps=state.steps + 1)
    info = {"prob": jnp.float32(1.0)}
    return encode(cab), cab, reward, terminated, cab.steps >= TIME_LIMIT, info
