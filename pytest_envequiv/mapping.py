"""How a pair's field map is found and tried: by playing both sides, by pushing fields, by injecting fresh states.

``align.py`` proposes a map from values; what has to be asked of the backends is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_envequiv import align
from pytest_envequiv.align import Pairs
from pytest_envequiv.backends.protocol import REWARD, TERMINATED, TRUNCATED, Arrays, Outcome, State
from pytest_envequiv.statemap import Link, Source, StateMap
from pytest_envequiv.stimuli.play import seeds_for, shown
from pytest_envequiv.whitebox.identity import shown as shown_fields

if TYPE_CHECKING:  # a pair is handed in
    from pytest_envequiv.pair import Pair

SAMPLE_STEPS = 40
MOST_COLUMNS = 1_024  # of a state field, looked at one by one
MOST_SHOWN = 64  # numbers of an observation that are looked for in the state: pictures repeat none
ALIKE = "what is shown, as another field is"
FLAGS = (REWARD, TERMINATED, TRUNCATED)


def apart(a: Outcome, b: Outcome) -> bool:
    """Whether any output of two outcomes differs, bit by bit."""
    return any(
        not np.array_equal(a.outputs[k], b.outputs[k], equal_nan=a.outputs[k].dtype.kind == "f") for k in a.outputs
    )


def play_both(pair: Pair, seeds: np.ndarray) -> Pairs | None:
    """Free-running play of both sides from the same resets: states with the same history."""
    if pair.reset_mode == "none":
        return None
    ours, theirs = pair.reset_both(seeds)
    rng_rows = pair.sample.rows
    keep_state, keep_seen, keep_clock, keep_target = (
        [ours.state],
        [shown(ours.outputs)],
        [np.zeros(len(seeds), int)],
        [theirs.state],
    )
    lanes = np.arange(len(seeds))
    for t in range(1, SAMPLE_STEPS if pair.step_mode != "distribution" else 1):
        at = np.flatnonzero(rng_rows.step == t - 1)
        # The sample's own actions, for the lanes that are still alive on both sides.
        chosen = {int(e): i for e, i in zip(rng_rows.episode[at], at, strict=True)}
        on = np.array([i for i, lane in enumerate(lanes) if int(lane) in chosen], int)
        if not len(on):
            break
        rows = np.array([chosen[int(lanes[i])] for i in on])
        action = {k: v[rows] for k, v in rng_rows.action.items()}
        step_seeds = rng_rows.seeds[rows]
        ours = pair.ref.step(ours.state.take(on), action, step_seeds)
        theirs = pair.target_step(theirs.state.take(on), action, step_seeds, ours.draws)
        alive = np.flatnonzero(~ours.done & ~theirs.done)
        lanes = lanes[on][alive]
        ours, theirs = ours.take(alive), theirs.take(alive)
        if not len(alive):
            break
        keep_state.append(ours.state)
        keep_seen.append(shown(ours.outputs))
        keep_clock.append(np.full(len(alive), t))
        keep_target.append(theirs.state)
    return Pairs(
        State.join(keep_state),
        {k: np.concatenate([s[k] for s in keep_seen]) for k in keep_seen[0]},
        np.concatenate(keep_clock),
        State.join(keep_target),
        frozenset(n for n, v in pair.target_play.rows.state.fields.items() if bool((v != v[:1]).any())),
    )


def build(pair: Pair, pairs: Pairs | None) -> StateMap:
    if pair.target.spec.state != "fields" or pair.ref.spec.state != "fields":
        sides = [s for s in (pair.ref, pair.target) if s.spec.state != "fields"]
        said = "; ".join(
            f"the {'reference' if s is pair.ref else 'target'}'s state cannot be written ({s.spec.state})"
            for s in sides
        )
        return StateMap((), {}, tuple(pair.ref.spec.fields), {}, False, said)
    free = getattr(pair.target.backend, "free", {})
    leaves, fields, given = pair.target.spec.fields, pair.ref.spec.fields, pair.contract.fields
    found = align.propose(leaves, fields, pairs, given, free)
    if found.missing:
        theirs = pair.target_play.rows
        shows = align.by_showing(
            (pair.sample.rows.state, pair.sample.rows.seen), (theirs.state, theirs.seen), pair.observations, leaves
        )
        found = align.propose(leaves, fields, pairs, given, free, None, shows)
    if found.missing and pairs is None:
        found = align.propose(leaves, fields, pairs, given, free, _responses(pair), shows)
    return _without_inert(pair, _better_named(pair, _better_shown(pair, found)), pairs)


def _better_named(pair: Pair, found: StateMap) -> StateMap:
    """The map, or one by names, if as many outputs agree with it.

    Where a bug moves fields, each may be like another by its values. Two sides that call their fields alike mean the
    same by it, mostly: what was found otherwise has to be the better map.
    """
    if found.missing or pair.contract.fields:
        return found
    links = []
    for link in found.links:
        named = align.by_name(link.field, link.leaf, pair.ref.spec.fields)
        if named is None and link.field in found.ambiguous:
            return found
        if named is not None and link.how == "value" and link.sources != named.sources:
            link = named
        links.append(link)
    if all(new is old for new, old in zip(links, found.links, strict=True)) and not found.ambiguous:
        return found
    other = align.mapped(links, {}, {}, pair.ref.spec.fields)
    return other if _agreement(pair, other) >= _agreement(pair, found) else found


def _better_shown(pair: Pair, found: StateMap) -> StateMap:
    """The map, or one in which fields are found where they are shown, if that is all, or more outputs agree with it.

    By its values a field that a bug keeps from moving is a constant, and one that runs away is like nothing (then it
    is missing) or like something else. What the target's step puts into the observation says which field it stands
    for, as far as the observation is in order: where another field shows that it is, a missing one is found; else which
    is right is tried, on states injected either way. A clock is known by its name.
    """
    if found.ambiguous or pair.contract.fields:
        return found
    shows, rows = _shows(pair), pair.sample.rows
    sources: dict[str, dict[int, Source]] = {}
    for target_name, name in pair.observations.items():
        for element, (field, place) in shows.get(target_name, {}).items():
            seen = np.asarray(rows.seen[name]).reshape(len(rows), -1)[:, element]
            source = _repeated(rows.state, seen) if (seen != seen[:1]).any() else None
            if source is not None:
                sources.setdefault(field, {})[place] = source

    def shown_as(name: str) -> Link | None:
        leaf, mine = pair.target.spec.fields[name], sources.get(name, {})
        size = int(np.prod(leaf.shape, dtype=int))
        order = tuple(mine[i] for i in range(size)) if len(mine) == size else ()
        return Link(name, leaf, order, how="what is shown") if order else None

    if found.missing:
        pairs = [(link, shown_as(link.field)) for link in found.links]
        ordered = [there.sources == link.sources for link, there in pairs if there is not None and link.how == "value"]
        links = [replace(link, how=ALIKE) for name in found.missing if (link := shown_as(name)) is not None]
        known = ordered and all(ordered) and len(links) == len(found.missing)
        return replace(found, links=(*found.links, *links), missing={}) if known else found
    links = []
    for link in found.links:
        named = align.by_name(link.field, link.leaf, pair.ref.spec.fields) if link.how == "never moving" else None
        if (there := shown_as(link.field)) is not None:
            link = there
        elif named is not None and not _inert(pair, link.field, {other.field for other in found.links}):
            link = named
        links.append(link)
    other = replace(found, links=tuple(links))
    if [(k.sources, k.recode) for k in links] == [(k.sources, k.recode) for k in found.links]:
        return found
    better = _agreement(pair, other) - _agreement(pair, found)
    # An observation in another order agrees with either as well as not: then what the values say stands.
    sure = any(a.how == "value" and a.sources != b.sources for a, b in zip(found.links, links, strict=True))
    return other if better > 0 or (better == 0 and not sure) else found


def _shows(pair: Pair) -> Mapping[str, Mapping[int, tuple[str, int]]]:
    """Observation of the target -> element -> (field of its state, element) that it repeats: by the target's program,
    or, where that cannot be traced, by all of its own play."""
    if pair.target.spec.traceable:
        return shown_fields(pair.target.call("trace", lambda: pair.target.backend.traced("step")))  # type: ignore[attr-defined]
    rows = pair.target_play.rows
    rows = rows.take(rows.clock > 0) if pair.unseen else rows  # its resets show nothing
    found: dict[str, dict[int, tuple[str, int]]] = {}
    for name in pair.observations if len(rows) else ():
        for element, seen in enumerate(np.asarray(rows.seen[name]).reshape(len(rows), -1).T[:MOST_SHOWN]):
            source = _repeated(rows.state, seen) if (seen != seen[:1]).any() else None
            if source is not None:
                found.setdefault(name, {})[element] = source.name, source.index or 0
    return found


def _fresh(pair: Pair, found: StateMap) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, the reference's numbers, whether the target's agree) of each output, float and bool (B, elements): fresh
    states injected by a map. Leaves the pair with that map."""
    rows, draws = pair.fresh.rows, pair.fresh.outcome.draws
    pair.map = found
    theirs = pair.target_step(pair.inject(rows), rows.action, rows.seeds, draws).outputs
    ours = pair.fresh.outcome.outputs
    names = [*pair.observations.items(), *((n, n) for n in FLAGS if n in theirs and n in ours)]
    told = []
    for target_name, name in names:
        x, y = (np.asarray(v, float).reshape(len(rows), -1) for v in (ours[name], theirs[target_name]))
        told.append((name, x, np.isclose(x, y, rtol=1e-3, atol=1e-4, equal_nan=True)))
    return told


