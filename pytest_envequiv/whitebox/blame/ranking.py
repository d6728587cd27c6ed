"""Which source lines of the target explain a divergence.

A line is suspected because the wrong field is computed by it (backward slice, Weiser 1981). It is convicted by what
would have happened otherwise: an operation is changed (another operator, a comparison turned, a constant solved for,
another variable in its place, a term added), everything behind it is computed again on rows that diverge and on rows
that do not, and what it mends and what it breaks is counted. Changing one place and looking at the outcome is
counterfactual fault localisation as in predicate switching (Zhang et al., ICSE 2006) and, for the values that would
have been right, angelic debugging (Chandra et al., ICSE 2011).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame import edits
from pytest_envequiv.whitebox.blame.arguments import handed, vectors
from pytest_envequiv.whitebox.blame.brackets import restoring
from pytest_envequiv.whitebox.blame.names import Programs, renamed, variables
from pytest_envequiv.whitebox.blame.solving import numbers_for, solve_values, solved
from pytest_envequiv.whitebox.blame.terms import missing
from pytest_envequiv.whitebox.blame.trial import (
    EXPLAINED,
    PASSING,
    Case,
    Spent,
    Trial,
    scope,
)
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Op, read
from pytest_envequiv.whitebox.sources import Silent, element_place, function_starts, operand_place, statement_lines

BEFORE, FEW = 0.03, 5  # score of the lines before a call, which are told of where there are not as many others
LEFT_OUT = 0.3  # score of a line near which something is missing, of which is known only what it should give
SUFFICIENT = 0.5  # score of a value that could have been right in every row, by a relation nobody knows
KNOWN = 0.9  # score of one whose relation to what is known at that point is simple
CLIPPED = 0.85  # of one that is right once it is clipped: the clip may also stand in another place
LOOSE = 0.89  # of a line that may pass on what is read where another value would be right: not known to be that one
UNLIKE = 0.89  # of a setting of which the reference has another value, even if other things differ as well
SETTLED = 0.89  # of a change that makes a condition the same in every row: there it may be another that is wrong
ENOUGH = 0.9  # score with which no costlier kind of change is tried any more

NOISE = 0.02  # share of the largest correction by which a solved value may be off
MOST_ELEMENTS = 8  # of an array of settings that is tried element by element
SOME, TRIED = 48, 8  # values in scope that are combined in pairs; guesses of one form that are tried

Groups = Sequence[Sequence[int]]  # numbers of operations that stand and fall together


@dataclass(frozen=True, order=True)
class Suspect:
    """A line, how well it explains the divergence (1: a single change of it mends every row), and why.

    callers  the calls that led to it, the innermost first; ``missing``: what is at fault may be that something which
             should follow it does not stand there
    """

    score: float
    site: Site
    why: str
    callers: tuple[Site, ...] = field(default=(), compare=False)
    missing: bool = field(default=False, compare=False)


def blame(
    case: Case, where: Mapping[str, Site], names: Mapping[str, Sequence[Site]], silent: Sequence[Silent] = ()
) -> list[Suspect]:
    """Suspected lines, the best first, each once.

    where    constant -> the line that sets it
    names    output -> lines at which a value is given its name; under "" those of what is returned
    silent   lines that only pass on a value
    """
    trial = Trial(case)
    if not trial.diverging.any():
        return []
    groups = list(trial.groups())
    best: dict[tuple[str, int], Suspect] = {}
    many, single = [g for g in groups if len(g) > 1], [g for g in groups if len(g) == 1]
    with suppress(Spent):
        for found in (
            _sliced(trial, groups),
            _settings(trial, where),
            _changed(trial, groups, edits.slips),
            _changed(trial, groups, edits.clips),
            _changed(trial, groups, restoring(trial)),
            _changed(trial, single, edits.inputs),
            _misnamed(trial, names),
            _unchanged(trial, silent),
            _tried(trial, renamed(trial)),
            _tried(trial, handed(trial)),
            _changed(trial, groups, edits.literals),
            _changed(trial, groups, edits.functions),
            _changed(trial, single, vectors),
            _changed(trial, many, edits.variables),
            _angelic(trial, groups),
            _changed(trial, single, edits.variables),
            _changed(trial, groups, missing),
        ):
            for suspect in _borne(found):
                key = (suspect.site.file, suspect.site.line)
                if key not in best or suspect.score > best[key].score:
                    best[key] = suspect
            if max((s.score for s in best.values()), default=0.0) >= ENOUGH:
                break
    if max((s.score for s in best.values()), default=0.0) < SUFFICIENT:
        best |= {(s.site.file, s.site.line): s for s in _borne(_left_out(trial, names))}
    if len(best) < FEW:
        best = {(s.site.file, s.site.line): s for s in _before_calls(trial)} | best
    # Of lines that explain as much, those of the port itself come before those of a library it builds on.
    sizes = Counter(op.site.file for op in trial.program.ops if op.site is not None)
    return sorted(best.values(), key=lambda s: (-round(s.score, 6), -sizes[s.site.file], s.site))


def _borne(found: Iterator[Suspect]) -> Iterator[Suspect]:
    """What one kind of change finds, up to one that the program cannot bear: what others find is not lost."""
    try:
        yield from found
    except Spent:
        raise
    except Exception:
        return


def _sliced(trial: Trial, groups: Groups) -> Iterator[Suspect]:
    """Where nothing explains the divergence: the more is written on a line, the more can be wrong there."""
    written = Counter(_site(trial, group).line for group in groups if trial.program.ops[group[0]].name not in PASSING)
    most = max(written.values(), default=1)
    for group in groups:
        passing = trial.program.ops[group[0]].name in PASSING
        site = _site(trial, group)
        score = 0.05 if passing else 0.05 + 0.05 * written[site.line] / most
        yield Suspect(score * _spectrum(trial, group), site, "the wrong field is computed here")


def _changed(trial: Trial, groups: Groups, kind: edits.Kind) -> Iterator[Suspect]:
    """Every change of one kind, at every place."""
    for group in groups:
        for edit in kind(trial, group):
            try:
                values = edit.tried(trial, group)
                score = _score(*trial.verdict(values)) * edit.weight
            except Spent:
                raise
            except Exception:  # a change the program cannot bear: it was no slip of this kind
                continue
            if score > 0:
                op, whole = trial.program.ops[group[0]], _site(trial, group)
                score = min(score, SETTLED) if _settled(trial, values) else score
                parts = [element_place(whole, e, len(op.inputs)) for e in edit.elements]
                parts += [operand_place(whole, edit.operand)] if edit.operand is not None else []
                apart = [place for place in parts if place != whole]
                yield from (Suspect(score, place, edit.why, op.callers) for place in apart)
                yield Suspect(score * (0.99 if apart else 1), whole, edit.why, op.callers)


def _settled(trial: Trial, changed: Mapping[int, Any]) -> bool:
    """Whether a condition that was the same in every row is the opposite in every row now: what is right in all rows
    can be had by that, if only as ``x > limit`` is never so, and ``x < limit`` always."""
    for place, now in changed.items():
        before = np.asarray(trial.values[place])
        if np.shape(now) == before.shape and before.dtype == bool and before.size == trial.rows:
            one, other = bool(before.flat[0]), bool(np.asarray(now).flat[0])
            if one != other and (before == one).all() and (np.asarray(now) == other).all():
                return True
    return False


def _settings(trial: Trial, where: Mapping[str, Site]) -> Iterator[Suspect]:
    """Other values of a setting, or of an element of a short array of settings."""
    for name, place in trial.constants().items():
        size = np.size(trial.values[place])
        if name in where and size <= MOST_ELEMENTS:
            for element in range(size):
                yield from _setting(trial, name, place, element, where[name])


def _setting(trial: Trial, name: str, place: int, element: int, site: Site) -> Iterator[Suspect]:
    """The reference's own value where it has one of that name, else usual slips, or one that is solved for."""
    old = np.asarray(trial.values[place])
    before = float(old.flat[element])
    given = trial.case.known.get(name)
    known = float(given.flat[element]) if given is not None and given.shape == old.shape else None
    if known is not None and np.isclose(known, before, rtol=1e-6, atol=0):
        return

    def run(value: float) -> Mapping[int, Any]:
        changed = old.copy()
        changed.flat[element] = value
        return trial.rerun({place: changed})

    if known is not None:
        score = max(_score(*trial.verdict(run(known))), UNLIKE)
        yield Suspect(score, site, f"{name} is {known:g} in the reference, {before:g} here")
        return
    tried = list(numbers_for(trial, before))
    if old.dtype.kind == "f":
        right = solved(trial, run, before)
        tried += [(value, f"{name} = {value:.6g} in the place of {before:.6g}", weight) for value, weight in right]
    for value, why, weight in tried:
        score = _score(*trial.verdict(run(value)))
        if score > 0:
            yield Suspect(score * weight, site, why)


