"""The worktree: what it takes along, what it leaves alone, and how it lands."""

from __future__ import annotations

import sys

import pytest

from repair_agent.question import Question
from repair_agent.tree import worktree
from repair_agent.tree.extent import astray, default_files, search
from repair_agent.tree.worktree import Unfit, open_worktree, reopen

FILES = ("port/env.py",)


def mended(tree, text="GRAVITY = 9.8\n"):
    (tree.root / "port" / "env.py").write_text(text)
    return worktree.commit(tree, "L2 theta_dot: gravity")


def state(repository):
    """All that must not change before it lands."""
    index = (repository.top / ".git" / "index").read_bytes()
    return index, repository.git("status", "--porcelain"), repository.git("rev-parse", "main"), env_of(repository)


def env_of(repository):
    return (repository.top / "port" / "env.py").read_text()


# -- opening -----------------------------------------------------------------------------------------------------------


def test_a_clean_repository(repository):
    repository.git("status")  # git refreshes the index when it likes to
    before = state(repository)
    tree = open_worktree(repository.top / "port", ("env.py",), "port.env:Env")
    assert tree.branch == "envequiv-repair/port.env-Env-1" and tree.base == tree.head and tree.taken == ()
    assert tree.root == tree.top / "port" and (tree.root / "env.py").read_text() == "GRAVITY = 3.7\n"
    assert not tree.top.is_relative_to(repository.top)
    assert open_worktree(repository.top, FILES, "port.env:Env").branch == "envequiv-repair/port.env-Env-2"
    assert state(repository) == before


def test_what_is_not_committed_is_taken_along(repository):
    (repository.top / ".gitignore").write_text("ignored.py\n")
    repository.write(port__env="GRAVITY = 3.8\n", new="y = 2\n", ignored="z = 3\n", staged="s = 4\n")
    repository.git("add", "staged.py")
    (repository.top / "other.py").unlink()
    (repository.top / ".envequiv").mkdir()
    (repository.top / ".envequiv" / "found.json").write_text("{}")
    before = state(repository)
    tree = open_worktree(repository.top, FILES, "port")
    assert sorted(tree.taken) == [".gitignore", "new.py", "other.py", "port/env.py", "staged.py"]
    assert sorted(p.name for p in tree.top.iterdir()) == [".git", ".gitignore", "new.py", "port", "staged.py"]
    assert (tree.root / "port/env.py").read_text() == "GRAVITY = 3.8\n"
    assert tree.base != tree.head and worktree.diff(tree) == ""
    assert state(repository) == before


def refused(folder, files=FILES):
    with pytest.raises(Unfit) as caught:
        open_worktree(folder, files, "port")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_worked_on_says_how_to_mend_it(repository, tmp_path):
    (tmp_path / "bare").mkdir()
    assert "git init" in refused(tmp_path / "bare")
    repository.git("init", "--quiet", str(tmp_path / "empty"))
    assert "has no commit yet" in refused(tmp_path / "empty")
    assert "there is no folder" in refused(tmp_path / "nowhere")
    assert "is not below" in refused(repository.top, ("../x.py",))
    assert "no file may be edited" in refused(repository.top, ())
    (repository.top / ".gitignore").write_text("ignored.py\n")
    assert "git add -f" in refused(repository.top, ("ignored.py",))
    repository.git("switch", "--quiet", "--detach")
    assert "git switch -c" in refused(repository.top)


def test_a_submodule_says_how_to_mend_it(repository, tmp_path):
    repository.git("-c", "protocol.file.allow=always", "clone", "--quiet", str(repository.top), str(tmp_path / "outer"))
    inner = ("-c", "protocol.file.allow=always", "-C", str(tmp_path / "outer"), "submodule", "--quiet", "add")
    repository.git(*inner, str(repository.top), "inner")
    assert "clone it by itself" in refused(tmp_path / "outer", ("inner/port/env.py",))
    assert "clone it by itself" in refused(tmp_path / "outer" / "inner")


# -- steps -------------------------------------------------------------------------------------------------------------


