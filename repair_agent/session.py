"""One run of the program: the worktree opened, the engines made, the loop run, the result told and landed.

Everything is kept in ``<output>/repair/<pair>/``: trajectory.jsonl, state.json, report.json; what an earlier
repair of the pair wrote down is there as trajectory-1.jsonl, ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pytest_envequiv import contents
from pytest_envequiv.errors import OpenError
from pytest_envequiv.verdict import pair_name
from repair_agent import crates, findings, journal, loop, report, stub, stub_rust, suite
from repair_agent.budget import Budget, Limits
from repair_agent.case import Engine
from repair_agent.command import Command
from repair_agent.findings import Run
from repair_agent.groups import groups
from repair_agent.journal import Journal
from repair_agent.live import Line
from repair_agent.model import prompt
from repair_agent.model.api import Differs, Live, Model, Recorded, Unusable
from repair_agent.model.conversation import Conversation
from repair_agent.model.messages import Options
from repair_agent.offline.engine import Offline
from repair_agent.prices import Prices
from repair_agent.question import LEVELS, Question
from repair_agent.tree import extent, guard, worktree
from repair_agent.tree.guard import Frozen
from repair_agent.tree.worktree import Worktree

ENGINES = ("auto", "offline", "model")
TRAJECTORY, STATE, REPORT = "trajectory.jsonl", "state.json", "report.json"


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
    language: str = "jax"  # of a stub
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
    asked: dict[str, Any] = field(default_factory=dict)  # the options as they were given, for --resume and --replay

    @property
    def place(self) -> Path:
        return place(self.output, self.question.ref, self.question.target)

    @property
    def state(self) -> Path:
        return self.place / STATE


def place(output: Path, ref: str, target: str) -> Path:
    """The folder of a pair's records."""
    return output / "repair" / pair_name(ref, target)


def repaired(request: Request, console: Console) -> int:
    """The exit code: 0 proven, 1 not, 130 interrupted.

    Raises ValueError, Unfit, Unusable or OSError before anything is changed in the user's folder.
    """
    with _alone(request.place):
        point = loop.load(request.state) if request.resume else None
        if point is not None:
            request = replace(request, question=point.question, files=point.tree.files, workflow=point.workflow)
        request, files = settled(request)
        events = journal.read(request.place / TRAJECTORY) if request.resume else []
        budget = _budget(request, events)
        model = _model(request, console)
        if point is None:
            tree = _opened(request, files, console)
            begun = False
        else:
            tree = worktree.reopen(request.folder, files, point.tree.branch)
            point, begun = _to_go_on(replace(point, tree=tree)), True
        try:
            _records(request)
            trajectory = Journal(request.place / TRAJECTORY)
            with contextlib.ExitStack() as keeping:
                keeping.enter_context(contextlib.closing(trajectory))
                line = keeping.enter_context(Line(console, budget))
                frozen = guard.frozen(request.question, tree, request.imports)
                if stray := extent.astray(request.question, tree.root):
                    raise worktree.Unfit(
                        f"Python takes {stray[0]}, not the worktree's copy: run in the folder it is in"
                    )
                engines = _engines(request, tree, model, frozen, keeping)
                if point is None:
                    point = _begun(request, tree, trajectory, line)
                else:
                    trajectory.write("resume", branch=tree.branch, budget=budget.as_json())
                point.save(request.state)
                begun = True
                code, point, ended = _looped(request, point, engines, frozen, budget, trajectory, line)
                told = _finished(request, point, budget, ended)
                trajectory.write("end", proven=point.proven, why=ended, budget=budget.as_json())
        except BaseException:
            if not begun:  # there is nothing to go on from
                with contextlib.suppress(worktree.Unfit):
                    worktree.remove(tree, branch=True)
            raise
        report.show(told, console)
        return code


def _looped(
    request: Request,
    point: loop.Checkpoint,
    engines: tuple[Engine, ...],
    frozen: Frozen,
    budget: Budget,
    trajectory: Journal,
    line: Line,
) -> tuple[int, loop.Checkpoint, str]:
    """(exit code, the last checkpoint, why it ended)."""

    def keep(kept: loop.Checkpoint) -> None:
        kept.save(request.state)
        line.stand = report.stand(kept.run)

    line.stand = report.stand(point.run)
    line.tell(f"the suite: {words(point.run)}")
    plan = loop.Plan(engines, frozen, budget, trajectory, keep, line.tell, line.now, request.limits.tries)
    try:
        point, ended = loop.repaired(plan, point)
        return int(not point.proven), point, ended
    except KeyboardInterrupt:
        return 130, loop.load(request.state), "interrupted"
    except Unusable as error:
        worktree.revert(point.tree)
        what = "the replay ended" if isinstance(error, Differs) else "the model cannot be used"
        return 1, loop.load(request.state), f"{what}: {error}"


