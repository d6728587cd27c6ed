"""For a space that the target declares otherwise than the reference, the lines that declare it.

A space is made when the target is opened: nothing of it is traced. Each number that is defined there is set otherwise,
the target imported anew, and the bounds looked at that it has then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import Space, Spec
from pytest_envequiv.bench import Bench
from pytest_envequiv.levels.cases import MOST_DEFINED, imported, own_definitions, own_lines
from pytest_envequiv.spaces import bare, bounds_apart, constants_apart
from pytest_envequiv.whitebox import sources
from pytest_envequiv.whitebox.blame.suspects import Suspect, in_order
from pytest_envequiv.whitebox.definitions import Definition, changed, instead

MOST_BESIDE = 6  # definitions of one statement that are exchanged
MOST_TRIED = 9  # numbers that one definition is given
RIGHT, PART = 0.92, 0.3  # score of a number with which all bounds are right; of one that the wrong bounds are made of
DECLARED = 0.25  # of a line that declares the space


def spaces(bench: Bench, root: str, typed: bool = True) -> list[Suspect]:
    """Lines of the target by which its action or observation space (``root``) is what it is, the best first. ``typed``:
    where the bounds are nearly the reference's, their type may be at fault."""
    backend: Any = bench.pair.target.backend
    running = set.union(*(sources.sites_of(backend.traced(what).closed) for what in ("step", "reset")))
    busy = {(s.file, s.function.rpartition(".")[2]) for s in running}
    lines = sources.executed(
        lambda: open_backend(bench.settings.target, dict(bench.pair.contract.target_options), bench.pair.ref.spec),
        {s.file for s in running},
    )
    idle = [s for s in lines if (s.file, s.function) not in busy and s.function != "<module>"]

    def rank(function: str) -> int:
        return 2 * (root not in function) + ("space" not in function)

    idle.sort(key=lambda s: (rank(s.function), "return" not in sources.code(s), s.line))
    best = [s for s in idle if rank(s.function) == rank(idle[0].function)]
    apart, count = _bounds_apart(bench, root)
    written = sources.array_elements(best, count)
    exact = [place for element in apart for place in written.get(element, [])]
    # All bounds at once: it is not an element that is wrong, but what is made of them.
    whole = [s for s in best if "return" in sources.code(s)] if len(apart) == count else []
    declared = sources.assigned_places(own_lines(bench) or {}, f"{root}_sp")
    if typed and _nearly(bench, root):  # bounds that are only rounded
        whole = [s for s in (*best, *declared) if "dtype" in sources.code(s)] + whole
    unlike = constants_apart(bench.pair)
    settings = [p for name, p in sources.setting_sites(backend.functional.params).items() if bare(name) in unlike]
    found = [
        *in_order(settings, 0.95, "the reference has another value"),
        *in_order([*whole, *exact], 0.9, f"this bound of the {root} is another than the reference's"),
        *in_order(idle, 0.2, f"runs when the {root} space is made"),
        *in_order(declared, DECLARED, f"the {root} space is declared here"),
        *(_numbers(bench, root) if apart or not agreed(bench, root) else ()),
    ]
    return sorted(found, key=lambda s: -round(s.score, 6))


def _nearly(bench: Bench, root: str) -> bool:
    """Whether the bounds of a kind of space differ by less than a hundredth, or by what a whole number lacks."""
    boxes = [(a, b) for a, b in _matched(bench, root) if a.kind == "box"]
    pairs = [(x, y) for a, b in boxes for x, y in ((a.low, b.low), (a.high, b.high)) if np.shape(x) == np.shape(y)]
    return all(np.allclose(x, y, rtol=1e-2) or np.array_equal(np.trunc(x), y) for x, y in pairs)


def _bounds_apart(bench: Bench, root: str) -> tuple[list[int], int]:
    """(elements whose bounds differ, number of elements) of the first space of a kind that differs."""
    for ours, theirs in _matched(bench, root):
        if ours.kind == theirs.kind == "box" and ours.shape == theirs.shape:
            apart = bounds_apart(ours, theirs).tolist()
            if apart:
                return apart, int(np.prod(ours.shape, dtype=int))
    return [], -1


def agreed(bench: Bench, root: str) -> bool:
    """Whether the spaces of a kind have the sizes and bounds of the reference's."""
    return all(_same(a, b) for a, b in _matched(bench, root))


def _matched(bench: Bench, root: str) -> list[tuple[Space, Space]]:
    """The spaces of a kind, of the reference and of the target; those of other sizes included."""
    ours, theirs = (_of_kind(side.spec, root) for side in (bench.pair.ref, bench.pair.target))
    return [(ours[name], theirs[other]) for other, name in _names(bench, root).items()]


def _names(bench: Bench, root: str) -> Mapping[str, str]:
    """Target name -> reference name; where none are matched, in the order in which they are declared."""
    ours, theirs = (_of_kind(side.spec, root) for side in (bench.pair.ref, bench.pair.target))
    matched = bench.pair.actions if root == "action" else bench.pair.observations
    return matched or dict(zip(theirs, ours, strict=False))


