"""The search for one edit, in a process of its own: the target is loaded here, once for every candidate.

    python -m repair_agent.offline.screening FOLDER PART TARGET

It waits for ``job.json`` in FOLDER, and loads the libraries that TARGET needs meanwhile. Of several processes with the
same folder each takes every so manieth candidate; part 0 asks the reference and leaves the answers for the others.
What is found is appended to ``part-<PART>.jsonl``: {"kind": "cannot", "why"}, {"kind": "saved", "why"},
{"kind": "at", "number"}, {"kind": "found", ...}, {"kind": "done"}.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv import counterexample
from pytest_envequiv.backends import loading, plain
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.remembering import remembering
from pytest_envequiv.backends.suspect import preload
from pytest_envequiv.bench import Bench
from pytest_envequiv.judge import Judge, contract_of
from pytest_envequiv.pair import Pair
from pytest_envequiv.stimuli.play import Rows, seeds_for
from pytest_envequiv.verdict import EQUAL, Settings
from pytest_envequiv.whitebox import sources
from pytest_envequiv.whitebox.dataflow import slices
from pytest_envequiv.whitebox.program import Constant, flat
from repair_agent.offline.candidates import Candidate, candidates
from repair_agent.offline.engine import JOB
from repair_agent.offline.mining import Mined, mined
from repair_agent.offline.transitions import RESETS, Misses, Saved, gather, many, misses, strays

SLICE = 6  # rank of a line that is not blamed, but from which something wrong is computed; no blamed one is below it
ONE = 20.0  # seconds one candidate may take
REOPENED = 30  # candidates that may be asked for saved transitions of their own
TOLD = 0.3  # seconds between two signs of life
WAIT = 0.02  # seconds between two looks for what was left by another process

Tell = Callable[..., None]


@dataclass(frozen=True)
class Job:
    """What is searched for.

    files      allow-listed files of the target, absolute
    blamed     (file, line), the likeliest first
    checks, fields   ids of the checks that must turn, and the fields they are about
    skipped    candidates that were tried before, as text
    parts      how many processes share the work
    """

    settings: Settings
    files: tuple[str, ...]
    blamed: tuple[tuple[str, int], ...]
    checks: tuple[str, ...]
    fields: tuple[str, ...]
    counterexamples: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    parts: int = 1
    seconds: float = 120.0

    @staticmethod
    def from_json(data: dict[str, Any]) -> Job:
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        given["settings"] = Settings(**data["settings"])
        given["blamed"] = tuple((file, line) for file, line in data["blamed"])
        return Job(**given)


@dataclass
class Case:
    """What candidates are held against.

    saved    questions and answers; before: what the target misses of them as it is
    wanted   which of these misses belong to the checks that must turn
    raised   (file, line) of the target's files in which it raised while it was opened, the innermost first
    """

    saved: Saved
    before: Misses = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    raised: tuple[tuple[str, int], ...] = ()


class Slow(Exception):
    """A candidate took too long."""


def main() -> None:
    folder, part, parent = Path(sys.argv[1]), int(sys.argv[2]), os.getppid()
    preload(sys.argv[3])
    while not (folder / JOB).exists():
        if os.getppid() != parent:
            return
        time.sleep(WAIT)
    job = Job.from_json(json.loads((folder / JOB).read_text(encoding="utf-8")))
    with (folder / f"part-{part}.jsonl").open("a", encoding="utf-8") as out:

        def tell(kind: str, **values: Any) -> None:
            out.write(json.dumps({"kind": kind, **values}) + "\n")
            out.flush()

        signal.signal(signal.SIGALRM, _slow)
        try:
            searched(job, part, folder, tell)
        except Exception as error:  # whatever a target does ends here
            tell("cannot", why=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
        tell("done")


def searched(job: Job, part: int, folder: Path, tell: Tell) -> None:
    """Screen this part's candidates until the time is over. Everything found is told."""
    deadline = time.monotonic() + job.seconds
    contract = contract_of(job.settings)
    options = dict(contract.target_options)
    case, ref = _case(job, part, folder, options)
    if case is None:
        tell("cannot", why="the target cannot be traced: no candidate can be screened without running it")
        return
    texts = {file: Path(file).read_text(encoding="utf-8") for file in job.files}
    tell("saved", why=_told(case))
    source = _reference(job.settings.ref, case.saved)
    ranked = _ranked(job, case, texts, source, options)
    screen = _Screen(job, case, ref, options, texts)
    parent, shown = os.getppid(), 0.0
    for number, candidate in islice(enumerate(ranked), part, None, job.parts):
        if time.monotonic() > deadline or os.getppid() != parent:
            return
        if time.monotonic() - shown > TOLD:
            shown = time.monotonic()
            tell("at", number=number, line=candidate.line)
        text = candidate.applied(texts[candidate.file])
        if str(candidate) in job.skipped:
            continue
        passed = screen.passes(candidate, text)
        if passed is not None:
            tell(
                "found",
                number=number,
                file=candidate.file,
                text=text,
                change=str(candidate),
                clean=passed.clean,
                strays=passed.strays,
                edit=candidate.kind,
                start=candidate.start,
                after=candidate.after,
            )
    tell("at", number=1 << 30, line=0)


