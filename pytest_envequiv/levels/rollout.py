"""L3: whole episodes.

"resync": along episodes of the reference, the target takes each step from the reference's state; localises.
"lockstep": both sides run on their own from the same reset under the same actions; exposes what the state does not
hold. Floats drift apart even between equal programs, so the reference is run again with rounding-sized pushes, and
its own drift is the measure; where that has grown too large to tell anything, the comparison of the episode ends.
"episodes": return and length of episodes under simple policies, each side on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pytest_envequiv import legality
from pytest_envequiv.backends.protocol import Outcome, State
from pytest_envequiv.bench import LANES, Bench, TargetView
from pytest_envequiv.comparison import statistics
from pytest_envequiv.comparison.fields import pushed
from pytest_envequiv.levels.finding import index_of, judged_step, said
from pytest_envequiv.pair import Field
from pytest_envequiv.stimuli.play import Play, Rows, measured, play, shown
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Progress, Verdict, plain

POLICIES = {"quick": ("uniform", "repeat")}
ALL_POLICIES = ("uniform", "repeat", "bang", "extreme")
STATISTICS = ("return", "length")
NOISY, BIASED = 1, 4  # copies of an episode at each of two distances: pushed at random, and always the same way
EXAMINED = 16  # episodes for which the reference is run again
ALIKE, INDEPENDENT = 0.05, 0.5  # how often two sides' episodes disagree about an event, at most
LOST = 0.05  # drift, as a share of a field's range, past which an episode says nothing more


def checks(bench: Bench) -> list[Check]:
    pair = bench.pair
    found = []
    if pair.step_mode != "distribution":
        if pair.injectable():
            found += [Check(f"L3-resync-{f.name}", "L3", "resync", f.name) for f in pair.fields]
        if pair.reset_mode != "none" or pair.injectable():
            found += [Check(f"L3-lockstep-{f.name}", "L3", "lockstep", f.name, "costly") for f in pair.fields]
    return found + [Check(f"L3-episodes-{s}", "L3", "episodes", s, "costly") for s in STATISTICS]


def comparisons(bench: Bench) -> int:
    return len(STATISTICS) * len(_policies(bench))


def _policies(bench: Bench) -> tuple[str, ...]:
    return POLICIES.get(bench.settings.profile, ALL_POLICIES)


def run(bench: Bench, check: Check, progress: Progress) -> Verdict:
    if check.subject == "resync":
        step = bench.step("resync")
        assert step is not None
        return judged_step(bench, check, step, check.field)
    if check.subject == "lockstep":
        return _lockstep_verdict(bench, check)
    return _episodes(bench, check, progress)


# -- lockstep --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lockstep:
    """Free-running play of both sides.

    wrong     field -> (lane, step, element, expected, actual, error, tolerance) of its first divergence
    unsure    field -> lanes in which an error could not be told from drift
    compared  transitions up to each episode's horizon; ``lost``: episodes whose drift outgrew LOST
    """

    wrong: dict[str, tuple[int, int, int, float, float, float, float]]
    unsure: dict[str, int]
    compared: int
    episodes: int
    lost: int
    terminations: int
    truncations: int


def lockstep(bench: Bench) -> Lockstep:
    """Run the target freely along the episodes the reference has played, and compare."""
    pair, played = bench.pair, bench.played
    lanes = np.arange(min(played.episodes, bench.sizes.episodes))
    begun = len(lanes)
    state = _begun(bench, played, lanes)
    at = [
        np.flatnonzero((played.rows.step == t) & (played.rows.episode < len(lanes)))
        for t in range(int(played.rows.step.max()) + 1)
    ]
    suspicious: dict[int, int] = {}  # lane -> first step that needs a closer look
    errors: dict[tuple[int, int], dict[str, tuple[np.ndarray, ...]]] = {}
    compared = terminations = truncations = 0
    for t, rows_at in enumerate(at):
        episode = played.rows.episode[rows_at]
        on = np.isin(episode, lanes)
        rows_at, episode = rows_at[on], episode[on]
        if not len(rows_at):
            break
        here = np.searchsorted(lanes, episode)
        rows = played.rows.take(rows_at)
        ours = played.outcome.take(rows_at)
        theirs = pair.target_step(state.take(here), rows.action, rows.seeds, ours.draws)
        compared += len(rows_at)
        terminations += int(np.sum(ours.outputs.get("terminated", ours.done)))
        truncations += int(np.sum(ours.outputs.get("truncated", False)))
        for field in pair.fields:
            looked = _look(bench, field, ours, theirs, rows)
            over = np.flatnonzero((looked[0] > looked[1]).any(1))
            for i in over.tolist():
                lane = int(episode[i])
                suspicious.setdefault(lane, t)
                errors.setdefault((lane, t), {})[field.name] = tuple(part[i] for part in looked)
        alive = np.flatnonzero(~ours.done & ~theirs.done)
        lanes, state = episode[alive], theirs.state.take(alive)
    first = sorted(suspicious, key=lambda lane: (suspicious[lane], lane))
    wrong, unsure, lost = _examined(bench, first, errors)
    return Lockstep(wrong, unsure, compared, begun, lost, terminations, truncations)


def _begun(bench: Bench, played: Play, lanes: np.ndarray) -> State:
    pair = bench.pair
    if pair.reset_mode != "none":
        return pair.reset_both(played.reset_seeds[: len(lanes)])[1].state
    count = len(lanes)
    resets = played.resets.take(lanes)
    none = np.zeros(count, int)
    rows = Rows(resets.state, shown(resets.outputs), none, {}, played.reset_seeds[:count], lanes, none)
    return pair.inject(rows)


def _look(bench: Bench, field: Field, ours: Outcome, theirs: Outcome, rows: Rows) -> tuple[np.ndarray, ...]:
    """(error, floor, expected, actual), each (B, elements)."""
    expected, actual = bench.pair.values(field, ours, theirs, rows.clock)
    tolerance = bench.pair.contract.tolerance(field.name)
    if field.exact:
        error, bound = (expected != actual).astype(float), np.zeros(expected.shape)
    else:
        x, y = expected.astype(float), actual.astype(float)
        with np.errstate(all="ignore"):
            error = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        error = np.where(np.isfinite(error), error, np.inf)
        size = np.maximum(field.scale, np.nan_to_num(np.abs(x)))
        bound = tolerance.ratio * field.eps * size + tolerance.atol + tolerance.rtol * np.abs(np.nan_to_num(x))
    if field.live_only:
        error = np.where((ours.done | theirs.done)[:, None], 0.0, error)
    return error, bound, expected, actual


def _examined(
    bench: Bench, first: list[int], errors: dict[tuple[int, int], dict[str, tuple[np.ndarray, ...]]]
) -> tuple[dict[str, tuple[int, int, int, float, float, float, float]], dict[str, int], int]:
    """Tell drift from difference in the suspicious episodes, earliest suspicion first."""
    pair = bench.pair
    wrong: dict[str, tuple[int, int, int, float, float, float, float]] = {}
    unsure: dict[str, int] = {}
    lost = 0
    pushable = pair.ref.spec.state == "fields" and any(not f.exact for f in pair.fields)
    drifts = _drift(bench, first[:EXAMINED]) if pushable else {}
    for place, lane in enumerate(first):
        steps = sorted(t for (owner, t) in errors if owner == lane)
        for t in steps:
            for name, (error, bound, expected, actual) in errors[lane, t].items():
                field = next(f for f in pair.fields if f.name == name)
                if pushable and place >= EXAMINED:
                    unsure[name] = unsure.get(name, 0) + 1
                    continue
                tolerance = bound
                if pushable:
                    horizon, spread = drifts[lane]
                    if t >= horizon:
                        continue
                    if not field.exact:
                        tolerance = bound + pair.contract.tolerance(name).ratio * spread[name][t]
                    elif spread[name][t].any():
                        continue
                elif not field.exact and not (error > 1e-2 * np.maximum(field.scale, 1e-12)).any():
                    unsure[name] = unsure.get(name, 0) + 1
                    continue
                over = error > tolerance
                if over.any() and (name not in wrong or (t, lane) < (wrong[name][1], wrong[name][0])):
                    i = int(np.argmax(np.where(over, error, -1)))
                    wrong[name] = (lane, t, i, expected[i], actual[i], float(error[i]), float(tolerance[i]))
        if pushable and place < EXAMINED and steps and steps[-1] >= drifts[lane][0]:
            lost += 1
    examined_clean = {n for n in unsure if n not in wrong}
    # Episodes beyond those examined look like those examined; they are only counted where nothing was examined.
    return wrong, {n: unsure[n] for n in examined_clean} if not pushable else {}, lost


def _drift(bench: Bench, lanes: list[int]) -> dict[int, tuple[int, dict[str, np.ndarray]]]:
    """lane -> (horizon, field -> (steps, elements) spread of the reference's own pushed copies, growing only).

    A copy is pushed by one ulp, or by ``ratio`` ulps, at every step, at random or always the same way (a constant that
    is rounded is wrong in the same direction each time); the spread is in units of one ulp's push.
    """
    pair, played = bench.pair, bench.played
    if not lanes:
        return {}
    order = np.array(sorted(lanes))
    length = {int(e): int(played.rows.step[played.rows.episode == e].max()) + 1 for e in order}
    steps = max(length.values())
    spread = {f.name: np.zeros((len(order), steps, len(f.scale))) for f in pair.fields}
    reach = max(pair.contract.tolerance(f.name).ratio for f in pair.fields)
    index = {
        (int(e), int(t)): i
        for i, (e, t) in enumerate(zip(played.rows.episode, played.rows.step, strict=True))
        if int(e) in length
    }
    for distance in (1.0, reach):
        for number in range(NOISY + BIASED):
            on = order
            state = played.resets.take(on).state.edited()
            for t in range(steps):
                going = np.array([t < length[int(e)] for e in on], bool)  # play may have left an episode alone
                on, state = on[going], state.take(going)
                if not len(on):
                    break
                at = np.array([index[int(e), t] for e in on])
                truth = played.outcome.take(at)
                row = played.rows.take(at)
                row = Rows(state, row.seen, row.clock, row.action, row.seeds, row.episode, row.step)
                noisy = number < NOISY
                moved = pushed(pair, row, distance, t if noisy else 2 * (number - NOISY), noise=noisy)
                tape = truth.draws if truth.draws and pair.step_mode == "tape" else None
                outcome = pair.ref.step(moved.state, moved.action, moved.seeds, tape)
                place = np.searchsorted(order, on)
                for field in pair.fields:
                    x, y = (pair.reference_values(field, o, row.clock).astype(float) for o in (truth, outcome))
                    with np.errstate(all="ignore"):
                        apart = np.where(
                            (x == y) | (np.isnan(x) & np.isnan(y)),
                            0.0,
                            np.abs(x - y) / (1 if field.exact else distance),
                        )
                    spread[field.name][place, t] = np.maximum(
                        spread[field.name][place, t], np.nan_to_num(apart, nan=np.inf)
                    )
                alive = np.flatnonzero(~outcome.done & ~truth.done)
                ended_early = np.flatnonzero(outcome.done & ~truth.done)
                for e in on[ended_early]:  # the copy ended first: nothing can be said of this episode from here
                    for field in pair.fields:
                        spread[field.name][np.searchsorted(order, e), t + 1 :] = np.inf
                on, state = on[alive], outcome.state.take(alive).edited()
                if not len(on):
                    break
    found: dict[int, tuple[int, dict[str, np.ndarray]]] = {}
    for rank, lane in enumerate(order.tolist()):
        grown = {name: np.maximum.accumulate(values[rank], axis=0) for name, values in spread.items()}
        horizon = steps
        for field in pair.fields:
            ratio = pair.contract.tolerance(field.name).ratio
            limit = 0.5 if field.exact else LOST * np.maximum(field.scale, 1e-12) / ratio
            gone = np.flatnonzero((grown[field.name] > limit).any(1) & (field.scale.max() > 0))
            if len(gone):
                horizon = min(horizon, int(gone[0]))
        found[int(lane)] = (horizon, grown)
    return found


def _first_wrong(bench: Bench, wrong: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Diverging fields: the earliest; of those the state, the reward last, and what is furthest off."""
    role = {f.name: f.role for f in bench.pair.fields}

    def rank(name: str) -> tuple[int, bool, bool, float, str]:
        step, error, tolerance = (wrong[name][k] for k in (1, 5, 6))
        return int(step), role[name] != "state", name == "reward", -error / tolerance if tolerance else 0.0, name

    return sorted(wrong, key=rank)


def first_apart(bench: Bench) -> str | None:
    """The field in which free-running sides first come apart; None if they do not."""
    wrong = bench.once("lockstep", lambda: lockstep(bench)).wrong
    return _first_wrong(bench, wrong)[0] if wrong else None


def _lockstep_verdict(bench: Bench, check: Check) -> Verdict:
    return _said_of(bench, check, bench.once("lockstep", lambda: lockstep(bench)))


def along(bench: Bench, check: Check, played: Play) -> Verdict | None:
    """The lockstep verdict of one field along other episodes than the bench's; None if the sides stay together."""
    own = bench.__dict__.get("played")
    bench.played = played
    try:
        result = lockstep(bench)
        return _said_of(bench, check, result) if check.field in result.wrong else None
    finally:
        del bench.played
        if own is not None:
            bench.played = own


def _said_of(bench: Bench, check: Check, result: Lockstep) -> Verdict:
    pair = bench.pair
    evidence: dict[str, Any] = {
        "transitions": result.compared,
        "episodes": result.episodes,
        "terminations": result.terminations,
        "truncations": result.truncations,
        "episodes_beyond_predictability": result.lost,
    }
    if check.field in result.wrong:
        order = _first_wrong(bench, result.wrong)
        root = order[0]
        lane, t, i, expected, actual, error, tolerance = result.wrong[check.field]
        field = next(f for f in pair.fields if f.name == check.field)
        at = np.flatnonzero((bench.played.rows.episode == lane) & (bench.played.rows.step == t))[0]
        row = bench.played.rows.take(slice(at, at + 1))
        found = Divergence(
            field=check.field,
            index=index_of(bench, field, i),
            expected=plain(expected),
            actual=plain(actual),
            error=None if field.exact else plain(error),
            tolerance=None if field.exact else tolerance,
            why="exact"
            if field.exact
            else "64 times the drift of the reference's own copies that are pushed by one ulp at every step",
            state={k: plain(v[0]) for k, v in row.state.fields.items()},
            action={k: plain(v[0]) for k, v in row.action.items()},
            episode=lane,
            step=t,
            source="lockstep",
        )
        if root != check.field:
            return said(check, DIFFERENT, f"follows from {root}", (), evidence, found, f"{check.level}-lockstep-{root}")
        evidence["followers"] = [n for n in order if n != root]
        evidence["row"] = int(at)
        text = f"{check.field}: both sides run apart at step {t} of episode {lane}"
        return said(check, DIFFERENT, text, (), evidence, found)
    if check.field in result.unsure:
        text = f"in {result.unsure[check.field]} episodes drift and difference could not be told apart"
        return said(check, INCONCLUSIVE, text, (), evidence)
    until = f", {result.lost} of them until drift made them unpredictable" if result.lost else ""
    text = f"{result.episodes} episodes{until}, {result.compared:,} transitions run together"
    return said(check, EQUAL, text, (), evidence)


# -- episode statistics ----------------------------------------------------------------------------------------------


def own_episodes(
    bench: Bench, policy: str, units: int, sample: int, progress: Progress
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """``units`` whole episodes of each side under one policy: what was measured of ours, of theirs, and the steps.

    Where resets can be shared the i-th episodes begin alike and act alike; otherwise they are independent.
    """
    pair, view = bench.pair, TargetView(bench.pair)
    legality.same_actions(pair)
    parts: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    transitions = 0
    for wave, begun in enumerate(range(0, units, LANES)):
        progress(f"episodes of both sides, {policy}", begun, units)
        lanes = min(LANES, units - begun)
        seed = bench.settings.seed + 7_919 + 15_485_863 * wave + 179_424_673 * sample
        ours = play(pair.ref, lanes, bench.horizon, seed, (policy,))
        theirs = play(view, lanes, bench.horizon, seed if pair.reset_mode != "none" else seed + 1, (policy,))
        transitions += len(ours.rows)
        parts.append((measured(ours), measured(theirs)))
    ours_all, theirs_all = ({k: np.concatenate([p[side][k] for p in parts]) for k in STATISTICS} for side in (0, 1))
    return ours_all, theirs_all, transitions


def _episodes(bench: Bench, check: Check, progress: Progress) -> Verdict:
    pair, sizes = bench.pair, bench.sizes
    alpha = bench.share
    columns = pair.ref.spec.seats if check.field == "return" else 1
    sharing = pair.reset_mode != "none" and pair.step_mode in ("none needed", "seed")
    apart = bench.once("disagreement", lambda: _disagreement(bench, progress)) if sharing else INDEPENDENT
    needed = statistics.pairs_needed(
        sizes.margin, alpha, statistics.most_payoffs(pair.ref.spec.seats), disagreement=apart
    )
    units = min(sizes.units, needed)
    results, seen = [], 0
    for policy in _policies(bench):

        def compared(sample: int, policy: str = policy) -> statistics.Comparison:
            nonlocal seen
            ours, theirs, transitions = bench.once(
                ("episodes", policy, units, sample), partial(own_episodes, bench, policy, units, sample, progress)
            )
            x, y = ours[check.field], theirs[check.field]
            seen += transitions
            names = tuple(f"{check.field}[{i}]" for i in range(columns)) if columns > 1 else (check.field,)
            grain = grain_of(x)
            return statistics.compare(statistics.Plan(names, alpha, sizes.margin, units, resolution=grain), x, y)

        results.append((policy, statistics.twice(compared)))
    word = (
        DIFFERENT
        if any(r.word == DIFFERENT for _, r in results)
        else INCONCLUSIVE
        if any(r.word == INCONCLUSIVE for _, r in results)
        else EQUAL
    )
    policy, shown_result = next((p, r) for p, r in results if r.word == word)
    evidence = {
        "transitions": seen,
        "episodes": sum(r.units for _, r in results),
        "alpha": alpha,
        "detectable_effect": f"{max(r.detectable for _, r in results):.2g} in a probability, per policy",
        "statistics": {p: r.as_json() for p, r in results},
    }
    follows = None
    if word == DIFFERENT and any(c.subject == "lockstep" for c in checks(bench)):
        root = first_apart(bench)
        follows = f"L3-lockstep-{root}" if root else None
    return said(check, word, f"{policy}: {shown_result.text}", (), evidence, None, follows)


def _disagreement(bench: Bench, progress: Progress) -> float:
    """How often episodes that share their draws are planned to disagree, from some that are not compared."""
    ours, theirs, _ = own_episodes(bench, _policies(bench)[0], LANES, 2, progress)
    return disagreement(ours["return"], theirs["return"])


def disagreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Paired episodes are the same but where rounding tips a balance; or, where rounding grows until nothing is left of
    a common beginning (contacts do that), as good as independent. Returns (B, ...) of such pairs tell which it is."""
    apart = ~(np.abs(ours - theirs) <= grain_of(ours)) & ~(np.isnan(ours) & np.isnan(theirs))
    return ALIKE if apart.reshape(len(apart), -1).any(1).mean() <= ALIKE else INDEPENDENT


def grain_of(values: np.ndarray) -> float:
    """Statistics of episodes this close are one: rounding adds up."""
    return 1e-4 * max(float(np.max(np.abs(values[np.isfinite(values)]), initial=0)), 1e-6)


def own_lengths(bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """float[episodes] on each side: the step at which an episode was truncated; NaN where it was not."""
    lengths = []
    for side in (bench.pair.ref, TargetView(bench.pair)):
        played = play(side, LANES, bench.horizon, bench.settings.seed + 41)
        length = np.full(LANES, np.nan)
        cut = np.asarray(played.outcome.outputs.get("truncated", np.zeros(len(played.rows), bool)), bool)
        length[played.rows.episode[cut]] = played.rows.step[cut] + 1
        lengths.append(length)
    return lengths[0], lengths[1]
