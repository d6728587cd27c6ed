"""What pytest is asked, and how a person would type it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LEVELS = ("L1", "L2", "L3")  # at L4 policies are trained: too slow to be asked after every edit
NODE = "envequiv"  # what the node ids of a pair of the command line begin with


@dataclass(frozen=True)
class Question:
    """What pytest is asked. ``options``: more of its arguments, as typed (``--envequiv-strict``); ``search``: folders
    that come first on Python's path, after the one the suite runs in and relative to it (``src``);
    ``crates``: projects of maturin's that the target is made of, relative to it too: they are built before each run."""

    ref: str
    target: str
    profile: str = "quick"
    contract: str | None = None  # path, relative to the folder the suite runs in
    seed: int = 0
    options: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    crates: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """As pytest_envequiv.verdict.Settings takes it, for processes that ask the judge without pytest."""
        return {
            "ref": self.ref,
            "target": self.target,
            "profile": self.profile,
            "seed": self.seed,
            "contract": self.contract,
            "strict": "--envequiv-strict" in self.options,
        }


def command(question: Question) -> str:
    """What a person types to run the same."""
    words = ["pytest", "--envequiv", f"ref={question.ref}", f"target={question.target}", *options(question)]
    return " ".join([*words, *question.options, "--json-report", "--json-report-file=report.json"])


def options(question: Question, seed: int | None = None) -> list[str]:
    """The plugin's options that a question stands for."""
    asked = [f"--envequiv-profile={question.profile}", f"--envequiv-seed={question.seed if seed is None else seed}"]
    if not any(option.startswith("--envequiv-levels") for option in question.options):
        asked.append(f"--envequiv-levels={','.join(LEVELS)}")
    return asked + ([f"--envequiv-contract={question.contract}"] if question.contract else [])
