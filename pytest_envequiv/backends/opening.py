"""From a name to a backend.

``kind:rest`` goes to the kind's module: one of those below, or one that another package offers under the entry
point group ``envequiv.backends``. A dotted name is imported, and whatever it offers is shown to every kind. A
name may end in options: ``gymnasium:CartPole-v1?max_episode_steps=100``.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from pytest_envequiv.backends.protocol import Backend, Spec
from pytest_envequiv.errors import OpenError

GROUP = "envequiv.backends"
ENVIRONMENTS = {"Env", "AECEnv", "ParallelEnv", "FuncEnv", "Environment"}  # names of the libraries' base classes
MAKERS = ("make", "make_env", "env", "parallel_env")
KINDS = ("gymnasium", "gymnax", "pgx", "brax", "pettingzoo", "process")


def kinds() -> dict[str, Any]:
    """Kind -> a function that loads its module: ``open_name(rest, options)`` and ``claim(thing, name, options)``."""
    found = {kind: (lambda kind=kind: importlib.import_module(f"pytest_envequiv.backends.{kind}")) for kind in KINDS}
    return found | {point.name: point.load for point in _offered(tuple(sys.path)) if point.name not in found}


@lru_cache(maxsize=8)
def _offered(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What packages offer on a search path. Looking through all that is installed takes longer than to open a port."""
    return tuple(entry_points(group=GROUP))


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
        return _by_kind(known[kind], kind, rest, name, options)
    if kind in known and bare.endswith(":"):
        raise OpenError(f"{name}: what to open is missing after the colon")
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


def _by_kind(load: Any, kind: str, rest: str, name: str, options: dict[str, Any]) -> Backend:
    try:
        module = load()
    except Exception as error:  # a package that offers a kind and is broken
        raise OpenError(f"{name}: the backend kind {kind!r} cannot be loaded: {_line(error)}") from error
    try:
        return module.open_name(rest, options)  # type: ignore[no-any-return]
    except (OpenError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit and pytest's Skipped are no Exceptions, and no excuse
        raise OpenError(f"{name}: opening it raised {_line(error)}") from error


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
            meant = f"; did you mean gymnasium:{name}?" if re.search(r"-v\d+$", name) else ""
            raise OpenError(
                f"{name}: there is no module {error.name!r} (looked for a backend kind, then for a module){meant}"
            ) from error
        raise OpenError(f"{name}: importing it needs the module {error.name!r}, which is not installed") from error
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit and pytest's Skipped are no Exceptions, and no excuse
        raise OpenError(f"{name}: importing it raised {_line(error)}") from error


def _claimed(thing: Any, name: str, options: dict[str, Any], like: Spec | None) -> Backend:
    failures: list[OpenError] = []
    for candidate in _candidates(thing, name):
        try:
            backend = _claim(candidate, name, options, like)
        except (KeyboardInterrupt, MemoryError):
            raise
        except OpenError as error:
            failures.append(error)
        except BaseException as error:  # as in _by_kind
            failures.append(OpenError(f"{name}: opening it raised {_line(error)}"))
            failures[-1].__cause__ = error
        else:
            if backend is not None:
                return backend
    if failures:
        raise failures[0]
    found = ", ".join(n for n in dir(thing) if not n.startswith("_"))[:200] or "nothing"
    raise OpenError(
        f"{name}: looked for `backend`, a Gymnasium Env class, `make`, or functions `reset` and `step`; found {found}"
    )


def _candidates(thing: Any, name: str) -> list[Any]:
    """What a module offers, in the order it is tried; anything else is itself."""
    if not isinstance(thing, ModuleType):
        return [thing]
    own = [v for v in vars(thing).values() if isinstance(v, type) and v.__module__ == thing.__name__]
    stepping = [c for c in own if hasattr(c, "step") or hasattr(c, "step_env")]
    classes = [c for c in stepping if not any(c is not other and issubclass(other, c) for other in stepping)]
    environments = [c for c in classes if any(base.__name__ in ENVIRONMENTS for base in c.__mro__)]
    makers = [getattr(thing, maker) for maker in MAKERS if hasattr(thing, maker)]
    if len(environments) > 1 and not makers and not hasattr(thing, "backend"):
        choices = ", ".join(f"{thing.__name__}:{c.__name__}" for c in environments)
        raise OpenError(f"{name}: it offers several environments; name one of {choices}")
    others = [c for c in classes if c not in environments]
    functions = [thing] if hasattr(thing, "step") or hasattr(thing, "step_env") else []
    return [*filter(None, [getattr(thing, "backend", None)]), *environments, *makers, *functions, *others]


def _claim(thing: Any, name: str, options: dict[str, Any], like: Spec | None) -> Backend | None:
    if isinstance(getattr(thing, "spec", None), Spec):
        return thing  # type: ignore[no-any-return]
    for module in kinds_loaded():
        backend = module.claim(thing, name, options) if hasattr(module, "claim") else None
        if backend is not None:
            return backend  # type: ignore[no-any-return]
    from pytest_envequiv.backends import plain

    if callable(thing) and not isinstance(thing, (type, ModuleType)) and not hasattr(thing, "step"):
        if any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in _parameters(thing)):
            return None
        made = thing(**options)
        for module in kinds_loaded():  # a kind whose environments are stateful makes one for each lane
            if hasattr(module, "from_factory"):
                backend = module.from_factory(made, lambda: thing(**options), name)
                if backend is not None:
                    return backend  # type: ignore[no-any-return]
        return _claim(made, name, {}, like)
    return plain.claim(thing, name, options, like)


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def kinds_loaded() -> list[Any]:
    """The modules of all kinds that can be loaded; one that cannot does not keep the others from working."""
    found = []
    for load in kinds().values():
        with contextlib.suppress(Exception):
            found.append(load())
    return found


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
