"""Saved transitions: questions put to the reference once, which a candidate answers in numpy, without a compile.

``gather`` asks the reference; ``misses`` says in which rows a target answers otherwise. Draws are the reference's own:
a candidate's draws take them by kind, size and bounds, so that its randomness needs no run of its own either.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from pytest_envequiv import spaces
from pytest_envequiv.backends.protocol import AGENT, DONE, MASK, TERMINATED, TRUNCATED, Arrays, Draw, Outcome, Spec
from pytest_envequiv.bench import Bench
from pytest_envequiv.comparison.fields import calibrate, counted
from pytest_envequiv.comparison.roots import output_name
from pytest_envequiv.pair import Field, Pair
from pytest_envequiv.stimuli.draws import trivial
from pytest_envequiv.stimuli.play import Rows, seeds_for
from pytest_envequiv.whitebox.dataflow import slices
from pytest_envequiv.whitebox.jaxprs import Traced
from pytest_envequiv.whitebox.program import Constant, Op, Program, flat, read

SOURCES = ("replay", "play", "boundary", "pairs", "limit")
ROWS, RESETS = 768, 128  # of the rows there are, those that are kept
MOST = 6_000  # rows the reference is asked about before some are chosen

GROSS = 100  # times the tolerance: an error that no calibration would explain
FEW = 4  # rows of all that were asked, which may be missed grossly: thresholds that flip

Misses = dict[str, np.ndarray]  # "step.<output>", "reset.<output>", "draws.<what>", "spec.<what>" -> bool (rows,)


@dataclass(frozen=True)
class Asked:
    """Rows of one step, or of a reset (B of them), and what the reference answered.

    given      input of the target's jaxpr -> (B, ...); settings are not among them
    tape       the reference's draws; None where they are not known: the target draws for itself
    expected   output -> (B, elements); tolerance: the same shape; counts: bool (B,), rows in which it is compared
    fields     output -> what the checks call it
    shapes     output -> the shape the reference gives it, where that matters
    """

    what: str
    given: Arrays
    tape: tuple[Draw, ...] | None
    expected: Arrays
    tolerance: Arrays
    counts: Arrays
    fields: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.given["seed"])

    def take(self, rows: np.ndarray) -> Asked:
        def cut(arrays: Arrays) -> Arrays:
            return {k: v[rows] for k, v in arrays.items()}

        tape = None if self.tape is None else tuple(_taken(draw, rows) for draw in self.tape)
        return replace(
            self,
            given=cut(self.given),
            tape=tape,
            expected=cut(self.expected),
            tolerance=cut(self.tolerance),
            counts=cut(self.counts),
        )


@dataclass(frozen=True)
class Saved:
    """All that is known of the reference. ``trouble``: why there are no rows, or fewer than there might be;
    ``anew``: the target's step begins a new episode by itself where one ends; ``wide``: all steps that were asked, not
    only those that were chosen, with tolerances that were not calibrated."""

    spec: Spec
    asked: tuple[Asked, ...]
    trouble: str = ""
    anew: bool = False
    wide: Asked | None = None

    @property
    def fields(self) -> dict[str, str]:
        """What is missed -> what the checks call it."""
        return {f"{a.what}.{name}": field for a in self.asked for name, field in a.fields.items()}


def gather(bench: Bench) -> Saved:
    """Ask the reference of an opened pair. Raises what its backends raise; the target is only stepped to see where
    it differs."""
    pair = bench.pair
    spec = replace(pair.ref.spec, versions={}, conventions={}, notes=())
    if pair.blocked is not None:
        return Saved(spec, (), pair.blocked)
    trouble = "" if pair.injectable() else f"states cannot be injected: {pair.map.said or 'no map'}"
    steps, wide = (None, None) if trouble else _steps(bench)  # by a map that is wrong any step would be
    asked = tuple(a for a in (steps, _resets(pair)) if a is not None)
    return Saved(spec, asked, trouble, pair.target.spec.conventions.get("step") == "auto-reset", wide)


def misses(saved: Saved, backend: Any, enough: Callable[[Misses], bool] = lambda _: False) -> Misses:
    """Where a target answers otherwise than the reference; no more is asked once what is known is ``enough``. Raises
    what tracing it raises."""
    found: Misses = {}
    for asked in saved.asked:
        found |= _answered(asked, backend)
        if enough(found):
            return found
    return found | declared(saved.spec, backend)


def strays(saved: Saved, backend: Any, names: Container[str]) -> int:
    """How many of all steps that were asked are missed grossly, in the worst output. ``names``: what is looked at."""
    found = {} if saved.wide is None else _answered(saved.wide, backend, GROSS)
    return max((int(rows.sum()) for name, rows in found.items() if name in names), default=0)


def many(saved: Saved, count: int) -> bool:
    """Whether so many strays are more than thresholds that flip."""
    return saved.wide is not None and count > max(FEW, len(saved.wide) // 500)


# -- asking the reference --------------------------------------------------------------------------------------------


def _steps(bench: Bench) -> tuple[Asked | None, Asked | None]:
    """(the steps that were chosen, all)"""
    pair = bench.pair
    parts = []
    for source in SOURCES:
        with suppress(Exception):  # a source that a broken target cannot be asked for is one source less
            rows = bench.rows(source)
            if rows is not None and len(rows):
                parts.append(rows)
    if not parts:
        return None, None
    share = max(1, MOST // len(parts))
    rows = Rows.join([part.take(_spread(np.arange(len(part)), share)) for part in parts])
    ours = pair.ref.step(rows.state, rows.action, rows.seeds)
    state, action = pair.inject(rows), pair.target_action(rows.action)
    given = {f"state.{n}": v for n, v in state.fields.items()} | {f"action.{n}": v for n, v in action.items()}
    asked = _asked(pair, "step", given | {"seed": rows.seeds}, rows.clock, ours, list(pair.fields))
    wrong = _answered(asked, pair.target.backend) if len(asked) else {}
    kept = _chosen(asked, {name: miss for name, miss in wrong.items() if len(miss) == len(asked)})
    return _calibrated(pair, asked.take(kept), rows.take(kept), ours.take(kept)), asked


def _resets(pair: Pair) -> Asked | None:
    if pair.ref.spec.draws == "none":
        return None
    seeds = seeds_for(pair.settings.seed, 57, count=RESETS)
    ours = pair.ref.reset(seeds)
    fields = [f for f in pair.fields if f.role == "state" or f.name in (MASK, AGENT)]
    if not pair.unseen:
        fields += [f for f in pair.fields if f.role == "output" and f.name.startswith("observation")]
    return _asked(pair, "reset", {"seed": seeds}, np.full(RESETS, -1), ours, fields)


def _asked(pair: Pair, what: str, given: Arrays, clock: np.ndarray, ours: Outcome, fields: Sequence[Field]) -> Asked:
    expected, tolerance, counts, names, shapes = {}, {}, {}, {}, {}
    for field in fields:
        value, name = pair.reference_values(field, ours, clock), output_name(field)
        expected[name], names[name] = value, field.name
        tolerance[name] = np.zeros(value.shape) if field.exact else _floor(pair, field, value)
        counts[name] = counted(pair, field, ours, ours) if what == "step" else np.ones(len(value), bool)
        if what == "reset" and value.dtype.kind == "f":
            counts[name] &= ~np.isnan(value).any(1)  # None in the reference until the first step
        if field.role == "output" and field.ref in ours.outputs and not field.name.startswith("observation"):
            shapes[name] = tuple(ours.outputs[field.ref].shape[1:])
    return Asked(what, given, ours.draws, expected, tolerance, counts, names, shapes)


def _floor(pair: Pair, field: Field, expected: np.ndarray) -> np.ndarray:
    allowed = pair.contract.tolerance(field.name)
    size = np.abs(np.nan_to_num(expected.astype(float), posinf=0, neginf=0))
    bound = allowed.ratio * field.eps * np.maximum(field.scale, size) + allowed.atol + allowed.rtol * size
    return np.asarray(bound)


def _calibrated(pair: Pair, asked: Asked, rows: Rows, ours: Outcome) -> Asked:
    """The tolerances the checks would have, had all these rows differed; thresholds that flip decide nothing."""
    found = calibrate(pair, rows, ours, np.arange(len(rows)), hasty=True)
    if found is None:
        return asked
    tolerance, counts = dict(asked.tolerance), dict(asked.counts)
    for field in pair.fields:
        spread, name = found.spread[field.name], output_name(field)
        if field.exact:
            counts[name] = counts[name] & ~(spread > 0).any(1)
        else:
            tolerance[name] = tolerance[name] + pair.contract.tolerance(field.name).ratio * spread
    return replace(asked, tolerance=tolerance, counts=counts)


def _chosen(asked: Asked, wrong: Misses) -> np.ndarray:
    """int[ROWS]: rows in which each output is missed, and others; of both, half from where something rare is
    expected, so that a rare branch is there to be told from the common one."""
    rare, missed = _rare(asked), [miss for miss in wrong.values() if miss.any()]
    kept: list[np.ndarray] = []

    def keep(among: np.ndarray, most: int) -> None:
        unusual = _spread(np.flatnonzero(among & rare), most // 2)
        kept.extend((unusual, _spread(np.flatnonzero(among & ~rare), most - len(unusual))))

    for miss in missed:
        keep(miss, max(24, ROWS // 2 // len(missed)))
    left = np.ones(len(asked), bool)
    left[np.concatenate(kept) if kept else []] = False
    keep(left, max(ROWS - sum(map(len, kept)), 0))
    # Always as many: a batch of another size would be another shape to compile for.
    return np.resize(np.unique(np.concatenate(kept).astype(int)), ROWS)


def _rare(asked: Asked) -> np.ndarray:
    """bool (B,): rows where a flag is not what it mostly is, or a number is one that comes again and again, though not
    mostly: the end of a clip, a wall."""
    rare = np.zeros(len(asked), bool)
    for value in asked.expected.values():
        for column in value.T[:32]:
            _, which, counts = np.unique(column, return_inverse=True, return_counts=True)
            often = counts[which.ravel()]
            rare |= (often < len(asked) / 4) & (often > (3 if value.dtype.kind == "f" else 0))
    return rare


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def _taken(draw: Draw, rows: np.ndarray) -> Draw:
    arrays = {name: np.asarray(getattr(draw, name))[rows] for name in ("low", "high", "value", "present")}
    return replace(draw, **arrays)


# -- asking a candidate ----------------------------------------------------------------------------------------------


def _answered(asked: Asked, backend: Any, ratio: float = 1.0) -> Misses:
    traced = backend.traced(asked.what, len(asked))
    program = flat(traced.closed)
    values, strange = _run(program, traced, asked)
    found = {f"draws.{asked.what}": np.array([strange])}
    outputs = dict(zip(traced.outputs, program.outputs, strict=True))
    for name, expected in asked.expected.items():
        actual = _value(values, outputs, name, len(expected))
        found[f"{asked.what}.{name}"] = _missed(asked, name, actual, ratio)
    return found


def _value(values: Mapping[int, Any], outputs: Mapping[str, Any], name: str, rows: int) -> np.ndarray | None:
    if name == DONE and DONE not in outputs:
        ends = [np.asarray(read(values, outputs[n])).astype(bool) for n in (TERMINATED, TRUNCATED) if n in outputs]
        return np.any([np.broadcast_to(e, (rows, *e.shape[1:])) for e in ends], axis=0) if ends else None
    if name not in outputs:
        return None
    value = np.asarray(read(values, outputs[name]))
    return np.broadcast_to(value, (rows, *value.shape[1:])) if value.ndim and len(value) in (1, rows) else None


def _missed(asked: Asked, name: str, actual: np.ndarray | None, ratio: float) -> np.ndarray:
    """bool (B,): errors of more than so many tolerances. A value of another shape is missed everywhere."""
    expected = asked.expected[name]
    every = np.ones(len(expected), bool)
    if actual is None or actual.size != expected.size or actual.shape[1:] != asked.shapes.get(name, actual.shape[1:]):
        return every
    actual = actual.reshape(expected.shape)
    with np.errstate(all="ignore"):
        error = np.abs(actual.astype(float) - expected.astype(float))
        same = (actual == expected) | ((actual != actual) & (expected != expected))
        wrong = ~same & ~(error <= ratio * asked.tolerance[name])
    return np.asarray(wrong.any(1) & asked.counts[name])


def _run(program: Program, traced: Traced, asked: Asked) -> tuple[dict[int, Any], bool]:
    """(the values of a program, whether it draws otherwise than the reference)."""
    values: dict[int, Any] = dict(program.constants)
    for name, place, var in zip(traced.inputs, program.inputs, traced.closed.jaxpr.invars, strict=True):
        value = traced.constants[name.partition(".")[2]] if name.startswith("constants.") else asked.given[name]
        values[place] = np.asarray(value).astype(var.aval.dtype).reshape(var.aval.shape)
    needed = set().union(*slices(program))
    left = None if asked.tape is None else [draw for draw in asked.tape if not trivial(draw)]
    strange = False
    with np.errstate(all="ignore"):
        for number, op in enumerate(program.ops):
            if number not in needed:
                continue
            inputs = [read(values, atom) if _known(values, atom) else None for atom in op.inputs]
            if op.name == "draw" and left is not None:
                value, odd = _drawn(op, inputs, left, len(asked))
                values[op.outputs[0]], strange = value, strange or odd
            elif op.name == "draw" or not any(v is None for v in inputs):
                values.update(zip(op.outputs, op.run(inputs), strict=True))
    return values, strange or bool(left)


def _known(values: Mapping[int, Any], atom: Any) -> bool:
    return isinstance(atom, Constant) or atom in values


Limits = Callable[[Sequence[Any]], tuple[Any, Any]]
LIMITS: dict[str, Limits] = {
    "uniform": lambda v: (v[1], v[2]),
    "integers": lambda v: (v[1], v[2]),
    "beta": lambda v: (v[1], v[2]),
    "truncated_normal": lambda v: (v[1], v[2]),
    "normal": lambda v: (0.0, 1.0),
    "bernoulli": lambda v: (v[1], np.nan),
    "gamma": lambda v: (v[1], np.nan),
    "poisson": lambda v: (v[1], np.nan),
}


def _drawn(op: Op, inputs: Sequence[Any], left: list[Draw], rows: int) -> tuple[np.ndarray, bool]:
    """(what an operation draws, whether the reference draws nothing of that kind, size and bounds). What is taken
    leaves ``left``."""
    shape, dtype = op.shapes[0], op.dtypes[0]
    low, high = (np.asarray(x, float) for x in LIMITS.get(op.kind, lambda v: (np.nan, np.nan))(inputs))
    kind = op.kind or "bits"
    own = Draw(kind, shape[1:], low, high, np.zeros(0), np.zeros(0, bool), "")
    if np.size(low) and trivial(own):
        return np.broadcast_to(_wide(low, shape), shape).astype(dtype), False
    size = int(np.prod(shape[1:], dtype=int))
    alike = [d for d in left if d.kind == kind and int(np.prod(d.shape, dtype=int)) == size]
    alike.sort(key=lambda d: not _same_bounds(d, low, high, rows))
    unit = np.random.default_rng(11).random(shape)
    with np.errstate(all="ignore"):
        anything = np.nan_to_num(_wide(low, shape) + unit * (_wide(high, shape) - _wide(low, shape)))
    if not alike:
        return (anything if kind != "bernoulli" else unit < _wide(low, shape)).astype(dtype), True
    taken = alike[0]
    left.remove(taken)
    value = np.asarray(taken.value).reshape(shape)
    if kind == "bernoulli":  # kept as the uniform number that decides it
        value = value < _wide(low, shape)
    present = np.asarray(taken.present).reshape(-1, *[1] * (len(shape) - 1))
    return np.where(present, value, anything).astype(dtype), not _same_bounds(taken, low, high, rows)


def _wide(bound: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A bound of each row, or of all, in the shape of what is drawn."""
    if bound.ndim and len(bound) == shape[0] and bound.ndim < len(shape):
        bound = bound.reshape(*bound.shape, *[1] * (len(shape) - bound.ndim))
    return np.broadcast_to(bound, shape)