def _misnamed(trial: Trial, names: Mapping[str, Sequence[Site]]) -> Iterator[Suspect]:
    """Outputs that should have been another value, as it stands, or that nothing is computed for: what was given their
    name is at fault. If it is the value of another output, they may have been returned in the wrong order."""
    known = scope(trial, len(trial.program.ops))
    returned = [(name, read(trial.values, atom)) for name, atom in trial.outputs.items() if name[:6] != "state."]
    for output in sorted(trial.case.root):
        rows = trial.case.counts[output]
        expected = trial.case.expected[output]
        if not rows.any() or (
            output in trial.outputs and _is(trial, output, read(trial.values, trial.outputs[output]))
        ):
            continue  # right in all these rows: another field of the family is what differs
        computed = any(trial.program.ops[number].name not in PASSING for number in trial.behind.get(output, ()))
        own, everywhere = names.get(output, ()), names.get("", ())
        constant = not (expected[rows] != expected[rows][0]).any()
        for n, place in enumerate((*own, *(() if computed and not constant else everywhere))):
            why = "it is given its name here" if computed else "it stands here, and nothing computes it"
            if computed and constant:
                why = "it is computed, and always the same is right"
            score = 0.6 if not computed else 0.2 if constant else 0.06
            yield Suspect(score - 1e-4 * n, place, why)
        if expected.shape[1] != 1 or constant:
            continue  # a constant is like too much
        for values, places, weight in ((known, own, 0.94), (returned, everywhere, 0.94), (known, everywhere, 0.93)):
            name = next((n for n, value in values if n != output and _is(trial, output, value)), None)
            if name is not None:
                # The line that computes what is right is not at fault.
                wrong = [place for place in places if name != f"what line {place.line} computes"]
                yield from (Suspect(weight - 1e-4 * n, place, f"{name} is right") for n, place in enumerate(wrong))


