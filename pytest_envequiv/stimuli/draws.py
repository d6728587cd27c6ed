"""Draws: which of the target's are which of the reference's, and the tape that feeds one from the other.

Draws are matched by label (kind, shape, bounds), not by position; those of the same label in the order they are
made. A draw that can only have one value (equal bounds) is no draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pytest_envequiv.backends.protocol import Draw, Tape


@dataclass(frozen=True)
class Matching:
    """links: index of the target's draw -> label of the reference's. ``free``: target draws nothing is known of.

    moved    links whose bounds differ: text for each
    coarse   links whose numbers have half precision, where the reference draws more finely between the same bounds:
             text for each
    unused   reference draws that no target draw takes
    scaled   links by which not the value is handed on but where it lies between its bounds
    regrouped   the reference's draws are those that ``regrouped`` makes of them
    """

    links: dict[int, tuple[object, ...]]
    free: tuple[int, ...]
    unused: tuple[str, ...]
    moved: tuple[str, ...]
    coarse: tuple[str, ...] = ()
    scaled: frozenset[int] = frozenset()
    regrouped: bool = False

    @property
    def whole(self) -> bool:
        return not self.free and not self.unused

    def by_place(self) -> Matching:
        """The same, for a target that draws from other bounds and makes of it what the reference draws: a number
        between -1 and 1 that is then multiplied. The bounds are no difference then."""
        return replace(self, scaled=frozenset(self.links), moved=())


def labels(tape: Tape) -> list[tuple[object, ...]]:
    """One label a draw: kind, shape, site and which of that kind, shape and site it is."""
    counted: dict[tuple[object, ...], int] = {}
    found: list[tuple[object, ...]] = []
    for draw in tape:
        key = (draw.kind, draw.shape, draw.site)
        counted[key] = counted.get(key, 0) + 1
        found.append((*key, counted[key]))
    return found


def trivial(draw: Draw) -> bool:
    """Whether the bounds leave it one value only."""
    low, high = _bounds(draw)
    if draw.kind == "uniform":
        return bool(np.all(low == high))
    if draw.kind == "integers":
        return bool(np.all(high - low <= 1))
    if draw.kind == "bernoulli":
        return bool(np.all((low <= 0) | (low >= 1)))
    return int(np.prod(draw.shape)) == 0


def match(reference: Tape, target: Tape) -> Matching:
    """Match two sample tapes of the same kind of call (reset, or step)."""
    theirs = {label: d for label, d in zip(labels(reference), reference, strict=True) if not trivial(d)}
    links: dict[int, tuple[object, ...]] = {}
    moved = []
    wanted = [i for i, d in enumerate(target) if not trivial(d)]
    for strict in (True, False):  # first those whose bounds agree too
        for i in wanted:
            if i in links:
                continue
            for label, draw in theirs.items():
                if label not in links.values() and _fits(draw, target[i], strict):
                    links[i] = label
                    if not strict:
                        moved.append(
                            f"{target[i].kind} at {target[i].site} is drawn from {_range(target[i])}, "
                            f"the reference's at {draw.site} from {_range(draw)}"
                        )
                    break
    pairs = [(target[i], theirs[label]) for i, label in links.items()]
    return Matching(
        links,
        tuple(i for i in wanted if i not in links),
        tuple(f"{d.kind}{list(d.shape)} at {d.site}" for label, d in theirs.items() if label not in links.values()),
        tuple(moved),
        tuple(
            f"{d.kind} at {d.site} is drawn as {d.value.dtype}, of few values, the reference's at {other.site} is not"
            for d, other in pairs
            if _half(d) and not _half(other) and _same_bounds(other, d, 1e-2)
        ),
    )


def regrouped(reference: Tape, target: Tape) -> Tape:
    """The reference's tape with as many draws as the target's, where both make as many numbers of a kind: a vector for
    four numbers one after the other, or the other way round."""
    tape = list(reference)
    for kind in dict.fromkeys(d.kind for d in target):
        ours = [d for d in tape if d.kind == kind and not trivial(d)]
        theirs = [d for d in target if d.kind == kind and not trivial(d)]
        counts = [[int(np.prod(d.shape, dtype=int)) for d in draws] for draws in (ours, theirs)]
        if sum(counts[0]) != sum(counts[1]) or counts[0] == counts[1]:
            continue
        low, high, value = (np.concatenate(parts, 1) for parts in zip(*map(_flat, ours), strict=True))
        present = np.repeat(np.stack([d.present for d in ours], 1), counts[0], 1)
        tape = [d for d in tape if d.kind != kind or trivial(d)]
        owner = np.repeat(np.arange(len(ours)), counts[0])
        for draw, end in zip(theirs, np.cumsum(counts[1]), strict=True):
            here = slice(end - int(np.prod(draw.shape, dtype=int)), end)
            a, b, x = (part[:, here].reshape(-1, *draw.shape) for part in (low, high, value))
            tape.append(Draw(kind, draw.shape, a, b, x, np.asarray(present[:, here].all(1)), ours[owner[here][0]].site))
    return tuple(tape)


def numbers(tape: Tape) -> Iterator[tuple[int, int]]:
    """(draw, element) of every number that is drawn."""
    for n, draw in enumerate(tape):
        if not trivial(draw):
            yield from ((n, element) for element in range(int(np.prod(draw.shape, dtype=int))))


def turned(tape: Tape, number: tuple[int, int]) -> Tape:
    """The tape with one number of each row in the next one's place."""
    at, element = number
    value = np.array(tape[at].value)
    flat = value.reshape(len(value), -1)
    flat[:, element] = np.roll(flat[:, element], 1)
    return (*tape[:at], replace(tape[at], value=value), *tape[at + 1 :])


