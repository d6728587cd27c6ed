"""A git worktree in which the target is mended: a branch of its own, one commit an accepted step.

The user's branch, index and files are left alone until ``land``. What they have not committed is taken along: changes
of tracked files and untracked files that git does not ignore are the branch's first commit, "as it was found", so that
the suite judges what they see. Ignored files (builds, data, environments) are not there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PREFIX = "envequiv-repair"
FOUND = "as it was found"
# A hook that calls us has these set: they would be about another repository or index.
ELSEWHERE = {f"GIT_{x}" for x in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR", "OBJECT_DIRECTORY")}
CACHES = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".envequiv")


class Unfit(Exception):
    """Why there can be no worktree, or why it cannot be landed: one line that says how to mend it."""


@dataclass(frozen=True)
class Worktree:
    """Where files may be changed.

    root    the worktree's counterpart of the folder the agent was called in; the suite runs here
    top     the worktree's top level
    branch  the branch it is on; base: the commit it began from, what the user had not committed included
    files   the allow-list: paths relative to ``root`` that may be edited, or patterns ("port/**/*.py")
    origin  the user's folder
    head    the commit the user's branch was at; another than ``base`` if they had changes that were not committed
    taken   what they had not committed, relative to ``top``
    """

    root: Path
    top: Path
    branch: str
    base: str
    files: tuple[str, ...]
    origin: Path
    head: str = ""
    taken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Landing:
    """Whether the result is now in the user's folder, and one line about it."""

    done: bool
    text: str


# --- opening ---------------------------------------------------------------------------------------------------------


def open_worktree(folder: Path, files: Sequence[str], name: str, place: Path | None = None) -> Worktree:
    """A new worktree of the repository that ``folder`` is in, on a new branch ``envequiv-repair/<name>-<n>``.

    ``files``: the allow-list, relative to ``folder``; ``place``: the folder that worktrees are put in, by default in
    the user's cache. Raises Unfit.
    """
    folder = folder.resolve()
    top, head = _repository(folder)
    _sensible(folder, top, files)
    short = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "target"
    taken_names = set(_lines(git(top, "for-each-ref", "--format=%(refname:short)", f"refs/heads/{PREFIX}/")))
    where = place or _place(top)
    n = 1
    while f"{PREFIX}/{short}-{n}" in taken_names or (where / f"{short}-{n}").exists():
        n += 1
    branch = f"{PREFIX}/{short}-{n}"
    base = _as_found(top, head)
    changed = _lines(git(top, "diff", "--name-only", "--no-renames", "-z", head, base)) if base != head else []
    where.mkdir(parents=True, exist_ok=True)
    at = where / f"{short}-{n}"
    git(top, "worktree", "add", "--quiet", "--no-track", "-b", branch, str(at), base)
    for ref, commit_ in (("base", base), ("head", head), ("tip", base)):
        git(top, "update-ref", _ref(branch, ref), commit_)
    at = at.resolve()
    return Worktree(at / folder.relative_to(top), at, branch, base, tuple(files), folder, head, tuple(changed))


def fitting(folder: Path, files: Sequence[str]) -> None:
    """Nothing, where a worktree could be opened. Raises Unfit."""
    top, _ = _repository(folder.resolve())
    _sensible(folder.resolve(), top, files)