def _left_out(trial: Trial, names: Mapping[str, Sequence[Site]]) -> Iterator[Suspect]:
    """Where something is not done that here and there should be: an output that is right in most rows, and should be
    one number in all others, with nothing in its computation to explain it. The lines between the last operation on it
    and the line that gives it its name."""
    for output in sorted(trial.case.wrong & trial.outputs.keys()):
        counts, expected = trial.case.counts[output], trial.case.expected[output]
        wrong = trial.diverging & counts
        actual = np.asarray(read(trial.values, trial.outputs[output])).reshape(trial.rows, -1)
        if not wrong.any() or expected.shape[1] != 1 or not (counts & ~wrong).any():
            continue
        one = not (expected[wrong] != expected[wrong][0]).any() and (actual[wrong] != actual[wrong][0]).any()
        atom = trial.outputs[output]
        while atom in trial.makers and trial.program.ops[trial.makers[atom]].name in PASSING:
            atom = trial.program.ops[trial.makers[atom]].inputs[0]
        made = trial.program.ops[trial.makers[atom]].site if atom in trial.makers else None
        if not one or made is None:
            continue
        for place in names.get(output, ()):
            if (place.file, place.function) == (made.file, made.function.rpartition(".")[2]) and place.line > made.line:
                lines = statement_lines(made.file, made.line + 1, place.line)
                for n, line in enumerate(lines):
                    site = Site(made.file, line, line, function=made.function)
                    right = f"{expected[wrong][0, 0]:.6g} is right here and there"
                    yield Suspect(LEFT_OUT - 1e-3 * n, site, f"{right}: something is missing after line {made.line}")


def _before_calls(trial: Trial) -> Iterator[Suspect]:
    """Where hardly anything is computed for what is wrong, something else may have been meant to be handed on: the
    statements before the calls that led to it, the nearest first."""
    calls = dict.fromkeys(c for n in sorted(trial.suspected) for c in trial.program.ops[n].callers)
    for call in calls:
        first = max((s for s in function_starts(call.file) if s < call.line), default=call.line)
        for n, line in enumerate(reversed(statement_lines(call.file, first + 1, call.line))):
            site = Site(call.file, line, line, function=call.function)
            yield Suspect(BEFORE - 1e-3 * n, site, f"before the call on line {call.line} that leads to what is wrong")


def _is(trial: Trial, output: str, value: Any) -> bool:
    """Whether a value is, in every row that counts, what an output should have been."""
    value = np.asarray(value)
    if value.dtype.kind not in "fiub" or value.size not in (1, trial.rows):
        return False
    with np.errstate(all="ignore"):
        guess = np.broadcast_to(value.ravel(), (trial.rows,)).astype(float)
        error = np.abs(guess - trial.case.expected[output][:, 0].astype(float))
    return bool((error <= trial.case.tolerance[output][:, 0])[trial.case.counts[output]].all())


