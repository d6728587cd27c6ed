"""Unmodified Gymnasium environments: ``gymnasium:CartPole-v1``, an Env class, a factory, or an Env object.

Wrappers are part of the environment: the time limit's counter is state like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pytest_envequiv.backends import gymnasium_functional
from pytest_envequiv.backends.declared import SHORT, is_number, named_spaces
from pytest_envequiv.backends.discovery import clone
from pytest_envequiv.backends.lanes import Face
from pytest_envequiv.backends.objects import ObjectBackend
from pytest_envequiv.backends.protocol import MASK, REWARD, TERMINATED, TRUNCATED, Backend, Space
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
    backend = from_factory(first, make, f"gymnasium:{rest}")
    assert backend is not None
    return backend


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes an Env object, a class of them, or a FuncEnv."""
    try:
        import gymnasium
    except ImportError:
        return None
    if isinstance(thing, type) and issubclass(thing, gymnasium.Env):
        return from_factory(thing(**options), lambda: thing(**options), name)
    if not isinstance(thing, gymnasium.Env):
        return gymnasium_functional.claim(thing, name, options)
    if options:
        raise OpenError(f"{name}: an environment that is made already takes no options, got {', '.join(options)}")
    return from_factory(thing, lambda: clone(thing), name)


def from_factory(first: Any, make: Callable[[], Any], name: str) -> Backend | None:
    """``first`` is one made environment, to look at; ``make`` makes more. None if it is not of this kind."""
    if not any(base.__name__ == "Env" and base.__module__.startswith("gymnasium") for base in type(first).__mro__):
        return None
    traced = gymnasium_functional.claim(first, name, {})
    return traced or ObjectBackend(_face(first, make, name))


def _face(first: Any, make: Callable[[], Any], name: str) -> Face:
    action, observation = named_spaces("action", first.action_space), _shown("observation", first.observation_space)
    if not observation:
        raise OpenError(f"{name}: there is nothing numeric to observe in {first.observation_space}")
    nested = set(action) != {"action"}

    def reset(environment: Any, seed: int | None) -> dict[str, Any]:
        seen, info = environment.reset(seed=seed) if seed is not None else environment.reset()
        columns = {**_columns(first.observation_space, [seen]), **_masks([info])}
        return {name: values[0] for name, values in columns.items()}

    def stepper(environment: Any) -> Callable[[Any], Any]:
        if not nested:
            return environment.step  # type: ignore[no-any-return]
        return lambda chosen: environment.step(_packed(environment.action_space, chosen))

    def outputs(returned: Sequence[Any]) -> dict[str, Sequence[Any]]:
        seen, reward, terminated, truncated, info = zip(*returned, strict=True)
        columns = {**_columns(first.observation_space, seen), **_masks(info)}
        return {**columns, REWARD: reward, TERMINATED: terminated, TRUNCATED: truncated}

    made = [first]  # the object that was opened to look at is the first to be used
    return Face(
        name=name,
        kind="gymnasium",
        make=lambda: made.pop() if made else make(),
        reset=reset,
        stepper=stepper,
        outputs=outputs,
        action=action,
        observation=observation,
        time_limit=getattr(getattr(first, "spec", None), "max_episode_steps", None),
        constants=_class_numbers(type(getattr(first, "unwrapped", first))),
        conventions={"auto_reset": _auto_reset(first), "done": "separate"},
        versions={"gymnasium": version("gymnasium")},
        notes=tuple(f"{name} is text: it is not compared" for name in _texts("observation", first.observation_space)),
    )


def _class_numbers(kind: type) -> dict[str, np.ndarray]:
    """Public numbers, and short lists of them, that a class has as attributes: the settings of many environments."""
    found = {}
    for name, value in ((n, v) for owner in reversed(kind.__mro__) for n, v in vars(owner).items()):
        numbers = value if isinstance(value, list | tuple) else [value]
        if not name.startswith("_") and 0 < len(numbers) <= SHORT and all(map(is_number, numbers)):
            found[name] = np.asarray(value, float)
    return found


def _auto_reset(environment: Any) -> str:
    while hasattr(environment, "env"):
        if type(environment).__name__ == "Autoreset":
            return "next-step"
        environment = environment.env
    return "none"


def _parts(space: Any) -> Mapping[Any, Any] | None:
    """The parts of a dict or tuple space."""
    inner = getattr(space, "spaces", None)
    return inner if inner is None or isinstance(inner, Mapping) else dict(enumerate(inner))


def _is_text(space: Any) -> bool:
    return _parts(space) is None and getattr(space, "dtype", None) is not None and np.dtype(space.dtype).kind in "US"


def _texts(name: str, space: Any) -> list[str]:
    parts = _parts(space)
    if parts is None:
        return [name] if _is_text(space) else []
    return [text for key, part in parts.items() for text in _texts(f"{name}.{key}", part)]


def _shown(name: str, space: Any) -> dict[str, Space]:
    """As ``named_spaces``, without texts."""
    parts = _parts(space)
    if parts is None:
        return {} if _is_text(space) else named_spaces(name, space)
    return {k: found for key, part in parts.items() for k, found in _shown(f"{name}.{key}", part).items()}


def _columns(space: Any, seen: Sequence[Any], name: str = "observation") -> dict[str, Sequence[Any]]:
    """B observations as one column for each part of the space."""
    parts = _parts(space)
    if parts is None:
        return {} if _is_text(space) else {name: seen}
    return {
        column: values
        for key, part in parts.items()
        for column, values in _columns(part, [s[key] for s in seen], f"{name}.{key}").items()
    }


def _masks(info: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The legal actions, where the environment tells them; all of them where it happens not to."""
    if not any(info):
        return {}
    masks = [i.get("action_mask") for i in info]
    known = [m for m in masks if m is not None]
    return {MASK: [np.ones_like(known[0]) if m is None else m for m in masks]} if known else {}


def _packed(space: Any, row: dict[str, Any], root: str = "action") -> Any:
    """The nested action a dict or tuple space wants, from named arrays."""
    parts = _parts(space)
    if parts is None:
        return row[root]
    packed = {key: _packed(part, row, f"{root}.{key}") for key, part in parts.items()}
    return packed if isinstance(space.spaces, Mapping) else tuple(packed.values())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
