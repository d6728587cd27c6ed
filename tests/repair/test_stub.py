"""A port from nothing: where it stands, what it declares, and that it opens and is not equal."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from rust import builds

from pytest_envequiv.backends.opening import open_backend
from repair_agent import stub, stub_rust, suite
from repair_agent.question import Question
from repair_agent.tree import worktree


def test_a_stub_has_the_references_interface(tmp_path, monkeypatch):
    told = stub.interface("gymnasium:CartPole-v1", tmp_path)
    assert told["time_limit"] == 500 and list(told["fields"]) == ["state", "_elapsed_steps"]
    path = stub.place("fresh_port", tmp_path)
    path.write_text(stub.source("gymnasium:CartPole-v1", told))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    reference = open_backend("gymnasium:CartPole-v1", {})
    spec = open_backend("fresh_port", {}, reference.spec).spec
    assert {n: f.shape for n, f in spec.fields.items()} == {"state": (4,), "elapsed_steps": ()}
    assert spec.traceable


@pytest.mark.parametrize(
    "fields",
    [
        {"_a": {"shape": [], "dtype": "float64"}, "b.c": {"shape": [2], "dtype": "bool"}},
        {"x.time": {"shape": [], "dtype": "int64"}, "y.time": {"shape": [3], "dtype": "uint8"}},
        {"class": {"shape": [], "dtype": "int8"}, "0": {"shape": [], "dtype": "float32"}},
        {},
    ],
)
def test_any_names_of_fields_make_a_module_that_runs(tmp_path, fields):
    declared = {"observation": {"observation": {"shape": [2], "dtype": "float64"}}, "fields": fields}
    path = tmp_path / "port.py"
    path.write_text(stub.source("R", declared))
    spec = importlib.util.spec_from_file_location("port", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state, seen = module.reset(None)
    assert len(state) == max(1, len(fields)) and seen.shape == (2,)
    assert module.step(state, 0, None)[1].shape == (2,)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a:b", "--init makes a new module"), ("gymnax:X", "--init"), ("there", "exists already"), ("1x", "--init makes")],
)
def test_where_a_stub_cannot_stand(tmp_path, name, message):
    (tmp_path / "there.py").write_text("")
    with pytest.raises(ValueError, match=message):
        stub.place(name, tmp_path)


def test_a_stub_can_stand_in_a_package(tmp_path):
    assert stub.place("pack.age.port", tmp_path) == tmp_path / "pack" / "age" / "port.py"


def test_a_reference_that_does_not_open_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"ref=gymnasium:NoSuch-v1 does not open: .*NoSuch"):
        stub.interface("gymnasium:NoSuch-v1", tmp_path)


def test_the_stub_is_made_by_a_process_of_its_own(tmp_path):
    (tmp_path / "kills.py").write_text("import os; os._exit(7)")
    with pytest.raises(ValueError, match="died without a word"):
        stub.interface("kills", tmp_path)


# -- in Rust ---------------------------------------------------------------------------------------------------------

POLE = {
    "action": {"action": {"kind": "discrete", "shape": [], "dtype": "int64"}},
    "observation": {"observation": {"shape": [4], "dtype": "float32"}},
    "fields": {"state": {"shape": [4], "dtype": "float64"}, "_elapsed_steps": {"shape": [], "dtype": "int64"}},
}


@builds
@pytest.mark.parametrize(
    "declared",
    [
        POLE,
        {
            "action": {"a": {"shape": [2], "dtype": "float32"}, "b": {"shape": [], "dtype": "uint8"}},
            "observation": {"observation": {"shape": [2, 3], "dtype": "uint8"}},
            "fields": {
                "type": {"shape": [], "dtype": "bool"},
                "grid": {"shape": [2, 2], "dtype": "uint8"},
                **{f"n{n}": {"shape": [], "dtype": "float32"} for n in range(12)},
            },
        },
        {**POLE, "fields": {}},
    ],
)
def test_a_stub_in_rust_builds_and_runs(tmp_path, declared):
    for name, text in stub_rust.files("R", declared, "pole").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    stub_rust.lock(tmp_path / "pole_rs")
    question = Question("R", "pole", crates=("pole_rs",))
    suite.build(question, tmp_path)
    script = (
        "import numpy as np, pole; state = pole.reset(np.random.default_rng(0)); new = pole.step(state, ACTION, None);"
        "print({n: (v.dtype.name, v.shape) for n, v in new[0].items()}, new[1].dtype.name, new[1].shape, *new[2:])"
    )
    action = "1" if len(declared["action"]) == 1 else "{'a': np.zeros(2), 'b': 3}"
    done = subprocess.run(
        [sys.executable, "-c", script.replace("ACTION", action)],
        cwd=tmp_path, env=suite.environment(question, tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    leaves = stub.fields(declared)
    names = stub.names(leaves, stub_rust.RESERVED)
    fields = {names[name]: (leaf["dtype"], tuple(leaf["shape"])) for name, leaf in leaves.items()}
    seen = declared["observation"]["observation"]
    assert done.stdout == f"{fields} {seen['dtype']} {tuple(seen['shape'])} 0.0 False False\n", done.stderr
    assert "type" not in names.values()


def test_what_a_stub_in_rust_may_be_edited_of(tmp_path):
    files = [*stub_rust.files("R", POLE, "pole"), "pole_rs/Cargo.lock"]
    assert all(worktree.allowed(file, stub_rust.allowed("pole")) for file in files)
    assert not worktree.allowed("pole_rs/build.rs", stub_rust.allowed("pole"))