def _finished(request: Request, point: loop.Checkpoint, budget: Budget, ended: str) -> dict[str, Any]:
    """Lands what is proven and writes report.json; what it tells."""
    tree = point.tree
    diff = worktree.diff(tree)
    if point.proven and not diff:
        landed = "nothing had to be changed"
        worktree.remove(tree, branch=True)
    elif point.proven and request.land:
        landing = worktree.land(tree)
        landed = landing.text
        if landing.done:
            worktree.remove(tree, branch=True)
    elif point.proven:
        landed = f"the result is on branch {tree.branch}: git cherry-pick {tree.base[:12]}..{tree.branch}"
    else:
        landed = report.kept(point)
    path = request.place / REPORT
    go_on = "" if point.proven else report.go_on(point, request.asked.get("output"))
    told = report.document(point, budget, ended, diff, landed, os.path.relpath(path), go_on)
    path.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return told


# -- what a run needs ------------------------------------------------------------------------------------------------


def settled(request: Request) -> tuple[Request, tuple[str, ...]]:
    """The request with its paths on Python's search path, and the files that may change."""
    question = request.question
    if request.workflow != "repair" and not request.resume:
        place = stub.place(question.target, request.folder)
        below = place.parent.relative_to(request.folder)
        if request.language != "rust":
            return request, ((below / place.name).as_posix(),)
        crate = (below / stub_rust.crate_of(place.stem)).as_posix()
        if (request.folder / crate).exists():
            raise ValueError(f"target={question.target} would have its crate in {crate}, which exists already")
        if lacking := crates.lacking():
            raise ValueError(f"--language rust: {lacking}")
        files = tuple((below / name).as_posix() for name in stub_rust.allowed(place.stem))
        return replace(request, question=replace(question, crates=(crate,))), files
    files = request.files or extent.default_files(question.target, request.folder, question.ref)
    search = question.search or extent.search(question.target, request.folder)
    built = question.crates or extent.built_from(question.target, request.folder, question.ref)
    return replace(request, question=replace(question, search=search, crates=built)), tuple(files)


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Raises Unfit while another process works on the same pair: it would take back what this one edits."""
    folder = Path(tempfile.gettempdir()) / f"envequiv-repair-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise worktree.Unfit(
                f"another envequiv-repair works on this pair ({place}): wait for it or end it"
            ) from None
        yield


def _opened(request: Request, files: tuple[str, ...], console: Console) -> Worktree:
    question = request.question
    _forgotten(request)
    tree = worktree.open_worktree(request.folder, files, pair_name(question.ref, question.target))
    if tree.taken:
        more = f" and {len(tree.taken) - 5} more" if len(tree.taken) > 5 else ""
        console.print(f"taken along, as it is not committed: {', '.join(tree.taken[:5])}{more}", markup=False)
    try:
        if request.workflow != "repair":
            _stubbed(request, tree)
            worktree.commit(tree, f"A stub of {question.target}")
    except BaseException:
        worktree.remove(tree, branch=True)
        raise
    return tree


def _stubbed(request: Request, tree: Worktree) -> None:
    """Writes the stub's files. Raises ValueError."""
    question = request.question
    declared = stub.interface(question.ref, tree.root)
    place = stub.place(question.target, tree.root)
    if request.language == "rust":
        texts = stub_rust.files(question.ref, declared, place.stem)
    else:
        texts = {place.name: stub.source(question.ref, declared)}
    for name, text in texts.items():
        path = place.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for crate in question.crates:
        stub_rust.lock(tree.root / crate)


def _forgotten(request: Request) -> None:
    """Takes the worktree of an earlier repair of the pair away if it holds no step: nobody would go on from it."""
    with contextlib.suppress(ValueError, worktree.Unfit, OSError):
        before = loop.load(request.state)
        if not any(step.accepted for step in before.steps) and before.tree.origin == request.folder.resolve():
            worktree.remove(before.tree, branch=True)


