"""Lines at fault on which nothing is computed: a value was given the wrong name, handed on as it is, or left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.whitebox import rewrites
from pytest_envequiv.whitebox.blame import edits
from pytest_envequiv.whitebox.blame.names import function_at, variables
from pytest_envequiv.whitebox.blame.suspects import Suspect
from pytest_envequiv.whitebox.blame.trial import PASSING, Trial, scope
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Op, read
from pytest_envequiv.whitebox.sources import Silent, function_starts, nodes_in, statement_lines, text_of

BEFORE, NEAREST = 0.03, 10  # score of the lines before a call that leads to what is wrong; how many are told of
LEFT_OUT = 0.3  # score of a line near which something is missing, of which is known only what it should give
UNREAD, FEW_LINES = 0.55, 3  # of one of a few lines of a function that does not read what it is given
EXCHANGED = 0.94
NAMED, AGAIN = 0.94, 0.9395  # of a line that names what should be another value, or computes that once more
LOOSE = 0.89  # of a line that may pass on what is read where another value would be right: not known to be that one


def misnamed(trial: Trial, names: Mapping[str, Sequence[Site]]) -> Iterator[Suspect]:
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
        # A state field that has a name of its own is not returned under another.
        rest = () if own and output.startswith("state.") else everywhere
        for values, places, weight in ((known, own, NAMED), (returned, rest, NAMED), (known, rest, 0.93)):
            name = next((n for n, value in values if n != output and _is(trial, output, value)), None)
            if name is not None:
                # The line that computes what is right is not at fault.
                wrong = [place for place in places if name != f"what line {place.line} computes"]
                yield from (Suspect(weight - 1e-4 * n, place, f"{name} is right") for n, place in enumerate(wrong))
                again = _own_lines(trial, output) if computed and wrong and weight == NAMED else []
                yield from (Suspect(AGAIN, place, f"{name} is right") for place in again if len(again) <= FEW_LINES)


def _own_lines(trial: Trial, output: str) -> list[Site]:
    """Lines on which an output is computed and none that is right."""
    others = (numbers for name, numbers in trial.behind.items() if name not in trial.case.wrong)
    numbers = sorted(set(trial.behind[output]).difference(*others))
    sites = (op.site for op in (trial.program.ops[n] for n in numbers) if op.name not in PASSING)
    return list(dict.fromkeys(site for site in sites if site is not None))


def left_out(trial: Trial, names: Mapping[str, Sequence[Site]]) -> Iterator[Suspect]:
    """Where something is not done that here and there should be: an output that is right in most rows, and should be
    one number in all others, with nothing in its computation to explain it. The lines between the last operation on it
    and the line that gives it its name."""
    for output in sorted(trial.case.wrong & trial.outputs.keys()):
        right, made = _one_number(trial, output), _maker(trial, output)
        if right is None or made is None:
            continue
        function = made.file, made.function.rpartition(".")[2]
        for place in (p for p in names.get(output, ()) if (p.file, p.function) == function and p.line > made.line):
            for n, line in enumerate(statement_lines(made.file, made.line + 1, place.line)):
                site = Site(made.file, line, line, function=made.function)
                why = f"{right:.6g} is right here and there: something is missing after line {made.line}"
                yield Suspect(LEFT_OUT - 1e-3 * n, site, why)


def unread(silent: Sequence[Silent]) -> Iterator[Suspect]:
    """Lines that compute nothing, in functions that name something and never read it: it may be missing there."""
    lines: dict[tuple[str, ast.FunctionDef], list[Site]] = {}
    for place in (s.place for s in silent if not s.busy):
        function = function_at(text_of(place.file), place.function, place.line)
        if function is not None:
            lines.setdefault((place.file, function), []).append(place)
    for (_, function), places in lines.items():
        names = rewrites.unread(function)
        for place in places if names else ():
            score = UNREAD if len(places) <= FEW_LINES else LEFT_OUT
            why = f"nothing reads {', '.join(names)}, and nothing is computed here"
            yield Suspect(score, place, why, missing=True)


def _one_number(trial: Trial, output: str) -> float | None:
    """What an output should be in every row in which it is wrong, if that is one number where several came out, and
    other rows are right."""
    counts, expected = trial.case.counts[output], trial.case.expected[output]
    wrong = trial.diverging & counts
    if not wrong.any() or expected.shape[1] != 1 or not (counts & ~wrong).any():
        return None
    actual = np.asarray(read(trial.values, trial.outputs[output])).reshape(trial.rows, -1)
    one = not (expected[wrong] != expected[wrong][0]).any() and (actual[wrong] != actual[wrong][0]).any()
    return float(expected[wrong][0, 0]) if one else None


def _maker(trial: Trial, output: str) -> Site | None:
    """Where the last operation on an output stands that does more than pass it on."""
    atom = trial.outputs[output]
    while atom in trial.makers and trial.program.ops[trial.makers[atom]].name in PASSING:
        atom = trial.program.ops[trial.makers[atom]].inputs[0]
    return trial.program.ops[trial.makers[atom]].site if atom in trial.makers else None


def before_calls(trial: Trial) -> Iterator[Suspect]:
    """Where hardly anything is computed for what is wrong, something else may have been meant to be handed on: the
    statements before the calls that led to it, the nearest first."""
    calls = dict.fromkeys(c for n in sorted(trial.suspected) for c in trial.program.ops[n].callers)
    for call in calls:
        first = max((s for s in function_starts(call.file) if s < call.line), default=call.line)
        lines = statement_lines(call.file, first + 1, call.line)
        for n, line in enumerate(reversed(lines[-NEAREST:])):
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


def unchanged(trial: Trial, silent: Sequence[Silent]) -> Iterator[Suspect]:
    """Lines that pass an input on as it is, where a function of it would be right wherever it is used."""
    ops = trial.program.ops
    inputs: dict[Any, int] = {place: place for place in trial.program.inputs}
    for op in ops:
        if op.name in PASSING and op.inputs and op.inputs[0] in inputs:
            inputs[op.outputs[0]] = inputs[op.inputs[0]]
    told = {(v.place.file, v.place.line) for together in variables(trial) for v in together}  # by their variables
    idle = (line for line in silent if not line.busy and (line.place.file, line.place.line) not in told)
    for line in idle:
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


def exchanged(trial: Trial) -> Iterator[Suspect]:
    """Lines that hand on two fields of the state, where all would be right if each were the other."""
    inputs = dict(zip(trial.case.traced.inputs, trial.program.inputs, strict=True))
    fields = [(name.rpartition(".")[2], place) for name, place in inputs.items() if name.startswith("state.")]
    for (a, one), (b, other) in combinations(fields, 2):
        x, y = np.asarray(trial.values[one]), np.asarray(trial.values[other])
        alike = x.shape == y.shape and x.dtype == y.dtype and x.dtype.kind in "fiub"
        if alike and (x != y).any() and trial.explains(trial.rerun({one: y, other: x})):
            for place in dict.fromkeys((*_hands_on(trial, {a, b}), *_unpacks(trial, {one, other}))):
                yield Suspect(EXCHANGED, place, f"{a} and {b} exchanged")


def _hands_on(trial: Trial, names: set[str]) -> Iterator[Site]:
    """Statements that name all of some attributes, and compute nothing."""
    sites = [op.site for op in trial.program.ops if op.site is not None]
    for file in dict.fromkeys(site.file for site in sites):
        busy = {site.line for site in sites if site.file == file}
        for node in nodes_in(text_of(file)):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                read = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                if names <= read and busy.isdisjoint(lines):
                    yield Site(file, lines[0], lines[-1])


def _unpacks(trial: Trial, places: set[int]) -> Iterator[Site]:
    """Statements that give several names at once to what stands somewhere, where operations on some inputs read one of
    these names."""
    for op in (trial.program.ops[n] for place in sorted(places) for n in trial.users.get(place, ())):
        if op.site is None:
            continue
        text = text_of(op.site.file)
        read = {n.id for n in nodes_in(text) if isinstance(n, ast.Name) and n.lineno == op.site.line}
        function = function_at(text, op.site.function.rpartition(".")[2], op.site.line)
        for node in ast.walk(function) if function else ():
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)):
                continue
            named = {n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)}
            handed = isinstance(node.value, ast.Name | ast.Attribute | ast.Subscript)
            if handed and named & read and node.lineno <= op.site.line:
                yield Site(op.site.file, node.lineno, node.end_lineno or node.lineno, function=op.site.function)


def _instead(trial: Trial, number: int, old: int, inputs: Mapping[Any, int], place: int) -> Op:
    """The operation, with another value where it reads the input ``old``."""
    op = trial.program.ops[number]
    for slot, atom in enumerate(op.inputs):
        if inputs.get(atom) == old:
            op = edits.reading(op, slot, place, trial.values[atom])  # type: ignore[index]
    return op