def reopen(folder: Path, files: Sequence[str], branch: str, place: Path | None = None) -> Worktree:
    """The worktree of an earlier run, at its last accepted step. Raises Unfit if it or its branch is gone."""
    folder = folder.resolve()
    top, _ = _repository(folder)
    known = set(_lines(git(top, "for-each-ref", "--format=%(refname)", f"refs/{PREFIX}/")))
    if not {_ref(branch, ref) for ref in ("base", "head", "tip")} <= known:
        raise Unfit(f"there is no repair on branch {branch!r} in {top}: begin a new one, without --resume")
    base, head, tip = (git(top, "rev-parse", _ref(branch, ref)).strip() for ref in ("base", "head", "tip"))
    git(top, "worktree", "prune")
    at = _checked_out(top, branch)
    if at is None:
        at = (place or _place(top)) / branch.removeprefix(f"{PREFIX}/")
        git(top, "worktree", "add", "--quiet", "--force", "-B", branch, str(at), tip)
    at = at.resolve()
    changed = _lines(git(top, "diff", "--name-only", "--no-renames", "-z", head, base)) if base != head else []
    tree = Worktree(at / folder.relative_to(top), at, branch, base, tuple(files), folder, head, tuple(changed))
    lock = Path(git(at, "rev-parse", "--path-format=absolute", "--git-path", "index.lock").strip())
    lock.unlink(missing_ok=True)  # of a run that was killed; the worktree is nobody else's
    revert(tree)
    return tree


