"""Both sides played by the same trained policies: pairs of episodes, and the reference's as play to look at."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pytest_envequiv.backends.protocol import AGENT, MASK, Arrays, Outcome, State
from pytest_envequiv.bench import LANES, Bench
from pytest_envequiv.errors import Limitation
from pytest_envequiv.levels.schooling import Pupil, SideName, horizon, pupils
from pytest_envequiv.stimuli.play import Play, Rows, join_outcomes, measured, play, seeds_for
from pytest_envequiv.verdict import Progress

KEPT = 4  # waves of episodes of each policy whose steps are looked at


def sides(bench: Bench) -> list[SideName]:
    """Where policies are trained. On a reference that cannot be compiled with its learner only by a patient profile."""
    affordable = bench.pair.ref.spec.traceable or bench.settings.profile != "quick"
    return ["target", "reference"] if affordable else ["target"]


# -- episodes on both sides --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Wave:
    """LANES pairs of episodes of one policy: float[LANES], returns of seat 0; ``play``: the reference's, if kept."""

    ours: np.ndarray
    theirs: np.ndarray
    transitions: int
    play: Play | None


def wave(bench: Bench, pupil: Pupil, sample: int, number: int) -> Wave:
    """The same wave is always the same episodes, and the i-th pair shares its seed, its draws as far as they align, and
    the noise of its actions."""
    key = ("wave", pupil.side, pupil.number, sample, number)
    found: Wave = bench.once(key, partial(_wave, bench, pupil, sample, number))
    return found


def _wave(bench: Bench, pupil: Pupil, sample: int, number: int) -> Wave:
    pair = bench.pair
    seed = int(seeds_for(bench.settings.seed, 61, pupil.side == "target", pupil.number, sample, number, count=1)[0])
    ours = play(pair.ref, LANES, horizon(bench), seed, actor=pupil.policy.actor(LANES, seed))
    theirs, steps = _follow(bench, pupil, ours, seed)
    kept = _first_episodes(ours, _allowance(bench)) if sample == 0 and number < KEPT else None
    return Wave(measured(ours)["return"][:, 0], theirs, len(ours.rows) + steps, kept)


def _follow(bench: Bench, pupil: Pupil, ours: Play, seed: int) -> tuple[np.ndarray, int]:
    """The target's own episodes under the policy, with the reference's draws for as long as both play on: float[LANES]
    returns, and the steps taken."""
    pair = bench.pair
    names = {MASK: MASK, AGENT: AGENT} | pair.observations
    alike = pair.reset_mode != "none"
    begun = pair.reset_both(ours.reset_seeds)[1] if alike else pair.target.reset(seeds_for(seed, 5, count=LANES))
    actor = pupil.policy.actor(LANES, seed)
    lanes, state, outputs = np.arange(LANES), begun.state, begun.outputs
    total, steps = np.zeros(LANES), 0
    for t in range(horizon(bench)):
        rows = np.flatnonzero(ours.rows.step == t)
        both = np.isin(lanes, ours.rows.episode[rows]) & (alike and pair.step_mode == "tape")
        order = np.concatenate([np.flatnonzero(both), np.flatnonzero(~both)])
        lanes, state = lanes[order], state.take(order)
        seen = {new: outputs[old][order] for old, new in names.items() if old in outputs}
        action = actor.act(seen, lanes)
        seeds = seeds_for(seed, 2 if alike else 6, t, count=LANES)[lanes]
        outcome = _stepped(bench, ours, rows, int(both.sum()), lanes, state, action, seeds)
        total[lanes] += np.asarray(outcome.outputs["reward"], float).reshape(len(lanes), -1)[:, 0]
        steps += len(lanes)
        on = np.flatnonzero(~outcome.done)
        if not len(on):
            break
        lanes, state, outputs = lanes[on], outcome.state.take(on), {k: v[on] for k, v in outcome.outputs.items()}
    return total, steps


def _stepped(
    bench: Bench,
    ours: Play,
    rows: np.ndarray,
    shared: int,
    lanes: np.ndarray,
    state: State,
    action: Arrays,
    seeds: np.ndarray,
) -> Outcome:
    """One step of the target: the first ``shared`` lanes with the draws of the reference's row, the rest without."""
    pair, parts = bench.pair, []
    for part in (slice(0, shared), slice(shared, len(lanes))):
        if part.start == part.stop:
            continue
        tape = None
        if part.start == 0 and shared:
            at = rows[np.searchsorted(ours.rows.episode[rows], lanes[part])]
            tape = ours.outcome.take(at).draws
        chosen = {name: value[part] for name, value in action.items()}
        parts.append(pair.target_step(state.take(part), chosen, seeds[part], tape))
    return parts[0] if len(parts) == 1 else join_outcomes([Outcome(p.state, p.outputs) for p in parts])


# -- skilled play ------------------------------------------------------------------------------------------------------


def skilled(bench: Bench, progress: Progress) -> Bench:
    """The bench on which the reference was played by the trained policies."""
    found: Bench = bench.once("skilled", lambda: bench.along(_skilled_play(bench, progress)))
    return found


def school_of(bench: Bench, progress: Progress) -> list[Pupil]:
    """All policies; those of the reference if they could be trained."""
    found = list(pupils(bench, "target", progress))
    if "reference" in sides(bench):
        with contextlib.suppress(Limitation):
            found += pupils(bench, "reference", progress)
    return found


def _allowance(bench: Bench) -> int:
    """Rows kept of a wave: all of them together are as many as the profile plays."""
    return bench.sizes.most // (bench.sizes.policies * len(sides(bench)) * KEPT)


def _skilled_play(bench: Bench, progress: Progress) -> Play:
    school, parts = school_of(bench, progress), []
    for number in range(KEPT):
        for pupil in school:
            progress(f"L4: skilled play of policy {pupil.number} of the {pupil.side}", number, KEPT)
            kept = wave(bench, pupil, 0, number).play
            assert kept is not None
            parts.append(kept)
    return _joined(parts)


def _first_episodes(played: Play, most: int) -> Play:
    """Whole episodes from the first on, at least one, of at most ``most`` transitions together."""
    length = np.bincount(played.rows.episode, minlength=played.episodes)
    count = max(1, int((np.cumsum(length) <= most).sum()))
    at = np.flatnonzero(played.rows.episode < count)
    first = slice(0, count)
    return Play(
        played.rows.take(at),
        played.outcome.take(at),
        played.resets.take(first),
        played.reset_seeds[first],
        played.policy[at],
    )


def _joined(parts: list[Play]) -> Play:
    """Several plays as one; episodes are numbered on."""
    before = np.cumsum([0, *[p.episodes for p in parts[:-1]]])
    rows = [replace(p.rows, episode=p.rows.episode + n) for p, n in zip(parts, before, strict=True)]
    return Play(
        Rows.join(rows),
        join_outcomes([p.outcome for p in parts]),
        join_outcomes([p.resets for p in parts]),
        np.concatenate([p.reset_seeds for p in parts]),
        np.concatenate([p.policy for p in parts]),
    )
