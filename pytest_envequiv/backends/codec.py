"""Attribute values as array elements, and back, each with the type it had.

``Watch`` looks at the values one place takes; its ``codec`` says how they become an array, if they are regular
enough: numbers, arrays, lists or tuples of them, texts, and any of these that is sometimes None.
"""

from __future__ import annotations

import copy
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

MOST_WORDS = 64  # distinct texts a field may take
LARGEST = 1_000_000  # elements
ABSENT = object()  # the value of a place that does not exist at the moment


def as_array(value: Any) -> np.ndarray | None:
    """The value as a numeric array, or None if it is not one (ragged, an empty list, texts, objects)."""
    if isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray)) or is_jax(value):
        array = np.asarray(value)
    elif isinstance(value, (list, tuple, deque)) and value:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError):
            return None
    else:
        return None
    return array if array.dtype.kind in "biuf" and array.size <= LARGEST else None


def is_jax(value: Any) -> bool:
    """Whether it is a concrete JAX array (not a typed key)."""
    return type(value).__name__ == "ArrayImpl" and getattr(value.dtype, "kind", "V") in "biuf"


def as_word(value: Any) -> Any:
    """A text, an enum's member, or a tuple of texts for a list of them; None if it is nothing of the kind."""
    if isinstance(value, (str, Enum)):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return None


