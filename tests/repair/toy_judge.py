"""A car on a hill, and a suite for it that takes milliseconds: the port's text is run on numpy in this process.

Put in the place of ``suite.judged`` it is what the whole program sees as pytest. Seeds below ``FAR`` never come near
the right-hand wall, so that what is wrong there shows on unseen seeds only.

    python toy_judge.py ref=reference:Car target=port ...      the program itself, with this suite
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np

from repair_agent.findings import OPEN, Finding, Run
from repair_agent.question import Question
from repair_agent.suite import never, silent

FAR = 1_000
ROWS = 64

REFERENCE = '''"""A car on a hill."""

import gymnasium
import numpy as np


class Car(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(3)
    observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.velocity = float(self.np_random.uniform(-0.6, -0.4)), 0.0
        return self.seen(), {}

    def step(self, action):
        velocity = self.velocity + (action - 1) * 0.004 - 0.0025 * np.cos(3 * self.position)
        velocity = np.clip(velocity, -0.07, 0.07)
        position = np.clip(self.position + velocity, -1.2, 0.6)
        self.position, self.velocity = float(position), float(velocity)
        return self.seen(), -1.0, bool(position >= 0.3), False, {}

    def seen(self):
        return np.array([self.position, self.velocity], np.float32)
'''

PORT = '''"""The car in JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class State(NamedTuple):
    position: jax.Array
    velocity: jax.Array


def reset(key):
    state = State(jax.random.uniform(key, (), minval=-0.6, maxval=-0.4), jnp.float32(0.0))
    return state, observe(state)


def step(state, action, key):
    velocity = state.velocity + (action - 1) * 0.004 - 0.0025 * jnp.cos(3 * state.position)
    velocity = jnp.clip(velocity, -0.07, 0.07)
    position = jnp.clip(state.position + velocity, -1.2, 0.6)
    terminated = position >= 0.3
    state = State(position, velocity)
    return state, observe(state), jnp.float32(-1.0), terminated, jnp.bool_(False)


def observe(state):
    return jnp.array([state.position, state.velocity])