def test_a_step_is_committed_and_what_is_not_of_it_is_not(repository):
    tree = open_worktree(repository.top, ("port/*.py",), "port")
    (tree.root / "port" / "more.py").write_text("")
    (tree.root / "other.py").write_text("x = 2\n")
    sha = mended(tree)
    assert repository.git("show", "--format=%s", "--name-only", sha).split("\n\n") == [
        "L2 theta_dot: gravity",
        "port/env.py\nport/more.py",
    ]
    assert worktree.tip(tree) == sha and "+GRAVITY = 9.8" in worktree.diff(tree)
    (tree.root / "port" / "more.py").unlink()
    (tree.root / "stray").mkdir()
    (tree.root / "stray" / "__pycache__").mkdir()
    worktree.revert(tree)
    assert (tree.root / "port" / "more.py").exists() and (tree.root / "other.py").read_text() == "x = 1\n"
    assert not (tree.root / "stray").exists()
    assert worktree.commit(tree, "nothing") == sha


def test_what_an_agent_does_with_git_does_not_count(repository):
    """It may commit, switch and reset in the worktree: the next revert is to the last accepted step all the same."""
    tree = open_worktree(repository.top, FILES, "port")
    sha = mended(tree)
    for words in (
        ["switch", "--quiet", "-c", "mine"],
        ["rm", "--quiet", "other.py"],
        ["commit", "--quiet", "-m", "no"],
    ):
        repository.git("-C", str(tree.top), *words)
    worktree.revert(tree)
    assert worktree.tip(tree) == sha == repository.git("rev-parse", tree.branch)
    assert (tree.root / "other.py").exists()


def test_it_goes_on_after_a_kill(repository):
    tree = open_worktree(repository.top, FILES, "port")
    sha = mended(tree)
    (tree.root / "port" / "env.py").write_text("half an ed")
    lock = repository.git("-C", str(tree.top), "rev-parse", "--path-format=absolute", "--git-path", "index.lock")
    open(lock, "w").close()
    again = reopen(repository.top, FILES, tree.branch)
    assert again == tree and (tree.root / "port" / "env.py").read_text() == "GRAVITY = 9.8\n"
    worktree.remove(tree)
    again = reopen(repository.top, FILES, tree.branch)  # the temporary folder was emptied
    assert worktree.tip(again) == sha and (again.root / "port" / "env.py").read_text() == "GRAVITY = 9.8\n"
    worktree.remove(tree, branch=True)
    with pytest.raises(Unfit, match="begin a new one"):
        reopen(repository.top, FILES, tree.branch)
    assert repository.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_caches_are_swept_and_sources_are_not(repository):
    tree = open_worktree(repository.top, FILES, "port")
    (tree.root / "port" / "__pycache__").mkdir()
    (tree.root / "port" / "__pycache__" / "env.cpython-311.pyc").write_bytes(b"poison")
    (tree.root / "port" / "new.py").write_text("")
    worktree.sweep(tree)
    assert sorted(p.name for p in (tree.root / "port").iterdir()) == ["__init__.py", "env.py", "new.py"]


# -- landing -----------------------------------------------------------------------------------------------------------


def test_a_clean_branch_moves_on(repository):
    tree = open_worktree(repository.top, FILES, "port")
    assert worktree.land(tree).text == "nothing was changed"
    sha = mended(tree)
    landing = worktree.land(tree)
    assert landing.done and landing.text == f"main is now at {sha[:12]}"
    assert repository.git("rev-parse", "main") == sha and repository.git("status", "--porcelain") == ""
    assert env_of(repository) == "GRAVITY = 9.8\n"


def test_beside_other_changes_files_are_written_and_not_committed(repository):
    repository.write(other="x = 5\n")
    tree = open_worktree(repository.top, FILES, "port")
    mended(tree)
    repository.write(other="x = 6\n")  # while the repair went on
    landing = worktree.land(tree)
    assert landing.done and "not committed" in landing.text
    assert repository.git("rev-parse", "main") == tree.head
    assert env_of(repository) == "GRAVITY = 9.8\n" and (repository.top / "other.py").read_text() == "x = 6\n"


