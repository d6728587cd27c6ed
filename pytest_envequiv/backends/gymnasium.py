"""Unmodified Gymnasium environments: ``gymnasium:CartPole-v1``, an Env class, a factory, or an Env object.

Wrappers are part of the environment: the time limit's counter is state like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from pytest_envequiv.backends.functional import named_spaces
from pytest_envequiv.backends.objects import Face, ObjectBackend, clone
from pytest_envequiv.backends.protocol import MASK, REWARD, TERMINATED, TRUNCATED, Backend
from pytest_envequiv.errors import OpenError


def open_name(rest: str, options: dict[str, Any]) -> Backend:
    """``rest`` is an id for ``gymnasium.make``; options are its keyword arguments."""
    try:
        import gymnasium
    except ImportError as error:
        raise OpenError(
            f"gymnasium:{rest}: {error}; install it with: pip install 'pytest-envequiv[gymnasium]'"
        ) from error

    def make() -> Any:
        return gymnasium.make(rest, **options)

    try:
        first = make()
    except (gymnasium.error.Error, ImportError, TypeError, AttributeError) as error:
        raise OpenError(f"gymnasium:{rest}: {_line(error)}") from error
    return from_factory(first, make, f"gymnasium:{rest}")


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes an Env object, an Env class, or a function without required arguments that returns an Env."""
    try:
        import gymnasium
    except ImportError:
        return None
    if isinstance(thing, gymnasium.Env):
        return from_factory(thing, lambda: clone(thing), name)
    if isinstance(thing, type) and issubclass(thing, gymnasium.Env):
        return from_factory(thing(**options), lambda: thing(**options), name)
    return None


def from_factory(first: Any, make: Callable[[], Any], name: str) -> Backend:
    """``first`` is one made environment, to look at; ``make`` makes more of them."""
    action = named_spaces("action", first.action_space)
    observation = named_spaces("observation", first.observation_space)
    nested = not (set(action) == {"action"})

    def reset(environment: Any, seed: int | None) -> dict[str, Any]:
        seen, info = environment.reset(seed=seed) if seed is not None else environment.reset()
        return {**_observations(seen), **_mask(info)}

    def step(environment: Any, chosen: Any) -> dict[str, Any]:
        if nested:
            chosen = _packed(environment.action_space, chosen)
        seen, reward, terminated, truncated, info = environment.step(chosen)
        return {
            **_observations(seen),
            **_mask(info),
            REWARD: reward,
            TERMINATED: terminated,
            TRUNCATED: truncated,
        }

    def install(environment: Any, generator: Any) -> None:
        environment.unwrapped._np_random = generator
        environment.unwrapped._np_random_seed = -1

    made = [first]  # the object that was opened to look at is the first to be used
    return ObjectBackend(
        Face(
            name=name,
            kind="gymnasium",
            make=lambda: made.pop() if made else make(),
            reset=reset,
            step=step,
            action=action,
            observation=observation,
            generator=lambda environment: environment.unwrapped.np_random,
            install=install,
            time_limit=_limit(first),
            conventions={"auto_reset": "none", "done": "separate"},
            versions={"gymnasium": version("gymnasium")},
        )
    )


def _limit(environment: Any) -> int | None:
    spec = getattr(environment, "spec", None)
    return getattr(spec, "max_episode_steps", None)


def _observations(seen: Any) -> dict[str, Any]:
    if isinstance(seen, dict):
        return {f"observation.{k}{n.removeprefix('observation')}": v for k in seen for n, v in _observations(seen[k]).items()}
    if isinstance(seen, tuple):
        return {
            f"observation.{i}{n.removeprefix('observation')}": v
            for i, part in enumerate(seen)
            for n, v in _observations(part).items()
        }
    return {"observation": seen}


def _mask(info: Any) -> dict[str, Any]:
    mask = info.get("action_mask") if isinstance(info, dict) else None
    return {} if mask is None else {MASK: np.asarray(mask).astype(bool)}


def _packed(space: Any, row: dict[str, Any], root: str = "action") -> Any:
    """The nested action a Dict or Tuple space wants, from named arrays."""
    if hasattr(space, "spaces"):
        if isinstance(space.spaces, dict):
            return {k: _packed(s, row, f"{root}.{k}") for k, s in space.spaces.items()}
        return tuple(_packed(s, row, f"{root}.{i}") for i, s in enumerate(space.spaces))
    return row[root]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
