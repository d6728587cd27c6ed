"""Where the reference comes from: PufferLib's sources as they are, and what is said where they cannot be had."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import OpenError
from targets.pong import build

ROOT = Path(build.__file__).parent.parent.parent
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, with the sources already in it."""
    known = build.sources()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(known, build.cache() / known.name)
    return tmp_path


def test_pong_h_is_the_one_that_pufferlib_published():
    folder = build.sources()
    text = (folder / "pong" / "pong.h").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "47c08b8ed9f90c92bb6569cdc0be6999f1586f5abe11cf7777a6b9861a74f669"
    assert b"void c_step(Pong* env)" in text
    # The driver includes it, has no rules of its own, and replaces rand() by name alone.
    driver = (build.HERE / "driver.c").read_text()
    assert '#define rand() drawn()\n#include "pong.h"\n#undef rand' in driver
    assert driver.count("#define") == 2 and "void c_step" not in driver


def test_a_source_that_was_changed_is_refused(cache):
    pong = build.sources() / "pong" / "pong.h"
    pong.write_text(pong.read_text().replace("rand() % 2 - 1", "rand() % 3 - 1"))
    with pytest.raises(OpenError, match=r"pong\.h is not PufferLib's .*: remove .*pufferlib-3\.0\.0.* and try again"):
        open_backend("targets.pong.reference")


def test_without_a_compiler_it_says_how_to_get_one(cache, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(cache))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "ziglang" else find(name, *a))
    with pytest.raises(OpenError, match=r"no C compiler here \(looked for cc, gcc, clang\).*pip install ziglang"):
        open_backend("targets.pong.reference")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object())
    assert build.compiler() == [sys.executable, "-m", "ziglang", "cc"]


def test_a_compiler_that_is_named_is_used_or_missed(cache, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    with pytest.raises(OpenError, match=r"\$CC names is not here: no-such-compiler"):
        open_backend("targets.pong.reference")
    broken = cache / "broken"
    broken.write_text("#!/bin/sh\necho 'driver.c:1: error: out of ideas' >&2\necho bye >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(OpenError, match=r"broken cannot compile driver\.c: driver\.c:1: error: out of ideas$"):
        open_backend("targets.pong.reference")


def test_without_a_network_it_says_so_and_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OpenError, match=r"pip could not bring the sources of pufferlib 3\.0\.0.*: ERROR: .*pufferlib"):
        open_backend("targets.pong.reference")
    assert "downloading the sources of pufferlib 3.0.0" in capfd.readouterr().err
    assert list(build.cache().iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "pytest-envequiv").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(OpenError, match=r"cannot be written .*: set XDG_CACHE_HOME"):
        build.cache()


def test_two_processes_may_build_at_once(cache):
    command = [sys.executable, "-m", "targets.pong.build"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), **OFFLINE}
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = {process.communicate()[0] for process in running}
    assert all(process.returncode == 0 for process in running) and len(told) == 1
    left = sorted(path.name for path in build.cache().iterdir())
    assert len(left) == 2 and left[0].endswith("-libpong.so"), left


def test_what_another_process_has_made_meanwhile_is_kept(tmp_path):
    for kind in ("a file", "a folder"):
        made, target = tmp_path / f"made {kind}", tmp_path / f"target {kind}"
        for path, text in ((made, "mine"), (target, "theirs")):
            if kind == "a folder":
                path.mkdir()
                path /= "inside"
            path.write_text(text)
        build._named(made, target)
        assert target.exists()
    assert (tmp_path / "target a folder" / "inside").read_text() == "theirs"
    with pytest.raises(FileNotFoundError):
        build._named(tmp_path / "nothing", tmp_path / "nowhere")
