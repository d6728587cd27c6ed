"""The engine that runs another agent's command in the worktree: ``--agent-command 'CMD {prompt_file}'``.

The command gets the same words as the model, in a file, and what it leaves in the tree meets the same gate. What it
costs is not known here: of the budget only the time is counted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

from repair_agent import crates, suite
from repair_agent.budget import Exhausted
from repair_agent.case import Attempt, Case
from repair_agent.model.prompt import Material, gathered, whole
from repair_agent.question import command
from repair_agent.tree import worktree

PLACE = "{prompt_file}"
SECONDS = 1800.0  # of one attempt
WORDS = """

# How you work here

You are in the folder that the files named above are relative to. The tools named above (`check`, `replay`, `evaluate`,
`compile_check`, `give_up`) are not there; the suite is run with

    {command}

{builds}Do not commit, and change nothing but the files that may be changed: everything else is compared afterwards.
"""


class Command:
    """Raises ValueError if the command does not say where the prompt's file goes, or cannot be split into words."""

    name = "command"

    def __init__(self, command: str, material: Material | None = None, seconds: float = SECONDS):
        self._words = shlex.split(command)
        if not self._words or not any(PLACE in word for word in self._words):
            raise ValueError(f"--agent-command {command!r}: it must hold {PLACE}, where the file with the prompt goes")
        self._material, self._seconds = material, seconds

    def words(self, case: Case) -> str:
        """What the agent is told besides the prompt."""
        return WORDS.replace("{command}", command(case.question)).replace("{builds}", _builds(case))

    def attempt(self, case: Case) -> Attempt:
        """Raises Exhausted if there is no time left, OSError if the command cannot be run."""
        case.budget.check()
        if self._material is None:
            self._material = gathered(case.question, case.tree.root, case.tree.files)
        folder = case.journal.path.parent / "command"
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + sum(1 for _ in folder.glob("prompt-*.md"))
        asked, said = folder / f"prompt-{number}.md", folder / f"output-{number}.txt"
        text = whole(case, self._material) + self.words(case)
        asked.write_text(text, encoding="utf-8")
        argv = [word.replace(PLACE, str(asked.resolve())) for word in self._words]
        limit = min(self._seconds, case.budget.seconds_left)
        case.tell(f"{case.group.key}: {argv[0]} works, for at most {limit:.0f} s; what it costs is not known")
        began = time.monotonic()
        code = _run(argv, case.tree.root, suite.environment(case.question, case.tree.root), said, limit)
        spent = time.monotonic() - began
        changed = bool(worktree.diff(case.tree, worktree.tip(case.tree)).strip())
        case.journal.write(
            "command",
            argv=argv,
            exit=code,
            seconds=round(spent, 1),
            output=str(said),
            cost="not known",
            changed=changed,
        )
        if code is None and case.budget.seconds_left <= 0:
            raise Exhausted(f"time: {argv[0]} was ended when it was over")
        ended = f"was ended after {limit:.0f} s" if code is None else f"ended with exit code {code}"
        what = "changed files" if changed else "changed nothing"
        return Attempt(changed, f"{Path(argv[0]).name} {ended} and {what}; what it cost is not known")


def _builds(case: Case) -> str:
    """How what was edited gets to where the suite looks."""
    root = case.tree.root
    if not case.question.crates:
        return ""
    folders = [(root / name).resolve() for name in case.question.crates]
    return f"""What Python imports of the crate is built, after an edit and before the suite, with

    {crates.command(folders, suite.built(root), suite.compiled())}

"""


def _run(argv: list[str], folder: Path, env: dict[str, str], said: Path, seconds: float) -> int | None:
    """The exit code, or None if it took too long. Its whole session is gone afterwards, however this ends."""
    with said.open("wb") as out:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