def _unchanged(trial: Trial, silent: Sequence[Silent]) -> Iterator[Suspect]:
    """Lines that pass an input on as it is, where a function of it would be right wherever it is used."""
    ops = trial.program.ops
    inputs: dict[Any, int] = {place: place for place in trial.program.inputs}
    for op in ops:
        if op.name in PASSING and op.inputs and op.inputs[0] in inputs:
            inputs[op.outputs[0]] = inputs[op.inputs[0]]
    told = {(v.place.file, v.place.line) for together in variables(trial) for v in together}  # by their variables
    for line in (line for line in silent if (line.place.file, line.place.line) not in told):
        sites = [(n, op.site) for n, op in enumerate(ops) if op.site is not None]
        users = [n for n, site in sites if site.file == line.place.file and site.line in line.used]
        for read_there in sorted({inputs[a] for n in users for a in ops[n].inputs if a in inputs}):
            reading = [n for n in users if any(inputs.get(a) == read_there for a in ops[n].inputs)]
            # Once on its way: not where it is only converted, and again where that is used.
            readers = [n for n in reading if ops[n].name not in PASSING] or reading
            for name, function in edits.FUNCTIONS.items():

                def change(op: Op, values: Sequence[Any], place: int = read_there, f: Any = function) -> list[Any]:
                    both = [(inputs.get(a) == place, v) for a, v in zip(op.inputs, values, strict=True)]
                    return op.run([np.asarray(f(v), np.asarray(v).dtype) if here else v for here, v in both])

                if trial.explains(trial.edited(readers, change)):
                    yield Suspect(LOOSE, line.place, f"{name} of it is right")
            for name, place in trial.named_inputs():
                if place == read_there or np.size(trial.values[place]) not in (1, np.size(trial.values[read_there])):
                    continue
                others = {n: _instead(trial, n, read_there, inputs, place) for n in readers}
                if trial.explains(trial.replaced(others)):
                    yield Suspect(LOOSE, line.place, f"{name} in the place of what it passes on")


def _tried(trial: Trial, programs: Programs) -> Iterator[Suspect]:
    """Programs that were changed in several places at once, because of one line."""
    for place, why, weight, values in programs:
        if trial.explains(values):
            yield Suspect(weight, place, why)


def _instead(trial: Trial, number: int, old: int, inputs: Mapping[Any, int], place: int) -> Op:
    """The operation, with another value where it reads the input ``old``."""
    op = trial.program.ops[number]
    for slot, atom in enumerate(op.inputs):
        if inputs.get(atom) == old:
            op = edits.reading(op, slot, place, trial.values[atom])  # type: ignore[index]
    return op


def _site(trial: Trial, group: Sequence[int]) -> Site:
    op = trial.program.ops[group[0]]
    assert op.site is not None  # only operations with a site are grouped
    if op.name != "broadcast_in_dim" or op.site.end_line <= op.site.line:
        return op.site
    # One of the elements of an array, each on a line of its own.
    users = [trial.program.ops[n] for n in trial.users.get(op.outputs[0], ())]
    whole = next((u for u in users if u.name in ("concatenate", "stack") and u.site == op.site), None)
    if whole is None:
        return op.site
    return element_place(op.site, whole.inputs.index(op.outputs[0]), len(whole.inputs))


def _score(mended: float, broken: float) -> float:
    """1 for a change that mends all and breaks nothing; less than half of it for any other."""
    if mended >= EXPLAINED and broken <= 1 - EXPLAINED:
        return 1.0
    return 0.45 * max(0.0, mended - 2 * broken)


def _spectrum(trial: Trial, group: Sequence[int]) -> float:
    """Ochiai's coefficient of the operation being behind an output and the output being wrong (Abreu et al. 2006)."""
    wrong = [n for n in trial.behind if n in trial.case.wrong]
    right = [n for n in trial.behind if n not in trial.case.wrong]
    hit = sum(bool(trial.behind[n].intersection(group)) for n in wrong)
    clean = sum(bool(trial.behind[n].intersection(group)) for n in right)
    return float(hit / np.sqrt(max(len(wrong), 1) * max(hit + clean, 1)))


