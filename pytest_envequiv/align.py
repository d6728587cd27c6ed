"""Field alignment: where each field of the target's state is to be found on the reference's side.

A map (``statemap.py``) is a list of links, one a target field. A link is proposed by name, then by value (both sides
play the same episodes: which numbers move together), then by response (push a field, see which outputs answer), or is
given by the contract. A proposed map is tried on fresh states before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pytest_envequiv.backends.protocol import Arrays, Leaf, State
from pytest_envequiv.errors import ContractError
from pytest_envequiv.statemap import Link, Source, StateMap, offset

CLOCKS = {
    "time", "t", "step", "steps", "stepcount", "stepcounter", "elapsedsteps", "timestep", "clock", "counter",
    "numsteps", "stepnum", "curstep", "currentstep", "elapsed", "elapsedtime", "tick", "ticks", "frame", "frames",
    "nsteps", "timesteps", "episodestep", "episodesteps", "stepsdone", "stepstaken",
}  # fmt: skip
CLOSE, ENOUGH = 1e-3, 0.9
EXACT, NEAR = 0.995, 0.1  # a score that leaves no doubt; without one, scores that may as well be the best
MOST_CODED = 100_000  # the largest whole number of which digits are looked for
EARLY = (3, 1, 0)  # steps after the reset within which a port that runs away is still recognised
UNMOVED = "nothing on the reference's side moves with it"


@dataclass(frozen=True)
class Pairs:
    """States both sides were in after the same history: B rows.

    ``moving``: fields of the target that take more than one value in its own play.
    """

    state: State
    seen: Arrays
    clock: np.ndarray
    target: State
    moving: frozenset[str] = frozenset()

    def until(self, latest: int) -> Pairs:
        """The states at most so many steps after the reset."""
        on = self.clock <= latest
        return replace(
            self,
            state=self.state.take(on),
            seen={k: v[on] for k, v in self.seen.items()},
            clock=self.clock[on],
            target=self.target.take(on),
        )


def _clock(source: Source) -> bool:
    """Of a count of steps no code is learned but another start: its values go on where those that were seen end, and
    a port that counts them wrongly would be taken for one that counts in other units."""
    return source.kind == "clock" or (source.kind == "state" and plain_name(source.name) == "clock")


def _counts(code: Mapping[int, int]) -> bool:
    """Whether a code counts steps, or those that are left: below nothing there are none."""
    found = offset(code)
    return found is not None and (found[1] > 0 or min(code.values()) >= 0)


def plain_name(name: str) -> str:
    """For comparing names: lower case, letters and digits, clocks all alike."""
    bare = re.sub(r"[^a-z0-9]", "", name.split(".")[-1].lower())
    return "clock" if bare in CLOCKS else bare


# -- proposing -----------------------------------------------------------------------------------------------------


def propose(
    leaves: Mapping[str, Leaf],
    reference: Mapping[str, Leaf],
    pairs: Pairs | None,
    given: Mapping[str, Any],
    free: Mapping[str, int],
    response: Mapping[str, tuple[Source, ...]] | None = None,
    shows: Mapping[str, Link] | None = None,
) -> StateMap:
    """A map for the target's ``leaves`` from the reference's fields.

    ``pairs``: states with the same history, if there are any; ``given``: links of the contract;
    ``shows``: links of fields that both sides show in the same observation; ``response``: links found by pushing
    fields. Both are used for what is still open.
    """
    links: list[Link] = []
    missing: dict[str, str] = {}
    ambiguous: dict[str, str] = {}
    for name in given:
        if name not in leaves:
            raise ContractError(
                f"[fields] names {name!r}, which the target's state has not; it has {', '.join(leaves)}"
            )
    for name, leaf in leaves.items():
        if name in given:
            links.append(_from_contract(name, leaf, given[name], reference))
        elif name in free:
            links.append(Link(name, leaf, (Source("free"),), how="being a label"))
        else:
            link, also = (None, "no histories could be compared") if pairs is None else _by_value(name, leaf, pairs)
            if link is None:
                why, also = also, ""
                link = by_name(name, leaf, reference) or (shows or {}).get(name)
                if link is None and response and name in response:
                    link = Link(name, leaf, response[name], how="response")
            if link is None:
                missing[name] = f"no field of the reference has its name and size, and {why}"
                continue
            links.append(link)
            if also:
                ambiguous[name] = also
    return mapped(links, missing, ambiguous, reference)


def mapped(
    links: Sequence[Link], missing: Mapping[str, str], ambiguous: Mapping[str, str], reference: Mapping[str, Leaf]
) -> StateMap:
    """A map with what of the reference nobody reads."""
    links = _placed(links)
    read = {s.name for link in links for s in link.sources if s.kind == "state"}
    return StateMap(tuple(links), dict(missing), tuple(n for n in reference if n not in read), dict(ambiguous))


def _from_contract(name: str, leaf: Leaf, value: Any, reference: Mapping[str, Leaf]) -> Link:
    recode = None
    if isinstance(value, Mapping):
        recode = {int(k): int(v) for k, v in value.get("recode", {}).items()} or None
        value = value.get("from")
    texts = value if isinstance(value, list) else [value]
    return Link(name, leaf, tuple(_parsed(str(t), name, reference) for t in texts), recode, how="contract")


def _parsed(text: str, name: str, reference: Mapping[str, Leaf]) -> Source:
    if text in ("clock", "free"):
        return Source(text)  # type: ignore[arg-type]
    if text.startswith("constant:"):
        return Source("constant", value=(float(text.split(":", 1)[1]),))
    kind: Literal["state", "output"] = "output" if text.startswith("output:") else "state"
    found = re.fullmatch(
        r"(.+?)(?:\[(\d+)\])?(?:\s*//\s*([1-9]\d*))?(?:\s*%\s*([1-9]\d*))?", text.removeprefix("output:")
    )
    assert found is not None
    digit = (int(found[3] or 1), int(found[4] or 0)) if found[3] or found[4] else None
    if kind == "state" and found[1] not in reference:
        raise ContractError(
            f"[fields] {name} = {text!r}: the reference's state has {', '.join(reference) or 'no fields'}"
        )
    return Source(kind, found[1], None if found[2] is None else int(found[2]), digit=digit)


def by_name(name: str, leaf: Leaf, reference: Mapping[str, Leaf]) -> Link | None:
    """The one field of the reference of the same name and size, or None."""
    size = int(np.prod(leaf.shape))
    fits = [
        n for n, other in reference.items() if plain_name(n) == plain_name(name) and int(np.prod(other.shape)) == size
    ]
    return Link(name, leaf, (Source("state", fits[0]),)) if len(fits) == 1 else None


def _by_value(name: str, leaf: Leaf, pairs: Pairs) -> tuple[Link | None, str]:
    """The best source for one target field from states of the same history, and what else fits as well."""
    link, also, score = _over(name, leaf, pairs, pairs)
    # A port with a bug soon runs away from the reference; what it is shows in how it begins. Then it may also happen to
    # stay nearer to what is made of a field, the sine of an angle say, than to the field.
    lost = link is None and also == UNMOVED
    found = [] if link is None else [(_doubtful(link, score), link, also)]
    for latest in EARLY if lost or (found and found[0][0]) else ():
        early, others, score = _over(name, leaf, pairs.until(latest), pairs)
        if early is None or early.how != "value" or early.recode or any(s.kind == "constant" for s in early.sources):
            continue
        found.append((_doubtful(early, score), early, others))
    _, link, also = min(found, key=lambda entry: entry[0], default=(True, link, also))
    return link, also


def _doubtful(link: Link, score: float) -> bool:
    """Whether it may be something made of the field that is meant."""
    return score < EXACT and any(s.kind == "output" for s in link.sources)


def _over(name: str, leaf: Leaf, pairs: Pairs, every: Pairs) -> tuple[Link | None, str, float]:
    """As ``_by_value``, from the states of ``pairs``, which are some of ``every``; and its score."""
    value = pairs.target.fields[name]
    rows, size = len(value), int(np.prod(leaf.shape))
    flat = value.reshape(rows, -1)
    whole = [(s, column) for s, column in _columns(pairs) if column.shape[1] == size]
    always = dict(_columns(every))
    scored = [(_score(column, flat), _preference(s, name), s, column) for s, column in whole]
    scored = [entry for entry in scored if entry[0] >= ENOUGH]
    if not scored:
        recoded = [(s, found) for s, column in whole if (found := _code(column, flat)) is not None]
        recoded = [(s, found) for s, found in recoded if not _clock(s) or _counts(found)]
        if recoded:
            source, code = min(recoded, key=lambda entry: _preference(entry[0], name))
            return Link(name, leaf, (source,), code, how="value"), "", 1.0
    constant = bool((flat == flat[:1]).all())
    if not scored and not constant and size == 1:
        of = [(s, fits) for s, column in whole if not _clock(s) and (fits := _digits(column[:, 0], flat[:, 0]))]
        if of:
            source, fits = min(of, key=lambda entry: _preference(entry[0], name))
            return Link(name, leaf, (replace(source, digit=fits[0]),), how="value", fits=fits), "", 1.0
    if constant and name in pairs.moving:
        return None, "it does not move while both sides have the same history", 0.0
    if scored:
        best = _best(scored)
        # Rivals that never differ from the best are the same quantity under another name.
        rivals = [
            e
            for e in scored
            if e[1] == best[1] and e[0] >= best[0] - 0.02 and not _same_column(always[e[2]], always[best[2]])
        ]
        # A field that never moved says nothing by its value.
        if not constant or best[1] == 0:
            return Link(name, leaf, (best[2],), how="value"), ", ".join(str(e[2]) for e in rivals), best[0]
    if constant:
        still = Source("constant", value=tuple(flat[0].astype(float).tolist()))
        return Link(name, leaf, (still,), how="never moving"), "", 1.0
    if size <= 64:
        pieces = [_element(name, flat[:, i], pairs) for i in range(size)]
        if all(p is not None for p in pieces):
            return Link(name, leaf, tuple(p for p in pieces if p is not None), how="value"), "", 1.0
    return None, UNMOVED, 0.0


def _best(scored: list[Any]) -> Any:
    """Of entries (score, preference, ...) the one to believe. A state field of the same name, before what fits a little
    better (a counter that a bug keeps from starting anew is the clock). If nothing fits exactly, the port has a bug:
    then a field is rather the state that it nearly is than what is made of it (a small angle is nearly its own sine).
    """
    named = [entry for entry in scored if entry[1] == 0]
    if named:
        return max(named, key=lambda entry: entry[0])
    top = max(score for score, *_ in scored)
    if top >= EXACT:
        return max(scored, key=lambda entry: (round(entry[0], 2), -entry[1]))
    return min((entry for entry in scored if entry[0] >= top - NEAR), key=lambda entry: (entry[1], -entry[0]))


def _same_column(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a.astype(float), b.astype(float), equal_nan=True))


def _columns(pairs: Pairs) -> list[tuple[Source, np.ndarray]]:
    """Everything the reference shows, as (rows, elements)."""
    rows = len(pairs.clock)
    found = [(Source("state", n), v.reshape(rows, -1)) for n, v in pairs.state.fields.items()]
    found.append((Source("clock"), pairs.clock.reshape(rows, 1)))
    found += [(Source("output", n), np.asarray(v).reshape(rows, -1)) for n, v in pairs.seen.items()]
    singles = [
        (Source(s.kind, s.name, i), column[:, i : i + 1])
        for s, column in found
        if 1 < column.shape[1] <= 64
        for i in range(column.shape[1])
    ]
    return found + singles


def _preference(s: Source, name: str) -> int:
    """0 is best: the same name, then state, clock, output."""
    if s.kind == "state" and s.index is None and plain_name(s.name) == plain_name(name):
        return 0
    return {"state": 1, "clock": 2, "output": 3}[s.kind]


def _element(name: str, column: np.ndarray, pairs: Pairs) -> Source | None:
    if (column == column[0]).all():
        return Source("constant", value=(float(column[0]),))
    scored = [
        (_score(other, column[:, None]), _preference(s, name), s) for s, other in _columns(pairs) if other.shape[1] == 1
    ]
    enough = [entry for entry in scored if entry[0] >= ENOUGH]
    return _best(enough)[2] if enough else None


def _score(a: np.ndarray, b: np.ndarray) -> float:
    """How well two columns (rows, k) move together, 0..1: the share of rows that agree; for floats that drift
    apart (a port with a bug), the correlation, if they also begin alike."""
    x, y = a.astype(float), b.astype(float)
    spread = np.nanmax(y, 0) - np.nanmin(y, 0)
    close = np.abs(x - y) <= CLOSE * np.where(spread > 0, spread, 1) + 1e-6
    both_nan = np.isnan(x) & np.isnan(y)
    agree = float((close | both_nan).all(1).mean())
    if agree >= ENOUGH or a.dtype.kind != "f" or b.dtype.kind != "f" or (spread == 0).any():
        return agree
    with np.errstate(all="ignore"):
        related = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(x.shape[1])]
    worst = float(np.nanmin(related)) if not np.isnan(related).any() else 0.0
    return worst * 0.95 if worst > 0.99 else agree


def _code(a: np.ndarray, b: np.ndarray) -> dict[int, int] | None:
    """A one-to-one recoding of whole numbers that turns every element of ``a`` into that of ``b``; None if none."""
    if a.dtype.kind not in "biu" or b.dtype.kind not in "biu":
        return None
    both = np.unique(np.stack([a.ravel().astype(np.int64), b.ravel().astype(np.int64)]), axis=1)
    if not 2 <= both.shape[1] <= 64 or len(set(both[0])) != both.shape[1] or len(set(both[1])) != both.shape[1]:
        return None
    return dict(zip(both[0].tolist(), both[1].tolist(), strict=True))


def _digits(a: np.ndarray, b: np.ndarray) -> tuple[tuple[int, int], ...]:
    """All (k, m) with which ``b`` is ``a // k % m`` in every row, or ``a // k`` (m = 0); both (rows,).

    So a taxi's row, column, passenger and destination are one whole number in Gymnasium.
    """
    if a.dtype.kind not in "iu" or b.dtype.kind not in "iub" or a.min() < 0 or b.min() < 0 or a.max() > MOST_CODED:
        return ()
    a, b = a.astype(np.int64), b.astype(np.int64)
    most, found = int(b.max()), []
    if not most or len(np.unique(a)) <= len(np.unique(b)):
        return ()
    for k in range(1, int(a.max()) // most + 1):
        period = int(np.gcd.reduce(a // k - b))
        if period == 0:
            found.append((k, 0))
        elif m := next((m for m in range(most + 1, min(period, 4 * most + 4) + 1) if period % m == 0), 0):
            found.append((k, m))
    return tuple(found)


def _placed(links: Sequence[Link]) -> list[Link]:
    """Digits of which several fit as those that begin where another ends."""
    ends = {link.fits[0][0] * link.fits[0][1] for link in links if len(link.fits) == 1}
    found = []
    for link in links:
        if len(link.fits) > 1:
            digit = next((d for d in link.fits if d[0] in ends), link.fits[-1])
            link = replace(link, sources=(replace(link.sources[0], digit=digit),))
        found.append(link)
    return found


# -- by what is shown ----------------------------------------------------------------------------------------------


def by_showing(
    reference: tuple[State, Arrays], target: tuple[State, Arrays], names: Mapping[str, str], leaves: Mapping[str, Leaf]
) -> dict[str, Link]:
    """Fields that each side, in its own play, shows in the same observation: target field -> link.

    ``names``: target observation -> reference observation. A field is shown if it is the observation, or a recoding
    of it; both are needed on both sides, and the two recodings are put one after the other.
    """
    found = {}
    for target_name, name in names.items():
        ours = _shown_as(reference[0], np.asarray(reference[1][name]))
        theirs = _shown_as(target[0], np.asarray(target[1][target_name]))
        for field, code in theirs.items():
            if field not in leaves or len(ours) != 1:
                continue
            source, other = next(iter(ours.items()))
            back = {v: k for k, v in code.items()}
            recode = {a: back[b] for a, b in other.items() if b in back}
            same = all(a == b for a, b in recode.items())
            found[field] = Link(
                field, leaves[field], (Source("state", source),), None if same else recode, how="what is shown"
            )
        found |= _digits_shown(
            reference[0], np.asarray(reference[1][name]), target[0], np.asarray(target[1][target_name]), leaves
        )
    return found


def _digits_shown(
    ours: State, seen: np.ndarray, theirs: State, shown: np.ndarray, leaves: Mapping[str, Leaf]
) -> dict[str, Link]:
    """Fields that are digits of the target's observation, where the reference shows one field of its state as it is."""
    same = [n for n, v in ours.fields.items() if v.size == seen.size and np.array_equal(v.ravel(), seen.ravel())]
    if len(same) != 1 or shown.size != len(shown) or seen.dtype.kind not in "iu" or len(np.unique(seen)) < 2:
        return {}
    found = {}
    for field, leaf in leaves.items():
        value = theirs.fields[field]
        if value.size == shown.size and (fits := _digits(shown.ravel(), value.ravel())):
            source = Source("state", same[0], digit=fits[0])
            found[field] = Link(field, leaf, (source,), how="what is shown", fits=fits)
    return found


