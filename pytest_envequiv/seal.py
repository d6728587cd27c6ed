"""Whether code that decides was replaced: what a judge relies on, remembered before the target is opened.

A target in the judge's process can replace anything there: numpy's functions, the comparison, the words, the
reference's own methods. What is found replaced later is named. The function that looks keeps all it needs by itself,
so that it cannot be replaced in the same way; a target that searches the memory of the process can still defeat it
(``--envequiv-isolate`` keeps it out).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
# What we compute with: all of these modules that are loaded.
RELIED_ON = frozenset({PACKAGE, "numpy", "msgpack", "json", "gymnasium", "copy", "struct", "math", "operator"})
# Of JAX only what is called by everyone: its insides change by themselves.
FACES = frozenset({"builtins", "jax", "jax.numpy", "jax.lax", "jax.random", "jax.tree", "jax.tree_util"})
CALLABLE = (FunctionType, BuiltinFunctionType, MethodDescriptorType, type, staticmethod, classmethod, property)

# How to look it up, its key and value; the function it is or wraps, and that one's code; its name for people.
Looked = tuple[Callable[[str], Any], str, Any, Any, Any, str]


def seal(*more: str) -> Callable[[], str | None]:
    """Remember what is loaded now; the function returned names the first thing that was replaced since, or None.

    ``more``: top-level packages besides those we always rely on, such as the reference's.
    """
    looked = list(_looked(list(sys.modules.items()), RELIED_ON.union(more)))
    modules = [(name, module) for name, module in sys.modules.items() if _relied_on(name, RELIED_ON.union(more))]
    loaded = sys.modules

    def broken() -> str | None:
        for get, key, value, function, code, name in looked:
            if get(key) is not value or (function is not None and function.__code__ is not code):
                return name
        for name, module in modules:
            if loaded.get(name) is not module:
                return f"sys.modules[{name!r}]"
        return None

    return broken


def _relied_on(name: str, packages: Iterable[str]) -> bool:
    return name in FACES or name.partition(".")[0] in packages


def _looked(modules: list[tuple[str, Any]], packages: Iterable[str]) -> Iterator[Looked]:
    classes = set()
    for name, module in modules:
        if not isinstance(module, ModuleType) or not _relied_on(name, packages):
            continue
        for key, value in list(vars(module).items()):
            ours = name.partition(".")[0] == PACKAGE and key.isupper() and isinstance(value, (str, int, float, tuple))
            if ours or isinstance(value, CALLABLE) or type(value).__name__ == "ufunc":
                yield vars(module).get, key, value, *_code(value), f"{name}.{key}"
            if isinstance(value, type) and _relied_on(value.__module__, packages) and id(value) not in classes:
                classes.add(id(value))
                space: Any = vars(value)  # a view: it shows what is set later
                owner = f"{value.__module__}.{value.__qualname__}"
                for method, function in list(space.items()):
                    if isinstance(function, CALLABLE):
                        yield space.get, method, function, *_code(function), f"{owner}.{method}"


def _code(value: Any) -> tuple[Any, Any]:
    """The Python function that something is or wraps, as a method's wrapping does, and its code; or (None, None)."""
    for name in ("__func__", "fget"):
        value = getattr(value, name, value)
    return (value, value.__code__) if isinstance(value, FunctionType) else (None, None)
