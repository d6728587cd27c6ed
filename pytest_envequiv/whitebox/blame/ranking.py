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
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from typing import Any

import numpy as np

from pytest_envequiv.whitebox.blame import edits
from pytest_envequiv.whitebox.blame.arguments import handed, vectors
from pytest_envequiv.whitebox.blame.brackets import restoring
from pytest_envequiv.whitebox.blame.defined import Defined, defined, reading
from pytest_envequiv.whitebox.blame.names import Programs, renamed
from pytest_envequiv.whitebox.blame.operands import operands
from pytest_envequiv.whitebox.blame.rewritten import rewritten
from pytest_envequiv.whitebox.blame.solving import numbers_for, solve_values, solved
from pytest_envequiv.whitebox.blame.suspects import Suspect
from pytest_envequiv.whitebox.blame.terms import missing
from pytest_envequiv.whitebox.blame.trial import (
    EXPLAINED,
    PASSING,
    Case,
    Spent,
    Trial,
    scope,
)
from pytest_envequiv.whitebox.blame.unwritten import before_calls, exchanged, left_out, misnamed, unchanged, unread
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Constant
from pytest_envequiv.whitebox.sources import Silent, element_place, operand_place, operator_line

FEW = 5  # suspects; where there are not as many, lines are told of that stand before what is wrong
SUFFICIENT = 0.5  # score of a value that could have been right in every row, by a relation nobody knows
KNOWN = 0.9  # score of one whose relation to what is known at that point is simple
PAIRED = 0.88  # of one that is right with two things that are known: one of them may be what should stand there
CLIPPED = 0.85  # of one that is right once it is clipped: the clip may also stand in another place
UNLIKE = 0.89  # of a setting of which the reference has another value, even if other things differ as well
SETTLED = 0.955  # at most, of a change that turns a condition round in every row: another number may be as good
ENOUGH = 0.9  # score with which no costlier kind of change is tried any more

NOISE = 0.02  # share of the largest correction by which a solved value may be off
MOST_ELEMENTS = 8  # of an array of settings that is tried element by element
MOST_CALLS = 48  # of a function, each of which is looked at alone
SOME, TRIED = 48, 8  # values in scope that are combined in pairs; guesses of one form that are tried

Groups = Sequence[Sequence[int]]  # numbers of operations that stand and fall together


def blame(
    case: Case,
    where: Mapping[str, Site],
    names: Mapping[str, Sequence[Site]],
    silent: Sequence[Silent] = (),
    given: Defined | None = None,
) -> list[Suspect]:
    """Suspected lines, the best first.

    where    constant -> the line that sets it
    names    output -> lines at which a value is given its name; under "" those of what is returned
    silent   lines that only pass on a value
    given    numbers that are set where nothing is traced
    """
    trial = Trial(case)
    if not trial.diverging.any():
        return []
    groups = list(trial.groups())
    many, single = [g for g in groups if len(g) > 1], [g for g in groups if len(g) == 1]
    best: dict[tuple[str, int, int], Suspect] = {}

    def keep(found: Iterator[Suspect]) -> None:
        for suspect in _borne(found):
            # Expressions that begin on one line may have their operators on others.
            key = suspect.site.file, suspect.site.line, operator_line(suspect.site)
            if key not in best or suspect.score > best[key].score:
                best[key] = suspect

    def reached(score: float) -> list[Suspect]:
        return [suspect for suspect in best.values() if suspect.score >= score]

    likely = (  # where these find what turns no condition round, that is as good as it gets
        _sliced(trial, groups),
        _settings(trial, where),
        _changed(trial, groups, edits.slips),
        _changed(trial, groups, edits.clips),
        _changed(trial, groups, edits.unrounded),
        _changed(trial, groups, restoring(trial)),
        _changed(trial, groups, edits.literals),
    )
    others = (
        _changed(trial, single, edits.inputs),
        misnamed(trial, names),
        unchanged(trial, silent),
        _tried(trial, renamed(trial)),
        _tried(trial, handed(trial)),
        _changed(trial, groups, edits.functions),
        _changed(trial, single, vectors),
        _changed(trial, many, edits.variables),
        chain(_angelic(trial, groups), _tried(trial, operands(trial, single))),
        _changed(trial, single, edits.variables),
        exchanged(trial),
        _changed(trial, groups, missing),
        _tried(trial, operands(trial, many)),
        _at_calls(trial, many, edits.variables),
    )
    with suppress(Spent):
        for found in likely:
            if not all(suspect.settled for suspect in reached(ENOUGH)):
                break
            keep(found)
        if given is not None:  # a number that comes from elsewhere is wrong there
            keep(defined(trial, given))
        for found in others:
            if reached(ENOUGH):
                break
            keep(found)
    if given is not None and not reached(ENOUGH):
        keep(rewritten(trial, given.reprogrammed))
    if not reached(SUFFICIENT):
        keep(left_out(trial, names))
    if not reached(CLIPPED):
        keep(unread(silent))
    if len(best) < FEW:
        keep(before_calls(trial))
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
                settled = score >= ENOUGH and kind is edits.slips and _settled(trial, values)
                score = min(score, SETTLED) if settled else score
                chooses = op.name in ("select_n", "choose")  # the first says which
                parts = [element_place(whole, e, len(op.inputs) - chooses) for e in edit.elements]
                if edit.operand is not None:
                    parts.append(operand_place(whole, edit.operand, len(op.inputs), chooses and edit.operand > 0))
                apart = [place for place in parts if place != whole]
                made = partial(Suspect, callers=op.callers, settled=settled, swapped=len(edit.elements) > 1)
                yield from (made(score, place, edit.why) for place in apart)
                yield made(score * (0.99 if apart else 1), whole, edit.why)


