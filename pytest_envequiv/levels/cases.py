"""A divergence as blame takes it: rows of one step or reset, what should have come out, how the port is traced anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pytest_envequiv.backends import loading
from pytest_envequiv.backends.plain import unplayed
from pytest_envequiv.backends.protocol import DONE, TERMINATED, TRUNCATED, Arrays, Outcome, Tape
from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.fields import Found, counted
from pytest_envequiv.comparison.roots import output_name
from pytest_envequiv.spaces import bare
from pytest_envequiv.whitebox import sources
from pytest_envequiv.whitebox.blame.defined import Defined
from pytest_envequiv.whitebox.blame.trial import Case
from pytest_envequiv.whitebox.definitions import Definition, changed, definitions, instead, otherwise
from pytest_envequiv.whitebox.jaxprs import Traced
from pytest_envequiv.whitebox.program import Program, flat

ROWS, DIVERGING = 256, 144  # rows a suspicion is tried on, and how many of them diverge, if there are as many
SHORT = 16  # elements of an array of the reference's settings that are numbers to try
MOST_DEFINED = 80  # numbers that a target sets where nothing is traced; of more none is tried


def step_case(bench: Bench, step: Step, root: str, followers: list[str]) -> Case:
    rows = _chosen(step, [root, *followers])
    traced = bench.pair.target.backend.traced("step", ROWS)  # type: ignore[attr-defined]
    asked = step.rows.take(rows)
    state, action = bench.pair.inject(asked), bench.pair.target_action(asked.action)
    given = {f"state.{n}": v for n, v in state.fields.items()} | {f"action.{n}": v for n, v in action.items()}
    return _case(bench, traced, given | {"seed": asked.seeds}, step, rows, root, followers)


def reset_case(bench: Bench, step: Step, root: str, followers: list[str]) -> Case:
    rows = _chosen(step, [root, *followers])
    traced = bench.pair.target.backend.traced("reset", ROWS)  # type: ignore[attr-defined]
    return _case(bench, traced, {"seed": step.rows.seeds[rows]}, step, rows, root, followers)


def _chosen(step: Step, family: list[str]) -> np.ndarray:
    """int[ROWS]: rows in which the family diverges, and rows in which nothing does; of these, half from where a flag or
    number is not what it mostly is, so that the rare branch is there to be told from the common one."""
    found = step.found
    wrong = np.any([found[n].rows for n in family if n in found], axis=0)
    clean = ~np.any([f.rows | f.ties | f.unsure for f in found.values()], axis=0)
    rare = np.zeros(len(clean), bool)
    for field in found.values():
        if field.field.exact and field.field.role == "output":
            value = field.expected.reshape(len(clean), -1)
            rare |= (value != np.median(value.astype(float), 0)).any(1)
    chosen = _spread(np.flatnonzero(wrong), DIVERGING)
    unusual = _spread(np.flatnonzero(clean & rare), (ROWS - len(chosen)) // 2)
    usual = _spread(np.flatnonzero(clean & ~rare), ROWS - len(chosen) - len(unusual))
    return np.resize(np.concatenate([chosen, unusual, usual]), ROWS)


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def _case(
    bench: Bench, traced: Traced, given: Arrays, step: Step, rows: np.ndarray, root: str, followers: list[str]
) -> Case:
    pair = bench.pair
    arguments = []
    for name, var in zip(traced.inputs, traced.closed.jaxpr.invars, strict=True):
        value = traced.constants[name.partition(".")[2]] if name.startswith("constants.") else given[name]
        arguments.append(np.asarray(value).astype(var.aval.dtype).reshape(var.aval.shape))
    ours, theirs = step.ours.take(rows), step.theirs.take(rows)
    family = {root, *followers}
    expected: Arrays = {}
    tolerance: Arrays = {}
    counts: Arrays = {}
    wrong, roots = set(), set()
    for name, found in step.found.items():
        if found.rows.any() and name not in family:
            continue  # another cause: nobody says what this one should be
        for output, value in _outputs(traced, found, rows, theirs).items():
            expected[output], tolerance[output] = value, found.tolerance[rows]
            counts[output] = counted(pair, found.field, ours, theirs) & ~found.ties[rows] & ~found.unsure[rows]
            if name in family:
                wrong.add(output)
            if name == root:
                roots.add(output)
    constants = {bare(k): np.asarray(v, float) for k, v in pair.ref.spec.constants.items()}
    return Case(
        traced=traced,
        arguments=arguments,
        draws=_draws(theirs.draws),
        expected=expected,
        tolerance=tolerance,
        counts=counts,
        wrong=frozenset(wrong),
        root=frozenset(roots),
        known={name: constants[bare(name)] for name in traced.constants if bare(name) in constants},
        numbers=tuple(sorted({float(x) for v in constants.values() for x in v.flat[:SHORT]})),
    )


def _outputs(traced: Traced, found: Found, rows: np.ndarray, theirs: Outcome) -> Arrays:
    """What the jaxpr's output should have been. A merged end that the target tells apart is its termination's part."""
    name = output_name(found.field)
    if name in traced.outputs:
        return {name: found.expected[rows]}
    if name == DONE and TERMINATED in traced.outputs:
        cut = theirs.outputs[TRUNCATED].astype(bool)[:, None]
        return {TERMINATED: found.expected[rows].astype(bool) & ~cut}
    return {}


def _draws(tape: Tape | None) -> list[np.ndarray]:
    return [draw.value for draw in tape or ()]


# -- tracing it anew ---------------------------------------------------------------------------------------------------


def defined(bench: Bench, what: str) -> Defined | None:
    """The definitions of the target's files; None where it cannot be imported anew."""
    found = own_definitions(bench)
    if found is None:
        return None
    constants = {bare(n): np.ravel(v) for n, v in bench.pair.ref.spec.constants.items() if np.size(v) == 1}
    known = {name: float(value[0]) for name, value in constants.items()}
    few = found if len(found) <= MOST_DEFINED else []
    traced = partial(_retraced, bench, what), partial(_reprogrammed, bench, what)
    return Defined(few, *traced, _otherwise, known, bare)


