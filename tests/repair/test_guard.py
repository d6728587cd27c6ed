"""What may not be edited, and what the target's source may not reach for. No target is run here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repair_agent.question import Question
from repair_agent.tree import guard
from repair_agent.tree.guard import changed, frozen, refused
from repair_agent.tree.reach import Surroundings, of_python, of_rust
from repair_agent.tree.worktree import open_worktree

CHEATS = Path(__file__).parent.parent / "cheats"
pytestmark = pytest.mark.usefixtures("checkout_at_rest")
PORT = "from cheats.pole import MARS, Pole\n\n\nclass Port(Pole):\n    gravity = MARS\n"
OWN = ("__init__", "pole", "pole_jax", "equals_everything")  # of the port's package, and not to be edited

# What the guard lets through: their code reaches for nothing, so the suite has to refuse them (test_gate.py).
BY_THE_SUITE = {"arrays", "eats", "reuses_buffer"}
NAMES = sorted(path.stem for path in CHEATS.glob("*.py"))
HONEST = [name for name in NAMES if name.startswith("honest")]
TRICKS = [name for name in NAMES if name not in {*OWN, *HONEST} or name == "equals_everything"]


@pytest.fixture
def tree(repository):
    """A worktree with a port of CartPole in a package of its own; only the port may be edited."""
    (repository.top / "cheats").mkdir()
    for name in OWN:
        (repository.top / "cheats" / f"{name}.py").write_text((CHEATS / f"{name}.py").read_text())
    repository.write(cheats__port=PORT, cheats__mine="import gymnasium\n", tests__test_port="", conftest="")
    (repository.top / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    repository.commit()
    return open_worktree(repository.top, ("cheats/port.py", "cheats/parts/**"), "port")


QUESTION = Question("gymnasium:CartPole-v1", "cheats.port:Port")


def written(
    tree, text: str, name: str = "cheats/port.py", question: Question = QUESTION
) -> tuple[list[str], list[str]]:
    """What is found changed, and what is refused, when an engine writes a file."""
    before = frozen(question, tree)
    path = tree.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    after = frozen(question, tree)
    return changed(before, after), refused(before, after)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cheats/pole.py", "was changed: not on the list"),
        ("tests/test_port.py", "was changed: a test"),
        ("conftest.py", "was changed: a test"),
        ("cheats/parts/conftest.py", "was added: a test"),
        ("pyproject.toml", "was changed: configuration"),
        ("cheats/envequiv.toml", "was added: the contract"),
        ("numpy.py", "was added: not on the list"),
        ("sitecustomize.py", "was added: run unasked"),
        ("cheats/parts/tests/test_x.py", "was added: a test"),
    ],
)
def test_what_may_not_be_edited(tree, name, label):
    (line,), _ = written(tree, "# other\n", name)
    assert line == f"{name} {label}, which may not be edited"


def test_what_may_be_edited(tree):
    assert written(tree, PORT.replace("MARS", "EARTH")) == ([], [])
    assert written(tree, "X = 1\n", "cheats/parts/inner/rules.py") == ([], [])
    (tree.root / "cheats" / "port.py").unlink()
    assert changed(frozen(QUESTION, tree), frozen(QUESTION, tree)) == []


def test_ignored_files_and_caches(tree, repository):
    before = frozen(QUESTION, tree)
    cache = tree.root / "cheats" / "__pycache__"
    cache.mkdir()
    (cache / "pole.cpython-311.pyc").write_bytes(b"poison")
    assert changed(before, frozen(QUESTION, tree)) == [] and not cache.exists()
    (tree.root / "pole.so").write_bytes(b"poison")
    assert changed(before, frozen(QUESTION, tree)) == ["pole.so was added: not on the list, which may not be edited"]
    (tree.root / "pole.so").unlink()
    (tree.root / "cheats" / "pole.py").unlink()
    assert "cheats/pole.py was removed" in changed(before, frozen(QUESTION, tree))[0]


def test_a_link_is_no_way_out(tree, tmp_path):
    before = frozen(QUESTION, tree)
    (tmp_path / "elsewhere.py").write_text(PORT)
    (tree.root / "cheats" / "port.py").unlink()
    (tree.root / "cheats" / "port.py").symlink_to(tmp_path / "elsewhere.py")
    after = frozen(QUESTION, tree)
    assert changed(before, after) and "cheats/port.py:1 is a link" in refused(before, after)


def test_what_lies_outside_of_the_worktree(tree):
    frozen_before = frozen(QUESTION, tree)
    files = frozen_before.files
    labels = {label for path, (label, _) in files.items() if path.startswith("/")}
    assert {"the plugin", "the repair agent", "the reference"} <= labels
    cartpole = next(path for path in files if path.endswith("classic_control/cartpole.py"))
    assert files[cartpole][0] == "the reference"
    (guard.PROGRAMS["the plugin"] / "__init__.py").write_text("WORD = 'EQUAL'\n")
    (line,) = changed(frozen_before, frozen(QUESTION, tree))
    assert line.endswith("was changed: the plugin, which may not be edited")
    above = tree.top.parent / "conftest.py"
    before = frozen(QUESTION, tree)
    above.write_text("")
    assert changed(before, frozen(QUESTION, tree)) == [f"{above} was added: configuration, which may not be edited"]


def test_a_reference_of_the_user_s_own_is_frozen_even_if_it_is_listed(tree):
    question = Question("cheats.parts.reference", "cheats.port:Port")
    (tree.root / "cheats" / "parts").mkdir()
    (tree.root / "cheats" / "parts" / "reference.py").write_text("from cheats.parts import rules\n")
    (tree.root / "cheats" / "parts" / "rules.py").write_text("G = 9.8\n")
    for name in ("reference", "rules"):
        (line, *_), _ = written(tree, "G = 3.7\n", f"cheats/parts/{name}.py", question)
        assert line == f"cheats/parts/{name}.py was changed: the reference, which may not be edited"
        (tree.root / "cheats" / "parts" / "reference.py").write_text("from cheats.parts import rules\n")
    for text, why in (
        ("from cheats.parts import reference", "imports the reference, cheats.parts.reference"),
        ("from .parts.reference import rules", "imports the reference"),
        ("import cheats.parts.rules", "imports cheats.parts.rules, which the reference is made of"),
        ("from ..other import x", "from outside of its package"),
        ("import other", "imports other, which is not of its package"),
        ("from cheats.mine import gymnasium as g\ng.make('CartPole-v1')", "imports gymnasium"),
    ):
        for ref in (question.ref, f"gymnasium:{question.ref}:Pole-v0"):
            (tree.root / "cheats" / "port.py").write_text("")
            _, lines = written(tree, text, question=replace(question, ref=ref))
            assert any(why in line for line in lines), (text, lines)


# -- sources -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRICKS)
def test_a_cheat_in_place_of_a_repair_is_refused_by_what_it_reaches_for(tree, name):
    text = (CHEATS / f"{name}.py").read_text()
    touched, lines = written(tree, text)
    assert not touched
    assert bool(lines) == (name not in BY_THE_SUITE), lines
    assert all(line.startswith("cheats/port.py:") for line in lines)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_port_is_mended(tree, name):
    """It keeps what it imported before."""
    text = (CHEATS / f"{name}.py").read_text()
    (tree.root / "cheats" / "port.py").write_text(text)
    assert written(tree, f"{text}\nimport functools\nimport jax.numpy as jnp\n") == ([], [])


def refusals(text: str, **more) -> list[str]:
    return [o.what for o in of_python("port.py", text, "port", Surroundings(**more))]


@pytest.mark.parametrize(
    "text",
    [
        "import jax, chex\nfrom flax import struct\n@struct.dataclass\nclass S:\n  x: chex.Array\n",
        "from __future__ import annotations\nfrom typing import NamedTuple\nimport numpy as np\nx = np.random.uniform",
        "import jax.numpy as jnp\nfrom jax import lax\ndef f(x):\n  return jax.lax.cond(x, jnp.sin, jnp.cos, x)\n",
        "def f(open, compile):\n  vars = open\n  return vars + compile\n",
        "def f(s):\n  return getattr(s, 'x'), s.copy(), s.load, s.__class__.__name__\n",
        "def f(self):\n  self.x = 1\n  setattr(self, 'y', 2)\n  object.__setattr__(self, 'y', 2)\n",
        "from gymnasium import spaces",
    ],
)  # fmt: skip
def test_what_a_port_may_use(text):
    assert [what for what in refusals(text) if what != "imports gymnasium"] == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x = __import__('os')", "uses __import__"),
        ("x = eval('1')", "uses eval"),
        ("f = open\nf('x')", "uses open"),
        ("def f(open=open):\n  return open('x')", "uses open"),
        ("x = globals()['__builtins__']", "uses globals"),
        ("x = __builtins__", "uses __builtins__"),
        ("x = object.__subclasses__()", "uses .__subclasses__"),
        ("match x:\n  case object(__globals__=g): pass", "uses .__globals__"),
        ("def f(a, b):\n  return getattr(a, b)", "uses getattr with a name"),
        ("import jax\nx = getattr(jax, 'ffi')", "uses jax.ffi"),
        ("import jax.numpy as np\nx = np.load('x')", "uses jax.numpy.load"),
        ("from numpy import fromfile", "uses numpy.fromfile"),
        ("import numpy\nn = numpy\nm, k = n, 1\nm.memmap('x')", "uses numpy.memmap"),
        ("from numpy import ctypeslib as c", "uses numpy.ctypeslib"),
        ("import numpy as np\nf(np)", "hands on the module numpy"),
        ("from jax.experimental import io_callback", "uses jax.experimental.io_callback"),
        ("import jax\njax.debug.callback(f)", "uses jax.debug.callback"),
        ("import jax\njax.config.update('jax_enable_x64', True)", "uses jax.config.update"),
        ("import typing\ntyping.sys.modules", "uses typing.sys"),
        ("import dataclasses as d\nd.inspect", "uses dataclasses.inspect"),
        ("import enum\nenum._sys", "uses enum._sys"),
        ("from os import *", "uses os"),
        ("from numpy import *", "imports everything of numpy"),
        ("import numpy as np\nnp.add = 1", "changes numpy.add"),
        ("from gymnasium.spaces import Box\nBox.contains = 1", "changes gymnasium.spaces.Box.contains"),
        ("import gymnasium\ngymnasium.Env.step = 1", "changes gymnasium.Env.step"),
        ("raise SystemExit", "uses SystemExit"),
        ("def f(:", "cannot be parsed"),
        ("import chex\nchex.fake_pmap()", "uses chex.fake_pmap"),
        ("import flax.linen", "uses flax.linen"),
    ],
)
def test_what_no_port_may_use(text, what):
    assert [found for found in refusals(text) if found.startswith(what)], refusals(text)


def test_what_may_be_used_besides_is_given():
    assert refusals("import einops.layers", more=frozenset({"einops"})) == []
    assert refusals("import einops") == ["uses einops, which is not on the list"]


def test_what_was_there_before_may_stay_and_what_no_port_needs_may_not(tree):
    text = "import json\nimport inspect\nfrom gymnasium import Env\nTABLE = json.loads('{}')\n"
    (tree.root / "cheats" / "port.py").write_text(text)
    _, lines = written(tree, f"# mended\n{text}")
    assert lines == ["cheats/port.py:3 uses inspect, which sees that it is judged"]
    _, lines = written(tree, text.replace("import inspect\n", "json.load(x)\nimport gymnasium\ngymnasium.make('x')\n"))
    assert lines == [
        "cheats/port.py:2 uses json.load, which reads what no rule computes",
        "cheats/port.py:4 uses gymnasium.make, where the reference is",
    ]


# -- Rust --------------------------------------------------------------------------------------------------------------


def test_rust():
    clean = "use std::collections::HashMap; // std::fs\n/* std::net */ fn step(process: f32) -> f32 { process }\n"
    assert of_rust("lib.rs", clean) == []
    for text, what in (
        ("use std::fs;", "uses std::fs"),
        ("use std::{cmp, process::Command};", "uses std::process"),
        ("use std::{\n  env,\n};", "uses std::env"),
        ("use std::*;", "uses all of std"),
        ('const T: &str = include_str!("t");', "uses include_str!"),
        ('const T: &[u8] = include_bytes ! ("t");', "uses include_bytes!"),
        ('extern "C" { fn system(); }', "has an extern {"),
        ("extern crate libc;", "has an extern crate"),
        ("#[path = \"x.rs\"] mod x;", "has an attribute path"),
        ('py.import("gymnasium")', "calls Python by .import"),
    ):  # fmt: skip
        assert what in [o.what for o in of_rust("lib.rs", f"// first\n{text}")], text
    assert of_rust("lib.rs", "\n\nuse std::net;")[0].line == 3


def test_a_crate(repository):
    manifest = '[package]\nname = "port"\n[dependencies]\nrand = "0.8"\n'
    (repository.top / "Cargo.toml").write_text(manifest)
    (repository.top / "src").mkdir()
    (repository.top / "src" / "main.rs").write_text("use std::io;\nfn main() {}\n")
    repository.commit()
    tree = open_worktree(repository.top, ("src/**/*.rs", "Cargo.toml"), "crate")
    question = Question("gymnasium:CartPole-v1", "process:cargo run")
    assert written(tree, "use std::io;\nuse std::fs;\n", "src/main.rs", question)[1] == ["src/main.rs:2 uses std::fs"]
    _, lines = written(tree, manifest + 'serde = "1"\n', "Cargo.toml", question)
    assert lines == ["Cargo.toml:1 depends on serde 1"]
    assert written(tree, "fn main() {}", "build.rs", question)[0] == [
        "build.rs was added: run unasked, which may not be edited"
    ]
    (tree.root / "target").mkdir()
    assert written(tree, "", "target/built", question) == ([], [])
    assert written(tree, "", "Cargo.lock", question)[0] == []
