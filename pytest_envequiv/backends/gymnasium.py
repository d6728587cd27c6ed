"""Unmodified Gymnasium environments: ``gymnasium:CartPole-v1``, an Env class, a factory, or an Env object.

Wrappers are part of the environment: the time limit's counter is state like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pytest_envequiv.backends.discovery import clone
from pytest_envequiv.backends.functional import named_spaces
from pytest_envequiv.backends.lanes import Face
from pytest_envequiv.backends.objects import ObjectBackend
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
    nested = set(action) != {"action"}

    def reset(environment: Any, seed: int | None) -> dict[str, Any]:
        seen, info = environment.reset(seed=seed) if seed is not None else environment.reset()
        return {name: values[0] for name, values in {**_observations([seen]), **_masks([info])}.items()}

    def stepper(environment: Any) -> Callable[[Any], Any]:
        if not nested:
            return environment.step  # type: ignore[no-any-return]
        return lambda chosen: environment.step(_packed(environment.action_space, chosen))

    def outputs(returned: Sequence[Any]) -> dict[str, Sequence[Any]]:
        seen, reward, terminated, truncated, info = zip(*returned, strict=True)
        return {**_observations(seen), **_masks(info), REWARD: reward, TERMINATED: terminated, TRUNCATED: truncated}

    made = [first]  # the object that was opened to look at is the first to be used
    return ObjectBackend(
        Face(
            name=name,
            kind="gymnasium",
            make=lambda: made.pop() if made else make(),
            reset=reset,
            stepper=stepper,
            outputs=outputs,
            action=action,
            observation=observation,
            time_limit=_limit(first),
            conventions={"auto_reset": "none", "done": "separate"},
            versions={"gymnasium": version("gymnasium")},
        )
    )


def _limit(environment: Any) -> int | None:
    spec = getattr(environment, "spec", None)
    return getattr(spec, "max_episode_steps", None)


def _observations(seen: Sequence[Any], name: str = "observation") -> dict[str, Sequence[Any]]:
    """B observations as columns: "observation", or "observation.<key>" for each part of a dict or tuple."""
    first = seen[0]
    if isinstance(first, dict):
        parts: Any = first.items()
    elif isinstance(first, tuple):
        parts = enumerate(first)
    else:
        return {name: seen}
    return {k: v for key, _ in parts for k, v in _observations([s[key] for s in seen], f"{name}.{key}").items()}


def _masks(info: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The legal actions, where the environment tells them; all of them where it happens not to."""
    if not any(info):
        return {}
    masks = [i.get("action_mask") for i in info]
    known = [m for m in masks if m is not None]
    return {MASK: [np.ones_like(known[0]) if m is None else m for m in masks]} if known else {}


def _packed(space: Any, row: dict[str, Any], root: str = "action") -> Any:
    """The nested action a Dict or Tuple space wants, from named arrays."""
    if hasattr(space, "spaces"):
        if isinstance(space.spaces, dict):
            return {k: _packed(s, row, f"{root}.{k}") for k, s in space.spaces.items()}
        return tuple(_packed(s, row, f"{root}.{i}") for i, s in enumerate(space.spaces))
    return row[root]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