def _agreement(pair: Pair, found: StateMap) -> float:
    """The share of observed numbers, flags and rewards that come out alike from fresh states injected by a map."""
    alike = [same.mean(0) for _, _, same in _fresh(pair, found)]
    return float(np.concatenate(alike).mean()) if alike else 0.0


def _repeated(state: State, seen: np.ndarray) -> Source | None:
    """The one element of the state that holds, in every row, what was seen."""
    matches = []
    for name, value in state.fields.items():
        columns = value.reshape(len(seen), -1)[:, :MOST_COLUMNS].astype(float)
        for element in np.flatnonzero(np.isclose(columns, seen[:, None], rtol=1e-6, atol=1e-7).all(0)):
            matches.append(Source("state", name, int(element) if columns.shape[1] > 1 else None))
    return matches[0] if len(matches) == 1 else None


def _responses(pair: Pair) -> dict[str, tuple[Source, ...]]:
    """Push fields on both sides, each in its own play, and match those whose pushes are answered alike."""
    names = list(pair.observations.values())
    theirs_named = {v: k for k, v in pair.observations.items()}
    rows = pair.sample.rows.take(slice(0, 256))
    begun = pair.target.reset(seeds_for(91, count=256))
    action = {k: np.resize(v, (256, *v.shape[1:])) for k, v in rows.action.items()}
    seeds = seeds_for(92, count=256)
    fixed = {k: np.repeat(v[:1], len(v), 0) for k, v in action.items()}

    def step_ref(state: State) -> Arrays:
        return pair.ref.step(
            State(state.fields), {k: v[: len(state)] for k, v in fixed.items()}, seeds[: len(state)]
        ).outputs

    def step_target(state: State) -> Arrays:
        outputs = pair.target.step(
            state, pair.target_action({k: v[: len(state)] for k, v in fixed.items()}), seeds[: len(state)]
        ).outputs
        return {n: outputs[theirs_named[n]] for n in names}

    mine = align.signatures(step_ref, pair.sample.resets.state.edited() if len(rows) < 8 else rows.state, names)
    theirs = align.signatures(step_target, begun.state, names)
    return align.by_response(mine, theirs, pair.target.spec.fields)