def _same_bounds(draw: Draw, low: np.ndarray, high: np.ndarray, rows: int) -> bool:
    """Whether bounds agree to single precision; one number is the same number for each element."""
    for ours, theirs in ((draw.low, low), (draw.high, high)):
        x = np.ravel(np.asarray(ours, float)[draw.present].mean(0)) if len(draw.present) else np.ravel(ours)
        y = np.ravel(theirs.mean(0)) if theirs.ndim and len(theirs) == rows else np.ravel(theirs)
        if len(x) != len(y) and 1 not in (len(x), len(y)):
            return False
        if not np.allclose(x, y, rtol=1e-5, atol=1e-6, equal_nan=True):
            return False
    return True


# -- what is declared ------------------------------------------------------------------------------------------------


def declared(spec: Spec, backend: Any) -> Misses:
    """ "spec.action", "spec.observation": whether the spaces are others than the reference's, or than what is shown."""
    pair: Any = SimpleNamespace(
        ref=SimpleNamespace(spec=spec), target=SimpleNamespace(spec=backend.spec), problems=[], notes=[]
    )
    pair.actions = spaces.match_actions(pair)
    pair.observations = spaces.match_observations(pair)
    apart = {problem.subject for problem in pair.problems}
    for name, ours, theirs in spaces.matched_spaces(pair):
        root = name.partition(".")[0]
        if ours.kind != theirs.kind or (ours.kind == "box" and len(spaces.bounds_apart(ours, theirs))):
            apart.add(root)
    given = backend.traced("step")
    shown = {n: v.aval for n, v in zip(given.outputs, given.closed.jaxpr.outvars, strict=True)}
    for name, space in backend.spec.observation.items():
        if name in shown and (tuple(shown[name].shape) != tuple(space.shape) or not _fits(shown[name], space)):
            apart.add("observation")
    return {f"spec.{root}": np.array([root in apart]) for root in ("action", "observation")}


def _fits(shown: Any, space: Any) -> bool:
    """Whether what is shown is of the kind of number its space says, and no more precise."""
    given, said = np.dtype(shown.dtype), np.dtype(space.dtype)
    whole = (given.kind in "biu", said.kind in "biu")
    return whole[0] == whole[1] and (given.kind != "f" or said.itemsize >= given.itemsize)
