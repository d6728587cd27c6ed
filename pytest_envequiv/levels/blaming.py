"""For a divergence, the lines of the target that explain it. Works where the target can be traced."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from typing import Any

from pytest_envequiv.bench import Bench, Step
from pytest_envequiv.comparison.roots import output_name
from pytest_envequiv.levels.beginnings import shared
from pytest_envequiv.levels.cases import ROWS, defined, reset_case, step_case
from pytest_envequiv.levels.declaring import agreed, spaces
from pytest_envequiv.verdict import Verdict
from pytest_envequiv.whitebox import sources
from pytest_envequiv.whitebox.blame.ranking import SUFFICIENT, blame
from pytest_envequiv.whitebox.blame.suspects import Suspect, in_order
from pytest_envequiv.whitebox.blame.trial import PASSING, Case
from pytest_envequiv.whitebox.dataflow import slices
from pytest_envequiv.whitebox.definitions import moved
from pytest_envequiv.whitebox.jaxprs import Site, Traced
from pytest_envequiv.whitebox.program import Constant, Op, flat
from pytest_envequiv.whitebox.provenance import came_by

NAMED = 10  # suspects in a report
PASSED_ON = 0.985  # of a suspect's score goes to a line that only hands it a value
HANDED_ON = 0.9  # to one that also computes something else, or by a call
HANDED_DOWN = 0.945  # score up to which another value may be right where one is read, and not another operation
CALLED_THERE = 0.895  # of the best one's to the line that calls the function it is in
DIRECT = 2  # lines that come before those which set the numbers there, where nothing can be tried
DRAWN = 0.3  # of a line that draws, where the reference draws from other bounds or more finely
TOO_FEW = 16  # rows that differ, with which others are looked for
PART = 0.84  # at most, of a line of an expression on which no operation begins


def suspects(bench: Bench, verdict: Verdict, step: Step | None) -> list[dict[str, Any]]:
    """The lines of the target that explain a root DIFFERENT, best first: {"file", "line", "code", "score", "why"}.

    Empty where the target cannot be traced, and for what is not about the target's code. Never raises: a verdict does
    not depend on who is to blame for it.
    """
    if not bench.pair.target.spec.traceable:
        return []
    try:
        found = _suspects(bench, verdict, step)
    except Exception as error:
        verdict.evidence["blame_failed"] = f"{type(error).__name__}: {error}"
        return []
    best: dict[tuple[str, int], Suspect] = {}
    for suspect in found:
        line = sources.operator_line(suspect.site)
        if line != suspect.site.line:  # its operator first, then where it begins
            best.setdefault((suspect.site.file, line), replace(suspect, site=replace(suspect.site, line=line)))
        best.setdefault((suspect.site.file, suspect.site.line), suspect)
    return [
        {
            "file": sources.short(s.site.file),
            "line": s.site.line,
            "code": sources.code(s.site),
            "score": round(s.score, 3),
            "why": s.why,
        }
        for s in list(best.values())[:NAMED]
    ]


def _suspects(bench: Bench, verdict: Verdict, step: Step | None) -> list[Suspect]:
    check = verdict.check
    followers = verdict.evidence.get("followers", [])
    backend: Any = bench.pair.target.backend
    where = sources.setting_sites(backend.functional.params)
    if step is not None:
        step = _with_rows(bench, step, check.field)
        called, silent = _written_in(backend, "step", _outputs_of(bench, [check.field, *followers]))
        case, given = step_case(bench, step, check.field, followers), defined(bench, "step")
        found = [*blame(case, where, called, silent, given), *_begun(bench, case)]
        return _with_silent(_with_idle(found, backend.traced("step")), silent)
    if check.subject == "reset" and check.field != "joint":
        step = shared(bench)
        if step is not None and step.found[check.field].rows.any():
            others = [n for n, f in step.found.items() if f.rows.any() and n != check.field]
            called, silent = _written_in(backend, "reset", _outputs_of(bench, [check.field, *others]))
            case, given = reset_case(bench, step, check.field, others), defined(bench, "reset")
            found = [*blame(case, where, called, silent, given), *_drawn(bench, case)]
            return _with_silent(_with_idle(found, backend.traced("reset")), silent)
    if check.subject in ("reset", "seeds") or (check.subject, check.field) == ("draws", "reset"):
        written = [s.site for s in _written(backend, "reset")]
        if check.subject == "draws":  # what they are drawn from is another
            decisive = _deciding(bench, "reset", lambda op: op.name == "draw")
            match = bench.pair.reset_match
            coarse = match is not None and not match.moved  # the bounds are right
            return in_order([*written, *decisive] if coarse else [*decisive, *written], 0.2, "part of the reset")
        behind = _deciding(bench, "reset", _on(written))
        return in_order([*written[:DIRECT], *behind, *written[DIRECT:]], 0.2, "part of the reset")
    if check.subject in ("spec", "contains"):
        as_declared = check.subject == "contains" or agreed(bench, check.field)
        return _shown(bench, check.field) if as_declared else spaces(bench, check.field)
    if check.subject in ("action_range", "illegal_action"):
        return _reading(bench, "action.")
    if check.subject == "auto_reset":
        return _retyped(backend) or _written(backend, "auto", but="step")
    return _behind(backend, check.field, bench)


def _with_rows(bench: Bench, step: Step, field: str) -> Step:
    """The step, or another in which the field differs in more rows: a few can be explained by too much."""

    def differing(step: Step | None) -> int:
        return 0 if step is None or field not in step.found else int(step.found[field].rows.sum())

    if differing(step) >= TOO_FEW or bench.pair.blocked is not None:
        return step
    return max((step, *(s for source in ("play", "boundary") if (s := bench.step(source)) is not None)), key=differing)


def _begun(bench: Bench, case: Case) -> list[Suspect]:
    """Lines of the reset that give a state field its first value, of which a wrong output is made: first those of a
    count that begins elsewhere than the reference's, or of a field that has another type after a step."""
    backend: Any = bench.pair.target.backend
    traced = backend.traced("step")
    program = flat(traced.closed)
    places = dict(zip(program.inputs, traced.inputs, strict=True))
    read = {places[a] for op in _ops_behind(traced, case.root) for a in op.inputs if a in places}
    shifted = {f"state.{link.field}" for link in bench.pair.map.links if link.recode}
    names = _written_in(backend, "reset")[0]
    found = []
    for field in sorted({*read, *case.root}):
        retyped = field.partition(".")[2] in backend.retyped and field in case.root
        score = 0.6 if retyped else 0.5 if field in shifted else 0.02
        why = "it has another type after a step" if retyped else f"{field.partition('.')[2]} begins here"
        found += [Suspect(score - 1e-4 * n, place, why) for n, place in enumerate(names.get(field, ()))]
    return found