# -- what candidates are held against --------------------------------------------------------------------------------


def _case(job: Job, part: int, folder: Path, options: dict[str, Any]) -> tuple[Case | None, Any]:
    """The case, by part 0 from the reference, by the others from part 0; None if the target is not traced."""
    place = folder / "saved.pickle"
    ref = None
    if part:
        end = time.monotonic() + job.seconds
        with suppress(Exception):  # what the target imports, while part 0 asks the reference
            open_backend(job.settings.target, options)
        while not place.exists():
            if time.monotonic() > end or (folder / "part-0.over").exists():
                raise TimeoutError("the reference's answers did not come")
            time.sleep(WAIT)
        return pickle.loads(place.read_bytes()), ref
    try:
        ref = _remembering(job)
        case: Case | None
        try:
            target = open_backend(job.settings.target, options, ref.spec)
        except Exception as error:
            said = f"the target does not open: {error}"
            case = Case(Saved(ref.spec, (), said), raised=raised(error, job.files))
        else:
            traceable = target.spec.traceable
            case = _held(job, _opened(job, ref, target), target) if traceable else None
        part_file = place.with_suffix(".part")
        part_file.write_bytes(pickle.dumps(case))
        part_file.replace(place)
    except BaseException:
        (folder / "part-0.over").touch()
        raise
    return case, ref


def _remembering(job: Job) -> Any:
    """The reference, which knows what the suite asked it."""
    return remembering(job.settings.ref, dict(contract_of(job.settings).ref_options), job.settings.answers)


def raised(error: BaseException, files: Container[str]) -> tuple[tuple[str, int], ...]:
    """(file, line) of the frames of an error and of its causes that are in some files, the innermost first."""
    found: list[tuple[str, int]] = []
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.walk_tb(cause.__traceback__)
        found = [*found, *((os.path.realpath(f.f_code.co_filename), line) for f, line in frames)]
        cause = cause.__cause__
    return tuple(dict.fromkeys(place for place in reversed(found) if place[0] in files))


def _opened(job: Job, ref: Any, target: Any) -> Saved:
    pair = Pair(job.settings, contract_of(job.settings), ref=ref, target=target)
    return gather(Bench(pair, _replays(job)))


def _replays(job: Job) -> Rows | None:
    rows = []
    for path in job.counterexamples:
        with suppress(Exception):  # one that cannot be read is one less
            found = counterexample.load(path).rows
            if found is not None:
                rows.append(found)
    with suppress(Exception):
        return Rows.join(rows) if rows else None
    return None