def test_a_branch_that_went_on_elsewhere_gets_the_files(repository):
    tree = open_worktree(repository.top, FILES, "port")
    mended(tree)
    repository.write(other="x = 7\n")
    repository.commit("their own work")
    assert worktree.land(tree).done
    assert env_of(repository) == "GRAVITY = 9.8\n" and repository.git("status", "--porcelain") == "M port/env.py"


def test_a_file_that_was_changed_meanwhile_is_left_alone(repository):
    tree = open_worktree(repository.top, FILES, "port")
    mended(tree)
    repository.write(port__env="GRAVITY = 1.6\n")
    repository.commit("to the moon")
    landing = worktree.land(tree)
    assert not landing.done and env_of(repository) == "GRAVITY = 1.6\n"
    assert "port/env.py was changed" in landing.text and tree.branch in landing.text
    repository.git("checkout", "--quiet", tree.head)
    repository.git(*landing.text.rpartition("git ")[2].split())  # the command that it names works
    assert env_of(repository) == "GRAVITY = 9.8\n"


# -- whose files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def at(repository, monkeypatch):
    """The repository as the working folder of a user who calls envequiv-repair in it."""
    monkeypatch.chdir(repository.top)
    monkeypatch.syspath_prepend(str(repository.top))
    return repository


def test_the_files_of_a_target(at):
    at.write(
        mine__init="", mine__port="from mine import rules, tables\nimport mine.base\n",
        mine__rules="", mine__tables="from .rules import x\nimport beside\n", mine__base="", mine__test_port="",
        mine__reference="from mine.base import x\n", beside="",
    )  # fmt: skip
    assert set(default_files("mine.port:Env?x=1", at.top)) == {
        "mine/port.py", "mine/rules.py", "mine/tables.py", "mine/base.py", "mine/__init__.py",
    }  # fmt: skip
    assert "mine/base.py" not in default_files("mine.port", at.top, ref="mine.reference")
    with pytest.raises(Unfit, match="files of its own"):
        default_files("mine.base", at.top, ref="mine.reference")
    assert "port" not in sys.modules and "mine" not in sys.modules


def test_a_lone_module_and_a_crate(at):
    at.write(lone="import beside\nfrom port import env\n", beside="")
    assert set(default_files("lone", at.top)) == {"lone.py", "beside.py"}
    crate = at.top / "crate"
    (crate / "src" / "inner").mkdir(parents=True)
    for name in ("Cargo.toml", "build.rs", "src/lib.rs", "src/inner/mod.rs"):
        (crate / name).write_text("")
    command = "process:cargo run --release --manifest-path crate/Cargo.toml"
    assert default_files(command, at.top) == ("crate/src/inner/mod.rs", "crate/src/lib.rs")
    with pytest.raises(Unfit, match="--files"):
        default_files("process:cargo run", at.top)
    assert default_files("process:cargo run", crate) == ("src/inner/mod.rs", "src/lib.rs")


def test_what_is_not_the_user_s_is_refused(at, tmp_path):
    for name, why in (
        ("gymnax:CartPole-v1", "installed code of gymnax"),
        ("gymnax", "installed code"),
        ("nowhere.to.be.found", "there is no module"),
    ):
        with pytest.raises(Unfit, match=why):
            default_files(name, at.top)
    with pytest.raises(Unfit, match="not below"):
        default_files("other", at.top / "port")


def test_python_looks_in_the_worktree_s_counterpart(repository, monkeypatch):
    repository.write(src__lone="x = 1\n")
    repository.commit()
    monkeypatch.syspath_prepend(str(repository.top / "src"))
    monkeypatch.setenv("PYTHONPATH", str(repository.top / "src"))
    assert search("lone", repository.top) == ("src",)
    tree = open_worktree(repository.top, ("src/lone.py",), "lone")
    assert astray(Question("A", "lone", search=("src",)), tree.root) == []
    (tree.root / "src" / "lone.py").unlink()  # nothing of theirs takes its place
    assert astray(Question("A", "lone", search=("src",)), tree.root) == []