def _drawn(bench: Bench, case: Case) -> list[Suspect]:
    """The lines that draw what a wrong output of a reset is made of. Draws are given in a trial: that they are drawn
    between other bounds, or as another type, is not to be seen there."""
    match = bench.pair.reset_match
    own = match is not None and (match.scaled or match.coarse)
    sites = {op.site for op in _ops_behind(case.traced, case.root) if op.name == "draw" and op.site is not None}
    return in_order(sorted(sites), DRAWN if own else 0.04, "it is drawn here")


def _outputs_of(bench: Bench, names: Container[str]) -> set[str]:
    """What fields of the pair are called among the outputs of the target's program."""
    return {output_name(field) for field in bench.pair.fields if field.name in names}


def _written_in(
    backend: Any, what: str, wrong: Container[str] = ()
) -> tuple[dict[str, list[Site]], list[sources.Silent]]:
    """Of the functions in which operations of a step or reset are written: {output: lines at which a value is called
    so, "": what they return}, and the lines that only pass on a value. ``wrong``: outputs that are looked at."""
    traced = backend.traced(what)
    sites = sources.sites_of(traced.closed)
    files, functions = sorted({s.file for s in sites}), {s.function.rpartition(".")[2] for s in sites}
    called = {"": sources.returned_places(files, functions)}
    for output in traced.outputs:
        leaf = output.rpartition(".")[2]
        called[output] = sources.named_places(files, functions, {leaf, *CALLED.get(leaf, ())})
    busy = {(s.file, line) for s in sites for line in range(s.line, s.end_line + 1)}
    behind = _lines_behind(traced, wrong) if wrong else busy
    return called, sources.silent_lines(files, sources.called_functions(files, functions), busy, behind)