def _held(job: Job, saved: Saved, target: Any) -> Case:
    before = misses(saved, target)
    missed = {name for name, rows in before.items() if rows.any()}
    subjects = {tuple(check.split("-")[:2]) for check in job.checks}
    names = saved.fields
    wanted = {n for n in missed if names.get(n) in job.fields}
    wanted |= {n for n in missed for _, subject in subjects if n.startswith(f"{subject}.") and subject != "reset"}
    return Case(saved, before, frozenset(wanted or missed))


def _told(case: Case) -> str:
    asked = ", ".join(f"{len(a)} of a {a.what}" for a in case.saved.asked)
    wrong = ", ".join(f"{n} {int(rows.sum())}" for n, rows in case.before.items() if rows.any())
    return f"saved transitions: {asked or 'none'}; wrong: {wrong or 'nothing'}" + (
        f"; {case.saved.trouble}" if case.saved.trouble else ""
    )


def _reference(name: str, saved: Saved) -> Mined:
    """What the reference's source and its settings offer; its settings alone where the source is not Python."""
    known = {k: float(np.ravel(v)[0]) for k, v in saved.spec.constants.items() if np.size(v) == 1}
    with suppress(Exception):
        module = loading.name_of_module(name)
        file = getattr(sys.modules.get(module or ""), "__file__", None)
        if file:
            return mined(Path(file).read_text(encoding="utf-8"), known)
    return Mined(tuple(known.values()), known)


def _ranked(job: Job, case: Case, texts: dict[str, str], source: Mined, options: dict[str, Any]) -> Iterator[Candidate]:
    """The candidates of all files, the likeliest first: the same in every part."""
    blamed: dict[str, dict[int, int]] = {file: {} for file in texts}
    for rank, (file, line) in enumerate((*job.blamed, *case.raised)):
        blamed[file].setdefault(line, min(rank, SLICE))
    with suppress(Exception):  # a target that cannot be traced has no slice
        backend = open_backend(job.settings.target, options, case.saved.spec)
        for file, line in _failing(backend, case) or _slice(backend, case):
            if file in blamed:
                blamed[file].setdefault(line, SLICE)
    if case.raised or not any(blamed.values()):
        for file, text in texts.items():
            blamed[file] = dict.fromkeys(range(1, text.count("\n") + 2), SLICE) | blamed[file]
    each = [candidates(text, file, source, blamed[file]) for file, text in texts.items()]
    return merge(*each, key=lambda c: c.cost)


def _failing(backend: Any, case: Case) -> set[tuple[str, int]]:
    """(file, line) of all that is computed in the call in which the target fails, where that is known."""
    match = re.match(r"the target failed in (reset|step)\b", case.saved.trouble)
    sites = [op.site for op in flat(backend.traced(match[1]).closed).ops if op.site is not None] if match else []
    return {(os.path.realpath(s.file), n) for s in sites for n in range(s.line, max(s.end_line, s.line) + 1)}


def _slice(backend: Any, case: Case) -> set[tuple[str, int]]:
    """(file, line) from which something wrong is computed, and of the settings it is computed from."""
    found = set()
    settings = sources.setting_sites(backend.functional.params)
    for what in ("step", "reset"):
        wrong = {n.partition(".")[2] for n in case.wanted if n.startswith(f"{what}.")}
        traced = backend.traced(what)
        program = flat(traced.closed)
        named = dict(zip(program.inputs, traced.inputs, strict=True))
        for output, numbers in zip(traced.outputs, slices(program), strict=True):
            if output not in wrong and not (output in ("terminated", "truncated") and "done" in wrong):
                continue
            for op in (program.ops[n] for n in numbers):
                if op.site is not None:
                    last = max(op.site.end_line, op.site.line)
                    found |= {(os.path.realpath(op.site.file), n) for n in range(op.site.line, last + 1)}
                for atom in op.inputs:
                    name = "" if isinstance(atom, Constant) else named.get(atom, "")
                    place = settings.get(name.removeprefix("constants."))
                    if place is not None:
                        found.add((os.path.realpath(place.file), place.line))
    return found


# -- one candidate ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passed:
    """An edit that may be it. ``clean``: nothing that was saved is missed any more, not only nothing that is wanted;
    ``strays``: how many of all rows that were asked are."""

    clean: bool
    strays: int = 0