def _shown_as(state: State, observation: np.ndarray) -> dict[str, dict[int, int]]:
    """Fields that determine the observation one to one, element by element, with the recoding."""
    rows = len(observation)
    flat = observation.reshape(rows, -1)
    whole = np.round(flat).astype(np.int64)
    if not np.array_equal(whole, flat):
        return {}
    found = {}
    for name, value in state.fields.items():
        column = value.reshape(rows, -1)
        if column.shape == flat.shape and value.dtype.kind in "biu":
            code = _code(column, whole)
            if code is not None:
                found[name] = code
    return found


# -- by response ---------------------------------------------------------------------------------------------------


def signatures(step: Any, state: State, outputs: list[str]) -> dict[Source, np.ndarray]:
    """Push each float element of ``state`` by a small amount and see how the outputs answer.

    step(state) -> outputs; the answer is the mean change of every output element for a unit push, and its mean size.
    """
    base = step(state)
    found = {}
    for name, value in state.fields.items():
        flat = value.reshape(len(value), -1)
        if value.dtype.kind != "f" or flat.shape[1] > 64:
            continue
        for i in range(flat.shape[1]):
            size = max(float(np.std(flat[:, i])), 1e-3) * 0.05
            pushed = flat.copy()
            pushed[:, i] += size
            answer = step(state.edited(**{name: pushed.reshape(value.shape)}))
            change = [
                (np.asarray(answer[k], float) - np.asarray(base[k], float)).reshape(len(value), -1) / size
                for k in outputs
            ]
            both = np.concatenate(change, 1)
            found[Source("state", name, i if flat.shape[1] > 1 else None)] = np.concatenate(
                [both.mean(0), np.abs(both).mean(0)]
            )
    return found


def by_response(
    reference: dict[Source, np.ndarray], target: dict[Source, np.ndarray], leaves: Mapping[str, Leaf]
) -> dict[str, tuple[Source, ...]]:
    """Target field -> sources, where the best answer is close and clearly better than the second."""
    chosen: dict[Source, Source] = {}
    for theirs, answer in target.items():
        if not np.abs(answer).any():
            continue
        distance = sorted(
            (float(np.linalg.norm(answer - other) / (np.linalg.norm(answer) + np.linalg.norm(other))), str(s), s)
            for s, other in reference.items()
        )
        if distance and distance[0][0] < 0.15 and (len(distance) == 1 or distance[1][0] > 2 * distance[0][0] + 0.05):
            chosen[theirs] = distance[0][2]
    found = {}
    for name, leaf in leaves.items():
        size = int(np.prod(leaf.shape))
        parts = [Source("state", name, i if size > 1 else None) for i in range(size)]
        if all(p in chosen for p in parts):
            found[name] = tuple(chosen[p] for p in parts)
    return found
