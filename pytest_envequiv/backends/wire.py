"""Arrays, spaces, draws and specs as msgpack can hold them, and back: what ``process.py`` and ``serve.py`` exchange.

An array is {dtype, shape, data: little-endian bytes} or a plain nested list, read as the dtype hello declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import Draw, Leaf, Space, Spec, Tape

VERSION = 1  # of the protocol
REQUIRED = ("version", "name", "action", "observation", "state", "draws")
DTYPES = {"bool", "float16", "float32", "float64"} | {f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)}
DRAW_DTYPES = {"uniform": "float64", "normal": "float64", "integers": "int64", "permutation": "int64"}

Encode = Callable[[np.ndarray], Any]


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array with its exact bits. Raises TypeError for a dtype the wire does not know."""
    array = np.asarray(array)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"arrays of {array.dtype.name} cannot be sent")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": little.tobytes()}


def unpack(wire: Any, default: str | None = None) -> np.ndarray:
    """The array in ``wire``: packed, with the dtype it says, or a (nested) list of numbers, read as ``default``.

    Raises ValueError with the end of a sentence.
    """
    if not isinstance(wire, Mapping):
        try:
            array = np.asarray(wire)
        except ValueError:
            raise ValueError("is a list whose rows differ in length") from None
        if array.dtype.kind not in "biuf":
            raise ValueError(f"is not numbers but {str(wire)[:40]!r}")
        return array if default is None else cast(array, default)
    if not {"dtype", "shape", "data"} <= wire.keys():
        raise ValueError(f"is a map of {sorted(map(str, wire))} instead of 'data', 'dtype' and 'shape'")
    name, shape, data = wire["dtype"], tuple(wire["shape"]), wire["data"]
    if name not in DTYPES:
        raise ValueError(f"has the unknown dtype {name!r}")
    dtype = np.dtype(np.uint8 if name == "bool" else name)  # a bool is a byte that is not zero
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != size:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise ValueError(f"has {found} of data, expected {size} bytes for {name} of shape {shape}")
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(name)  # a copy, so writable


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """``array`` as ``dtype``. Rounds to a float; raises ValueError where an integer or bool would change."""
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    if cast.dtype.kind != "f" and not np.array_equal(cast, array):
        raise ValueError(f"holds {array[cast != array].flat[0].item()!r}, which is not {dtype}")
    return cast


def space_from_wire(wire: Any) -> Space:
    """Defaults: shape []; discrete: int64 from 0; box: no bounds. Raises ValueError with the end of a sentence."""
    kind = wire.get("kind") if isinstance(wire, Mapping) else None
    if kind not in ("discrete", "box"):
        raise ValueError(f"needs the kind 'discrete' or 'box', found {kind!r}")
    if kind == "discrete" and wire.get("high") is None:
        raise ValueError("is discrete and needs 'high', its largest value")
    dtype = _dtype(wire.get("dtype", "int64" if kind == "discrete" else None))
    unbounded = (0, None) if kind == "discrete" else (-np.inf, np.inf)

    def bound(key: str, otherwise: Any) -> np.ndarray:
        value = otherwise if wire.get(key) is None else wire[key]
        if isinstance(value, Mapping):
            return unpack(value)
        plain = unpack(value)
        return plain.astype(dtype if dtype.startswith("float") or np.isfinite(plain).all() else "float64")

    return Space(kind, tuple(wire.get("shape", ())), dtype, bound("low", unbounded[0]), bound("high", unbounded[1]))


def _dtype(name: Any) -> str:
    if name not in DTYPES:
        raise ValueError(f"needs a dtype such as 'float32', found {name!r}")
    return name


def tape_to_wire(tape: Tape, encode: Encode = pack) -> list[dict[str, Any]]:
    return [
        {
            "kind": draw.kind,
            "shape": list(draw.shape),
            "site": draw.site,
            **{key: encode(getattr(draw, key)) for key in ("low", "high", "value", "present")},
        }
        for draw in tape
    ]


def tape_from_wire(wire: Any, rows: int) -> Tape:
    """``low`` and ``high`` may be one number for all rows or left out, and ``present`` left out.

    Raises ValueError with a whole sentence.
    """
    return tuple(_draw_from_wire(i, entry, rows) for i, entry in enumerate(wire))