def _lines_behind(traced: Traced, wrong: Container[str]) -> set[tuple[str, int]]:
    """(file, line) of the operations by which outputs are computed."""
    sites = {op.site for op in _ops_behind(traced, wrong) if op.site is not None and op.name not in PASSING}
    return {(s.file, line) for s in sites for line in range(s.line, s.end_line + 1)}


def _ops_behind(traced: Traced, outputs: Container[str]) -> list[Op]:
    """The operations by which some outputs are computed."""
    program = flat(traced.closed)
    sliced = zip(traced.outputs, slices(program), strict=True)
    return [program.ops[n] for n in sorted({n for output, behind in sliced if output in outputs for n in behind})]


# What else outputs are called in people's code.
CALLED = {
    "reward": ("rewards", "rew", "r"),
    "terminated": ("done", "terminal", "terminate", "dones"),
    "truncated": ("done", "truncate", "timeout"),
    "done": ("terminated", "terminal"),
    "observation": ("obs", "observations"),
}


def _with_silent(found: list[Suspect], silent: list[sources.Silent]) -> list[Suspect]:
    """The suspects, the best first; and the lines that pass values to or from the best of them without computing
    anything, or call what the first is in."""
    more = []
    for suspect in (s for s in found if s.score >= SUFFICIENT):
        for other in silent:
            lines = other.used | other.made
            here = suspect.site.file == other.place.file and suspect.site.line in lines
            # What is handed to the call, and what hands on what it gave: not what makes another output of that.
            around = () if other.fixed else other.used if other.calls or (other.busy and not other.last) else lines
            called = any(c.file == other.place.file and c.line in around for c in suspect.callers)
            if here or called:
                score = suspect.score * (PASSED_ON if here and not other.busy else HANDED_ON)
                more.append(Suspect(score, other.place, f"passes on what line {suspect.site.line} uses"))
    for suspect in (s for s in found if s.score >= SUFFICIENT and (s.score <= HANDED_DOWN or s.swapped)):
        for n, place in enumerate(came_by(suspect.site, suspect.callers)):
            score = suspect.score * PASSED_ON - 1e-4 * n
            more.append(Suspect(score, place, f"hands on what line {suspect.site.line} reads"))
    for suspect in (s for s in found if s.swapped and s.score >= SUFFICIENT):
        for n, place in enumerate(sources.unpacked_together(suspect.site)):
            score = suspect.score * PASSED_ON - 1e-4 * n
            more.append(Suspect(score, place, f"hands on together what line {suspect.site.line} uses"))
    for call in (c for s in found[:1] if s.score >= SUFFICIENT for c in s.callers[:1]):
        more.append(Suspect(found[0].score * CALLED_THERE, call, f"calls what line {found[0].site.line} is in"))
    for suspect in (s for s in found if s.missing):
        line = sources.next_statement(suspect.site)
        if line is not None:
            site = replace(suspect.site, line=line, end_line=line)
            more.append(Suspect(suspect.score * PASSED_ON, site, f"what line {suspect.site.line} lacks may stand here"))
    return sorted([*found, *more], key=lambda s: -round(s.score, 6))


def _with_idle(found: list[Suspect], traced: Traced) -> list[Suspect]:
    """The suspects, and further lines of the expressions of the best of them on which no operation begins: what stands
    there was computed when the target was traced."""
    busy = {(s.file, s.line) for s in sources.sites_of(traced.closed)}
    more = []
    for suspect in (s for s in found if s.score >= SUFFICIENT):
        for site in _parts(suspect.site):
            if (site.file, site.line) not in busy:
                score = min(suspect.score * PASSED_ON**2, PART)
                more.append(Suspect(score, site, f"part of what line {suspect.site.line} computes"))
    return sorted([*found, *more], key=lambda s: -round(s.score, 6))


# -- where nothing can be tried --------------------------------------------------------------------------------------


