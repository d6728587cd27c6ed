"""What the parameters of a plain ``reset`` and ``step`` are, and what is what in what they return.

Read from names where there are names, and from types and places where there are none. For JAX and numpy alike:
values may be arrays, numbers, or the shapes and dtypes of a trace.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import AGENT, DONE, MASK, REWARD, TERMINATED, TRUNCATED, Space
from pytest_envequiv.errors import OpenError

STATE, ACTION, KEY, SEED, PARAMS, OBSERVATION = "state", "action", "key", "seed", "params", "observation"
WORDS = {
    STATE: {"state", "s", "env_state", "envstate", "st", "carry", "timestep", "prev_state", "old_state"},
    ACTION: {"action", "actions", "a", "act", "u", "control"},
    KEY: {"key", "rng", "rng_key", "prng_key", "k", "generator", "random_key", "np_random", "prng", "random_state"},
    SEED: {"seed"},
    PARAMS: {"params", "env_params", "p", "config", "cfg", "parameters"},
}
NAMED = {
    STATE: STATE, "env_state": STATE, "next_state": STATE, "new_state": STATE,
    OBSERVATION: OBSERVATION, "obs": OBSERVATION, "observations": OBSERVATION, "next_obs": OBSERVATION,
    "new_obs": OBSERVATION,
    REWARD: REWARD, "rewards": REWARD, "r": REWARD,
    TERMINATED: TERMINATED, "terminal": TERMINATED, "termination": TERMINATED,
    TRUNCATED: TRUNCATED, "truncation": TRUNCATED,
    DONE: DONE, "dones": DONE,
    MASK: MASK, "action_mask": MASK, "legal_action_mask": MASK,
    AGENT: AGENT, "current_player": AGENT,
    "info": "info", "infos": "info", "extras": "info",
}  # fmt: skip
OBSERVERS = ("observe", "observation", "get_obs", "_get_obs", "get_observation", "obs")
UNSEEN = "reset returns no observation and there is no observe(state): what is seen after a reset is not known (zeros)"
LAST = 2  # a dm_env step_type: the episode is over


@dataclass(frozen=True)
class Call:
    """A function with the role of each parameter that is given to it: (role, parameter's name, positional only)."""

    function: Callable[..., Any]
    roles: tuple[tuple[str, str, bool], ...]

    def __call__(self, **given: Any) -> Any:
        """``given``: values by role."""
        places = [given[role] for role, _, alone in self.roles if alone]
        return self.function(*places, **{name: given[role] for role, name, alone in self.roles if not alone})

    def takes(self, role: str) -> bool:
        return any(role == found for found, _, _ in self.roles)

    def with_defaults(self, **given: Any) -> Any:
        """As ``__call__``, but what is not given is left to the function's defaults."""
        return Call(self.function, tuple(entry for entry in self.roles if entry[0] in given))(**given)


def call_of(function: Callable[..., Any], wanted: tuple[str, ...]) -> Call:
    """The roles of the parameters, by name; unknown ones without a default get what is ``wanted``, in order."""
    parameters = list(inspect.signature(function).parameters.values())
    known = {p.name: next((r for r, words in WORDS.items() if p.name.lower() in words), None) for p in parameters}
    left = [role for role in wanted if role not in known.values()]
    roles = []
    for parameter in parameters:
        role = known[parameter.name]
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if role is None and parameter.default is not parameter.empty:
            continue
        if role is None:
            role = left.pop(0) if left else PARAMS
        roles.append((role, parameter.name, parameter.kind is parameter.POSITIONAL_ONLY))
    return Call(function, tuple(roles))


def params_of(thing: Any, options: dict[str, Any], name: str) -> Any:
    """The parameter structure a port takes, with fields replaced by ``options``. Raises OpenError for unknown ones."""
    words = ("default_params", "params", "DEFAULT_PARAMS", "PARAMS", "get_default_params", "EnvParams", "Params")
    params: Any = next((value for word in words if (value := getattr(thing, word, None)) is not None), None)
    if isinstance(params, type) or inspect.isroutine(params):
        try:
            params = params()
        except TypeError:
            params = None
    if not options:
        return params
    fields = fields_of(params) or {}
    unknown = [key for key in options if key not in fields]
    if unknown:
        raise OpenError(f"{name}: no parameter {unknown[0]!r}; it has {', '.join(map(str, fields)) or 'none'}")
    if isinstance(params, Mapping):
        return {**params, **options}
    return params._replace(**options) if hasattr(params, "_replace") else dataclasses.replace(params, **options)


@dataclass(frozen=True)
class Port:
    """A plain port: how its functions want to be called, and what it declares."""

    name: str
    reset: Call
    step: Call
    observe: Call | None
    params: Any
    action: Mapping[str, Space]
    observation: Mapping[str, Space] | None
    time_limit: int | None = None
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    def given(self, chosen: Mapping[str, Any]) -> Any:
        """The action as its step takes it: alone, or a dict by the names of its parts."""
        return chosen["action"] if set(chosen) == {"action"} else {k.split(".", 1)[1]: v for k, v in chosen.items()}


def conventions(merged: bool, unseen: bool) -> dict[str, str]:
    """``Spec.conventions`` of a plain port."""
    found = {"auto_reset": "none", "done": "merged" if merged else "separate"}
    return {**found, "reset": "unseen"} if unseen else found


# -- results ---------------------------------------------------------------------------------------------------------


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """The named parts of a mapping, named tuple or object with fields; None of anything else."""
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "_asdict"):
        return value._asdict()  # type: ignore[no-any-return]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return None


