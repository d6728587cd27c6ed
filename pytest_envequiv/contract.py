"""The contract: what "the same" means for a pair, where the defaults do not say it. Read from TOML.

See docs/contract.md for every key with an example. Unknown keys are refused with the nearest known one, so that a
misspelt tolerance cannot silently do nothing.
"""

from __future__ import annotations

import ast
import datetime
import difflib
import fnmatch
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomli

from pytest_envequiv.errors import ContractError

KNOWN: dict[str, set[str] | None] = {
    "pair": {"ref", "target", "ref_options", "target_options", "time_limit"},
    "fields": None,  # free keys: the target's state fields
    "tolerance": None,  # free keys: field names, each a table of TOLERANCE
    "live": {"rule"},
    "coverage": {"terminations", "truncations", "branches", "ignore"},
    "accept": {"check", "reason", "expires"},
    "invariant": {"name", "rule", "call"},
}
TOLERANCE = {"ratio", "atol", "rtol", "reason"}
RATIO = 64.0


@dataclass(frozen=True)
class Tolerance:
    """How far a float field may be off. ``ratio`` multiplies the calibrated spread; ``atol`` and ``rtol`` add to it."""

    ratio: float = RATIO
    atol: float = 0.0
    rtol: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Accepted:
    """A known difference that is let pass until a day: ``check`` is a pattern of check ids."""

    check: str
    reason: str
    expires: datetime.date


@dataclass(frozen=True)
class Invariant:
    """Something that holds for every live state and its outputs: ``rule`` is an expression over their names, or
    ``call`` a function, "module:function", of states, actions and what came after them."""

    name: str
    rule: str = ""
    call: str = ""


@dataclass(frozen=True)
class Contract:
    """All defaults: an empty contract."""

    path: str | None = None
    text: str = ""
    ref: str | None = None
    target: str | None = None
    ref_options: Mapping[str, Any] = field(default_factory=dict)
    target_options: Mapping[str, Any] = field(default_factory=dict)
    time_limit: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    live: str | None = None
    coverage: Mapping[str, Any] = field(default_factory=dict)
    accepted: tuple[Accepted, ...] = ()
    invariants: tuple[Invariant, ...] = ()

    def tolerance(self, name: str) -> Tolerance:
        return self.tolerances.get(name, Tolerance())

    def acceptance(self, check_id: str) -> Accepted | None:
        return next((a for a in self.accepted if fnmatch.fnmatchcase(check_id, a.check)), None)


def read(path: str | Path) -> Contract:
    """The contract in a TOML file. Raises ContractError naming the file, the key and how to mend it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"contract {path}: {error.strerror}") from error
    return parse(text, str(path))


def parse(text: str, path: str = "<text>") -> Contract:
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ContractError(f"contract {path}: not TOML: {error}") from error
    _known(data, KNOWN.keys(), path, "")
    for table, keys in KNOWN.items():
        for entry in _entries(data.get(table, {}), table, path):
            if keys is not None:
                _known(entry, keys, path, table)
    pair = data.get("pair", {})
    return Contract(
        path=path,
        text=text,
        ref=pair.get("ref"),
        target=pair.get("target"),
        ref_options=pair.get("ref_options", {}),
        target_options=pair.get("target_options", {}),
        time_limit=pair.get("time_limit"),
        fields=data.get("fields", {}),
        tolerances={name: _tolerance(name, table, path) for name, table in data.get("tolerance", {}).items()},
        live=data.get("live", {}).get("rule"),
        coverage=_coverage(data.get("coverage", {}), path),
        accepted=tuple(_accepted(entry, path) for entry in data.get("accept", [])),
        invariants=tuple(_invariant(entry, path) for entry in data.get("invariant", [])),
    )


def _entries(value: Any, table: str, path: str) -> list[dict[str, Any]]:
    entries = value if table in ("accept", "invariant") and isinstance(value, list) else [value]
    if not all(isinstance(entry, dict) for entry in entries) or (
        isinstance(value, dict) and value and table in ("accept", "invariant")
    ):
        wanted = f"[[{table}]]" if table in ("accept", "invariant") else f"[{table}]"
        raise ContractError(f"contract {path}: {table!r} must be written as {wanted}")
    return entries


def _known(table: Mapping[str, Any], keys: Any, path: str, where: str) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key, list(keys), 1, 0.5)
            inside = f" in [{where}]" if where else ""
            hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(keys))})"
            raise ContractError(f"contract {path}: unknown key {key!r}{inside}{hint}")


def _tolerance(name: str, table: Any, path: str) -> Tolerance:
    if not isinstance(table, dict):
        raise ContractError(f"contract {path}: write [tolerance.{name}] with {', '.join(sorted(TOLERANCE))}")
    _known(table, TOLERANCE, path, f"tolerance.{name}")
    tolerance = Tolerance(**table)
    if (tolerance.ratio > RATIO or tolerance.atol or tolerance.rtol) and not tolerance.reason:
        raise ContractError(f"contract {path}: [tolerance.{name}] is wider than the default and gives no reason")
    return tolerance


def _coverage(table: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Counts from 0 up, a share, and patterns of places."""
    for key in ("terminations", "truncations"):
        if type(table.get(key, 0)) is not int or table.get(key, 0) < 0:
            raise ContractError(f"contract {path}: [coverage] {key} = {table[key]!r}: give a whole number from 0 up")
    share = table.get("branches", 0)
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise ContractError(f"contract {path}: [coverage] branches = {share!r}: give a share from 0 to 1, like 0.95")
    ignore = table.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(pattern, str) for pattern in ignore):
        raise ContractError(f'contract {path}: [coverage] ignore: give a list of places, like ["cartpole.py:88"]')
    return table


