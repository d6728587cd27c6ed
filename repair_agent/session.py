"""One run of the program: the worktree opened, the engines made, the loop run, the result told and landed.

Everything is kept in ``<output>/repair/<pair>/``: trajectory.jsonl, state.json, report.json, counterexamples.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from pytest_envequiv import contents
from pytest_envequiv.errors import OpenError
from pytest_envequiv.verdict import pair_name
from repair_agent import extent, guard, journal, loop, prompt, report, stub, suite, worktree
from repair_agent.budget import Budget, Limits
from repair_agent.case import Case, Engine
from repair_agent.command import Command
from repair_agent.conversation import Conversation
from repair_agent.groups import groups
from repair_agent.guard import Frozen
from repair_agent.journal import Journal
from repair_agent.messages import Options, Prompt, body, bound
from repair_agent.model import Live, Model, Recorded, Unusable
from repair_agent.offline import Offline
from repair_agent.prices import Prices
from repair_agent.suite import Question, Run
from repair_agent.tools import DEFINITIONS
from repair_agent.worktree import Worktree

ENGINES = ("auto", "offline", "model")
TRAJECTORY = "trajectory.jsonl"


@dataclass(frozen=True)
class Request:
    """What the person asked for. ``files``: none for the target's own; ``engine``: of ENGINES, or "command"."""

    question: Question
    folder: Path
    output: Path
    files: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    report: Path | None = None
    workflow: str = "repair"
    fast: str | None = None
    specification: Path | None = None
    engine: str = "auto"
    command: str | None = None
    api: Options = field(default_factory=Options)
    prices: Prices = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    land: bool = True
    resume: bool = False
    replay: Path | None = None

    @property
    def place(self) -> Path:
        return self.output / "repair" / pair_name(self.question.ref, self.question.target)

    @property
    def state(self) -> Path:
        return self.place / "state.json"


class Line:
    """What is happening now, in one line: rewritten on a terminal, one after the other elsewhere."""

    def __init__(self, console: Console, budget: Budget):
        self._console, self._budget, self._last = console, budget, ""
        self._status: Status | None = console.status("") if console.is_terminal else None

    def __enter__(self) -> Line:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def now(self, text: str) -> None:
        """A passing state of things."""
        if self._status:
            self._status.update(f"{text}  [dim]{self._budget.spent.text()}[/]")

    def tell(self, text: str) -> None:
        """Something that stays."""
        if text != self._last:
            self._console.print(text, markup=False)
            self._last = text
        self.now(text)


def planned(request: Request, console: Console) -> int:
    """--dry-run: 0. Nothing is written in the user's repository, and no call is made."""
    request, files = _settled(request)
    tree = Worktree(request.folder, request.folder, "", "", files, request.folder)
    budget = Budget(request.limits, request.prices)
    if request.workflow == "repair":
        with Line(console, budget) as line:
            run = _baseline(request, tree, line)
    else:
        run = Run({}, (), trouble="the target is a stub, which is not there yet")
    say = functools.partial(console.print, markup=False)
    say(f"engine      {request.engine}; limits: {budget.text()}")
    say(f"may change  {', '.join(files)}")
    say(f"suite       {_words(run)}")
    waiting = groups(run)
    for number, group in enumerate(waiting, 1):
        say(f"  {number}. {group.key}: {', '.join(group.checks)}")
    if not waiting:
        say("nothing to mend: only the last word would be asked, on unseen seeds")
        return 0
    material = _material(request, tree)
    with tempfile.TemporaryDirectory() as scratch:
        trajectory = Journal(Path(scratch) / TRAJECTORY)
        case = Case(request.question, tree, waiting[0], run, budget, trajectory)
        first = {"role": "user", "content": [{"type": "text", "text": prompt.first_message(case, material)}]}
        text = prompt.whole(case, material)
        trajectory.close()
    size = bound(body(Prompt(DEFINITIONS, prompt.system_prompt(material), [first]), request.api))
    worst = budget.worst(request.api.model, size, request.api.max_tokens)
    say(f"first call  {request.api.model}: at most {size:,} tokens of prompt, ${worst:.4f} at worst")
    if request.limits.dollars is not None:
        say(f"all calls   at most ${request.limits.dollars:g}: the worst case of each is reserved before it is made")
    console.rule("the first prompt")
    say(text)
    return 0


def repaired(request: Request, console: Console) -> int:
    """The exit code: 0 proven, 1 not, 130 interrupted.

    Raises ValueError, Unfit, Unusable or OSError before anything is changed in the user's folder.
    """
    point = loop.load(request.state) if request.resume else None
    if point is not None:
        request = replace(request, question=point.question, files=point.tree.files, workflow=point.workflow)
    request, files = _settled(request)
    events = journal.read(request.place / TRAJECTORY) if request.resume else []
    budget = _budget(request, events)
    model = _model(request, console)
    request.place.mkdir(parents=True, exist_ok=True)
    if point is None:
        tree = _opened(request, files, console)
        (request.place / TRAJECTORY).unlink(missing_ok=True)
    else:
        tree = worktree.reopen(request.folder, files, point.tree.branch)
    trajectory = Journal(request.place / TRAJECTORY)
    try:
        with Line(console, budget) as line:
            frozen = guard.frozen(request.question, tree, request.imports)
            if stray := extent.astray(request.question, tree.root):
                raise worktree.Unfit(f"Python takes {stray[0]}, not the worktree's copy: run in the folder it is in")
            if point is None:
                asked = dataclasses.asdict(request.question)
                trajectory.write("begin", question=asked, engine=request.engine, base=tree.base, branch=tree.branch)
                run = _baseline(request, tree, line)
                point = loop.Checkpoint(request.question, tree, run, run, workflow=request.workflow)
            else:
                point = replace(point, tree=tree)
                trajectory.write("resume", branch=tree.branch)
            line.tell(f"baseline: {_words(point.run)}")
            point.save(request.state)
            plan = loop.Plan(
                engines=_engines(request, tree, model, frozen),
                frozen=frozen,
                budget=budget,
                journal=trajectory,
                keep=lambda kept: kept.save(request.state),
                tell=line.tell,
                now=line.now,
                tries=request.limits.tries,
            )
            try:
                point, ended = loop.repaired(plan, point)
                code = 0 if point.proven else 1
            except KeyboardInterrupt:
                point, ended, code = loop.load(request.state), "interrupted", 130
            except Unusable as error:
                worktree.revert(tree)
                point, ended, code = loop.load(request.state), f"the model cannot be used: {error}", 1
        _finished(request, point, tree, budget, ended, console)
        trajectory.write("end", proven=point.proven, why=ended, budget=budget.as_json())
        return code
    finally:
        trajectory.close()


