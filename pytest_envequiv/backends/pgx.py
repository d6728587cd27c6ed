"""pgx games: ``pgx:connect_four``, or an Env object with ``init(key)`` and ``step(state, action, key)``.

pgx draws at random which player is called 0. Seats are therefore counted from the first mover: seat 0 moves
first, rewards are ordered by seat, and the name of the first player is a free label.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.functional import Functional, JaxBackend
from pytest_envequiv.backends.protocol import AGENT, MASK, REWARD, TERMINATED, TRUNCATED, Backend, Space
from pytest_envequiv.errors import OpenError


def open_name(rest: str, options: dict[str, Any]) -> Backend:
    """``rest`` is an id of ``pgx.available_envs()``."""
    try:
        import pgx
    except ImportError as error:
        raise OpenError(f"pgx:{rest}: {error}; install it with: pip install 'pytest-envequiv[pgx]'") from error
    if rest not in pgx.available_envs():
        from difflib import get_close_matches

        near = get_close_matches(rest, pgx.available_envs(), 1)
        raise OpenError(f"pgx:{rest}: no such game" + (f"; did you mean {near[0]!r}?" if near else ""))
    if options:
        raise OpenError(f"pgx:{rest}: pgx.make takes no options, got {', '.join(options)}")
    return _backend(pgx.make(rest), f"pgx:{rest}", {"pgx": version("pgx")})


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes a pgx Env, or a class of them that needs no arguments."""
    if not all(hasattr(thing, a) for a in ("init", "step", "observe", "num_players")):
        return None
    return _backend(thing(**options) if isinstance(thing, type) else thing, name, {})


def _backend(game: Any, name: str, versions: dict[str, str]) -> Backend:
    seats = int(game.num_players)
    example = jax.eval_shape(game.init, jax.random.PRNGKey(0))

    def by_seat(state: Any, first: Any) -> Any:
        """The same state with players named by seat."""
        return state.replace(
            current_player=(state.current_player - first) % seats, rewards=jnp.roll(state.rewards, -first)
        )

    def by_player(state: Any, first: Any) -> Any:
        return state.replace(
            current_player=(state.current_player + first) % seats, rewards=jnp.roll(state.rewards, first)
        )

    def outputs(state: Any) -> dict[str, Any]:
        found = {"observation": state.observation, MASK: state.legal_action_mask}
        return found | ({AGENT: state.current_player} if seats > 1 else {})

    def reset(key: Any) -> Any:
        state = game.init(key)
        first = jnp.asarray(state.current_player, jnp.int32)
        state = by_seat(state, first)
        return {"game": state, "first": first}, outputs(state)

    def step(key: Any, state: Any, action: Any) -> Any:
        first = state["first"]
        after = by_seat(game.step(by_player(state["game"], first), action["action"], key), first)
        ends = {TERMINATED: after.terminated, TRUNCATED: after.truncated}
        reward = after.rewards if seats > 1 else after.rewards[0]
        return {"game": after, "first": first}, {**outputs(after), REWARD: reward, **ends}

    actions = int(example.legal_action_mask.shape[-1])
    seen = example.observation
    whole = not jnp.issubdtype(seen.dtype, jnp.floating)
    low, high = (0, 1) if seen.dtype == jnp.bool_ else (-np.inf, np.inf)
    return JaxBackend(
        Functional(
            name=name,
            kind="pgx",
            reset=reset,
            step=step,
            action={"action": Space("discrete", (), "int32", np.array(0), np.array(actions - 1))},
            observation={
                "observation": Space(
                    "box",
                    tuple(seen.shape),
                    str(seen.dtype),
                    np.full(seen.shape, low, float),
                    np.full(seen.shape, high, float),
                )
            },
            seats=seats,
            free={"first": seats},
            prefix="game.",
            conventions={
                "auto_reset": "none",
                "done": "separate",
                "bounds": "undeclared" if whole and high > 1 else "",
            },
            versions=versions,
            notes=("players are named by seat: pgx draws at random which player is called 0",) if seats > 1 else (),
        )
    )