class _Screen:
    """Holds candidates against the case; the case gets better when a candidate lets more of the target be asked."""

    def __init__(self, job: Job, case: Case, ref: Any, options: dict[str, Any], texts: dict[str, str]):
        self.job, self.case, self._ref, self.options, self.texts = job, case, ref, options, texts
        self.left = REOPENED

    def passes(self, candidate: Candidate, text: str) -> Passed | None:
        """None if something that is wanted is still missed, or something that was right is."""
        try:
            with _limited(ONE), self._loaded(candidate.file, text) as backend:
                clean = mended(self.case, misses(self.case.saved, backend, lambda now: fails(self.case, now)))
                if clean is None:
                    return None
                count = strays(self.case.saved, backend, [*self.case.before] if clean else self.case.wanted)
                if many(self.case.saved, count):
                    return None
                if self.case.saved.trouble:
                    if not self.case.saved.asked:  # the target's own calls fail: those that still do are soon told
                        backend.reset(seeds_for(self.job.settings.seed, 57, count=RESETS))
                    return self._asked_anew(candidate, backend)
                if not self.case.wanted and not self._checked(backend):
                    return None
                return Passed(clean, count)
        except (Exception, SystemExit):  # whatever a candidate does while it is loaded and traced
            return None

    @contextmanager
    def _loaded(self, file: str, text: str) -> Iterator[Any]:
        unplayed = plain.unplayed() if self.case.saved.asked and not self.case.saved.anew else nullcontext()
        name = self.job.settings.target
        with unplayed, loading.loaded(name, self.options, file, text, self.case.saved.spec) as backend:
            yield backend

    def _asked_anew(self, candidate: Candidate, backend: Any) -> Passed | None:
        """More may be known of the reference with this candidate as the target than with the target as it is."""
        if self.left <= 0:
            return self._mended(misses(self.case.saved, backend)) if self.case.saved.asked else None
        self.left -= 1
        saved = _opened(self.job, self.ref, backend)
        now = misses(saved, backend)
        if saved.trouble and not (saved.asked and any(rows.any() for rows in self.case.before.values())):
            return None  # no more can be asked with it, and of what can be, nothing was wrong before
        if not saved.trouble:
            original = self._loaded(candidate.file, self.texts[candidate.file])
            with suppress(Exception), original as target:  # as it is, the target may not even be traced
                self.case = _held(self.job, saved, target)
        if not any(rows.any() for rows in now.values()):
            count = strays(saved, backend, now)
            return None if many(saved, count) else Passed(True, count)
        return self._mended(now) if not saved.trouble and self.case.before.keys() == now.keys() else None

    def _mended(self, now: Misses) -> Passed | None:
        clean = mended(self.case, now)
        return None if clean is None else Passed(clean)

    def _checked(self, backend: Any) -> bool:
        """Where saved transitions show nothing wrong: what the first of the checks says."""
        with tempfile.TemporaryDirectory() as output:
            judge = Judge(replace(self.job.settings, output=output), ref=self.ref, target=backend, shrink=False)
            return all(judge.run(check).word == EQUAL for check in self.job.checks[:1])

    @property
    def ref(self) -> Any:
        if self._ref is None:
            self._ref = _remembering(self.job)
        return self._ref


def mended(case: Case, now: Misses) -> bool | None:
    """True: nothing is missed any more. False: nothing that is wanted, and nothing that was right before. Else None."""
    if not any(rows.any() for rows in now.values()):
        return True
    return None if not case.wanted or fails(case, now) else False


def fails(case: Case, now: Misses) -> bool:
    """Whether something is missed that is wanted, or that was right before."""
    for name, rows in now.items():
        was = case.before.get(name)
        if rows.any() and (name in case.wanted or was is None or len(was) != len(rows) or (rows & ~was).any()):
            return True
    return False


def _slow(number: int, frame: Any) -> None:
    raise Slow


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
