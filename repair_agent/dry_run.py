"""--dry-run: what a repair would begin with. No call is made, and nothing is written where the user works."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from repair_agent import session
from repair_agent.budget import Budget, Limits
from repair_agent.case import Case
from repair_agent.findings import Run
from repair_agent.groups import groups
from repair_agent.journal import Journal
from repair_agent.live import Line
from repair_agent.model import prompt
from repair_agent.model.messages import Prompt, body, bound
from repair_agent.model.tools import DEFINITIONS
from repair_agent.session import Request
from repair_agent.tree import worktree
from repair_agent.tree.worktree import Worktree


def planned(request: Request, console: Console) -> int:
    """The exit code: 0. Raises as ``session.repaired`` does."""
    request, files = session.settled(request)
    worktree.fitting(request.folder, files)
    tree = Worktree(request.folder, request.folder, "", "", files, request.folder)
    budget = Budget(request.limits, request.prices)
    worst = functools.partial(budget.worst, request.api.model)
    worst(0, 1)  # its price must be known
    if request.workflow == "repair":
        with Line(console, budget) as line, _swept(request.folder, files):
            run = session.baseline(request, tree, line)
    else:
        run = Run({}, (), trouble=f"{files[0]} is not there yet: it begins as a stub, which does nothing right")
    say = functools.partial(console.print, markup=False)
    say(f"engines     {_by_whom(request)}")
    say(f"limits      {_limits(request.limits)}")
    say(f"may change  {', '.join(files)}")
    say(f"suite       {session.words(run)}")
    waiting = groups(run)
    for number, group in enumerate(waiting, 1):
        say(f"  {number}. {group.key}: {', '.join(group.checks)}")
    if not waiting:
        say("nothing to mend: only the last word would be asked, on unseen seeds")
        return 0
    material = session.material(request, tree)
    with tempfile.TemporaryDirectory() as scratch:
        trajectory = Journal(Path(scratch) / session.TRAJECTORY)
        case = Case(request.question, tree, waiting[0], run, budget, trajectory)
        first = {"role": "user", "content": [{"type": "text", "text": prompt.first_message(case, material)}]}
        text = prompt.whole(case, material)
        trajectory.close()
    size = bound(body(Prompt(DEFINITIONS, prompt.system_prompt(material), [first]), request.api))
    if request.engine in ("auto", "model"):
        most = worst(size, request.api.max_tokens)
        say(f"first call  {request.api.model}: at most {size:,} tokens of prompt, ${most:.4f} at worst")
        if request.limits.dollars is not None:
            say(f"all calls   ${request.limits.dollars:g} at worst: no call is made that could cost more than is left")
    if request.engine != "offline":
        console.rule("the first prompt")
        say(text)
    return 0


@contextlib.contextmanager
def _swept(folder: Path, files: tuple[str, ...]) -> Iterator[None]:
    """Takes away the bytecode that the suite leaves beside the target: the judge has processes that write it."""
    places = {(folder / name).parent / "__pycache__" for name in files}
    before = {place: set(place.iterdir()) if place.is_dir() else None for place in places}
    try:
        yield
    finally:
        for place, known in before.items():
            for path in set(place.iterdir() if place.is_dir() else ()) - (known or set()):
                path.unlink()
            if known is None and place.is_dir():
                place.rmdir()


def _by_whom(request: Request) -> str:
    if request.engine == "command":
        return str(request.command)
    offline = "offline" if request.workflow == "repair" and request.engine in ("auto", "offline") else ""
    model = request.api.model if request.engine in ("auto", "model") else ""
    return ", then ".join(filter(None, (offline, model)))


def _limits(limits: Limits) -> str:
    money = "" if limits.dollars is None else f"${limits.dollars:g}"
    others = [f"{getattr(limits, n):g} {n}" for n in ("seconds", "calls", "tokens") if getattr(limits, n) is not None]
    return ", ".join(filter(None, (money, *others, f"{limits.tries} tries of an engine at a group")))
