"""The judge: opens a pair, lists its checks, runs them one by one. Knows nothing of pytest.

judge = Judge(Settings(ref="gymnasium:CartPole-v1", target="gymnax:CartPole-v1"))
for check in judge.checks:
    verdict = judge.run(check.id)
"""

from __future__ import annotations

import datetime
import difflib
import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_envequiv import contract as contracts
from pytest_envequiv import counterexample, shrinking
from pytest_envequiv import cover as coverage
from pytest_envequiv.backends.suspect import effective_seed
from pytest_envequiv.bench import Bench, Step, settle_draws
from pytest_envequiv.contract import Contract
from pytest_envequiv.counterexample import Counterexample
from pytest_envequiv.errors import BackendError, BudgetSpent, ContractError, EnvequivError, Gone, Limitation
from pytest_envequiv.levels import blaming, honesty, interaction, property, rollout, transfer
from pytest_envequiv.levels.finding import said
from pytest_envequiv.pair import Pair
from pytest_envequiv.verdict import (
    DIFFERENT,
    EQUAL,
    INCONCLUSIVE,
    LEVELS,
    NEEDS_LEARNING,
    PROFILES,
    WITHOUT_LEARNING,
    Check,
    Progress,
    Settings,
    Verdict,
    default_levels,
    silent,
)

LEVEL = {"L1": property, "L2": interaction, "L3": rollout, "L4": transfer}