def own_definitions(bench: Bench, names: bool = False) -> list[Definition] | None:
    """What the target's files define (``names``: see ``definitions``); None where it cannot be imported anew."""
    busy = own_lines(bench)
    if busy is None:
        return None
    return [d for file, lines in busy.items() for d in definitions(sources.text_of(file), file, lines, names)]


def own_lines(bench: Bench) -> dict[str, set[int]] | None:
    """The target's own files -> lines from which operations of its step or reset come; None where it cannot be imported
    anew."""
    backend: Any = bench.pair.target.backend
    name = loading.name_of_module(bench.settings.target)
    own = getattr(sys.modules.get(name or ""), "__file__", None)
    if name is None or own is None:
        return None
    busy: dict[str, set[int]] = {own: set()}
    for site in {site for kind in ("step", "reset") for site in sources.sites_of(backend.traced(kind).closed)}:
        if loading.belongs(os.path.realpath(site.file), name, os.path.realpath(own)):
            busy.setdefault(site.file, set()).update(range(site.line, site.end_line + 1))
    return busy


def _otherwise(definition: Definition) -> dict[float, str]:
    """See ``otherwise``: with the names of its module. Only of what is computed, or is another name."""
    text = sources.text_of(definition.place.file)[definition.start : definition.end]
    module = loading.module_of(definition.place.file)
    return otherwise(text, vars(module)) if module is not None and not _literal(text) else {}


def _literal(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("True", "False")
    return True


def _retraced(bench: Bench, what: str, chosen: Sequence[tuple[Definition, float | None]]) -> Any:
    """See ``Retraced``: with ROWS rows. Each is asked once a run."""
    return bench.once(("retraced", what, *chosen), lambda: _retrace(bench, what, chosen))


def _retrace(bench: Bench, what: str, chosen: Sequence[tuple[Definition, float | None]]) -> Any:
    file = chosen[0][0].place.file
    text = changed(sources.text_of(file), [definition for definition, _ in chosen])
    with instead([value for _, value in chosen]) as seen:
        program = _program(bench, what, file, text)
    return (program, [seen[n] for n in range(len(chosen))]) if program and len(seen) == len(chosen) else None


def _reprogrammed(bench: Bench, what: str, file: str, text: str) -> Program | None:
    """See ``Reprogrammed``: with ROWS rows. Each is asked once a run."""
    return bench.once(("reprogrammed", what, file, text), lambda: _program(bench, what, file, text))


def _program(bench: Bench, what: str, file: str, text: str) -> Program | None:
    """The target's program, traced with another text in the place of a file's."""
    return imported(bench, file, text, lambda backend: flat(backend.traced(what, ROWS).closed))


def imported(bench: Bench, file: str, text: str, read: Callable[[Any], Any]) -> Any:
    """What is read of the target's backend with another text in the place of a file's; None if anything fails."""
    options = dict(bench.pair.contract.target_options)

    def opened() -> Any:
        with unplayed(), loading.loaded(bench.settings.target, options, file, text, bench.pair.ref.spec) as backend:
            return read(backend)

    try:
        return bench.pair.target.call("another text", opened)
    except Exception:  # whatever a port raises with what it was not made for
        return None