def returned_names(function: Callable[..., Any]) -> list[str | None]:
    """What the variables of the function's last ``return a, b, c`` stand for; [] where that cannot be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return []
    found: list[ast.Return] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Return):
                found.append(child)
            if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
                visit(child)

    visit(tree)
    last = found[-1].value if found else None
    if not isinstance(last, ast.Tuple):
        return []
    names = [str(getattr(item, "id", getattr(item, "attr", ""))) for item in last.elts]
    return [NAMED.get(name.lower().strip("_")) for name in names]


def parts_of(
    result: Any, is_state: Callable[[Any], bool], names: Sequence[str | None] = (), prefer: int = 0
) -> dict[str, Any]:
    """What ``step`` returned, by name: "state", "observation", "reward", how it ended, and what else there is.

    ``is_state`` says what looks like a state; ``names`` are those in the function's return statement (None: another, or
    no variable at all, as in ``return look(state), state, ...``); where two parts look like a state, it is the one at
    ``prefer``. Raises TypeError, in one line, if it cannot be read.
    """
    fields = fields_of(result)
    if fields is not None:
        parts = _named(fields)
        if is_state(result):  # as in Brax and pgx: everything is in the state
            parts[STATE] = result
        if STATE not in parts:
            raise TypeError(f"step returns {', '.join(fields)}; there is no state among them")
        return _complete(parts)
    if not isinstance(result, (tuple, list)):
        raise TypeError(f"step returns a {type(result).__name__}; expected a tuple, or something with named parts")
    items = list(result)
    names = _completed(names, items)
    if len(names) == len(items) and {STATE, REWARD} <= set(names):
        given = {
            "info" if name is None and isinstance(item, Mapping) else name: item
            for name, item in zip(names, items, strict=True)
        }
        if len(given) == len(items) and is_state(given[STATE]):
            return _complete(_informed({name: item for name, item in given.items() if name is not None}))
    places = [i for i, item in enumerate(items) if is_state(item)]
    if not places:
        raise TypeError("step returns nothing with the structure of the state")
    state = items.pop(prefer if prefer in places else places[0])
    inner = fields_of(items[0]) if len(items) == 1 else None
    return _complete({**(_placed(items) if inner is None else _named(inner)), STATE: state})


def _completed(names: Sequence[str | None], items: Sequence[Any]) -> Sequence[str | None]:
    """The names, with those of what has none, by where it stands: before the reward the observation, after it how the
    episode ended. [] where that cannot be told."""
    if REWARD not in names or len(names) != len(items):
        return []
    found, middle = list(names), names.index(REWARD)
    nameless = [i for i, name in enumerate(names) if name is None]
    early = [i for i in nameless if i < middle]
    late = [i for i in nameless if i > middle and not isinstance(items[i], Mapping)]
    if OBSERVATION not in names and early:
        if len(early) > 1:
            return []
        found[early[0]] = OBSERVATION
    if {DONE, TERMINATED} & set(names):  # a number that follows may be anything, a flag is the other end
        late = [i for i in late if _is_flag(items[i])]
    ends = [] if DONE in names else [name for name in (TERMINATED, TRUNCATED) if name not in names]
    for place, name in zip(late, ends, strict=False):
        found[place] = name
    return found


def parts_without_state(result: Any, names: Sequence[str | None] = ()) -> dict[str, Any]:
    """The same for an object that keeps its state: observation, reward, and how it ended."""
    fields = fields_of(result)
    if fields is None and not isinstance(result, (tuple, list)):
        raise TypeError(f"step returns a {type(result).__name__}; expected observation, reward, done, info")
    if fields is not None:
        parts = _named(fields)
    elif len(names) == len(result) and {OBSERVATION, REWARD} <= set(names) and {DONE, TERMINATED} & set(names):
        given = {"info" if n is None and isinstance(v, Mapping) else n: v for n, v in zip(names, result, strict=True)}
        parts = _informed({name: value for name, value in given.items() if name is not None})
    else:
        parts = _placed(list(result))
    if OBSERVATION not in parts:
        raise TypeError("step returns no observation")
    return _complete(parts)


def unmasked(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Observations by name, or their spaces, with the part that is called "action_mask" as the mask; what is left of
    {"observation": ..., "action_mask": ...}, as PettingZoo has it, is the observation."""
    rest = dict(seen)
    mask = rest.pop(f"{OBSERVATION}.action_mask", None)
    if mask is None or len(mask.shape if hasattr(mask, "shape") else np.shape(mask)) != 1:
        return dict(seen)
    if set(rest) == {f"{OBSERVATION}.{OBSERVATION}"}:
        rest = {OBSERVATION: rest.popitem()[1]}
    return {**rest, MASK: mask}


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of known name; dm_env's step_type and discount say how an episode ended."""
    parts = {NAMED[key.lower()]: value for key, value in fields.items() if key.lower() in NAMED and value is not None}
    if "step_type" in fields and not {DONE, TERMINATED} & set(parts):
        last = fields["step_type"] == LAST
        if "discount" in fields:
            ended = fields["discount"] == 0
            parts |= {TERMINATED: last & ended, TRUNCATED: last & ~ended}
        else:
            parts[DONE] = last
    return _informed(parts)