'''

# What may be wrong with a port: (right, wrong).
GRAVITY = "- 0.0025", "- 0.0035"
GOAL = ">= 0.3", ">= 0.2"
WALL = "-1.2, 0.6", "-1.2, 0.8"  # seeds of FAR and above only
ORDER = ("state.velocity", "state.position", "terminated", "reward")
CHECKS = ("L1-shape-observation", "L2-play-velocity", "L2-play-position", "L2-play-terminated", "L3-lockstep-reward")


def broken(*bugs: tuple[str, str], text: str = PORT) -> str:
    for right, wrong in bugs:
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    return text


def judged(
    question: Question,
    root: Path,
    checks=(),
    seed=None,
    seconds=None,
    output=None,
    tell=silent,
    fresh=False,
    first=(),
    stop=never,
    begun=None,
) -> Run:
    """As ``suite.judged``; too quick to be stopped."""
    path = root.joinpath(*question.target.partition(":")[0].split(".")).with_suffix(".py")
    at = question.seed if seed is None else seed
    tell(f"seed {at}")
    settings = {"profile": question.profile, "seed": at, "contract": question.contract, "levels": ["L1", "L2", "L3"]}
    try:
        found = _compared(path, at)
    except BaseException as error:  # as the real one: whatever a target does is a finding
        why = f"{type(error).__name__}: {error}"
        shut = Finding(f"envequiv::{OPEN}", OPEN, "L1", "open", "pair", "DIFFERENT", why)
        return Run({OPEN: shut}, (OPEN,), exit=1, settings=settings)
    whole = Run({f.check: f for f in found}, CHECKS, ORDER, exit=0, seconds=0.1, settings=settings)
    wanted = [c for c in CHECKS if not checks or c in checks or c[:2] in checks]
    part = {c: whole.findings[c] for c in wanted}
    return replace(whole, findings=part, exit=int(any(f.word != "EQUAL" for f in part.values())))


def _compared(path: Path, seed: int) -> list[Finding]:
    draw = np.random.default_rng(seed)
    position = draw.uniform(-1.2, 0.6 if seed >= FAR else 0.4, ROWS)
    velocity, action = draw.uniform(-0.07, 0.07, ROWS), draw.integers(0, 3, ROWS)
    port = types.ModuleType(path.stem)
    vars(port)["__builtins__"] = {**vars(builtins), "__import__": _importing(_numpy_as_jax())}
    exec(compile(path.read_text(), str(path), "exec"), vars(port))
    begun, seen = port.reset(0)
    kind = type(begun)
    after, _, reward, over, _ = port.step(kind(position=position, velocity=velocity), action, 0)
    speed = np.clip(velocity + (action - 1) * 0.004 - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    place = np.clip(position + speed, -1.2, 0.6)
    theirs = np.clip(position + after.velocity, -1.2, 0.6)  # what follows from their own velocity
    inputs = {"position": position, "velocity": velocity}, action
    right_place = _same(after.position, place)
    return [
        _finding(CHECKS[0], np.shape(seen) == (2,) and -0.6 <= begun.position <= -0.4, inputs, path),
        _finding(CHECKS[1], _same(after.velocity, speed), inputs, path, speed, after.velocity),
        _finding(CHECKS[2], right_place, inputs, path, place, after.position,
                 CHECKS[1] if _same(after.position, theirs) else None),
        _finding(CHECKS[3], np.array_equal(over, place >= 0.3), inputs, path, place >= 0.3, over,
                 CHECKS[2] if not right_place and np.array_equal(over, after.position >= 0.3) else None),
        _finding(CHECKS[4], _same(reward, -1.0), inputs, path, -np.ones(ROWS), np.broadcast_to(reward, ROWS)),
    ]  # fmt: skip


def _same(a, b) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=1e-6))


def _finding(check, equal, inputs, path, expected=None, actual=None, follows=None) -> Finding:
    level, subject, field = check.split("-")
    node = f"envequiv::{check}"
    if equal:
        return Finding(node, check, level, subject, field, "EQUAL", f"{field} is the same")
    divergence, blame, said = None, (), f"{field} is off"
    if expected is not None:
        actual = np.broadcast_to(actual, ROWS)
        row = int(np.argmax(np.abs(np.asarray(expected, float) - np.asarray(actual, float))))
        state = {name: float(values[row]) for name, values in inputs[0].items()}
        old, new = (np.asarray(x)[row].item() for x in (expected, actual))
        divergence = {
            "field": field, "index": [], "expected": old, "actual": new, "error": abs(float(old) - float(new)),
            "tolerance": 1e-6, "why": "rounding", "state": state, "action": {"action": int(inputs[1][row])},
            "draws": [], "episode": None, "step": None, "source": "play",
        }  # fmt: skip
        said = f"{field}: expected {old!r}, actual {new!r}"
        lines = path.read_text().splitlines()
        blame = tuple(
            {"file": path.name, "line": n, "code": line.strip(), "score": 1.0, "why": "computes it"}
            for n, line in enumerate(lines, 1) if line.strip().startswith(f"{field} =")
        )  # fmt: skip
    return Finding(node, check, level, subject, field, "DIFFERENT", said, follows, divergence, blame)


def _numpy_as_jax() -> dict[str, types.ModuleType]:
    """What the port needs of JAX."""
    jax, numpy, random = (types.ModuleType(name) for name in ("jax", "jax.numpy", "jax.random"))
    vars(numpy).update({name: getattr(np, name) for name in dir(np) if not name.startswith("_")})
    random.uniform = lambda key, shape=(), minval=0.0, maxval=1.0: np.full(shape, (minval + maxval) / 2)[()]
    jax.numpy, jax.random, jax.Array = numpy, random, object
    jax.jit = lambda f: f
    return {"jax": jax, "jax.numpy": numpy, "jax.random": random}


def _importing(instead: dict[str, types.ModuleType]):
    """The ``__import__`` of one module alone: the table of all modules is not ours, seeds are judged side by side."""

    def found(name, globals=None, locals=None, fromlist=(), level=0):
        if name not in instead:
            return __import__(name, globals, locals, fromlist, level)
        return instead[name if fromlist else name.partition(".")[0]]

    return found


def source(question: Question, root: Path, request: dict, seconds: float = 0.0) -> dict:
    """As ``aside.ask``: where the reference is written."""
    path = root / f"{request.get('name', '').partition(':')[0]}.py"
    if request["what"] != "source" or not path.is_file():
        return {"error": "not in this toy", "traceback": []}
    return {"files": [{"path": str(path), "text": path.read_text()}]}


def unready(*_, **__):
    """As ``suite.Begun`` where no process can be begun: there is nothing here that would have to load."""
    raise OSError("not in this toy")


PLACES = (
    ("gate", "judged", judged),
    ("gate", "Begun", unready),
    ("canary", "judged", judged),
    ("suite", "judged", judged),
    ("model.aside", "ask", source),
)


def install(put) -> None:
    """``put(object, name, value)`` for each place in which the program asks for the suite."""
    import importlib

    for module, name, toy in PLACES:
        put(importlib.import_module(f"repair_agent.{module}"), name, toy)


if __name__ == "__main__":
    from repair_agent import cli
    from repair_agent.tree import guard

    install(setattr)
    guard.PROGRAMS.clear()  # whoever works on this checkout meanwhile does not matter
    sys.path[:] = [p for p in sys.path if Path(p or os.getcwd()) != Path(__file__).parent]
    sys.exit(cli.main())