def _records(request: Request) -> None:
    """The pair's folder; what an earlier repair wrote down is kept under another name."""
    request.place.mkdir(parents=True, exist_ok=True)
    ignore = request.output / "repair" / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    before = request.place / TRAJECTORY
    if not request.resume and before.exists():
        number = 1 + sum(1 for _ in request.place.glob("trajectory-*.jsonl"))
        before.rename(request.place / f"trajectory-{number}.jsonl")
    if not request.resume:
        request.state.unlink(missing_ok=True)


def _begun(request: Request, tree: Worktree, trajectory: Journal, line: Line) -> loop.Checkpoint:
    question = dataclasses.asdict(request.question)
    trajectory.write("begin", question=question, asked=request.asked, base=tree.base, branch=tree.branch)
    run = baseline(request, tree, line)
    return loop.Checkpoint(request.question, tree, run, run, workflow=request.workflow, asked=request.asked)


def _to_go_on(point: loop.Checkpoint) -> loop.Checkpoint:
    """Where every group was given up, all are tried again: another engine or more tries may have been asked for."""
    stuck = all(group.key in point.given_up for group in groups(point.run))
    return replace(point, given_up=()) if stuck else point


def baseline(request: Request, tree: Worktree, line: Line) -> Run:
    """What the suite says of the target as it is: the report that was given if it is about these very files."""
    if request.report is not None:
        run = findings.read(request.report, request.question, request.folder)
        stale = _stale(run, request.question)
        if not stale:
            return run
        line.tell(f"{request.report} {stale}: the suite is run")
    else:
        line.tell("the suite runs on the target as it is")
    return suite.judged(request.question, tree.root, tell=line.now)


def _stale(run: Run, question: Question) -> str:
    """Why a report does not say what the suite would now, or ""."""
    settings = run.settings
    if [settings.get(name) for name in ("profile", "seed", "contract")] != [
        question.profile,
        question.seed,
        question.contract,
    ]:
        return "is of another profile, seed or contract"
    if any(finding.word == "MISSING" for finding in run.findings.values()):
        return "does not hold every check"
    if not set(LEVELS) <= set(settings.get("levels") or LEVELS) and not question.options:
        return f"holds {', '.join(settings['levels'])} only"
    named = run.contents.get("contract")
    try:
        now = [contents.package_hash(name) for name in (question.ref, question.target)]
        old = [run.contents.get("ref"), run.contents.get("target")]
        if isinstance(named, dict) and named["sha256"] != contents.of_text(Path(named["path"]).read_text("utf-8")):
            return "is about another contract"
    except (OpenError, OSError) as error:
        return f"cannot be compared with the files ({error})"
    return "" if now == old else "is about other files than these"


def _budget(request: Request, events: list[dict[str, Any]]) -> Budget:
    """What was spent before is part of a budget that is resumed; a call that was under way counts in full."""
    known = [event["budget"] for event in events if "budget" in event]
    if not known:
        return Budget(request.limits, request.prices)
    return Budget.from_json(known[-1], request.limits, request.prices)


def _model(request: Request, console: Console) -> Model | None:
    """Raises Unusable where nothing else could be used and there is no key."""
    if request.replay is not None:
        return Recorded(journal.read(request.replay), None if request.api == Options() else request.api)
    if request.engine in ("offline", "command"):
        return None
    Budget(request.limits, request.prices).worst(request.api.model, 0, 1)  # its price must be known
    try:
        return Live(request.api)
    except Unusable as error:
        if request.engine == "model" or request.workflow != "repair":
            raise
        console.print(f"only the offline engine is used: {error}", markup=False)
        return None


def _engines(
    request: Request, tree: Worktree, model: Model | None, frozen: Frozen, keeping: contextlib.ExitStack
) -> tuple[Engine, ...]:
    """``keeping``: ends with it what an engine has begun."""
    engines: list[Engine] = []
    if request.workflow == "repair" and request.engine in ("auto", "offline"):
        offline = keeping.enter_context(contextlib.closing(Offline()))
        offline.begin(request.question, tree.root)
        engines.append(offline)
    if request.engine == "command" and request.command:
        engines.append(Command(request.command, material(request, tree)))
    if model is not None:
        engines.append(Conversation(model, material(request, tree), frozen))
    return tuple(engines)


def material(request: Request, tree: Worktree) -> prompt.Material:
    return prompt.gathered(
        request.question, tree.root, tree.files, request.workflow, request.fast, request.specification
    )


def words(run: Run) -> str:
    if run.trouble:
        return run.trouble
    counted = ", ".join(f"{count} {word}" for word, count in sorted(report.words(run).items()))
    return f"{counted} of {len(run.expected)} checks"
