"""Many mutants at once: worker processes that each open the reference once, and are replaced when a mutant hangs."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as Late
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_envequiv import contract as contracts
from pytest_envequiv.backends import loading
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.plain import only_traced
from pytest_envequiv.backends.protocol import Backend
from pytest_envequiv.backends.remembering import remembering
from pytest_envequiv.comparison.roots import output_name
from pytest_envequiv.judge import Judge
from pytest_envequiv.power.measure import Result, judged
from pytest_envequiv.power.mutants import Mutant, mutants
from pytest_envequiv.power.programs import Programs, same_program
from pytest_envequiv.verdict import Settings

REPLACED = 150  # mutants after which a worker makes room for a new one: compiled programs pile up


@dataclass(frozen=True)
class Plan:
    """What is measured.

    settings   of the runs: the pair, levels, profile, seed, contract
    every      of the mutants, each ``every``-th is asked at all levels; the others until something is DIFFERENT
    audit      of the killed, each ``audit``-th is put before the oracle too
    timeout    seconds after which a mutant counts as hung
    """

    settings: Settings
    every: int = 4
    audit: int = 10
    timeout: float = 300.0
    workers: int = 2
    files: tuple[str, ...] = ()  # of the target, to be mutated; none: the one that its class or module stands in
    path: tuple[str, ...] = ()  # folders on which modules are looked for


def listed(plan: Plan) -> tuple[list[Mutant], list[Mutant]]:
    """(mutants of code that runs, mutants of code that no step, reset or space ever runs)."""
    name, options = plan.settings.target, _options(plan)
    ref = open_backend(plan.settings.ref, dict(_contract(plan).ref_options))
    files = plan.files or loading.sources(name, options, like=ref.spec)
    reached = loading.reached(name, options, ref.spec)
    ref.close()
    running: list[Mutant] = []
    idle: list[Mutant] = []
    for file in files:
        with open(file, encoding="utf-8") as source:
            text = source.read()
        for mutant in mutants(text, file):
            names = None if reached is None else reached.get(file)
            dead = bool(mutant.function) and names is not None and mutant.function not in names
            (idle if dead else running).append(mutant)
    return running, idle


def measured(plan: Plan, chosen: Iterable[Mutant], tell: Callable[[Result], None]) -> Iterator[Result]:
    """The result of each mutant, in the order given; ``tell`` hears of each as soon as it is there."""
    from pebble import ProcessExpired, ProcessPool

    context = multiprocessing.get_context("spawn")  # JAX must not be forked
    arguments = (replace(plan, path=tuple(sys.path)),)
    with ProcessPool(plan.workers, REPLACED, _begin, arguments, context) as pool:
        futures = []
        for number, mutant in enumerate(chosen):
            futures.append((mutant, pool.schedule(_one, args=[mutant, number], timeout=plan.timeout)))
        for mutant, future in futures:
            try:
                result: Result = future.result()
            except Late:
                result = Result(mutant.id, "hung", seconds=plan.timeout, text=f"no answer within {plan.timeout:g} s")
            except ProcessExpired as error:
                result = Result(mutant.id, "hung", text=f"its process died: exit code {error.exitcode}")
            tell(result)
            yield result


# -- in a worker -----------------------------------------------------------------------------------------------------

_kept: dict[str, Any] = {}


def _begin(plan: Plan) -> None:
    sys.path[:] = plan.path
    _kept["plan"] = plan
    contract = _contract(plan)
    _kept["ref"] = remembering(plan.settings.ref, dict(contract.ref_options))
    _kept["original"] = open_backend(plan.settings.target, _options(plan), _kept["ref"].spec)


def _one(mutant: Mutant, number: int) -> Result:
    plan: Plan = _kept["plan"]
    if _same(mutant, plan):
        return Result(mutant.id, "survived", detectable="equivalent", text="the same program and the same spaces")
    result = judged(mutant, plan.settings, _kept["ref"], _kept["original"], _options(plan), number % plan.every == 0)
    if result.word == "survived" or (result.word == "killed" and number % plan.audit == 0):
        result = _before_the_oracle(result, mutant, plan)
    return result


def _same(mutant: Mutant, plan: Plan) -> bool:
    """Whether the mutant is traced to the very jaxprs of the original and declares the same: nothing can differ."""
    original = _kept["original"]
    if not original.spec.traceable:
        return False
    try:
        with only_traced(), _edited(mutant, plan) as target:
            specs = [str(replace(b.spec, versions={})) for b in (original, target)]
            whats = ("step", "reset", *(["auto"] if original.functional.auto is not None else []))
            ours, theirs = Programs(original), Programs(target)  # type: ignore[arg-type]
            return specs[0] == specs[1] and all(same_program(ours, theirs, what) for what in whats)
    except Exception:  # it will be found to be broken
        return False


def _edited(mutant: Mutant, plan: Plan) -> AbstractContextManager[Backend]:
    return loading.loaded(plan.settings.target, _options(plan), mutant.file, mutant.source, _kept["ref"].spec)


def _before_the_oracle(result: Result, mutant: Mutant, plan: Plan) -> Result:
    from pytest_envequiv.power.oracle import LIVE, Oracle, broken

    if "oracle" not in _kept:
        _kept["oracle"] = Oracle(_kept["original"], untold=_untold(plan))
    try:
        with _edited(mutant, plan) as target:
            found = _kept["oracle"].judge(target)
    except Exception as error:
        found = broken(error)
    text = result.text if result.word == "killed" else found.text
    unreached = found.where == "step" and found.example.get("origin") not in LIVE
    return replace(result, detectable=found.word, where="unreached" if unreached else found.where, text=text)


def _untold(plan: Plan) -> frozenset[str]:
    """Outputs of the target's reset of which the reference has no value then."""
    judge = Judge(plan.settings, ref=_kept["ref"], target=_kept["original"], shrink=False)
    pair, seeds = judge.pair, np.arange(8)
    ours, theirs = pair.ref.reset(seeds), pair.target.reset(seeds)
    fields = [field for field in pair.fields if field.role == "state"]
    values = {output_name(f): pair.values(f, ours, theirs, np.zeros(8, int))[0] for f in fields}
    return frozenset(name for name, value in values.items() if value.dtype.kind == "f" and np.isnan(value).all())


def _contract(plan: Plan) -> contracts.Contract:
    return contracts.read(plan.settings.contract) if plan.settings.contract else contracts.Contract()


def _options(plan: Plan) -> dict[str, Any]:
    return dict(_contract(plan).target_options)