def _finished(
    request: Request, point: loop.Checkpoint, tree: Worktree, budget: Budget, ended: str, console: Console
) -> None:
    """Lands what is proven, writes report.json, shows it."""
    diff = worktree.diff(tree)
    if not diff:
        landed = "nothing was changed"
        worktree.remove(tree, branch=True)
    elif point.proven and request.land:
        landing = worktree.land(tree)
        landed = landing.text
        if landing.done:
            worktree.remove(tree, branch=True)
    elif point.proven:
        landed = f"the result is on branch {tree.branch}: git cherry-pick {tree.base[:12]}..{tree.branch}"
    else:
        landed = report.by_hand(point)
    told = report.document(point, budget, ended, diff, landed)
    (request.place / "report.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    report.show(told, console)
    console.print(f"report {os.path.relpath(request.place / 'report.json')}", markup=False)


# -- what a run needs ------------------------------------------------------------------------------------------------


def _settled(request: Request) -> tuple[Request, tuple[str, ...]]:
    """The request with its paths on Python's search path, and the files that may change."""
    question = request.question
    if request.workflow != "repair" and not request.resume:
        stub_file = stub.place(question.target, request.folder)
        return request, (stub_file.relative_to(request.folder).as_posix(),)
    files = request.files or extent.default_files(question.target, request.folder, question.ref)
    search = question.search or extent.search(question.target, request.folder)
    return replace(request, question=replace(question, search=search)), tuple(files)


def _opened(request: Request, files: tuple[str, ...], console: Console) -> Worktree:
    question = request.question
    tree = worktree.open_worktree(request.folder, files, pair_name(question.ref, question.target))
    if tree.taken:
        console.print(f"taken along, as it is not committed: {', '.join(tree.taken[:5])}", markup=False)
    if request.workflow != "repair":
        path = tree.root / files[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stub.source(question.ref, stub.interface(question.ref, tree.root)), encoding="utf-8")
        worktree.commit(tree, f"A stub of {question.target}")
    return tree


def _baseline(request: Request, tree: Worktree, line: Line) -> Run:
    """What the suite says of the target as it is: the report that was given if it is about these very files."""
    if request.report is not None:
        run = suite.read(request.report, request.question, request.folder)
        if _same_files(run, request.question):
            return run
        line.tell(f"{request.report} is about other files than these: the suite is run")
    line.tell("the suite runs on the target as it is")
    return suite.judged(request.question, tree.root, tell=line.now)


def _same_files(run: Run, question: Question) -> bool:
    told = run.contents.get("target")
    try:
        return isinstance(told, Mapping) and told.get("sha256") == contents.package_hash(question.target)
    except (OpenError, OSError):
        return False


def _budget(request: Request, events: list[dict[str, Any]]) -> Budget:
    """What was spent before is part of a budget that is resumed; a call that was under way counts in full."""
    known = [event["budget"] for event in events if "budget" in event]
    if not known:
        return Budget(request.limits, request.prices)
    return Budget.from_json(known[-1], request.limits, request.prices)


def _model(request: Request, console: Console) -> Model | None:
    """Raises Unusable where the model was asked for by name and there is no key."""
    if request.replay is not None:
        return Recorded(journal.read(request.replay), None if request.api == Options() else request.api)
    if request.engine in ("offline", "command"):
        return None
    Budget(request.limits, request.prices).worst(request.api.model, 0, 1)  # its price must be known
    try:
        return Live(request.api)
    except Unusable as error:
        if request.engine == "model":
            raise
        console.print(f"only the offline engine is used: {error}", markup=False)
        return None


def _engines(request: Request, tree: Worktree, model: Model | None, frozen: Frozen) -> tuple[Engine, ...]:
    engines: list[Engine] = []
    if request.workflow == "repair" and request.engine in ("auto", "offline"):
        engines.append(Offline())
    if request.engine == "command" and request.command:
        engines.append(Command(request.command, _material(request, tree)))
    if model is not None:
        engines.append(Conversation(model, _material(request, tree), frozen))
    return tuple(engines)


def _material(request: Request, tree: Worktree) -> prompt.Material:
    return prompt.gathered(
        request.question, tree.root, tree.files, request.workflow, request.fast, request.specification
    )


def _words(run: Run) -> str:
    if run.trouble:
        return run.trouble
    counted = ", ".join(f"{count} {word}" for word, count in sorted(report.words(run).items()))
    return f"{counted} of {len(run.expected)} checks"