def _angelic(trial: Trial, groups: Groups) -> Iterator[Suspect]:
    """Places at which some value would have been right in every row; and if it is one we know, which."""
    for group in groups:
        op = trial.program.ops[group[0]]
        place = op.outputs[0]
        if len(group) > 1 or op.name in PASSING or op.dtypes[0].kind == "O":  # a key is not a number
            continue
        value = np.asarray(trial.values[place])
        if value.size not in (1, trial.rows):
            continue
        if value.dtype.kind == "b":
            if value.size != trial.rows:
                continue
            flipped = np.where(trial.diverging.reshape(value.shape), ~value, value)
            if trial.explains(trial.rerun({place: flipped})):
                why = "the other outcome is right in every row that differs"
                yield Suspect(SUFFICIENT, _site(trial, group), why, op.callers)
        elif value.dtype.kind == "f":
            try:
                right = solve_values(trial, place, value)
            except Spent:
                raise
            except Exception:  # a number for each row cannot stand here
                continue
            if right is not None:
                known = _relation(trial, group[0], place, value, right)
                score = CLIPPED if known.startswith("clipped") else KNOWN if known else SUFFICIENT
                why = known or "another value here is right in every row"
                yield Suspect(score, _site(trial, group), why, op.callers, missing=score == CLIPPED)


def _relation(trial: Trial, number: int, place: int, value: np.ndarray, right: np.ndarray) -> str:
    """In words, how the right values come from what is known at that point; "" if no simple way is found."""
    here = trial.diverging
    v, w = np.broadcast_to(value.astype(float).ravel(), (trial.rows,)), right
    apart = max(float(np.abs(w - v)[here].max(initial=0.0)), 1e-30)
    shape = trial.shape_of(place)

    def holds(guess: np.ndarray) -> bool:
        return bool(trial.explains(trial.rerun({place: guess.reshape(shape).astype(value.dtype)})))

    def near(guesses: np.ndarray) -> np.ndarray:
        """bool[...]: guesses (..., B) that are close to what was solved for; the solution has some noise itself."""
        return np.asarray((np.abs(guesses - w)[..., here] <= NOISE * apart).all(-1))

    with np.errstate(all="ignore"):
        usual = [float(np.nanmedian(ratio[here])) for ratio in (w / v, w - v)]
        plain = {"0 is right": 0 * v, "it has the other sign": -v}
        plain |= {f"it is right times {usual[0]:.6g}": v * usual[0], f"it is right plus {usual[1]:.6g}": v + usual[1]}
        low, high = float(w[here].min()), float(w[here].max())
        plain |= {f"clipped to [{a:.6g}, {b:.6g}] is right": np.clip(v, a, b)
                  for a, b in ((low, high), (-np.inf, high), (low, np.inf)) if a < b}  # fmt: skip
        for text, guess in plain.items():
            if near(guess) and holds(guess):
                return text
        known = scope(trial, number)
        names = [name for name, _ in known]
        z = np.array([np.broadcast_to(np.asarray(o, float).ravel(), (trial.rows,)) for _, o in known])
        for text, guesses in (
            ("{0} is right", z), ("minus {0} is right", -z), ("it is right plus {0}", v + z),
            ("it is right minus {0}", v - z), ("{0} minus it is right", z - v), ("it is right times {0}", v * z),
            ("it is right over {0}", v / z), ("it is right times {0} squared", v * z * z),
            ("{0} squared is right", z * z), ("{0} over it is right", z / v),
        ):  # fmt: skip
            for at in np.flatnonzero(near(guesses))[:TRIED]:
                if holds(guesses[at]):
                    return text.format(names[at])
        a, b = z[-SOME:, None], z[None, -SOME:]
        for text, pairs in (
            ("{0} times {1} is right", a * b), ("{0} plus {1} is right", a + b), ("{0} minus {1} is right", a - b),
            ("{0} over {1} is right", a / b), ("it is right plus {0} times {1}", v + a * b),
            ("it is right minus {0} times {1}", v - a * b), ("it is right times {0} times {1}", v * a * b),
            ("it is right times {0} over {1}", v * a / b), ("it is right plus {0} minus {1}", v + a - b),
        ):  # fmt: skip
            for i, k in np.argwhere(near(pairs))[:TRIED]:
                if holds(pairs[i, k]):
                    return text.format(names[-SOME:][i], names[-SOME:][k])
        slope, offset = np.polyfit(v[here], w[here], 1) if np.ptp(v[here]) > 0 else (0.0, 0.0)
        if slope and near(offset + slope * v) and holds(offset + slope * v):
            return f"{offset:.6g} plus {slope:.6g} times it is right"
    return ""