def _at_calls(trial: Trial, groups: Groups, kind: edits.Kind) -> Iterator[Suspect]:
    """Changes of what one call of a function is given, alone: the line of the call is suspected."""
    for number in (n for group in groups if len(group) <= MOST_CALLS for n in group):
        callers = trial.program.ops[number].callers
        for suspect in _changed(trial, [[number]], kind) if callers else ():
            yield replace(suspect, site=callers[0], callers=callers[1:])


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
    """Other values of a setting, or of an element of a short array of settings; two elements of it exchanged."""
    for name, place in trial.constants().items():
        size = np.size(trial.values[place])
        if name in where and size <= MOST_ELEMENTS:
            for element in range(size):
                for suspect in _setting(trial, name, place, element, where[name]):
                    yield suspect
                    yield from reading(trial, suspect, trial.users.get(place, ()))
            for a, b in combinations(range(size), 2):
                changed = np.array(trial.values[place])
                changed.flat[[a, b]] = changed.flat[[b, a]]
                score = _score(*trial.verdict(trial.rerun({place: changed})))
                if score > 0:
                    yield Suspect(score, where[name], f"{name}[{a}] and {name}[{b}] exchanged")


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


def _tried(trial: Trial, programs: Programs) -> Iterator[Suspect]:
    """Programs that were changed in several places at once, because of one line."""
    for place, why, weight, values in programs:
        if trial.explains(values):
            yield Suspect(weight, place, why)


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
        written = all(isinstance(atom, Constant) for atom in op.inputs)  # a number that is handed on
        if len(group) > 1 or (op.name in PASSING and not written) or op.dtypes[0].kind == "O":  # a key is not a number
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
                known, score = _relation(trial, group[0], place, value, right)
                why = known or "another value here is right in every row"
                yield Suspect(score, _site(trial, group), why, op.callers, missing=score == CLIPPED)


def _relation(trial: Trial, number: int, place: int, value: np.ndarray, right: np.ndarray) -> tuple[str, float]:
    """In words, how the right values come from what is known at that point, "" if no simple way is found; the score."""
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
                return text, CLIPPED if text.startswith("clipped") else KNOWN
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
                    return text.format(names[at]), KNOWN
        a, b = z[-SOME:, None], z[None, -SOME:]
        for text, pairs in (
            ("{0} times {1} is right", a * b), ("{0} plus {1} is right", a + b), ("{0} minus {1} is right", a - b),
            ("{0} over {1} is right", a / b), ("it is right plus {0} times {1}", v + a * b),
            ("it is right minus {0} times {1}", v - a * b), ("it is right times {0} times {1}", v * a * b),
            ("it is right times {0} over {1}", v * a / b), ("it is right plus {0} minus {1}", v + a - b),
        ):  # fmt: skip
            for i, k in np.argwhere(near(pairs))[:TRIED]:
                if holds(pairs[i, k]):
                    return text.format(names[-SOME:][i], names[-SOME:][k]), PAIRED
        slope, offset = np.polyfit(v[here], w[here], 1) if np.ptp(v[here]) > 0 else (0.0, 0.0)
        if slope and near(offset + slope * v) and holds(offset + slope * v):
            return f"{offset:.6g} plus {slope:.6g} times it is right", KNOWN
    return "", SUFFICIENT