def _of_kind(spec: Spec, root: str) -> Mapping[str, Space]:
    return spec.action if root == "action" else spec.observation


# -- numbers set otherwise ---------------------------------------------------------------------------------------------


def _numbers(bench: Bench, root: str) -> Iterator[Suspect]:
    """Definitions that the space is made of, above all those of which another value, or an exchange, mends it."""
    found = own_definitions(bench, names=True) or []
    ours, theirs = ([pair[side] for pair in _matched(bench, root)] for side in (0, 1))
    if len(found) > MOST_DEFINED:
        return
    beside: dict[int, list[tuple[Definition, float]]] = {}
    for definition in found:
        first = _declared(bench, root, [(definition, None)])
        if first is None or not first[1] or first[1][0][0] == first[1][0][1]:
            continue
        ((old, new),) = first[1]
        share = _shares(theirs, first[0])
        if share is not None and not share.any():
            continue
        beside.setdefault(definition.beside, []).append((definition, old))
        tried = _wanted(ours, theirs, share, old, new)
        right = next((v for v in tried if _right(ours, _declared(bench, root, [(definition, v)]))), None)
        if right is not None:
            why = f"{definition.name or 'it'} = {right:.6g} in the place of {old:.6g}"
            yield Suspect(RIGHT, definition.place, f"{why} makes the {root} space the reference's")
        else:
            yield Suspect(PART, definition.place, f"the {root} space is made of it")
    for together in beside.values():
        for (one, a), (other, b) in combinations(together[:MOST_BESIDE], 2):
            if a != b and _right(ours, _declared(bench, root, [(one, b), (other, a)])):
                for definition in (one, other):
                    yield Suspect(RIGHT, definition.place, f"{a:.6g} and {b:.6g} exchanged")


# The target's spaces, in the order of ``_names``, and (number before, number there now) of each definition met.
Declared = tuple[list[Space], list[tuple[float, float]]]


def _declared(bench: Bench, root: str, chosen: Sequence[tuple[Definition, float | None]]) -> Declared | None:
    """What the target declares with other values of definitions (None: one next to it); None if it cannot be opened."""

    def read(backend: Any) -> list[Space]:
        given = _of_kind(backend.spec, root)
        return [given[name] for name in _names(bench, root)]

    file = chosen[0][0].place.file
    text = changed(sources.text_of(file), [definition for definition, _ in chosen])
    with instead([value for _, value in chosen]) as seen:
        found = imported(bench, file, text, read)
    return None if found is None else (found, [seen[n] for n in sorted(seen)])


def _right(ours: Sequence[Space], found: Declared | None) -> bool:
    return found is not None and all(map(_same, ours, found[0]))


def _same(a: Space, b: Space) -> bool:
    """Whether two spaces have the same size and bounds."""
    return int(np.prod(a.shape)) == int(np.prod(b.shape)) and np.allclose(_bounds([a]), _bounds([b]), rtol=1e-5)


def _bounds(given: Sequence[Space]) -> np.ndarray:
    """float[n]: all lower and upper bounds of some spaces."""
    parts = [np.ravel(np.broadcast_to(x, s.shape)).astype(float) for s in given for x in (s.low, s.high)]
    return np.concatenate([np.zeros(0), *parts])


def _shares(before: Sequence[Space], after: Sequence[Space]) -> np.ndarray | None:
    """float[n]: by how much each bound has moved; None if there are more of them, or fewer."""
    a, b = _bounds(before), _bounds(after)
    with np.errstate(invalid="ignore"):
        return None if a.shape != b.shape else np.nan_to_num(b - a, nan=0.0, posinf=0.0, neginf=0.0)


def _wanted(
    ours: Sequence[Space], theirs: Sequence[Space], share: np.ndarray | None, old: float, new: float
) -> list[float]:
    """Numbers with which a bound that is wrong would be right, as far as it follows the number in a straight line; for
    spaces of another size, those of the reference's."""
    goal, now = _bounds(ours), _bounds(theirs)
    if share is None or goal.shape != now.shape:
        sizes = [float(n) for s in ours for n in (*s.shape, np.prod(s.shape, dtype=int))]
        more = [old + np.prod(a.shape) - np.prod(b.shape) for a, b in zip(ours, theirs, strict=True)]
        return [n for n in dict.fromkeys([*sizes, *more, old + 1, old - 1]) if n != old]
    with np.errstate(invalid="ignore"):
        wrong = (share != 0) & ~np.isclose(goal, now, rtol=1e-5) & np.isfinite(goal - now)
        solved = old + (goal - now)[wrong] * (new - old) / share[wrong]
    # What was written has few digits; bounds of 32 bits have lost some.
    return list(dict.fromkeys(float(f"{v:.{digits}g}") for digits in (3, 5, 8) for v in solved))[:MOST_TRIED]
