"""What the verifier says of one mutant: whether it is caught, by what, how soon, and whether the right line is blamed.

The checks are the product's own. Only three things are arranged for speed: the reference remembers its answers, the
mutant is imported in place instead of being written to disk, and nothing is shrunk.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from pytest_envequiv.backends import loading
from pytest_envequiv.backends.plain import only_traced
from pytest_envequiv.backends.protocol import Backend, Outcome, State
from pytest_envequiv.comparison.roots import output_name
from pytest_envequiv.errors import EnvequivError
from pytest_envequiv.judge import Judge
from pytest_envequiv.power.mutants import Mutant
from pytest_envequiv.stimuli.play import play
from pytest_envequiv.verdict import DIFFERENT, Settings, Verdict
from pytest_envequiv.whitebox import dataflow, sources

ORDER = ("L2", "L1", "L3")  # the cheapest kill first
NAMED = 5  # suspects among which the mutated line should be


@dataclass(frozen=True)
class Result:
    """One mutant judged.

    word      "killed"; "survived"; "broken": it does not open, is not traced, or no step of it runs; "hung": it was
              stopped; "error": the verifier itself failed, and nothing is known
    levels    level -> whether it has a DIFFERENT; levels that were not asked are absent
    check     the first check that said DIFFERENT, and ``seconds`` from opening the target to that verdict
    root      the field that check names as the cause; ``truth``: fields that really are ([]: unknown)
    rank      of the mutated line among those blamed, from 1; None: not among them
    blamed    the first lines blamed, as "file:line"
    """

    id: str
    word: str
    levels: dict[str, bool] = field(default_factory=dict)
    check: str = ""
    seconds: float = 0.0
    root: str = ""
    truth: tuple[str, ...] = ()
    rank: int | None = None
    blamed: tuple[str, ...] = ()
    text: str = ""
    detectable: str = ""  # the oracle's word, where it was asked: of all survivors (``text`` is then its own), and some
    where: str = ""  # what it saw it in; "unreached": only in made-up states, which its play never came to

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "truth": list(self.truth), "blamed": list(self.blamed)}


def judged(
    mutant: Mutant, settings: Settings, ref: Backend, original: Backend, options: dict[str, Any], all_levels: bool
) -> Result:
    """Run the checks on a mutant until one says DIFFERENT; with ``all_levels``, until one of each level does.

    ``original``: the target without the bug, opened before the mutant is.
    """
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(tempfile.TemporaryDirectory())  # not to be tried on another's counterexamples
        if original.spec.traceable:  # whoever compiles a mutant that cannot be traced is told at once
            stack.enter_context(only_traced())
        try:
            target = stack.enter_context(loading.loaded(settings.target, options, mutant.file, mutant.source, ref.spec))
        except Exception as error:  # whatever a mutant raises while it is imported
            return Result(mutant.id, "broken", text=f"{type(error).__name__}: {error}"[:300])
        try:
            return _asked(mutant, replace(settings, output=output), ref, original, target, all_levels, started)
        except EnvequivError as error:
            return Result(mutant.id, "broken", text=str(error))
        except Exception as error:  # of the verifier's own: no mutant's fault
            return Result(mutant.id, "error", text="".join(traceback.format_exception(error))[-1000:])


def _asked(
    mutant: Mutant,
    settings: Settings,
    ref: Backend,
    original: Backend,
    target: Backend,
    all_levels: bool,
    started: float,
) -> Result:
    result = Result(mutant.id, "survived")
    judge = Judge(settings, ref=ref, target=target, shrink=False)
    for level in (level for level in ORDER if level in settings.levels):
        found = _first_difference(judge, level)
        result.levels[level] = found is not None
        if found is not None and result.word != "killed":
            result = _killed(result, mutant, judge, original, found, time.perf_counter() - started)
        if found is not None and not all_levels:
            break
    return result if result.word == "killed" else replace(result, seconds=time.perf_counter() - started)


def _first_difference(judge: Judge, level: str) -> Verdict | None:
    """The first root of a level, in the order of its checks; what only follows from another is passed over."""
    follower = None
    for check in judge.checks:
        if check.level != level:
            continue
        verdict = judge.run(check.id)
        if verdict.word == DIFFERENT and not verdict.follows:
            return verdict
        follower = verdict if verdict.word == DIFFERENT else follower
    if follower is not None and any(c.id == follower.follows for c in judge.checks):
        cause = judge.run(str(follower.follows))
        return cause if cause.word == DIFFERENT else follower
    return follower


def _killed(result: Result, mutant: Mutant, judge: Judge, original: Any, verdict: Verdict, seconds: float) -> Result:
    blamed = verdict.evidence.get("blame", [])
    lines = [s["line"] if sources.short(mutant.file) == s["file"] else -1 for s in blamed]
    ranks = [n for n, line in enumerate(lines, 1) if mutant.line <= line <= mutant.end_line]
    opened = verdict.check.subject != "runs"
    return replace(
        result,
        word="killed" if opened else "broken",
        check=verdict.check.id,
        seconds=round(seconds, 3),
        root=verdict.check.field,
        truth=tuple(_truth(original, judge, verdict)),
        rank=ranks[0] if ranks else None,
        blamed=tuple(f"{s['file'].rsplit('/', 1)[-1]}:{s['line']}" for s in blamed[:NAMED]),
        text=verdict.summary,
    )


def _truth(original: Any, judge: Judge, verdict: Verdict) -> list[str]:
    """The compared fields whose divergence is nobody's consequence, told by a trial of its own: the original and the
    mutant, stepped from states of the original's play, give other values of them, and none of them is computed from
    another such field. Empty where the two do not differ there."""
    if verdict.check.level == "L1":
        return []
    rows = play(original, 32, 64, 4_000_037).rows
    mutant: Any = judge.pair.target.backend
    if mutant.spec.fields.keys() != original.spec.fields.keys():
        return []
    cast = {n: v.astype(mutant.spec.fields[n].dtype) for n, v in rows.state.fields.items()}
    ours = original.step(State(rows.state.fields), rows.action, rows.seeds)
    theirs = mutant.step(State(cast), rows.action, rows.seeds)
    found = {}
    for compared in judge.pair.fields:
        name = output_name(compared)
        x, y = (_value(outcome, name) for outcome in (ours, theirs))
        if x is not None and y is not None and x.shape == y.shape:
            live = ~ours.done.reshape(-1, *[1] * (x.ndim - 1)) if compared.live_only else True
            if (~np.isclose(x, y, rtol=1e-5, atol=1e-7, equal_nan=True) & live).any():
                found[compared.name] = name
    flow = dataflow.flow(original.traced("step"))
    return [f for f, name in found.items() if not any(flow.follows(name, o) for o in found.values() if o != name)]


def _value(outcome: Outcome, name: str) -> np.ndarray | None:
    values = outcome.state.fields if name.startswith("state.") else outcome.outputs
    value = values.get(name.removeprefix("state."))
    return None if value is None else np.asarray(value, float)