def _informed(parts: dict[str, Any]) -> dict[str, Any]:
    """What an info dict adds."""
    info = parts.pop("info", None)
    if not isinstance(info, Mapping):
        return parts
    found = {
        NAMED[key]: value for key, value in info.items() if key in ("action_mask", "legal_action_mask", "truncation")
    }
    truncated = found.pop(TRUNCATED, info.get("truncated", info.get("TimeLimit.truncated")))
    if truncated is not None and DONE in parts and TERMINATED not in parts:
        done, truncated = parts.pop(DONE) != 0, truncated != 0
        found |= {TERMINATED: done & ~truncated, TRUNCATED: truncated}
    return {**found, **parts}


def _placed(items: list[Any]) -> dict[str, Any]:
    """What remains of a tuple without the state, by its place."""
    info = {}
    if len(items) > 2 and isinstance(items[-1], (Mapping, tuple, type(None))):
        info = {"info": items.pop()}
    names = {
        2: [REWARD, DONE],
        3: [OBSERVATION, REWARD, DONE],
        4: [OBSERVATION, REWARD, TERMINATED, TRUNCATED],
    }.get(len(items))
    if names is None:
        raise TypeError(
            f"step returns {len(items)} values besides the state; expected observation, reward, terminated, truncated"
        )
    if len(items) == 3 and _is_flag(items[1]) and _is_flag(items[2]):
        names = [REWARD, TERMINATED, TRUNCATED]
    return _informed({**dict(zip(names, items, strict=True)), **info})


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or (getattr(value, "dtype", None) == np.bool_ and value.shape == ())


def _complete(parts: dict[str, Any]) -> dict[str, Any]:
    """Terminated and truncated, or a merged done; TypeError if no reward or no end is told."""
    if REWARD not in parts:
        raise TypeError("step returns no reward")
    if DONE in parts and TERMINATED in parts:
        parts.pop(DONE)
    if TERMINATED in parts and TRUNCATED not in parts:
        parts[DONE] = parts.pop(TERMINATED)
    if not {DONE, TERMINATED} & set(parts):
        raise TypeError("step returns neither done nor terminated")
    return parts


# -- resets ----------------------------------------------------------------------------------------------------------


def state_place(
    begun: Any, steps_to: Callable[[Any], Any], alike: Callable[[Any, Any], bool], names: Sequence[str | None]
) -> int | str | None:
    """Where the state is in what ``reset`` returned: an index, a name, or None if that is the state itself.

    ``steps_to(state)`` is what a step returns; ``alike`` compares structures; ``names`` are those in the function's
    return statement. Raises TypeError where nothing can be stepped.
    """
    fields = fields_of(begun)
    places: list[int | str | None] = [None]
    if fields is not None:
        places = [*(key for key in fields if NAMED.get(key.lower()) == STATE), None]
    elif isinstance(begun, tuple) and 2 <= len(begun) <= 3:
        places = [*range(len(begun)), None]
    if len(places) == 1:
        return None
    found, errors = [], []
    for place in places:
        state = split(begun, place)[0]
        try:
            parts_of(steps_to(state), lambda part, state=state: alike(part, state))  # type: ignore[misc]
        except Exception as error:  # this one cannot be the state
            errors.append((fields_of(state) is None, line(error)))
        else:
            found.append(place)
    if not found:
        raise TypeError(f"step accepts no part of what reset returns: {min(errors)[1]}")
    told = dict(enumerate(names)) if isinstance(begun, tuple) and len(names) == len(begun) else {}
    named = [place for place in found if isinstance(place, str) or (place is not None and told.get(place) == STATE)]
    structured = [place for place in found if place is not None and fields_of(split(begun, place)[0]) is not None]
    return (named or structured or found)[0]


def split(begun: Any, place: int | str | None) -> tuple[Any, Any]:
    """(state, observation or None) of what ``reset`` returned."""
    if place is None:
        return begun, _named(fields_of(begun) or {}).get(OBSERVATION)
    if isinstance(place, str):
        whole = fields_of(begun) or {}
        return whole[place], _named(whole).get(OBSERVATION)
    rest = [part for i, part in enumerate(begun) if i != place]
    fields = fields_of(rest[0])
    named = {} if fields is None else _named(fields)
    if MASK in named and OBSERVATION in named:
        return begun[place], {OBSERVATION: named[OBSERVATION], "action_mask": named[MASK]}
    return begun[place], named.get(OBSERVATION, rest[0])


def line(error: BaseException) -> str:
    """The error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