def copied(value: Any) -> Any:
    """The value apart from what may be changed in place later."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, (list, deque)):
        twin = value.copy()
        for i, item in enumerate(value):
            if isinstance(item, (np.ndarray, list, deque)):
                twin[i] = copied(item)
        return twin
    return value


def same_arrays(x: np.ndarray, y: np.ndarray) -> bool:
    """Equal shape and elements, NaN equal to itself."""
    floats = x.dtype.kind == "f" and y.dtype.kind == "f"
    return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=floats))


def same(a: Any, b: Any) -> bool:
    """Whether two values of one place are the same, as far as can be told."""
    if a is b:
        return True
    x, y = as_array(a), as_array(b)
    if x is not None and y is not None:
        return same_arrays(x, y)
    if x is not None or y is not None:
        return False
    u, v = as_word(a), as_word(b)
    return bool(u == v) if u is not None or v is not None else _digest(a) == _digest(b)


def _digest(value: Any) -> bytes | None:
    """What changes when the value does; None where nothing can be said."""
    try:
        return pickle.dumps(value)
    except Exception:  # C objects, sockets, generators
        return None


# -- watching --------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """What one place has held so far. ``moved``: it did not always hold the same; ``first``: what it held first."""

    first: Any = ABSENT
    moved: bool = False
    _last: Any = ABSENT
    _kinds: set[str] = field(default_factory=set)
    _shapes: set[tuple[int, ...]] = field(default_factory=set)
    _dtypes: set[np.dtype[Any]] = field(default_factory=set)
    _forms: dict[Any, tuple[Any, int]] = field(default_factory=dict)  # form -> (an example, times a step left it)
    _words: set[Any] = field(default_factory=set)

    def see(self, value: Any, stepped: bool = True, closely: bool = True) -> None:
        """``stepped``: a step left it, rather than a reset. ``closely``: even if it takes a while to compare."""
        if value is self._last and isinstance(value, (int, float, str, np.generic, type(None))):
            return
        self._last = value
        if not self._kinds:
            self.first = _kept(value)
        elif not self.moved and (closely or as_array(value) is not None):
            self.moved = not same(value, self.first)
        if value is None:
            self._kinds.add("none")
        elif (array := as_array(value)) is not None:
            self._kinds.add("array")
            self._shapes.add(array.shape)
            self._dtypes.add(array.dtype)
            form = _form(value)
            _, times = self._forms.get(form, (None, 0))
            self._forms[form] = (copied(value), times + stepped)
        elif (word := as_word(value)) is not None:
            self._kinds.add("word")
            self._words.add(word)
            self._forms[type(value)] = (value, 0)
        else:
            self._kinds.add("other")

    @property
    def constant(self) -> np.ndarray | None:
        """The numbers of a place that never moved, or None."""
        return None if self.moved or self._kinds != {"array"} else as_array(self.first)

    def codec(self) -> Codec | None:
        """How to write the values down; None if they are not regular."""
        optional = "none" in self._kinds
        kinds = self._kinds - {"none"}
        if kinds == {"word"} and len(self._words) <= MOST_WORDS and len(self._forms) == 1:
            words = [None] if optional else []
            return Codec(
                (), "int32", words=words + sorted(self._words, key=str), templates=[next(iter(self._forms.values()))[0]]
            )
        if kinds != {"array"} or len(self._shapes) != 1:
            return None
        dtype = np.result_type(*self._dtypes)
        if {str(d) for d in self._dtypes} == {"int64", "uint64"}:  # bit boards
            dtype = np.dtype(np.uint64)
        if optional:
            dtype = np.result_type(dtype, np.float64)
        # What a step leaves behind most often comes first; a reset may store another type.
        forms = sorted(self._forms.values(), key=lambda known: -known[1])
        return Codec(
            next(iter(self._shapes)), str(dtype), templates=[example for example, _ in forms], optional=optional
        )


def _kept(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # a C object; whether it changes cannot be told either
        return value


def _form(value: Any) -> Any:
    """The type of a value, down to the elements of short lists."""
    if isinstance(value, np.ndarray):
        return value.dtype
    if isinstance(value, (list, tuple, deque)):
        return (type(value), *(_form(v) for v in list(value)[:64]))
    return type(value)


# -- coding ----------------------------------------------------------------------------------------------------------


@dataclass
class Codec:
    """How the values of one place become an array with a leading batch axis, and go back.

    shape, dtype   of one row
    templates      an example of each type the place has held; a value is given the first type that holds it exactly
    words          texts a text place has held: kept as their number. A new one is appended when it is first read
    optional       it is sometimes None, which is kept as NaN
    """

    shape: tuple[int, ...]
    dtype: str
    templates: list[Any] = field(default_factory=list)
    words: list[Any] | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if self.words is None:
            self._makers = [maker(t) for t in self.templates]

    def encode(self, values: list[Any]) -> np.ndarray:
        """(B, *shape). Raises ValueError where a value has another shape or kind than ever before."""
        if self.words is not None:
            return np.array([self._number(v) for v in values], np.int32)
        if self.optional:
            nothing = np.full(self.shape, np.nan)
            values = [nothing if v is None else v for v in values]
        array = np.array(values, self.dtype)  # OverflowError if a bit board turns negative
        if array.shape[1:] != self.shape:
            raise ValueError(f"a state field changed its shape from {self.shape} to {array.shape[1:]}")
        return array

    def _number(self, value: Any) -> int:
        word = as_word(value)
        assert self.words is not None
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    def decode(self, column: np.ndarray) -> list[Any]:
        """B values, none of which shares memory with ``column`` or another."""
        if self.words is not None:
            whole = type(self.templates[0])
            words = [self.words[i] for i in column.tolist()]
            return [whole(w) if isinstance(w, tuple) else w for w in words]
        values = self._typed(column)
        if self.optional:
            none = np.isnan(column).reshape(len(column), -1).all(1)
            return [None if n else v for n, v in zip(none.tolist(), values, strict=True)]
        return values

    def _typed(self, column: np.ndarray) -> list[Any]:
        values = self._makers[0](column)
        if len(self._makers) == 1:
            return values
        # A reset may store another type, or more digits, than a step does; they are kept.
        lossy = self._lossy(values, column, np.arange(len(column)))
        for make in self._makers[1:]:
            if not len(lossy):
                break
            for i, value in zip(lossy.tolist(), make(column[lossy]), strict=True):
                values[i] = value
            lossy = self._lossy(values, column, lossy)
        return values

    def _lossy(self, values: list[Any], column: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Those of ``rows`` whose value is not exactly what the column says."""
        now, then = np.array([values[i] for i in rows.tolist()], self.dtype), column[rows]
        return rows[~((now == then) | (then != then)).reshape(len(rows), -1).all(1)] if len(rows) else rows


def maker(template: Any) -> Callable[[np.ndarray], list[Any]]:
    """A function from (B, ...) to B fresh values of the template's type."""
    kind = type(template)
    if isinstance(template, np.ndarray):
        return lambda column: list(column.astype(template.dtype))
    if isinstance(template, (np.number, np.bool_)):
        return lambda column: list(_cast(column, template.dtype))
    if isinstance(template, bool):
        return lambda column: _cast(column, bool).tolist()
    if isinstance(template, int):
        return lambda column: _cast(column, column.dtype if column.dtype.kind in "iu" else np.int64).tolist()
    if isinstance(template, float):
        return lambda column: column.astype(np.float64).tolist()
    if is_jax(template):
        import jax.numpy as jnp

        return lambda column: [jnp.asarray(row, template.dtype) for row in column]
    items = [maker(item) for item in template]

    def whole(column: np.ndarray) -> list[Any]:
        rows = zip(*[make(column[:, i]) for i, make in enumerate(items)], strict=True)
        if isinstance(template, deque):
            return [deque(row, template.maxlen) for row in rows]
        return [kind._make(row) if hasattr(kind, "_make") else kind(row) for row in rows]

    return whole


def _cast(column: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"):  # NaN stands for None, and is put right afterwards
        return column.astype(dtype)
