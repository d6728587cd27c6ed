"""What belongs to a side, found without running it, with the same hash wherever it lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pytest_envequiv import contents
from pytest_envequiv.errors import OpenError

BANG = "raise RuntimeError('this was run')\n"
TREE = {
    "my/__init__.py": BANG,
    "my/port.py": f"from .inner import rules\nimport shared.physics as p, os\nfrom shared import TABLE\n{BANG}",
    "my/table.csv": "1,2\n",
    "my/inner/__init__.py": "",
    "my/inner/rules.py": "def lazily():\n    from helpers import late\n",
    "my/.cache/x": "hidden",
    "my/__pycache__/port.pyc": "bytecode",
    "my/venv/pyvenv.cfg": "",
    "my/venv/lib.py": "",
    "shared/__init__.py": "TABLE = 1\n",
    "shared/physics.py": BANG,
    "shared/table.npy": "data",
    "helpers.py": "import unknown_to_anyone\n",
    "unrelated.py": "",
    "targets/__init__.py": "",
    "targets/common.py": "",
    "targets/pong/port.py": "from targets import common\nfrom . import missing\n",
    "targets/pong/envequiv.toml": "",
    "targets/other/port.py": "",
    "alone.py": "import helpers\nopen('maps/one.txt'), open('maps'), open('maps/none.txt'), open('/etc/hostname')\n",
    "maps/one.txt": "",
    "maps/two.txt": "",
    "envequiv.toml": "",
    "wrong.py": "def (:\n",
}
MY = ["my/__init__.py", "my/inner/__init__.py", "my/inner/rules.py", "my/port.py", "my/table.csv"]
PONG = ["targets/__init__.py", "targets/common.py", "targets/pong/envequiv.toml", "targets/pong/port.py"]
SHARED = ["shared/__init__.py", "shared/physics.py", "shared/table.npy"]


def grow(folder: Path) -> Path:
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(grow(tmp_path / "here")))
    return tmp_path / "here"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my.port", ["helpers.py", *MY, *SHARED]),
        ("my.port:make?size=3", ["helpers.py", *MY, *SHARED]),
        ("shared", SHARED),
        ("targets.pong.port", PONG),
        ("alone", ["alone.py", "envequiv.toml", "helpers.py", "maps/one.txt"]),
        ("wrong", ["envequiv.toml", "wrong.py"]),
    ],
)  # fmt: skip
def test_the_files_behind_a_name(tree, name, expected):
    assert list(contents.files(name)) == sorted(expected)


def test_nothing_is_run_or_imported(tree):
    before = set(sys.modules)
    contents.package_hash("my.port")
    assert not {"my", "shared", "helpers"} & (set(sys.modules) - before)


def test_the_hash_is_the_same_elsewhere_and_follows_every_byte(tree, tmp_path, monkeypatch):
    first = contents.package_hash("my.port")
    copy = tmp_path / "a copy, elsewhere"
    shutil.copytree(tree, copy)
    monkeypatch.setattr(sys, "path", [str(copy), *(p for p in sys.path if p != str(tree))])
    assert contents.find("my.port").root == copy
    assert contents.package_hash("my.port") == first
    seen = {first}
    for name in ("my/port.py", "my/table.csv", "my/inner/rules.py", "shared/physics.py", "helpers.py"):
        (copy / name).write_text((copy / name).read_text() + "# a comment\n")
        seen.add(contents.package_hash("my.port"))
    assert len(seen) == 6
    (copy / "unrelated.py").write_text("changed")
    (copy / "my" / ".cache" / "x").write_text("changed")
    assert contents.package_hash("my.port") in seen


def test_a_new_a_gone_and_a_renamed_file_count(tree):
    first = contents.package_hash("my.port")
    (tree / "my" / "new.bin").write_bytes(b"")
    second = contents.package_hash("my.port")
    (tree / "my" / "new.bin").rename(tree / "my" / "other.bin")
    assert len({first, second, contents.package_hash("my.port")}) == 3


def test_a_linked_folder_is_followed_once(tree):
    (tree / "my" / "maps").symlink_to(tree / "shared")
    (tree / "my" / "loop").symlink_to(tree / "my")
    assert set(contents.files("my.port")) == {*MY, *SHARED, "helpers.py"} | {
        name.replace("shared", "my/maps") for name in SHARED
    }


def test_an_installed_library_is_taken_whole_and_alone():
    found = contents.files("gymnasium:CartPole-v1")
    assert "gymnasium/envs/classic_control/cartpole.py" in found
    assert all(name.startswith("gymnasium/") for name in found)
    assert contents.files("gymnasium.envs.classic_control.cartpole:CartPoleEnv") == found
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in found)


def test_an_environment_that_another_module_registers(tree):
    found = contents.files("gymnasium:my.port:Thing-v0")
    assert "my/port.py" in found and "gymnasium/core.py" in found


def test_a_program(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.mjs").write_text("one")
    names = [f"process:node {word} --fast" for word in ("env.mjs", tmp_path / "env.mjs")]
    found = [contents.files(name) for name in names]
    assert set(found[0]) == {"(command)", "env.mjs"} and found[0] == found[1]
    assert contents.package_hash("process:node env.mjs") != contents.package_hash(names[0])
    first = contents.package_hash(names[0])
    (tmp_path / "env.mjs").write_text("two")
    assert contents.package_hash(names[0]) != first
    assert set(contents.files("process:python -m my.port")) == {"(command)", "helpers.py", *MY, *SHARED}


def test_a_kind_that_another_package_offers(tree, tmp_path, monkeypatch):
    info = tree / "envequiv_table-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: envequiv-table\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[envequiv.backends]\ntable = shared.physics\n")
    assert list(contents.files("table:nowhere")) == SHARED


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere.at.all", "no module 'nowhere.at.all'"),
        ("my.nothing", "no module 'my.nothing'"),
        ("the reference", "no module 'the reference'"),
        ("sys", "no files"),
        ("process:node 'unbalanced", "No closing quotation"),
    ],
)
def test_what_has_no_files_is_one_line(tree, name, told):
    with pytest.raises(OpenError) as raised:
        contents.files(name)
    assert told in str(raised.value) and "\n" not in str(raised.value)
    assert "error" in contents.of_pair("my.port", name)


def test_libraries(tree):
    (tree / "my" / "port.py").write_text("import jax.numpy as jnp\nimport matplotlib\n")
    assert contents.libraries("my.port", set()) == {"jax", "matplotlib"}
    assert contents.libraries("gymnax:CartPole-v1", {"flax", "rich"}) == {"gymnax", "flax"}
    hashed = contents.of_pair("gymnasium:CartPole-v1", "my.port")
    settings = {"ref": "gymnasium:CartPole-v1", "target": "my.port", "contract": None}
    bound = contents.bound(hashed, settings, "", ["numpy.linalg"])
    assert bound["libraries"] == {name: metadata.version(name) for name in ("gymnasium", "jax", "jaxlib", "numpy")}
    assert bound["target"] == contents.package_hash("my.port") and bound["contract"] is None


def test_it_is_light():
    code = "import sys; from pytest_envequiv import contents; contents.files('gymnax:CartPole-v1')\n"
    code += "assert not {'jax', 'gymnax', 'pytest', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_is_imported_with_it_of_the_installed(tmp_path, monkeypatch):
    """Of all files that are its own; not what a function imports once it is called, nor what is not there."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "rules.py").write_text("import numpy.linalg\nimport nowhere_to_be_found\n")
    (tmp_path / "mine" / "env.py").write_text(
        "from scipy import stats\nfrom mine.rules import *\n"
        "try:\n    import msgpack\nexcept ImportError:\n    pass\n"
        "def play():\n    import pluggy\n"
    )
    assert sorted(contents.needed("mine.env:Env")) == ["msgpack", "numpy.linalg", "scipy.stats"]
