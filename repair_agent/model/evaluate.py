"""Both sides looked at in a process of their own, ``python -m repair_agent.model.evaluate``: a JSON request on stdin.

The answer is one JSON object on the stdout this process began with; what the sides print goes to stderr. Requests:

    {"what": "step", ...}     one transition of both sides: "state", "action" (name -> value), "seed"
    {"what": "replay", ...}   a counterexample's saved inputs again: "path"
    {"what": "trace", ...}    import the target, reset and step it once
    {"what": "source", "name": ...}    {"files": [{"path", "text"}]}: where a side is written, most relevant first

All but the last with "settings": of pytest_envequiv.verdict.Settings. An answer {"error", "traceback"} says what went
wrong. Nothing here is believed by the gate: the target shares this process and could write what it likes.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

LINES = 12  # of a traceback, the last ones
SKIPPED = ("render", "close", "main")  # functions of a reference that decide no step
LONGEST = 48_000  # characters of source


def main() -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        asked = json.loads(sys.stdin.read())
        try:
            answer = {"step": step, "replay": replay, "trace": trace, "source": source}[asked["what"]](asked)
        except BaseException as error:  # SystemExit included: what a side raises is an answer
            answer = {"error": _line(error), "traceback": _traceback(error)}
        out.write(json.dumps(answer))
        out.flush()
        os._exit(0)  # whatever threads a side left behind


def _line(error: BaseException) -> str:
    from pytest_envequiv.errors import EnvequivError

    text = " ".join(str(error).split())[:600]
    return text if isinstance(error, EnvequivError) else f"{type(error).__name__}: {text}"


def _traceback(error: BaseException) -> list[str]:
    """The frames below the folder the process runs in: the target's own, without those of libraries."""
    cause: BaseException | None = error
    frames: list[str] = []
    here = os.getcwd()
    while cause is not None:
        for frame in traceback.extract_tb(cause.__traceback__):
            if frame.filename.startswith(here + os.sep) and "site-packages" not in frame.filename:
                frames.append(f"{os.path.relpath(frame.filename, here)}:{frame.lineno} in {frame.name}: {frame.line}")
        cause = cause.__cause__ or cause.__context__
    return frames[-LINES:]


# -- requests --------------------------------------------------------------------------------------------------------


def step(asked: dict[str, Any]) -> dict[str, Any]:
    """{"seed", "state", "action", "fields": [{"name", "expected", "actual", "same"}], "notes"}, or an error."""
    import numpy as np

    from pytest_envequiv import contract as contracts
    from pytest_envequiv.backends.protocol import State
    from pytest_envequiv.comparison.fields import compare
    from pytest_envequiv.errors import ContractError
    from pytest_envequiv.pair import Pair
    from pytest_envequiv.stimuli.play import Rows, shown
    from pytest_envequiv.verdict import Settings, plain

    settings = Settings(**asked["settings"])
    pair = Pair(settings, contracts.read(settings.contract) if settings.contract else contracts.Contract())
    if pair.blocked is not None:
        return {"error": pair.blocked, "traceback": []}
    seeds = np.array([asked["seed"]])
    begun, theirs = pair.reset_both(seeds)
    given = asked["state"] or {}
    if given and not pair.injectable():
        raise ContractError(f"a state cannot be given, only a seed: {'; '.join(pair.map.missing.values())[:300]}")
    state = State({**begun.state.fields, **_arrays(given, begun.state.fields, "state")}, begun.state.hidden)
    template = {k: v[:1] for k, v in pair.sample.rows.action.items()}
    action = {**template, **_arrays(asked["action"] or {}, template, "action")}
    zero = np.zeros(1, int)
    if given:
        state = State(state.fields)
    rows = Rows(state, shown(begun.outputs), zero, action, seeds, zero - 1, zero - 1, None if given else theirs.state)
    ours, theirs = pair.ask(rows) if given or pair.injectable() else _after_reset(pair, rows, begun)
    found = compare(pair, rows, ours, theirs)
    fields = []
    for item in pair.fields:
        expected, actual = pair.values(item, ours, theirs, rows.clock)
        fields.append(
            {
                "name": item.name,
                "expected": plain(_flat(expected[0])),
                "actual": plain(_flat(actual[0])),
                "same": not bool(found[item.name].rows.any()),
            }
        )
    return {
        "seed": asked["seed"],
        "state": {k: plain(v[0]) for k, v in rows.state.fields.items()},
        "action": {k: plain(v[0]) for k, v in action.items()},
        "fields": fields,
        "notes": pair.notes[:6],
    }


def _after_reset(pair: Any, rows: Any, begun: Any) -> tuple[Any, Any]:
    """The first step of an episode, where states cannot be injected."""
    ours = pair.ref.step(begun.state, rows.action, rows.seeds)
    return ours, pair.target_step(rows.paired, rows.action, rows.seeds, ours.draws)


def _flat(values: Any) -> Any:
    return values[0] if len(values) == 1 else values