def _flat(draw: Draw) -> tuple[np.ndarray, ...]:
    """(low, high, value), each (B, elements)."""
    rows, size = len(draw.present), int(np.prod(draw.shape, dtype=int))
    parts = (np.asarray(part).reshape(rows, -1) for part in (draw.low, draw.high, draw.value))
    return tuple(np.broadcast_to(part, (rows, size)) for part in parts)


def _bounds(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(draw.low, float), np.asarray(draw.high, float)


def _fits(reference: Draw, target: Draw, strict: bool) -> bool:
    unit = reference.kind == "uniform" and target.kind == "bernoulli"  # u < p is how numpy code flips a coin
    if not (reference.kind == target.kind or unit) or int(np.prod(reference.shape)) != int(np.prod(target.shape)):
        return False
    if unit:
        low, high = _bounds(reference)
        return bool(np.all(low == 0) and np.all(high == 1))
    return not strict or _same_bounds(reference, target)


def _same_bounds(reference: Draw, target: Draw, rtol: float = 1e-5) -> bool:
    return all(
        _close(a[reference.present].mean(0), b[target.present].mean(0), rtol)
        for a, b in zip(_bounds(reference), _bounds(target), strict=True)
    )


def _half(draw: Draw) -> bool:
    """Whether it is a fraction in half precision (float16, bfloat16): one of some thousand numbers."""
    return draw.value.dtype.kind not in "biu" and draw.value.dtype.itemsize < 4


def _close(a: np.ndarray, b: np.ndarray, rtol: float) -> bool:
    """Bounds agree, NaN with NaN, one number with the same number for each element."""
    a, b = np.ravel(a), np.ravel(b)
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        return False
    return bool(np.allclose(a, b, rtol=rtol, atol=rtol / 10, equal_nan=True))


def _range(draw: Draw) -> str:
    low, high = (np.unique(np.round(b[draw.present].mean(0), 6)) for b in _bounds(draw))
    text = [f"{x[0]:g}" if len(x) == 1 else np.array2string(x) for x in (low, high)]
    return f"[{text[0]}, {text[1]})"


def feed(matching: Matching, reference: Tape, own: Tape) -> Tape:
    """The target's tape: its ``own`` draws with the matched ones replaced by the reference's values.

    Rows in which the reference did not make the draw keep the target's own value.
    """
    reference = regrouped(reference, own) if matching.regrouped else reference
    made = dict(zip(labels(reference), reference, strict=True))
    tape = []
    for i, draw in enumerate(own):
        source = made.get(matching.links[i]) if i in matching.links else None
        if source is None:
            tape.append(draw)
            continue
        value = np.asarray(source.value).reshape(draw.value.shape)
        given = (_placed(source, draw, value) if i in matching.scaled else value).astype(draw.value.dtype)
        keep = source.present.reshape(-1, *[1] * (given.ndim - 1))
        tape.append(replace(draw, value=np.where(keep, given, draw.value)))
    return tuple(tape)


def _placed(source: Draw, draw: Draw, value: np.ndarray) -> np.ndarray:
    """The number that lies between the bounds of ``draw`` where ``value`` lies between those of ``source``."""
    if source.kind not in ("uniform", "integers") or draw.kind != source.kind:
        return value
    rows = len(value)
    low, high, other_low, other_high = (
        np.broadcast_to(bound.reshape(rows, -1), (rows, value[0].size)).reshape(value.shape)
        for bound in (*_bounds(source), *_bounds(draw))
    )
    if source.kind == "integers":
        return value - low + other_low
    width = np.where(high > low, high - low, 1.0)
    return np.asarray(other_low + (value - low) / width * (other_high - other_low))


def join_tapes(parts: list[tuple[int, Tape]]) -> Tape:
    """Tapes of consecutive batches (rows, tape) as one: by label, absent where a batch had no such draw."""
    order: dict[tuple[object, ...], Draw] = {}
    for _, tape in parts:
        for label, draw in zip(labels(tape), tape, strict=True):
            order.setdefault(label, draw)
    return tuple(_joined(label, example, parts) for label, example in order.items())


def _joined(label: tuple[object, ...], example: Draw, parts: list[tuple[int, Tape]]) -> Draw:
    columns: dict[str, list[np.ndarray]] = {"low": [], "high": [], "value": [], "present": []}
    for count, tape in parts:
        draw = dict(zip(labels(tape), tape, strict=True)).get(label)
        for name, column in columns.items():
            if draw is not None:
                column.append(np.asarray(getattr(draw, name)))
            elif name == "present":
                column.append(np.zeros(count, bool))
            else:
                column.append(np.repeat(np.asarray(getattr(example, name))[:1], count, 0))
    low, high, value, present = (np.concatenate(c) for c in columns.values())
    return Draw(example.kind, example.shape, low, high, value, present, example.site)
