"""A Python backend served from a process of its own is the same backend."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from processes import action, equal

from pytest_envequiv.backends.process import ProgramError
from pytest_envequiv.errors import OpenError

ROOT = Path(__file__).resolve().parent.parent

TOY = '''
"""A walk whose backend prints everywhere; MODE is the state it offers."""
import os, random, subprocess, sys
import numpy as np
from pytest_envequiv.backends.protocol import Draw, Leaf, Outcome, Space, Spec, State

MODE = {mode!r}

class Toy:
    spec = Spec(
        name="toy", kind="plain", state=MODE, draws="tape", time_limit=9, constants={{"g": np.float64(9.8)}},
        action={{"action": Space("discrete", (), "int32", np.array(0), np.array(4))}},
        observation={{"observation.x": Space("box", (3,), "float32", np.array(-np.inf), np.array(np.inf))}},
        fields={{"x": Leaf((), "float64")}} if MODE == "fields" else {{}},
        conventions={{"auto_reset": "none"}}, notes=("a note",),
    )

    def outcome(self, xs, draws, **more):
        print("printed in python")
        os.write(1, b"written to descriptor 1\\n")
        subprocess.run([sys.executable, "-c", "import sys; print('from a child', sys.stdin.read())"])
        if MODE == "snapshot":
            hidden = np.empty(len(xs), object)
            hidden[:] = [{{"x": x}} for x in xs]
        else:
            hidden = np.array([(i, x) for i, x in enumerate(xs)], [("row", "i4"), ("x", "f8")])
        seen = np.array([[x, x / 3, np.nan] for x in xs], "float32").reshape(len(xs), 3)
        fields = {{"x": np.array(xs, "float64")}} if MODE == "fields" else {{}}
        return Outcome(State(fields, hidden), {{"observation.x": seen, **more}}, draws)

    def reset(self, seeds, tape=None):
        xs = [random.Random(int(s)).random() for s in seeds] if tape is None else tape[0].value
        nan = np.full(len(seeds), np.nan)
        return self.outcome(xs, (Draw("uniform", (), nan, nan, np.array(xs), np.ones(len(seeds), bool), "toy.py:1"),))

    def step(self, state, action, seeds, tape=None):
        assert action["action"].dtype == np.int32
        if action["action"].max() > 4:
            raise RuntimeError("no such action")
        if MODE == "fields":
            xs = state.fields["x"] if state.hidden is None else state.hidden["x"]
            assert np.array_equal(xs, state.fields["x"])
        else:
            xs = np.array([h["x"] for h in state.hidden])
        xs = xs + action["action"]
        ends = {{"terminated": xs > 5, "truncated": xs > 9}}
        return self.outcome(xs, (), reward=np.asarray(xs, "float32"), mask=np.ones((len(xs), 5), bool), **ends)

    def close(self):
        print("closed", file=sys.stderr)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The Toy class and the command that serves it."""

    def write(mode: str, run: str = "serve(Toy())"):
        folder = tmp_path / mode
        folder.mkdir()
        (folder / "toy.py").write_text(TOY.format(mode=mode))
        (folder / "served.py").write_text(
            f"from pytest_envequiv.backends.serve import serve\nfrom toy import Toy\n{run}\n"
        )
        toy = runpy.run_path(str(folder / "toy.py"))["Toy"]
        return toy, shlex.join([sys.executable, str(folder / "served.py")])

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return write


@pytest.mark.parametrize("mode", ["fields", "snapshot", "none"])
def test_a_served_backend_is_the_same_backend(opened, toy, mode, capfd):
    cls, command = toy(mode)
    near, far = cls(), opened(command)
    for name in ("name", "state", "draws", "fields", "time_limit", "seats", "conventions", "notes", "batched"):
        assert getattr(near.spec, name) == getattr(far.spec, name), name
    assert str(near.spec.action) == str(far.spec.action) and str(near.spec.observation) == str(far.spec.observation)
    assert far.spec.constants["g"] == 9.8
    seeds = np.array([3, 4, 5])
    a, b = near.reset(seeds), far.reset(seeds)
    equal(a, b)
    for order in ([2, 0, 1], [1, 2]):
        chosen = {"action": np.arange(len(order), dtype="int32")}
        rows = seeds[: len(order)]
        a = near.step(a.state.take(order), chosen, rows)
        b = far.step(b.state.take(order), chosen, rows)
        equal(a, b)
        assert b.outputs["reward"].dtype == np.float32 and b.outputs["mask"].shape == (len(order), 5)
    if mode == "fields":
        edited = {"x": np.array([0.25, 7.0])}
        equal(
            near.step(a.state.edited(**edited), chosen, rows),
            far.step(b.state.edited(**edited), chosen, rows),
        )
    tape = near.reset(np.array([9, 8])).draws
    equal(near.reset(np.array([1, 2]), tape), far.reset(np.array([1, 2]), tape))
    (draw,) = far.reset(np.array([9, 8])).draws
    np.testing.assert_array_equal(draw.value, tape[0].value)
    assert (draw.kind, draw.site) == ("uniform", "toy.py:1") and np.isnan(draw.low).all()


def test_an_exception_of_a_served_backend_is_its_answer(opened, toy):
    _, command = toy("fields")
    far = opened(command)
    state = far.reset(np.array([1])).state
    with pytest.raises(ProgramError, match=r"^RuntimeError: no such action$"):
        far.step(state, action(5), np.array([0]))
    far.step(state, action(4), np.array([0]))
    far.close()
    assert far._peer._child.returncode == 0


STUB = """
import types, sys
stub = types.ModuleType("pytest_envequiv.backends.opening")
def open_backend(name, options):
    print("printed while opening", name)
    if name != "toy":
        from pytest_envequiv.errors import OpenError
        raise OpenError(f"{name}: there is only toy")
    return Toy()
stub.open_backend = open_backend
sys.modules[stub.__name__] = stub
from pytest_envequiv.backends import serve as module
sys.exit(module.main(sys.argv[1:]))
"""


def test_serving_by_name(opened, toy):
    _, command = toy("fields", STUB)
    assert opened(f"{command} toy").spec.name == "toy"
    with pytest.raises(OpenError) as caught:
        opened(f"{command} other")
    assert str(caught.value) == f"process:{command} other: other: there is only toy"


def test_a_gymnasium_environment_in_its_own_process(opened, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    serve = shlex.join([sys.executable, "-m", "pytest_envequiv.backends.serve"])
    far, real = opened(f"{serve} gymnasium:CartPole-v1"), gymnasium.make("CartPole-v1")
    outcome, (observation, _) = far.reset(np.array([11])), real.reset(seed=11)
    for t in range(50):
        np.testing.assert_array_equal(outcome.outputs["observation"][0], observation)
        observation, _, terminated, truncated, _ = real.step(t % 2)
        outcome = far.step(outcome.state, action(t % 2), np.array([0]))
        assert outcome.done[0] == (terminated or truncated)
        if terminated or truncated:
            break
    with pytest.raises(OpenError, match="NoSuch"):
        opened(f"{serve} gymnasium:NoSuch-v0")