class Judge:
    """One pair, opened. Raises OpenError, ContractError or BackendError (all EnvequivError).

    checks   in the order they should run; ids are the same in every process for the same settings and files
    notes    differences of convention that were understood and bridged, one line each

    ``shrink=False``: a divergence is left as it was found, where nobody would read a counterexample.
    """

    def __init__(
        self, settings: Settings, progress: Progress = silent, ref: Any = None, target: Any = None, shrink: bool = True
    ):
        started = time.monotonic()
        _sensible(settings)
        self.settings = settings
        self.shrink = shrink
        self.contract = contract_of(settings)
        self.pair = Pair(settings, self.contract, progress, ref, target)
        # From here on; what a pair is must not depend on the seed. The counterexamples carry the one that was used.
        self.pair.settings = replace(settings, seed=effective_seed(settings, target))
        if settings.budget is not None:
            self.pair.ref.deadline = self.pair.target.deadline = started + settings.budget
        _known_tolerances(self.contract, self.pair)
        self.bench = Bench(self.pair)
        settle_draws(self.bench)
        everything = [check for level in LEVEL.values() for check in self._listed(level)]
        self.bench.comparisons = sum(level.comparisons(self.bench) for level in self._usable())
        chosen = [check for check in everything if check.level in settings.levels]
        self.saved = self._saved()
        self.checks: list[Check] = sorted(chosen, key=lambda c: (c.id not in self.saved, c.id == honesty.WAITS))
        if tuple(settings.levels) == WITHOUT_LEARNING == default_levels():
            self.pair.notes.append(f"L4 was not asked: {NEEDS_LEARNING}")
        if self.contract.path and not settings.contract:
            self.pair.notes.append(f"the contract {Path(self.contract.path).name} was found beside the target")
        self.notes = list(dict.fromkeys(self.pair.notes))

    def _usable(self) -> list[Any]:
        """Levels that apply: only the first where the action spaces cannot even be matched."""
        return [property] if self.pair.blocked is not None else list(LEVEL.values())

    def _listed(self, level: Any) -> list[Check]:
        return level.checks(self.bench) if level in self._usable() else []

    def _saved(self) -> dict[str, Counterexample]:
        """Counterexamples of earlier runs of this pair, by check id. A file that cannot be read is left alone."""
        found = {}
        place = counterexample.folder(self.settings.output, self.settings.ref, self.settings.target)
        for path in sorted(place.glob("*.json")):
            try:
                found[path.stem] = counterexample.load(path)
            except ContractError as error:
                self.pair.notes.append(str(error))
        return found

    def run(self, check_id: str, progress: Progress = silent) -> Verdict:
        """Run one check. A backend that raises makes a verdict, not an exception."""
        check = next((c for c in self.checks if c.id == check_id), None)
        if check is None:
            raise ContractError(f"there is no check {check_id!r} for this pair")
        self.bench.progress = self.pair.ref.progress = self.pair.target.progress = progress
        started = time.perf_counter()
        try:
            verdict = self._remembered(check) or self._searched(check, progress)
        except Gone as error:
            verdict = said(check, INCONCLUSIVE if error.silent else DIFFERENT, str(error), (), {"gone": True})
        except BackendError as error:
            word = DIFFERENT if error.side == "target" else INCONCLUSIVE
            verdict = said(check, word, str(error), (), {"error": str(error)})
        except Limitation as error:
            verdict = said(check, INCONCLUSIVE, str(error))
        except BudgetSpent:
            verdict = said(check, INCONCLUSIVE, f"the time budget of {self.settings.budget:g} s is spent")
        if replaced := self.pair.broken():
            verdict = said(check, DIFFERENT, f"the target replaced {replaced}: nothing here can be believed any more")
        verdict.evidence["seconds"] = round(time.perf_counter() - started, 3)
        return verdict if replaced else self._accepted(verdict)

    def _remembered(self, check: Check) -> Verdict | None:
        """The saved counterexample of this check, if it still shows a divergence."""
        example = self.saved.get(check.id)
        if example is None:
            return None
        try:
            verdict = counterexample.still_apart(self.bench, example)
        except ContractError:
            return None
        if verdict is None:
            return None
        verdict = replace(verdict, summary=f"{check.field}: the saved counterexample still differs", follows=None)
        if check.level != "L4":  # no policy is trained just to tell lines apart, for which one row is not enough
            bench, step = self._seen_from(check)
            if step is not None and step.found[check.field].rows.any():
                verdict.evidence["blame"] = blaming.suspects(bench, verdict, step)
        place = counterexample.folder(self.settings.output, self.settings.ref, self.settings.target)
        return replace(verdict, counterexample=str(place / f"{check.id}.json"))

    def _searched(self, check: Check, progress: Progress) -> Verdict:
        verdict: Verdict = LEVEL[check.level].run(self.bench, check, progress)
        if verdict.word != DIFFERENT or verdict.follows is not None:
            return verdict
        bench, step = self._seen_from(check)
        progress("looking for the line to blame", 0, 0)
        verdict.evidence["blame"] = blaming.suspects(bench, verdict, step)
        if not self.shrink:
            return verdict
        progress("shrinking the counterexample", 0, 0)
        verdict, example = shrinking.make(bench, verdict, step)
        if example is None:
            return verdict
        path = counterexample.folder(self.settings.output, self.settings.ref, self.settings.target) / f"{check.id}.json"
        try:
            counterexample.save(example, path)
        except OSError as error:
            # A full disk must not cost the verdict.
            return replace(
                verdict, notes=(*verdict.notes, f"the counterexample could not be saved: {path}: {error.strerror}")
            )
        return replace(verdict, counterexample=str(path))

    def _seen_from(self, check: Check) -> tuple[Bench, Step | None]:
        """The bench a check was made on, and the step it is about, if it is about one."""
        if check.level == "L4":
            bench, source = transfer.place_of(self.bench, check)
            return bench, None if source is None else bench.step(source)
        stepwise = check.subject in (*interaction.SOURCES, "resync")
        return self.bench, self.bench.step(check.subject) if stepwise else None

    def _accepted(self, verdict: Verdict) -> Verdict:
        """A difference the contract accepts, until its day."""
        accepted = self.contract.acceptance(verdict.check.id)
        if accepted is None or verdict.word == EQUAL:
            return verdict
        if accepted.expires < datetime.date.today():
            return replace(
                verdict,
                notes=(*verdict.notes, f"the contract accepted this until {accepted.expires}: {accepted.reason}"),
            )
        note = f"{verdict.word}, accepted by the contract until {accepted.expires}: {accepted.reason}"
        told = {"accepted": verdict.word, "accepted_until": accepted.expires.isoformat()}
        return replace(verdict, word=EQUAL, notes=(*verdict.notes, note), evidence={**verdict.evidence, **told})

    def describe(self) -> dict[str, Any]:
        """JSON-safe: {"ref": {name, kind, state, draws, versions}, "target": {...}, "map": {...}, "draws": str}; also
        "seed", a text, if another than the one that was given was used, and "dataflow" where it is known."""
        mixed = self.pair.settings.seed
        seed = {"seed": f"{self.settings.seed}, mixed with the target's files: {mixed}"}
        flow = self.bench.flow if self.pair.blocked is None else None
        found = {} if flow is None else {"dataflow": flow.as_json()}
        return {**self.pair.describe(), **(seed if mixed != self.settings.seed else {}), **found}

    def proposal(self) -> str:
        """The field map as TOML, to be completed by a person and given back as a contract."""
        if self.pair.blocked is not None:
            return f"# {self.pair.blocked}\n"
        head = f'# field map proposed for ref = "{self.settings.ref}", target = "{self.settings.target}"\n'
        if self.pair.map.said:
            head += f"# {self.pair.map.said}\n"
        return head + self.pair.map.toml()

    def close(self) -> None:
        self.pair.close()


