"""Targets that Python imports from a Rust crate: which they are, and that a tree's sources are what is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Repository
from messages_server import says, uses
from rust import EXAMPLE, builds

from repair_agent import cli, crates, suite
from repair_agent.command import Command
from repair_agent.findings import OPEN
from repair_agent.model.tools import EDITOR
from repair_agent.question import Question
from repair_agent.tree import extent
from repair_agent.tree.worktree import Unfit

MATURIN = '[build-system]\nrequires = ["maturin"]\nbuild-backend = "maturin"\n'
CARGO = '[package]\nname = "my-port"\n'


def put(folder: Path, **texts: str) -> None:
    """``src__lib_rs`` is the file src/lib.rs."""
    for name, text in texts.items():
        path = folder / Path(*name.split("__"))
        path = path.with_name(".".join(path.name.rsplit("_", 1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def at(repository, monkeypatch) -> Repository:
    """The repository as the folder of a user who calls envequiv-repair in it. Cargo is taken to be here."""
    monkeypatch.chdir(repository.top)
    monkeypatch.syspath_prepend(str(repository.top))
    monkeypatch.setattr(crates, "lacking", lambda: "")
    return repository


# -- which they are --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "module", "manifest"),
    [
        ({"pyproject_toml": MATURIN, "Cargo_toml": CARGO}, "my_port", "Cargo.toml"),
        ({"pyproject_toml": MATURIN, "Cargo_toml": f'{CARGO}[lib]\nname = "other"\n'}, "other", "Cargo.toml"),
        ({"pyproject_toml": MATURIN, "rust__Cargo_toml": CARGO}, "my_port", "rust/Cargo.toml"),
        (
            {"pyproject_toml": f'{MATURIN}[tool.maturin]\nmodule-name = "port._native"\n', "Cargo_toml": CARGO},
            "port._native",
            "Cargo.toml",
        ),
        (
            {"pyproject_toml": f'{MATURIN}[tool.maturin]\nmanifest-path = "a/Cargo.toml"\n', "a__Cargo_toml": CARGO},
            "my_port",
            "a/Cargo.toml",
        ),
        ({"pyproject_toml": MATURIN.replace("maturin", "setuptools"), "Cargo_toml": CARGO}, None, None),
        ({"pyproject_toml": MATURIN}, None, None),
        ({"pyproject_toml": "not toml", "Cargo_toml": CARGO}, None, None),
        ({"pyproject_toml": MATURIN, "Cargo_toml": "not toml"}, None, None),
    ],
)
def test_a_crate_is_a_project_of_maturin_s(at, files, module, manifest):
    put(at.top / "inner", **files)
    found = crates.declared(at.top)
    told = [(each.module, each.manifest.relative_to(at.top / "inner").as_posix()) for each in found]
    assert told == ([(module, manifest)] if module else [])


def test_what_git_ignores_is_no_project(at):
    put(at.top / "elsewhere", pyproject_toml=MATURIN, Cargo_toml=CARGO)
    assert crates.declared(at.top)
    (at.top / ".gitignore").write_text("elsewhere/\n")
    assert crates.declared(at.top) == []


def test_a_wrapper_in_python_and_the_crate_that_it_imports(at):
    put(at.top / "rust", pyproject_toml=MATURIN, Cargo_toml=CARGO, src__lib_rs="", src__inner__mod_rs="", build_rs="")
    put(at.top / "unused", pyproject_toml=MATURIN, Cargo_toml='[package]\nname = "unused"\n', src__lib_rs="")
    at.write(wrapper="import numpy\nfrom my_port import step\n")
    assert extent.built_from("wrapper", at.top) == ("rust",)
    assert extent.default_files("wrapper", at.top) == ("wrapper.py", "rust/src/inner/mod.rs", "rust/src/lib.rs")
    assert extent.built_from("other", at.top) == ()


def test_a_module_that_is_all_rust_need_not_be_installed(at):
    put(at.top, pyproject_toml=MATURIN, Cargo_toml=CARGO, src__lib_rs="")
    assert extent.built_from("my_port:Env", at.top) == (".",)
    assert extent.default_files("my_port:Env", at.top) == ("src/lib.rs",)


def test_a_package_with_a_compiled_part(at):
    settings = '[tool.maturin]\nmodule-name = "mine._native"\npython-source = "python"\n'
    put(at.top, pyproject_toml=MATURIN + settings, Cargo_toml=CARGO, src__lib_rs="")
    at.write(python__mine__init="from mine.env import Env\n", python__mine__env="from mine._native import step\n")
    assert extent.built_from("mine:Env", at.top) == (".",) and extent.search("mine:Env", at.top) == ("python",)
    files = {"python/mine/__init__.py", "python/mine/env.py", "src/lib.rs"}
    assert set(extent.default_files("mine:Env", at.top)) == files


def test_what_cannot_be_is_said_before_anything_is_done(at, monkeypatch):
    put(at.top / "rust", pyproject_toml=MATURIN, Cargo_toml=CARGO, src__lib_rs="")
    at.write(wrapper="from my_port import step\n", same="import my_port\n")
    with pytest.raises(Unfit, match=r"the reference same is made of its crate, my_port, too"):
        extent.built_from("wrapper", at.top, ref="same")
    monkeypatch.setattr(crates, "lacking", lambda: "maturin is not installed here: pip install maturin")
    with pytest.raises(Unfit, match=r"wrapper is made of a Rust crate, my_port: maturin is not installed here: pip"):
        extent.built_from("wrapper", at.top)
    assert extent.built_from("other", at.top) == ()


def test_an_agent_of_one_s_own_is_told_how_to_build(case):
    asked = Command("agent {prompt_file}")
    assert "repair_agent.crates" not in asked.words(case)
    words = asked.words(replace(case, question=replace(case.question, crates=("rust",))))
    into = suite.built(case.tree.root)
    assert f"-m repair_agent.crates {into} {suite.compiled()} {case.tree.root / 'rust'}\n" in words


# -- what is judged --------------------------------------------------------------------------------------------------


@pytest.fixture
def car(at, monkeypatch) -> Repository:
    """The example as a user's repository, and another copy of its module where an installed one would be found."""
    put(at.top, **{name: (EXAMPLE / name.replace("__", "/").replace("_toml", ".toml")).read_text()
                   for name in ("pyproject_toml", "Cargo_toml")})  # fmt: skip
    put(at.top, src__lib_rs=(EXAMPLE / "src/lib.rs").read_text(), Cargo_lock=(EXAMPLE / "Cargo.lock").read_text())
    at.write(mountain_car=(EXAMPLE / "mountain_car.py").read_text())
    at.commit("a port in Rust")
    installed = at.top.parent / "installed"
    put(installed, mountain_car_rs_py="def step(position, velocity, action):\n    return 0.0, 0.0, True\n")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return at