def _accepted(entry: Mapping[str, Any], path: str) -> Accepted:
    for key in ("check", "reason", "expires"):
        if not entry.get(key):
            raise ContractError(f"contract {path}: an [[accept]] needs check, reason and expires; {key!r} is missing")
    expires = entry["expires"]
    if isinstance(expires, str):
        try:
            expires = datetime.date.fromisoformat(expires)
        except ValueError as error:
            raise ContractError(f"contract {path}: expires = {expires!r} is not a date like 2027-01-31") from error
    return Accepted(entry["check"], entry["reason"], expires)


def _invariant(entry: Mapping[str, Any], path: str) -> Invariant:
    if not entry.get("name") or bool(entry.get("rule")) == bool(entry.get("call")):
        raise ContractError(f"contract {path}: an [[invariant]] needs a name, and either a rule or a call")
    if not re.fullmatch(r"\w+", entry["name"]):
        raise ContractError(f"contract {path}: invariant name {entry['name']!r}: letters, digits and _ only")
    if entry.get("call") and not re.fullmatch(r"[\w.]+:\w+", entry["call"]):
        raise ContractError(
            f"contract {path}: invariant {entry['name']}: call = {entry['call']!r} is no module:function"
        )
    return Invariant(entry["name"], entry.get("rule", ""), entry.get("call", ""))


FUNCTIONS = {
    name: getattr(np, name)
    for name in ("abs", "minimum", "maximum", "sin", "cos", "sqrt", "sign", "where", "isfinite", "pi")
} | {
    "all": lambda x: np.asarray(x).reshape(len(x), -1).all(1),
    "any": lambda x: np.asarray(x).reshape(len(x), -1).any(1),
}


def holds(rule: str, values: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """bool[B]: rows for which ``rule`` is true. Names are those of ``values``, dots written as underscores; the first
    of them has a row each, settings among the others may have none.

    Raises ContractError for a rule that cannot be evaluated, naming what it may use.
    """
    names = {_spelled(key): value for key, value in values.items()}
    try:
        result = eval(compile(rule, where, "eval"), {"__builtins__": {}}, {**FUNCTIONS, **names})
    except Exception as error:
        raise ContractError(f"{where}: rule {rule!r}: {error} (it may use {', '.join(sorted(names))})") from error
    rows = len(next(iter(values.values())))
    result = np.asarray(result, bool)
    return np.broadcast_to(result.reshape(len(result), -1).all(1) if result.ndim > 1 else result, (rows,))


def called(
    call: str,
    side: str,
    before: Mapping[str, np.ndarray],
    action: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    where: str,
) -> np.ndarray:
    """bool[B]: rows for which the function "module:function" says that it holds. It is given the side, "reference" or
    "target", and arrays with a row for each transition: the reference's state and action, and the fields that are
    compared as they are after the step.

    Raises ContractError for a function that is not there, that fails, or that gives anything else.
    """
    module, _, name = call.partition(":")
    rows = len(next(iter(after.values())))
    try:
        result = np.asarray(getattr(importlib.import_module(module), name)(side, before, action, after))
    except Exception as error:
        text = " ".join(str(error).split())
        raise ContractError(f"{where}: call {call!r}: {type(error).__name__}: {text}") from error
    if result.shape != (rows,) or result.dtype != bool:
        raise ContractError(f"{where}: call {call!r} gave {result.dtype}{result.shape}, not bool({rows},)")
    return result


def named_in(rule: str | None, keys: Iterable[str]) -> frozenset[str]:
    """Those of ``keys`` that a rule speaks of; none of a rule that cannot be read (``holds`` says so)."""
    try:
        nodes = list(ast.walk(ast.parse(rule or "", mode="eval"))) if rule else []
    except SyntaxError:
        nodes = []
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return frozenset(key for key in keys if _spelled(key) in names)


def _spelled(key: str) -> str:
    """A name as it is written in a rule."""
    return re.sub(r"\W", "_", key).lstrip("_") or key