def _without_inert(pair: Pair, found: StateMap, pairs: Pairs | None) -> StateMap:
    """Fields that could not be filled but change nothing are filled as they are after a reset."""
    if not found.missing:
        return _verified(pair, found, pairs)
    begun = pair.target.reset(seeds_for(93, count=64)).state
    links, missing = list(found.links), dict(found.missing)
    for name in found.missing:
        if _inert(pair, name, {link.field for link in found.links}):
            leaf, value = pair.target.spec.fields[name], begun.fields[name]
            constant = tuple(value[0].astype(float).ravel().tolist())
            links.append(Link(name, leaf, (Source("constant", value=constant),), how="changing nothing"))
            del missing[name]
            pair.notes.append(f"state field {name!r} of the target changes no output; it is not compared")
    return _verified(pair, StateMap(tuple(links), missing, found.unread, found.ambiguous), pairs)


def _inert(pair: Pair, name: str, linked: set[str]) -> bool:
    """Whether one step of the target from states of its own play gives the same outputs and other fields, whatever the
    field holds: one more, zero, the least, the greatest, and what it holds in other states (fuel that does not matter
    as long as there is some has to be tried empty)."""
    played = pair.target_play.rows
    rows = played.take(np.unique(np.linspace(0, len(played) - 1, 512).astype(int)))
    # The target's play was its own: actions and states are in its own terms.
    state, value = State(rows.state.fields), rows.state.fields[name]
    every = played.state.fields[name]
    base = pair.target.step(state, rows.action, rows.seeds)
    others = [
        ~value if value.dtype == bool else value + np.ones((), value.dtype),
        np.zeros_like(value),
        np.broadcast_to(every.min(0), value.shape),
        np.broadcast_to(every.max(0), value.shape),
        value[np.random.default_rng(98).permutation(len(value))],
    ]
    for other in others:
        moved = pair.target.step(state.edited(**{name: np.array(other, value.dtype)}), rows.action, rows.seeds)
        changed = any(
            not np.array_equal(v, base.state.fields[k], equal_nan=v.dtype.kind == "f")
            for k, v in moved.state.fields.items()
            if k in linked
        )
        if changed or apart(base, moved):
            return False
    return True