QUESTION = Question("gymnasium:MountainCar-v0", "mountain_car", crates=(".",), options=("--envequiv-levels=L2",))
ASK = "import mountain_car_rs; print(mountain_car_rs.step(-0.5, 0.0, 1)[1])"


def asked(root: Path) -> subprocess.CompletedProcess[str]:
    """What the module says in a process that looks at the tree."""
    env = suite.environment(QUESTION, root)
    return subprocess.run([sys.executable, "-c", ASK], cwd=root, env=env, capture_output=True, text=True)


@builds
def test_the_sources_of_the_tree_are_what_is_imported(car):
    before = sorted(os.listdir(car.top))
    lib = car.top / "src/lib.rs"
    gravities = []
    for text in ("0.0025", "0.0035", "0.0025"):
        lib.write_text(lib.read_text().replace("0.0035", "0.0025").replace("0.0025", text))
        suite.build(QUESTION, car.top)
        gravities.append(float(asked(car.top).stdout))
    assert gravities[0] == gravities[2] and gravities[1] == pytest.approx(1.4 * gravities[0])
    assert sorted(os.listdir(car.top)) == before and car.git("status", "--porcelain") == ""
    (car.top / "Cargo.lock").unlink()
    suite.build(QUESTION, car.top)
    assert not (car.top / "Cargo.lock").exists()  # as it was


@builds
def test_a_crate_that_does_not_build_is_a_pair_that_does_not_open(car):
    """Neither what was built before nor what is installed takes its place."""
    suite.build(QUESTION, car.top)
    lib = car.top / "src/lib.rs"
    lib.write_text(lib.read_text().replace("-GRAVITY", "-GRAVITAS"))
    run = suite.judged(QUESTION, car.top)
    (finding,) = run.findings.values()
    assert finding.check == OPEN and "does not build: error[E0425]: cannot find value `GRAVITAS`" in finding.summary
    assert "src/lib.rs:16:" in finding.summary
    done = asked(car.top)
    assert done.returncode == 1 and "ImportError: the crate mountain_car_rs does not build" in done.stderr


@builds
def test_a_port_in_rust_is_mended_to_the_end(car, checkout_at_rest, serving, monkeypatch, capsys):
    """By a scripted model, with the real suite: the free engine has to say that it cannot, an edit that does not
    compile has to be told, and what is proven has to be what lies in the user's folder."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    lib = car.top / "src/lib.rs"
    right = lib.read_text()
    lib.write_text(right.replace("GRAVITY: f64 = 0.0025", "GRAVITY: f64 = 0.0035"))
    car.commit("another planet")

    def edit(old: str, new: str):
        return uses(EDITOR, command="str_replace", path="src/lib.rs", old_str=old, new_str=new)

    state = json.dumps({"state": [-0.5, 0.0], "_elapsed_steps": 3})
    server = serving([
        edit("0.0035;", '"0.0025";'),
        uses("compile_check"),
        edit('"0.0025";', "0.0025;"),
        uses("compile_check"),
        uses("evaluate", state=state, action="1", seed=0),
        says("Gravity was too strong."),
    ])  # fmt: skip
    words = ("--engine", "auto", "--base-url", server.url)
    assert cli.main(["ref=gymnasium:MountainCar-v0", "target=mountain_car", *words]) == 0
    told = " ".join(capsys.readouterr().out.split())
    answers = _tool_results(server.requests[-1])
    assert "mismatched types" in answers[1] and answers[3] == "cargo check: no errors."
    assert answers[4].count("same") >= 3 and "DIFFERENT" not in answers[4]
    assert "catches the seeded bug src/lib.rs" in told and "Gravity was too strong." in told
    assert lib.read_text() == right and car.git("status", "--porcelain", "--", ".", ":(exclude).envequiv") == ""
    (events,) = (car.top / ".envequiv" / "repair").glob("*/trajectory.jsonl")
    assert "it can search in Python only" in events.read_text() or "it cannot search" in events.read_text()


def _tool_results(request: dict) -> list[str]:
    blocks = [b for m in request["messages"] if m["role"] == "user" for b in m["content"]]
    return [_text(b["content"]) for b in blocks if b["type"] == "tool_result"]


def _text(content) -> str:
    return content if isinstance(content, str) else "".join(b["text"] for b in content)