def _sensible(settings: Settings) -> None:
    for level in settings.levels:
        if level not in LEVELS:
            raise ContractError(f"there is no level {level!r} (levels are {', '.join(LEVELS)})")
    if settings.profile not in PROFILES:
        raise ContractError(f"there is no profile {settings.profile!r} (profiles are {', '.join(PROFILES)})")


def _known_tolerances(contract: Contract, pair: Pair) -> None:
    """A tolerance for a field that is not compared would silently do nothing."""
    names = [f.name for f in pair.fields]
    for name in contract.tolerances:
        if pair.blocked is None and name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f" (fields: {', '.join(names)})"
            raise ContractError(f"contract {contract.path}: [tolerance.{name}]: there is no field {name!r}{hint}")


def contract_of(settings: Settings) -> Contract:
    """The contract that was named, or the envequiv.toml that lies beside a target's package, or none."""
    return _fitting(_found(settings), settings)


def _found(settings: Settings) -> Contract:
    if settings.contract:
        return contracts.read(settings.contract)
    module = settings.target.partition("?")[0].partition(":")[0]
    try:
        spec = importlib.util.find_spec(module) if module.replace(".", "").isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec and spec.origin:
        beside = Path(spec.origin).parent / "envequiv.toml"
        if beside.is_file():
            return contracts.read(beside)
    return Contract()


def _fitting(contract: Contract, settings: Settings) -> Contract:
    """A contract that names its pair is for that pair only."""
    for side, written, asked in (("ref", contract.ref, settings.ref), ("target", contract.target, settings.target)):
        if written is not None and written != asked:
            raise ContractError(
                f"contract {contract.path}: it is for {side} = {written!r}, this run is about {asked!r}"
            )
    return contract


def replay(path: str, settings: Settings | None = None, progress: Progress = silent) -> Verdict:
    """Open the pair a counterexample names and try its inputs again; DIFFERENT if they still differ."""
    example = counterexample.load(path)
    base = settings or Settings(example.ref, example.target)
    asked = replace(base, ref=example.ref, target=example.target, seed=example.seed)
    judge = _judge_for(asked, example, progress)
    started = time.perf_counter()
    try:
        found = counterexample.still_apart(judge.bench, example)
        verdict = found or said(
            example.check, EQUAL, f"{example.check.field}: the saved inputs agree", (), {"transitions": 1}
        )
    except BackendError as error:
        verdict = said(example.check, DIFFERENT if error.side == "target" else INCONCLUSIVE, str(error))
    finally:
        judge.close()
    verdict.evidence["seconds"] = round(time.perf_counter() - started, 3)
    return replace(verdict, counterexample=str(path), follows=None)


def _judge_for(settings: Settings, example: Counterexample, progress: Progress) -> Judge:
    judge = Judge.__new__(Judge)
    judge.settings = settings
    judge.contract = contracts.parse(example.contract, "in the counterexample") if example.contract else Contract()
    judge.pair = Pair(settings, judge.contract, progress)
    judge.bench = Bench(judge.pair)
    judge.checks, judge.notes, judge.saved = [example.check], [], {}
    return judge


def cover(settings: Settings, progress: Progress = silent) -> dict[str, Any]:
    """Branch coverage of ``settings.target`` by itself, JSON-safe; see cover.py."""
    return coverage.cover(settings, _found(settings), progress)


def export(path: str, destination: str) -> None:
    """Write a counterexample as a standalone pytest file that needs only the two environments' packages."""
    from pytest_envequiv.report import standalone

    text = standalone.script(counterexample.load(path))
    try:
        Path(destination).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ContractError(f"--envequiv-export {destination}: {error.strerror}") from error


__all__ = ["EnvequivError", "Judge", "export", "replay"]
