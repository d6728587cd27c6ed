"""Rows: a batch of one-step inputs with where they came from; and play, the first source of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_envequiv.backends.protocol import MASK, Arrays, Backend, Outcome, State
from pytest_envequiv.stimuli.policies import PORTFOLIO, Portfolio
from pytest_envequiv.verdict import Progress, silent


@dataclass(frozen=True)
class Rows:
    """B inputs of one step.

    state     the reference's states
    seen      what it showed there: observation, mask, agent (needed to fill a target that keeps them in its state)
    clock     int[B], steps since the reset
    action    what to do
    seeds     int[B], for draws that nothing else supplies
    episode, step   int[B], where in play the row was met; -1 for made-up states
    paired    the target's states that belong to the same histories, where injecting is not possible
    """

    state: State
    seen: Arrays
    clock: np.ndarray
    action: Arrays
    seeds: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    paired: State | None = None

    def __len__(self) -> int:
        return len(self.clock)

    def take(self, rows: Any) -> Rows:
        return Rows(
            self.state.take(rows),
            {k: v[rows] for k, v in self.seen.items()},
            self.clock[rows],
            {k: v[rows] for k, v in self.action.items()},
            self.seeds[rows],
            self.episode[rows],
            self.step[rows],
            None if self.paired is None else self.paired.take(rows),
        )

    def doing(self, action: Arrays) -> Rows:
        return replace(self, action=action)

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        def cat(arrays: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(arrays)

        paired = [p.paired for p in parts if p.paired is not None]
        return Rows(
            State.join([p.state for p in parts]),
            {k: cat([p.seen[k] for p in parts]) for k in parts[0].seen},
            cat([p.clock for p in parts]),
            {k: cat([p.action[k] for p in parts]) for k in parts[0].action},
            cat([p.seeds for p in parts]),
            cat([p.episode for p in parts]),
            cat([p.step for p in parts]),
            State.join(paired) if len(paired) == len(parts) else None,
        )


@dataclass(frozen=True)
class Play:
    """Episodes of one backend, flattened to transitions: row i of ``rows`` led to row i of ``outcome``.

    resets   the outcome of the resets, one row an episode; ``reset_seeds`` what they were begun with
    policy   str[B], what chose the action
    """

    rows: Rows
    outcome: Outcome
    resets: Outcome
    reset_seeds: np.ndarray
    policy: np.ndarray

    @property
    def episodes(self) -> int:
        return len(self.reset_seeds)

    def alive(self) -> np.ndarray:
        """bool[B]: transitions that did not end their episode."""
        return ~self.outcome.done


def seeds_for(*words: int, count: int) -> np.ndarray:
    """int[count], below 2**31: the same words give the same seeds, whatever else was drawn before."""
    return np.random.default_rng(list(words)).integers(0, 2**31 - 1, count)


def play(
    backend: Backend,
    episodes: int,
    steps: int,
    seed: int,
    only: tuple[str, ...] = PORTFOLIO,
    progress: Progress = silent,
    what: str = "play",
    most: int | None = None,
    actor: Any = None,
) -> Play:
    """Play ``episodes`` episodes of at most ``steps`` steps in parallel lanes. The same seed plays the same.

    ``most`` bounds the number of transitions: no step is begun after it. ``actor`` acts instead of a portfolio: it has
    ``act(seen, rows)`` and ``names`` as a Portfolio has.
    """
    seeds = seeds_for(seed, 1, count=episodes)
    resets = backend.reset(seeds)
    portfolio = Portfolio.of(backend.spec.action, episodes, seed, only) if actor is None else actor
    lanes = np.arange(episodes)
    state, seen = resets.state, resets.outputs
    rows, outcomes, policies, total = [], [], [], 0
    for t in range(steps):
        action = portfolio.act(told(backend, seen), lanes)
        row_seeds = seeds_for(seed, 2, t, count=episodes)[lanes]
        outcome = backend.step(state, action, row_seeds)
        clock = np.full(len(lanes), t)
        rows.append(Rows(state, shown(seen), clock, action, row_seeds, lanes, clock))
        outcomes.append(outcome)
        policies.append(portfolio.names[lanes])
        total += len(lanes)
        on = np.flatnonzero(~outcome.done)
        if t % 16 == 0:
            progress(what, total, 0)
        if not len(on) or (most is not None and total >= most):
            break
        ended = len(on) < len(lanes)
        lanes = lanes[on] if ended else lanes
        state = outcome.state.take(on) if ended else outcome.state
        seen = {k: v[on] for k, v in outcome.outputs.items()} if ended else outcome.outputs
    return Play(Rows.join(rows), join_outcomes(outcomes), resets, seeds, np.concatenate(policies))


def measured(played: Play) -> dict[str, np.ndarray]:
    """float[episodes, seats] return and float[episodes, 1] length."""
    count = played.episodes
    reward = np.asarray(played.outcome.outputs["reward"], float).reshape(len(played.rows), -1)
    total = np.zeros((count, reward.shape[1]))
    np.add.at(total, played.rows.episode, reward)
    length = np.bincount(played.rows.episode, minlength=count).astype(float)[:, None]
    return {"return": total, "length": length}


def reset_many(backend: Any, seeds: np.ndarray, together: int = 64) -> Outcome:
    """Many resets, ``together`` at a time: a backend that keeps one object a lane need not make thousands."""
    parts = [backend.reset(seeds[i : i + together]) for i in range(0, len(seeds), together)]
    return join_outcomes([Outcome(p.state, p.outputs) for p in parts])


def collect(
    backend: Backend, lanes: int, steps: int, most: int, seed: int, progress: Progress = silent, what: str = "play"
) -> Play:
    """Play ``most`` transitions in ``lanes`` lanes; a lane whose episode ends, or has lasted ``steps``, begins another.

    The same seed plays the same. Episodes are numbered in the order they begin.
    """
    rng = np.random.default_rng([seed, 3])
    everyone = np.arange(lanes)
    fresh_seeds = rng.integers(0, 2**31 - 1, lanes)
    begun = backend.reset(fresh_seeds)
    reset_seeds, first = [fresh_seeds], [begun]
    portfolio = Portfolio.of(backend.spec.action, lanes, seed)
    state, seen = begun.state, shown(begun.outputs)
    episode, clock, count = everyone.copy(), np.zeros(lanes, int), lanes
    rows, outcomes = [], []
    for t in range(-(-most // lanes)):
        action = portfolio.act(told(backend, seen), everyone)
        seeds = rng.integers(0, 2**31 - 1, lanes)
        outcome = backend.step(state, action, seeds)
        rows.append(Rows(state, seen, clock.copy(), action, seeds, episode.copy(), clock.copy()))
        outcomes.append(outcome)
        clock += 1
        state, seen = outcome.state, shown(outcome.outputs)
        over = np.flatnonzero(outcome.done | (clock >= steps))
        if len(over):
            fresh_seeds = rng.integers(0, 2**31 - 1, len(over))
            begun = backend.reset(fresh_seeds)
            reset_seeds.append(fresh_seeds)
            first.append(begun)
            state = spliced(state, over, begun.state)
            seen = {k: replaced(v, over, begun.outputs[k]) for k, v in seen.items()}
            episode[over] = count + np.arange(len(over))
            clock[over] = 0
            count += len(over)
            portfolio.renew(over)
        if t % 16 == 0:
            progress(what, (t + 1) * lanes, most)
    return Play(
        Rows.join(rows),
        join_outcomes(outcomes),
        join_outcomes([Outcome(b.state, b.outputs, b.draws) for b in first]),
        np.concatenate(reset_seeds),
        np.tile(portfolio.names, len(rows)),
    )


def spliced(state: State, rows: np.ndarray, new: State) -> State:
    """``state`` with the chosen rows replaced by those of ``new``."""
    hidden = state.hidden
    if hidden is not None and new.hidden is not None:
        hidden = replaced(hidden, rows, new.hidden)
    return State({k: replaced(v, rows, new.fields[k]) for k, v in state.fields.items()}, hidden)


def replaced(value: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A copy of ``value`` with the chosen rows replaced."""
    value = value.astype(np.result_type(value, new), copy=True) if value.dtype != new.dtype else value.copy()
    value[rows] = new
    return value


def shown(outputs: Arrays) -> Arrays:
    """What an agent sees before it acts: observations, mask, whose turn it is."""
    return {k: v for k, v in outputs.items() if k.startswith("observation") or k in ("mask", "agent")}


def told(backend: Any, seen: Arrays) -> Arrays:
    """What policies are told of what was seen: of a mask only if they are to keep to it (``Side.masked``)."""
    return seen if getattr(backend, "masked", True) else {k: v for k, v in seen.items() if k != MASK}


def join_outcomes(outcomes: list[Outcome]) -> Outcome:
    """One outcome of all rows. Draws are joined by label; rows without one are marked as not having made it."""
    from pytest_envequiv.stimuli.draws import join_tapes

    tapes = [(len(o.state), o.draws) for o in outcomes]
    return Outcome(
        State.join([o.state for o in outcomes]),
        {k: np.concatenate([o.outputs[k] for o in outcomes]) for k in outcomes[0].outputs},
        None if any(t is None for _, t in tapes) else join_tapes([(n, t) for n, t in tapes if t is not None]),
    )