def _draw_from_wire(i: int, entry: Any, rows: int) -> Draw:
    if not isinstance(entry, Mapping) or not {"kind", "shape", "value"} <= entry.keys():
        raise ValueError(f"draw {i} is not a map with 'kind', 'shape' and 'value'")
    kind, shape = str(entry["kind"]), tuple(entry["shape"])

    def read(key: str, dtype: str | None, shape: tuple[int, ...] | None, otherwise: Any = None) -> np.ndarray:
        try:
            array = unpack(otherwise if entry.get(key) is None else entry[key], dtype)
            if array.ndim == 0 and otherwise is not None:
                array = np.full(rows, array)
            fit_shape(array, (rows, *(array.shape[1:] if shape is None else shape)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{key!r} of draw {i} ({kind}) {error}") from None
        return array

    return Draw(
        kind=kind,
        shape=shape,
        low=read("low", "float64", None, np.nan),
        high=read("high", "float64", None, np.nan),
        value=read("value", DRAW_DTYPES.get(kind), shape),
        present=read("present", "bool", (), True),
        site=str(entry.get("site") or ""),
    )


def fit_shape(array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless ``array`` has ``shape``, in which None is any length."""
    fits = (wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=False))
    if array.ndim != len(shape) or not all(fits):
        expected = str(shape).replace("None", "any")
        raise ValueError(f"has shape {array.shape}, expected {expected}")


def spec_from_wire(wire: Mapping[str, Any]) -> Spec:
    """Raises ValueError or TypeError with the whole sentence of what is wrong with this answer to hello."""
    if wire.get("version", VERSION) != VERSION:
        raise ValueError(f"the program speaks protocol version {wire['version']}, pytest-envequiv version {VERSION}")
    required = (*REQUIRED, "fields") if wire.get("state") == "fields" else REQUIRED
    missing = [key for key in required if key not in wire]
    if missing:
        raise ValueError(f"the answer to hello lacks {quoted(missing)} (it has {quoted(wire)})")
    for key, words in (("state", ("fields", "snapshot", "none")), ("draws", ("tape", "seed", "none"))):
        if wire[key] not in words:
            raise ValueError(f"'{key}' in the answer to hello is {wire[key]!r}, not one of {quoted(words)}")

    def each(key: str, read: Callable[[Any], Any], single: Callable[[Any], bool] = lambda _: False) -> dict[str, Any]:
        entries = wire.get(key) or {}
        if not isinstance(entries, Mapping):
            raise TypeError(f"'{key}' in the answer to hello is not a map")
        found = {}
        for name, entry in ({key: entries} if single(entries) else entries).items():
            try:
                found[name] = read(entry)
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"'{name}' in '{key}' of the answer to hello {error}") from None
        return found

    def one_space(entries: Mapping[str, Any]) -> bool:
        return isinstance(entries.get("kind"), str)

    return Spec(
        name=str(wire["name"]),
        kind="process",
        action=each("action", space_from_wire, one_space),
        observation=each("observation", space_from_wire, one_space),
        fields=each("fields", lambda leaf: Leaf(tuple(leaf.get("shape", ())), _dtype(leaf.get("dtype")))),
        state=wire["state"],
        draws=wire["draws"],
        batched=bool(wire.get("batched", True)),
        time_limit=wire.get("time_limit"),
        seats=wire.get("seats") or 1,
        constants=each("constants", unpack),
        conventions=each("conventions", str),
        versions=each("versions", str),
        notes=tuple(wire.get("notes") or ()),
    )


def quoted(names: Any) -> str:
    return ", ".join(repr(str(name)) for name in names)


def spec_to_wire(spec: Spec) -> dict[str, Any]:
    """The answer to hello."""
    return {
        "version": VERSION,
        "action": {name: _space_to_wire(space) for name, space in spec.action.items()},
        "observation": {name: _space_to_wire(space) for name, space in spec.observation.items()},
        "fields": {name: {"shape": list(leaf.shape), "dtype": leaf.dtype} for name, leaf in spec.fields.items()},
        "constants": {name: pack(value) for name, value in spec.constants.items()},
        **{key: getattr(spec, key) for key in ("name", "state", "draws", "batched", "time_limit", "seats")},
        "conventions": dict(spec.conventions),
        "versions": dict(spec.versions),
        "notes": list(spec.notes),
    }


def _space_to_wire(space: Space) -> dict[str, Any]:
    bounds = {"low": pack(space.low), "high": pack(space.high)}
    return {"kind": space.kind, "shape": list(space.shape), "dtype": space.dtype, **bounds}