def _arrays(given: dict[str, Any], like: dict[str, Any], what: str) -> dict[str, Any]:
    """Values as rows of one, in the shape and dtype of those they stand for."""
    import numpy as np

    from pytest_envequiv.errors import ContractError

    found = {}
    for name, told in given.items():
        if name not in like:
            raise ContractError(f"there is no {what} {name!r}: the reference has {', '.join(like)}")
        try:
            found[name] = np.array(told, like[name].dtype).reshape(like[name].shape)
        except (TypeError, ValueError) as error:
            raise ContractError(f"{what} {name!r}: {error}; its shape is {like[name].shape[1:]}") from error
    return found


def replay(asked: dict[str, Any]) -> dict[str, Any]:
    """The verdict on the saved inputs, as JSON."""
    from pytest_envequiv.judge import replay as again
    from pytest_envequiv.verdict import Settings

    return again(asked["path"], Settings(**asked["settings"])).as_json()


def trace(asked: dict[str, Any]) -> dict[str, Any]:
    """{"opened": what it is}: it imports, opens, resets and steps. Of a traceable target: it can be traced."""
    import numpy as np

    from pytest_envequiv import contract as contracts
    from pytest_envequiv.backends.opening import open_backend
    from pytest_envequiv.verdict import Settings

    settings = Settings(**asked["settings"])
    contract = contracts.read(settings.contract) if settings.contract else contracts.Contract()
    like = open_backend(settings.ref, dict(contract.ref_options)).spec
    target = open_backend(settings.target, dict(contract.target_options), like)
    begun = target.reset(np.arange(2))
    action = {
        name: np.broadcast_to(np.asarray(0 if space.low is None else space.low), (2, *space.shape)).astype(space.dtype)
        for name, space in target.spec.action.items()
    }
    after = target.step(begun.state, action, np.arange(2))
    outputs = {k: f"{v.dtype}{list(v.shape[1:])}" for k, v in after.outputs.items()}
    fields = {k: f"{leaf.dtype}{list(leaf.shape)}" for k, leaf in target.spec.fields.items()}
    return {"opened": target.spec.kind, "traceable": target.spec.traceable, "state": fields, "outputs": outputs}


# -- where a side is written -----------------------------------------------------------------------------------------


def source(asked: dict[str, Any]) -> dict[str, Any]:
    """{"files": [{"path", "text"}]}; ``text`` is the part that decides resets and steps."""
    name = asked["name"]
    wanted = _class_of(name)
    found = []
    left = LONGEST
    for path in _written(name):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        part = relevant(text, wanted) if path.endswith(".py") else text
        if part and left > 0:
            found.append({"path": str(path), "text": part[:left]})
            left -= len(part)
    return {"files": found}


def _written(name: str) -> list[str]:
    """Files of a side: those in which its step stands first, else those of the user's own that the name leads to."""
    from pytest_envequiv import contents
    from pytest_envequiv.errors import EnvequivError

    if name.startswith("process:"):
        return sorted(str(path) for path in contents.paths(name).values())
    try:
        from pytest_envequiv.backends.loading import sources

        return sources(name)
    except (EnvequivError, ImportError, AttributeError):
        own = contents.own(name)
        return sorted(str(path) for path in own if path.suffix == ".py")


def _class_of(name: str) -> str | None:
    """The class or function that a name means, where a library makes it from an id or the name says it."""
    bare = name.partition("?")[0]
    kind, _, rest = bare.partition(":")
    if kind == "gymnasium":
        import gymnasium

        return type(gymnasium.make(rest).unwrapped).__name__
    if kind in ("gymnax", "pgx"):
        module = __import__(kind)
        made = module.make(rest)
        return type(made[0] if isinstance(made, tuple) else made).__name__
    return rest.partition(".")[0] or None


def relevant(text: str, wanted: str | None) -> str:
    """A module without what decides no step: rendering, the module's text, classes that are not the one that is wanted
    and do not stand above it. The whole text where it cannot be told."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    lines = text.splitlines()
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    kept = _ancestry(classes, wanted) if wanted in classes else set(classes)
    parts = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name not in kept and _steps(node):
            continue
        if _docstring(node) and node is tree.body[0]:
            continue
        parts.append(_without(node, lines))
    return "\n".join(part for part in parts if part.strip())


def _ancestry(classes: dict[str, ast.ClassDef], name: str | None) -> set[str]:
    """A class and those of the module that it is derived from."""
    waiting, found = [name or ""], set()
    while waiting:
        name = waiting.pop()
        if name in classes and name not in found:
            found.add(name)
            waiting += [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    return found


def _steps(node: ast.ClassDef) -> bool:
    return any(isinstance(n, ast.FunctionDef) and n.name.startswith("step") for n in node.body)


def _docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _without(node: ast.stmt, lines: list[str]) -> str:
    """The text of a statement; of a class, without the functions that decide no step."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.strip("_").startswith(SKIPPED):
        return ""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    last = node.end_lineno or node.lineno
    dropped: set[int] = set()
    for inner in getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []:
        if isinstance(inner, ast.FunctionDef) and inner.name.strip("_").startswith(SKIPPED):
            start = min([inner.lineno, *(d.lineno for d in inner.decorator_list)])
            dropped |= set(range(start, (inner.end_lineno or start) + 1))
    return "\n".join(lines[n - 1] for n in range(first, last + 1) if n not in dropped)


if __name__ == "__main__":
    main()