def _verified(pair: Pair, found: StateMap, pairs: Pairs | None) -> StateMap:
    """Try the map on fresh states: injected there, does at least some output come out as the reference's?"""
    if not found.complete:
        open_fields = ", ".join([*found.missing, *found.ambiguous])
        return StateMap(
            found.links, found.missing, found.unread, found.ambiguous, False, f"no sure source for {open_fields}"
        )
    best = 0.0
    for name, x, same in _fresh(pair, found):
        moving = np.flatnonzero((x != x[:1]).any(0))
        if name in FLAGS:
            continue
        if len(moving):
            best = max(best, float(same[:, moving].mean(0).max()))
        elif same.all():
            best = 1.0
    by_name = all(link.how in ("name", "contract", "never moving", "being a label") for link in found.links)
    verified = best >= 0.5 or by_name or pair.step_mode == "distribution" or _begins_alike(pair, found, pairs)
    said = (
        ""
        if verified
        else f"injected through the proposed map, no output agrees on half of the states (best {best:.0%})"
    )
    return StateMap(found.links, found.missing, found.unread, found.ambiguous, verified, said)


def _begins_alike(pair: Pair, found: StateMap, pairs: Pairs | None) -> bool:
    """Whether, after fresh resets with shared draws and soon after, the map gives the very states the target is
    in. A port may be so wrong that no output of a step agrees; the map can be right all the same."""
    if pair.reset_mode == "none" or pairs is None:
        return False
    free = getattr(pair.target.backend, "free", {})
    seeds = seeds_for(97, count=64)
    ours, theirs = pair.reset_both(seeds)
    begun = Pairs(ours.state, shown(ours.outputs), np.zeros(len(seeds), int), theirs.state)
    proven: set[str] = set()
    told = {link.field for link in found.links if link.how == ALIKE}
    # Soon after, a port with a bug is off by a little, the wrong field by any amount. That is only asked of fields
    # that are always the same after a reset, and of which nothing else tells: the others are known by then.
    for some, enough, slack in ((begun, align.ENOUGH, 1e-5), (pairs.until(align.EARLY[0]), 0.5, 0.05)):
        given = found.apply(some.state, some.seen, some.clock, some.clock, free).fields
        for name in given.keys() - free.keys() - proven - (set() if some is begun else told):
            x, y = (np.asarray(v, float).reshape(len(v), -1) for v in (given[name], some.target.fields[name]))
            spread = np.nan_to_num(np.nanmax(y, 0) - np.nanmin(y, 0))
            close = np.abs(x - y) <= 1e-5 + 1e-4 * np.abs(y) + slack * spread
            if (close | (np.isnan(x) & np.isnan(y))).all(1).mean() < enough:
                return False
            if (y != y[:1]).any():
                proven.add(name)
    return bool(proven)
