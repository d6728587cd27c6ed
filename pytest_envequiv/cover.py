"""Branch coverage of one environment by itself: it is its own reference, so what it lives through is live.

Play and the sources of L2 are asked of it, and which way each branch went is counted. Nothing is compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.bench import Bench
from pytest_envequiv.contract import Contract
from pytest_envequiv.errors import BackendError, Limitation
from pytest_envequiv.levels.covering import asked_for, missed, table, told
from pytest_envequiv.levels.interaction import sources
from pytest_envequiv.pair import Pair
from pytest_envequiv.stimuli.play import Rows
from pytest_envequiv.verdict import Progress, Settings, plain, silent


def cover(settings: Settings, contract: Contract, progress: Progress = silent) -> dict[str, Any]:
    """What was exercised of the branches of ``settings.target``, JSON-safe:

    {"target", "sides", "covered", "played" (sides covered by play alone), "rows": {source: rows}, "branches": [{"file",
    "line", "code", "primitive", "sides": {side: rows}, "status"}], "missed": [{..., "side"}], "notes"}

    Of the contract only the target's options, the time limit and what coverage ignores count. Raises OpenError,
    Limitation or BackendError, in one line.
    """
    name = settings.target
    progress(f"opening target {name}", 0, 0)
    _check(name, dict(contract.target_options))
    alone = Contract(
        ref_options=contract.target_options,
        target_options=contract.target_options,
        time_limit=contract.time_limit,
        coverage=contract.coverage,
    )
    pair = Pair(replace(settings, ref=name), alone, progress)
    try:
        if pair.blocked is not None:
            raise Limitation(f"{name}: {pair.blocked}")
        return _counted(Bench(pair), progress)
    except BackendError as error:
        raise BackendError("target", error.where, str(error).partition(": ")[2]) from error
    finally:
        pair.close()


def _check(name: str, options: dict[str, Any]) -> None:
    """Raises OpenError or Limitation if there are no branches that could be seen."""
    backend: Any = open_backend(name, options)
    try:
        if not hasattr(backend, "step_covered"):
            raise Limitation(f"{name} cannot be traced: branches are seen in environments written in JAX only")
        try:
            branches = backend.covered.branches
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise Limitation(f"{name}: its step cannot be traced: {type(error).__name__}: {text}") from error
        if not branches:
            raise Limitation(f"{name}: its step has no branches")
    finally:
        backend.close()


def _counted(bench: Bench, progress: Progress) -> dict[str, Any]:
    pair, covered = bench.pair, bench.covered
    assert covered is not None  # it was traced a moment ago
    bench.progress = progress
    notes = []
    rows: dict[str, Rows | None] = {"play": bench.played.rows}
    if pair.injectable():
        rows |= {source: bench.rows(source) for source in sources(bench) if source != "play"}
    else:
        notes.append(f"only play was asked: states cannot be injected ({pair.map.said})")
    went = {source: pair.target_covered(found, None)[0].sum(0) for source, found in rows.items() if found is not None}
    times = np.sum(list(went.values()), axis=0)
    asked, idle = asked_for(covered, pair.contract.coverage.get("ignore", ()))
    notes += [f"[coverage] ignore: {pattern!r} fits no branch" for pattern in idle]
    return plain(  # type: ignore[no-any-return]
        {
            "target": pair.settings.target,
            "sides": int(asked.sum()),
            "covered": int((times[asked] > 0).sum()),
            "played": int((went["play"][asked] > 0).sum()),
            "rows": {source: len(found) for source, found in rows.items() if found is not None},
            "branches": table(covered, times, asked),
            "missed": [{**told(covered.branches[n]), "side": side} for n, side in missed(covered, times, asked)],
            "notes": notes,
        }
    )