def _repository(folder: Path) -> tuple[Path, str]:
    """The top folder and the commit of a repository that a worktree can be made of."""
    if not folder.is_dir():
        raise Unfit(f"there is no folder {folder}")
    try:
        inside = _try(folder, "rev-parse", "--show-toplevel")
    except FileNotFoundError:
        raise Unfit("git is not installed: the repair works on a branch of its own") from None
    if inside is None or not inside.strip():
        first = "git init && git add -A && git commit -m 'before the repair'"
        raise Unfit(f"{folder} is in no git repository, and the repair needs a branch of its own: {first}")
    top = Path(inside.strip()).resolve()
    if (head := _try(top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")) is None:
        raise Unfit(f"the repository {top} has no commit yet: git add -A && git commit -m 'before the repair'")
    if _try(top, "symbolic-ref", "--quiet", "HEAD") is None:
        raise Unfit(f"the repository {top} is on no branch, so the result could not be put there: git switch -c mended")
    if (_try(top, "rev-parse", "--show-superproject-working-tree") or "").strip():
        raise Unfit(f"{top} is a submodule, which git gives no worktrees that can be relied on: clone it by itself")
    if git(top, "ls-files", "--unmerged"):
        raise Unfit(f"a merge is going on in {top}: finish it (git status tells how), or git merge --abort")
    return top, head.strip()


def _sensible(folder: Path, top: Path, files: Sequence[str]) -> None:
    """Raises Unfit if the allow-list names what cannot be in the worktree."""
    if not files:
        raise Unfit("no file may be edited: name some with --files")
    staged = git(top, "ls-files", "--stage", "-z").split("\0")
    modules = [top / entry.partition("\t")[2] for entry in staged if entry.startswith("160000")]
    for name in files:
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or name.startswith(".git"):
            raise Unfit(f"{name!r} is not below {folder}: call envequiv-repair where the target's files are")
        for module in modules:
            if path.is_relative_to(module):
                raise Unfit(
                    f"{name!r} is in the submodule {module}, whose files a worktree does not hold: clone it by itself"
                )
        if not re.search(r"[*?\[]", name):
            if path.is_symlink():
                raise Unfit(f"{name!r} is a link: name the file it leads to")
            if _try(top, "check-ignore", "--quiet", str(path)) is not None:
                raise Unfit(f"{name!r} is ignored by git, so the branch would not hold it: git add -f {name}")


def _as_found(top: Path, head: str) -> str:
    """A commit of what the user has, whether committed or not; HEAD if there is nothing else. Through an index of its
    own: theirs is not touched."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-") as folder:
        index = Path(folder) / "index"
        own = Path(git(top, "rev-parse", "--path-format=absolute", "--git-path", "index").strip())
        if own.exists():  # it knows which files need no second look: those older than itself, so its time is kept
            shutil.copy2(own, index)
        env = {"GIT_INDEX_FILE": str(index)}
        aside = [f":(exclude,glob)**/{name}/**" for name in CACHES]
        git(top, "add", "--all", "--", ".", *aside, env=env)
        tree = git(top, "write-tree", env=env).strip()
    if tree == git(top, "rev-parse", "HEAD^{tree}").strip():
        return head
    return git(top, "commit-tree", tree, "-p", head, "-m", f"{PREFIX}: {FOUND}").strip()


def _place(top: Path) -> Path:
    """Outside of the repository: configuration and conftest files above a worktree would be taken for its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / PREFIX / f"{top.name}-{hashlib.sha256(str(top).encode()).hexdigest()[:8]}"


def _checked_out(top: Path, branch: str) -> Path | None:
    for entry in git(top, "worktree", "list", "--porcelain").split("\n\n"):
        lines = entry.splitlines()
        if f"branch refs/heads/{branch}" in lines and lines[0].startswith("worktree "):
            return Path(lines[0].removeprefix("worktree "))
    return None


# --- steps -----------------------------------------------------------------------------------------------------------


def allowed(path: str, files: Iterable[str]) -> bool:
    """Whether a path is on an allow-list. ``*`` and ``?`` stay within a folder, ``**`` does not."""
    return any(_pattern(name).fullmatch(path) for name in files)


def tip(tree: Worktree) -> str:
    """The last accepted step."""
    return git(tree.top, "rev-parse", _ref(tree.branch, "tip")).strip()


def commit(tree: Worktree, message: str) -> str:
    """Commits what was edited of the allow-list, and gives the commit; the last one if nothing was."""
    before = tip(tree)
    git(tree.top, "symbolic-ref", "HEAD", f"refs/heads/{tree.branch}")  # whatever an agent did with git in here
    git(tree.top, "reset", "--soft", before)
    git(tree.top, "reset", "--quiet")
    changed = [path for path in _uncommitted(tree) if _mine(tree, path)]
    if changed:
        git(tree.top, "add", "--all", "--", *(f":(literal,top){path}" for path in changed))
        git(tree.top, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", message)
    after = git(tree.top, "rev-parse", "HEAD").strip()
    git(tree.top, "update-ref", _ref(tree.branch, "tip"), after)
    return after


def revert(tree: Worktree) -> None:
    """Back to the last accepted step: nothing else is left, ignored files included. Builds of cargo stay."""
    git(tree.top, "symbolic-ref", "HEAD", f"refs/heads/{tree.branch}")
    git(tree.top, "reset", "--hard", "--quiet", tip(tree))
    git(tree.top, "clean", "-ffdxq", "--exclude=target/")


def sweep(tree: Worktree) -> None:
    """Takes away caches that running things leaves behind: bytecode could be run in place of its source."""
    git(tree.top, "clean", "-ffdxq", "--", *(f":(top,glob)**/{name}/**" for name in CACHES))


def diff(tree: Worktree, since: str | None = None) -> str:
    """What was changed since a commit (by default: since it was found), what is not committed included."""
    sweep(tree)
    git(tree.top, "add", "--intent-to-add", "--all")
    told = git(tree.top, "diff", "--no-color", "--no-ext-diff", since or tree.base)
    git(tree.top, "reset", "--quiet")  # new files are untracked again, so that they can be cleaned away
    return told


def changed_files(tree: Worktree) -> tuple[str, ...]:
    """Paths, relative to the worktree's top, of what the accepted steps changed."""
    return tuple(_lines(git(tree.top, "diff", "--name-only", "--no-renames", "-z", tree.base, tip(tree))))


def _uncommitted(tree: Worktree) -> list[str]:
    entries = git(tree.top, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames").split("\0")
    return [entry[3:] for entry in entries if entry]


def _mine(tree: Worktree, path: str) -> bool:
    relative = Path(os.path.relpath(tree.top / path, tree.root)).as_posix()
    return allowed(relative, tree.files)


def _pattern(name: str) -> re.Pattern[str]:
    rules = {"**/": r"(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", name)
    return re.compile("".join(rules.get(part) or re.escape(part) for part in parts))


def _ref(branch: str, what: str) -> str:
    return f"refs/{branch}/{what}"


# --- the end ---------------------------------------------------------------------------------------------------------


def land(tree: Worktree) -> Landing:
    """Puts the accepted steps where the user is: their branch moves on if it is where it was and all was committed;
    else the files are written and left uncommitted, if theirs are still as they were found; else nothing is done.
    """
    last = tip(tree)
    if last == tree.base:
        return Landing(True, "nothing was changed")
    top = Path(git(tree.origin, "rev-parse", "--show-toplevel").strip()).resolve()
    by_hand = f"git cherry-pick {tree.base[:12]}..{tree.branch}"
    now = git(top, "rev-parse", "HEAD").strip()
    if now == tree.base and _try(top, "symbolic-ref", "--quiet", "HEAD") is not None:
        on = git(top, "symbolic-ref", "--short", "HEAD").strip()
        if _try(top, "merge", "--ff-only", "--quiet", last) is not None:
            return Landing(True, f"{on} is now at {last[:12]}")
    changed = changed_files(tree)
    strange = [path for path in changed if not _mine(tree, path)]
    touched = [path for path in changed if _blob_of(top, path) != _blob_in(tree, path)]
    if strange or touched:
        why = "was changed since the repair began" if touched else "may not be edited"
        which = ", ".join(touched or strange)
        return Landing(False, f"{which} {why}; the repair is on branch {tree.branch}, to be taken by hand: {by_hand}")
    revert(tree)
    for path in changed:
        source, goal = tree.top / path, top / path
        if source.exists():
            goal.parent.mkdir(parents=True, exist_ok=True)
            part = goal.with_name(f".{goal.name}.{PREFIX}")
            shutil.copy(source, part)
            os.replace(part, goal)
        else:
            goal.unlink(missing_ok=True)
    return Landing(True, f"written and not committed, since other changes are not: {', '.join(changed)}")


def remove(tree: Worktree, branch: bool = False) -> None:
    """Takes the worktree away; the branch too if asked to, since it is all that is left of the steps."""
    git(tree.origin, "worktree", "remove", "--force", "--force", str(tree.top))
    git(tree.origin, "worktree", "prune")
    if branch:
        git(tree.origin, "branch", "--quiet", "-D", tree.branch)
        for ref in ("base", "head", "tip"):
            git(tree.origin, "update-ref", "-d", _ref(tree.branch, ref))


def _blob_of(top: Path, path: str) -> str:
    """What git would call the user's copy of a file; "" if there is none, "(link)" of what is not a file."""
    file = top / path
    if file.is_symlink() or file.is_dir():
        return "(link)"
    return git(top, "hash-object", f"--path={path}", "--", str(file)).strip() if file.exists() else ""


def _blob_in(tree: Worktree, path: str) -> str:
    return (_try(tree.top, "rev-parse", "--verify", "--quiet", f"{tree.base}:{path}") or "").strip()


# --- git -------------------------------------------------------------------------------------------------------------


def git(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What git prints. Raises Unfit with its own words. No hooks are run: they are not ours to trigger."""
    done = _run(folder, words, env)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise Unfit(f"git {' '.join(words[:2])} failed in {folder}: {said[:500]}")
    return done.stdout


def _try(folder: Path, *words: str) -> str | None:
    """What git prints, or None if it fails."""
    done = _run(folder, words, None)
    return None if done.returncode else done.stdout


def _run(folder: Path, words: Sequence[str], env: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ELSEWHERE}
    who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _identity(folder, words)}
    argv = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false", *words]
    return subprocess.run(
        argv,
        cwd=folder,
        env={**who, **kept, **(env or {}), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
    )


def _identity(folder: Path, words: Sequence[str]) -> list[tuple[str, str]]:
    """A name for commits where the user has given git none."""
    if words[0] not in ("commit", "commit-tree"):
        return []
    known = subprocess.run(["git", "config", "user.email"], cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
    return [] if known.stdout.strip() else [("NAME", PREFIX), ("EMAIL", f"{PREFIX}@localhost")]


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"[\0\n]", text) if line]
