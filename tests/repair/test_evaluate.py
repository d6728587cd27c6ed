"""What is asked of other processes: one transition, a compile check, a replay, where a side is written."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from desk import use

from pytest_envequiv.counterexample import Counterexample, save
from pytest_envequiv.verdict import Check
from repair_agent import apart
from repair_agent.case import Case
from repair_agent.model import aside
from repair_agent.model.evaluate import relevant
from repair_agent.model.tools import Tools
from repair_agent.question import Question
from repair_agent.tree.worktree import Worktree

HANDWRITTEN = Path(__file__).parents[2] / "examples" / "handwritten"


def test_a_process_that_takes_too_long_is_gone_with_its_children(tmp_path):
    script = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    began = time.monotonic()
    code, out, _ = apart.process([sys.executable, "-c", script], tmp_path, os.environ, "", 2.0)
    assert code is None
    assert time.monotonic() - began < 20
    child = Path(f"/proc/{int(out)}/status")
    for _ in range(50):
        if not child.exists() or "State:\tZ" in child.read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child lives on")


def test_keys_are_not_handed_on():
    given = {
        "ANTHROPIC_API_KEY": "1",
        "MY_SECRET": "2",
        "GITHUB_AUTH_TOKEN": "3",
        "PATH": "4",
        "ANTHROPIC_PROFILE": "5",
    }
    assert apart.clean(given) == {"PATH": "4"}


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Path:
    """A folder with a reference and its ports, as a user has them."""
    root = tmp_path_factory.mktemp("probe")
    for name in ("reference.py", "port.py", "buggy.py"):
        shutil.copy(HANDWRITTEN / name, root / name)
    (root / "broken.py").write_text("import jax.numpy as jnp\n\n\ndef reset(key):\n    return jnp.zeros(3) + nothing\n")
    return root


def on(probe: Path, target: str, case: Case) -> Tools:
    tree = Worktree(probe, probe, "branch", "base", (f"{target}.py",), probe)
    return Tools(Case(Question("reference", target), tree, case.group, case.run, case.budget, case.journal))


def test_one_transition_of_both_sides(probe, case):
    used = use("evaluate", state='{"height": 0.05, "speed": -0.2, "fuel": 3}', action="1", seed=3)
    text = on(probe, "port", case).answer(used)["content"]
    assert "state before  height = 0.05, speed = -0.2, fuel = 3, steps = 0" in text
    assert "DIFFERENT" not in text
    lines = {line.split()[0]: line for line in text.splitlines()[2:]}
    assert "expected True, actual True" in lines["terminated"]


def test_a_field_that_is_not_there_is_told(probe, case):
    answer = on(probe, "port", case).answer(use("evaluate", state='{"hight": 1}', action="1", seed=3))
    assert "there is no state 'hight': the reference has height, speed, fuel, steps" in answer["content"]


def test_what_a_broken_target_raises_is_told_with_its_line(probe, case):
    text = on(probe, "broken", case).answer(use("compile_check"))["content"]
    assert "It failed:" in text
    assert str(probe) not in text


def test_a_target_that_works_is_said_to_work(probe, case):
    text = on(probe, "port", case).answer(use("compile_check"))["content"]
    assert text.splitlines()[0] == "It opens (plain), resets and steps; it can be traced."
    assert "speed = 'float32[]'" in text


@pytest.mark.parametrize("target, word", [("port", "EQUAL"), ("buggy", "DIFFERENT")])
def test_a_counterexample_is_tried_again_on_the_files_as_they_are(probe, case, tmp_path, target, word):
    path = {"seed": 3, "actions": {"action": {"dtype": "int64", "value": [1] * 60}}, "draw_seeds": list(range(60))}
    check = Check("L2-play-truncated", "L2", "play", "truncated")
    save(Counterexample("reference", target, check, "", None, path, {}, {}), tmp_path / "speed.json")
    text = on(probe, target, case).answer(use("replay", counterexample="L2-play-speed"))["content"]
    assert text.startswith(f"L2-play-speed: {word}")
    assert ("expected" in text) is (word == "DIFFERENT")


def test_where_a_side_is_written(probe):
    told = aside.ask(Question("reference", "port"), probe, {"what": "source", "name": "reference"})
    (file,) = told["files"]
    assert Path(file["path"]).name == "reference.py"
    assert "def step" in file["text"]


def test_what_decides_no_step_is_left_out_of_a_source():
    text = '''"""About the module."""

import math

G = 9.8


class Env:
    def step(self):
        return G

    def render(self):
        draw()


class VectorEnv:
    def step(self):
        return 2


def _render_all():
    draw()
'''
    assert relevant(text, "Env") == "import math\nG = 9.8\nclass Env:\n    def step(self):\n        return G\n"
    assert "VectorEnv" in relevant(text, None)
    assert relevant("not python", None) == "not python"


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_rust_is_checked_by_cargo(case):
    root = case.tree.root
    (root / "crate/src").mkdir(parents=True)
    (root / "crate/Cargo.toml").write_text('[package]\nname = "port"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "crate/src/lib.rs").write_text("pub fn a() -> u32 { 1 }\n")
    tree = Worktree(root, root, "branch", "base", ("crate/src/lib.rs",), root)
    desk = Tools(Case(case.question, tree, case.group, case.run, case.budget, case.journal))
    assert desk.answer(use("compile_check"))["content"] == "cargo check: no errors."
    (root / "crate/src/lib.rs").write_text('pub fn a() -> u32 { "1" }\n')
    text = desk.answer(use("compile_check"))["content"]
    assert "src/lib.rs:1:21: error[E0308]: mismatched types" in text
    assert sorted(p.name for p in (root / "crate").iterdir()) == ["Cargo.toml", "src"]
