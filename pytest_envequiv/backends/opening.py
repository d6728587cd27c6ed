"""From a name to a backend.

``kind:rest`` goes to the kind's module: one of those below, or one that another package offers under the entry
point group ``envequiv.backends``. A dotted name is imported, and whatever it offers is shown to every kind. A
name may end in options: ``gymnasium:CartPole-v1?max_episode_steps=100``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from pytest_envequiv.backends.protocol import Backend, Spec
from pytest_envequiv.errors import OpenError

GROUP = "envequiv.backends"
KINDS = ("gymnasium", "gymnax", "pgx", "brax", "pettingzoo", "process")


def kinds() -> dict[str, Any]:
    """Kind -> a function that loads its module: ``open_name(rest, options)`` and ``claim(thing, name, options)``."""
    found = {kind: (lambda kind=kind: importlib.import_module(f"pytest_envequiv.backends.{kind}")) for kind in KINDS}
    return found | {point.name: point.load for point in entry_points(group=GROUP)}


def open_backend(name: Any, options: dict[str, Any] | None = None, like: Spec | None = None) -> Backend:
    """Open ``name``: a text, a module, a class, a factory or an environment object.

    ``like`` is the other side's spec, from which undeclared spaces are taken. Raises OpenError, in one line.
    """
    if not isinstance(name, str):
        return _claimed(name, name_of(name), options or {}, like)
    bare, given = _options(name)
    options = {**given, **(options or {})}
    kind, _, rest = bare.partition(":")
    known = kinds()
    if kind in known and rest:
        return known[kind]().open_name(rest, options)
    if rest and "." not in kind and not _importable(kind):
        near = difflib.get_close_matches(kind, known, 1)
        raise OpenError(
            f"{name}: there is no backend kind {kind!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" (known: {', '.join(known)}; or a module that can be imported)"
        )
    thing = _imported(kind, name)
    for attribute in filter(None, rest.split(".")):
        if not hasattr(thing, attribute):
            near = difflib.get_close_matches(attribute, dir(thing), 1)
            raise OpenError(f"{name}: {kind} has no {attribute!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        thing = getattr(thing, attribute)
    return _claimed(thing, name, options, like)


def _options(name: str) -> tuple[str, dict[str, Any]]:
    """ "id?a=1&b=x" -> ("id", {"a": 1, "b": "x"}); numbers, true, false and none are read as such."""
    if name.startswith("process:") or "?" not in name:
        return name, {}
    bare, _, query = name.partition("?")
    return bare, {key: _value(text) for key, text in parse_qsl(query, keep_blank_values=True)}


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _imported(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise OpenError(
                f"{name}: there is no module {error.name!r} (looked for a backend kind, then for a module to import)"
            ) from error
        raise OpenError(f"{name}: importing it needs the module {error.name!r}, which is not installed") from error
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit and pytest's Skipped are no Exceptions, and no excuse
        raise OpenError(f"{name}: importing it raised {_line(error)}") from error


def _claimed(thing: Any, name: str, options: dict[str, Any], like: Spec | None) -> Backend:
    tried = []
    for candidate in _candidates(thing):
        tried.append(name_of(candidate))
        try:
            backend = _claim(candidate, name, options, like)
        except (OpenError, KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            raise OpenError(f"{name}: opening it raised {_line(error)}") from error
        if backend is not None:
            return backend
    found = ", ".join(n for n in dir(thing) if not n.startswith("_"))[:200] or "nothing"
    raise OpenError(
        f"{name}: looked for `backend`, a Gymnasium Env class, `make`, or functions `reset` and `step`; found {found}"
    )


def _candidates(thing: Any) -> list[Any]:
    """What a module offers, in the order it is tried; anything else is itself."""
    if not isinstance(thing, ModuleType):
        return [thing]
    own = [
        value
        for value in vars(thing).values()
        if isinstance(value, type)
        and value.__module__ == thing.__name__
        and (hasattr(value, "step") or hasattr(value, "step_env"))
    ]
    classes = [c for c in own if not any(c is not other and issubclass(other, c) for other in own)]
    offered = [getattr(thing, "backend", None), *classes, getattr(thing, "make", None), thing]
    return [candidate for candidate in offered if candidate is not None]


def _claim(thing: Any, name: str, options: dict[str, Any], like: Spec | None) -> Backend | None:
    if isinstance(getattr(thing, "spec", None), Spec):
        return thing
    for load in kinds().values():
        claim = getattr(load(), "claim", None)
        backend = claim(thing, name, options) if claim else None
        if backend is not None:
            return backend
    if callable(thing) and not isinstance(thing, (type, ModuleType)) and not hasattr(thing, "step"):
        if any(
            p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            for p in inspect.signature(thing).parameters.values()
        ):
            return None
        return _from_factory(thing, name, options, like)
    from pytest_envequiv.backends import plain

    return plain.claim(thing, name, options, like)


def _from_factory(factory: Any, name: str, options: dict[str, Any], like: Spec | None) -> Backend | None:
    """A function that makes an environment: an Env of Gymnasium is made anew for each lane."""
    made = factory(**options)
    if isinstance(made, tuple) and made:  # gymnax.make returns (environment, params)
        made = made[0]
    if type(made).__name__ != "module" and any(
        base.__name__ == "Env" and base.__module__.startswith("gymnasium") for base in type(made).__mro__
    ):
        from pytest_envequiv.backends import gymnasium

        return gymnasium.from_factory(made, lambda: factory(**options), name)
    return _claim(made, name, {}, like)


def name_of(thing: Any) -> str:
    """A name for an object that was not opened by one."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}:{thing.__qualname__}"
    return f"{type(thing).__module__}:{type(thing).__qualname__}"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
