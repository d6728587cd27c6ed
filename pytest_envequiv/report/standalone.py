"""A counterexample as a pytest file for people who do not have envequiv: it needs only the two packages.

Kinds in ``WRITERS`` know how a person would write the one step by hand. For the others, and for differences that one
step does not show in what it returns, the file replays the counterexample with envequiv, and says that it needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_envequiv.counterexample import Counterexample, as_json

Arrays = Mapping[str, np.ndarray]
Side = tuple[list[str], list[str]]  # import lines, and the lines of a function that returns outputs by name

HOLDER = '''def holder(env, name):
    """The environment or wrapper that has the attribute."""
    while name not in vars(env):
        env = env.env
    return env
'''


def script(example: Counterexample) -> str:
    """The text of the file."""
    found = example.divergence
    place = "".join(f"[{i}]" for i in found["index"])
    head = (
        f'"""{example.ref} and {example.target} differ after one step from the same state.\n\n'
        f"{found['field']}{place}: {found['expected']} in {example.ref}, {found['actual']} in {example.target}.\n"
        f"Rounding explains at most {found['tolerance'] or 0}.\n\n"
    )
    ours = _written(example.ref, example.rows.state.fields, example.rows.action) if example.rows else None
    theirs = _written(example.target, example.target_state, example.target_action) if example.target_state else None
    if ours is None or theirs is None or not example.shown:
        return head + _replaying(example)
    imports = sorted({"import numpy as np", "import pytest", *ours[0], *theirs[0]})
    parts = [
        head + 'Found, and made as small as it is, by pytest-envequiv.\n"""\n\n' + "\n".join(imports) + "\n",
        HOLDER if any("holder(" in line for line in (*ours[1], *theirs[1])) else "",
        f"def reference():\n{_indented(ours[1])}",
        f"def target():\n{_indented(theirs[1])}",
        f'@pytest.mark.parametrize("name, atol", {[(s["name"], s["tolerance"]) for s in example.shown]!r})\n'
        "def test_one_step(name, atol):\n"
        "    expected, actual = (np.asarray(side()[name], float).ravel() for side in (reference, target))\n"
        "    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)\n",
    ]
    return "\n\n".join(part for part in parts if part)


def _indented(lines: list[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _written(name: str, state: Arrays, action: Arrays) -> Side | None:
    """One side by hand, or None if its kind, or the way it keeps its state, does not allow that."""
    kind, _, rest = name.partition(":")
    if kind not in WRITERS or "?" in rest or any("." in field for field in state) or set(action) != {"action"}:
        return None
    return WRITERS[kind](rest, {k: v[0] for k, v in state.items()}, action["action"][0])


def _literal(value: np.ndarray, module: str) -> str:
    """An exact literal: repr of a float64 is exact, and a float32 is one."""
    value = np.asarray(value)
    text = repr(value.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return text if value.ndim == 0 and module == "np" else f"{module}.array({text}, {module}.{value.dtype})"


def _gymnasium(rest: str, state: Arrays, action: np.ndarray) -> Side:
    """State fields are attributes of the environment or of a wrapper. NaN stands for None."""
    lines = [f'env = gymnasium.make("{rest}")', "env.reset(seed=0)"]
    for name, value in state.items():
        if value.dtype.kind == "f" and np.isnan(value).all():
            continue
        lines.append(f'holder(env, "{name}").{name} = {_literal(value, "np")}')
    lines += [
        f"observation, reward, terminated, truncated, _ = env.step({_literal(action, 'np')})",
        'return {"observation": observation, "reward": reward, "terminated": terminated, "truncated": truncated}',
    ]
    return ["import gymnasium"], lines


def _gymnax(rest: str, state: Arrays, action: np.ndarray) -> Side:
    lines = [
        f'env, params = gymnax.make("{rest}")',
        "key = jax.random.PRNGKey(0)",
        "_, state = env.reset_env(key, params)",
        "state = state.replace(",
        *(f"    {name}={_literal(value, 'jnp')}," for name, value in state.items()),
        ")",
        f"observation, state, reward, terminated, _ = env.step_env(key, state, {_literal(action, 'jnp')}, params)",
        "truncated = env.is_truncated(state, params)",
        'return {"observation": observation, "reward": reward, "terminated": terminated, "truncated": truncated}',
    ]
    return ["import gymnax", "import jax", "import jax.numpy as jnp"], lines


WRITERS: dict[str, Callable[[str, Arrays, np.ndarray], Side]] = {"gymnasium": _gymnasium, "gymnax": _gymnax}


def _replaying(example: Counterexample) -> str:
    data: dict[str, Any] = as_json(example)
    return (
        "This step cannot be written by hand for these two; the file replays it with pytest-envequiv, which it needs.\n"
        '"""\n\nimport json\n\nfrom pytest_envequiv.judge import replay\n\n'
        f"COUNTEREXAMPLE = json.loads(r'''{json.dumps(data)}''')\n\n\n"
        "def test_one_step(tmp_path):\n"
        '    path = tmp_path / "counterexample.json"\n'
        "    path.write_text(json.dumps(COUNTEREXAMPLE))\n"
        "    verdict = replay(str(path))\n"
        '    assert verdict.word == "EQUAL", verdict.summary\n'
    )