def _written(backend: Any, what: str, but: str = "") -> list[Suspect]:
    """The lines of one function, without those of another: those that draw first, then those that hand them numbers."""
    others = {(s.file, s.line) for s in sources.sites_of(backend.traced(but).closed)} if but else set()
    program = flat(backend.traced(what).closed)
    drawing = {op.site for op in program.ops if op.name == "draw" and op.site}
    drawn = {(s.file, line) for s in drawing for line in range(s.line, s.end_line + 1)}
    _, silent = _written_in(backend, what)
    handing = [s.place for s in silent if any((s.place.file, line) in drawn for line in s.used)]
    inside = [part for site in sorted(drawing) for part in _parts(site)]
    sites = sorted({op.site for op in program.ops if op.site} - drawing)
    found = [s for s in (*sorted(drawing), *inside, *handing, *sites) if (s.file, s.line) not in others]
    return in_order(found, 0.1, f"part of the {what}")


def _parts(place: Site) -> list[Site]:
    """The further lines of an expression on which more stands than brackets."""
    lines = (replace(place, line=line, end_line=line) for line in range(place.line + 1, place.end_line + 1))
    return [line for line in lines if sources.code(line).strip("()[]{}, ")]


def _retyped(backend: Any) -> list[Suspect]:
    """The lines that give their names to state fields that have another type after a step than after a reset: where an
    episode begins anew by itself, one has to stand for the other."""
    called = [_written_in(backend, what)[0] for what in ("step", "reset")]
    places = [place for name in backend.retyped for names in called for place in names.get(f"state.{name}", [])]
    return in_order(places, 0.6, "a state field has another type after a step than after a reset")


def _reading(bench: Bench, prefix: str) -> list[Suspect]:
    """The lines that read some inputs of a step, those that read them first; and what sets the numbers there."""
    traced = bench.pair.target.backend.traced("step")  # type: ignore[attr-defined]
    program = flat(traced.closed)
    known = {p for name, p in zip(traced.inputs, program.inputs, strict=True) if name.startswith(prefix)}
    found = []
    for op in program.ops:
        if known.intersection(a for a in op.inputs if not isinstance(a, Constant)):
            known |= set(op.outputs) if op.name in PASSING else set()
            found += [op.site] if op.site is not None else []
    lines = list(dict.fromkeys(found))
    decisive = _deciding(bench, "step", _on(lines))
    return in_order([*lines[:DIRECT], *decisive, *lines[DIRECT:]], 0.2, "the action is read here")


def _shown(bench: Bench, root: str) -> list[Suspect]:
    """What is shown is not what is declared: lines that give it a type, declare it or compute it."""
    names = [f.name for f in bench.pair.fields if f.name.partition(".")[0] == root]
    behind = [s for name in names for s in _behind(bench.pair.target.backend, name, bench)]
    typed = [s.site for s in behind if "dtype" in sources.code(s.site)]
    return [*in_order(typed, 0.3, f"the {root} is given a type here"), *spaces(bench, root, typed=False), *behind]


def _behind(backend: Any, name: str, bench: Bench) -> list[Suspect]:
    """The backward slice of one field: what it is computed by."""
    field = next((f for f in bench.pair.fields if f.name == name), None)
    traced = backend.traced("step")
    if field is None or output_name(field) not in traced.outputs:
        return []
    program = flat(traced.closed)
    numbers = slices(program)[traced.outputs.index(output_name(field))]
    found = sorted({place for n in numbers if (place := program.ops[n].site) is not None}, reverse=True)
    decisive = _deciding(bench, "step", _on(found[:DIRECT]))
    return in_order([*found[:DIRECT], *decisive, *found[DIRECT:]], 0.1, f"{name} is computed here")


def _deciding(bench: Bench, what: str, wanted: Callable[[Op], bool]) -> list[Site]:
    """Where numbers are set that go into some operations."""
    given = defined(bench, what)
    if given is None:
        return []
    program = flat(bench.pair.target.backend.traced(what, ROWS).closed)  # type: ignore[attr-defined]
    found = []
    for definition in given.definitions:
        other = given.retraced([(definition, None)])
        how = None if other is None else moved(program, other[0])
        if how is None:
            continue
        read = (op for op in program.ops if how.constants.keys() & {a for a in op.inputs if isinstance(a, int)})
        if any(wanted(op) for op in (*(program.ops[number] for number in how.ops), *read)):
            found.append(definition.place)
    return found


def _on(sites: Iterable[Site]) -> Callable[[Op], bool]:
    lines = {(site.file, site.line) for site in sites}
    return lambda op: op.site is not None and (op.site.file, op.site.line) in lines
