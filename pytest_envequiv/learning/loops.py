"""Playing and learning in turn, for environments that are compiled with the learner and for all others.

Both loops do the same: in each step ``decided`` before the environment moves and ``noted`` after it, then ``updated``
once an iteration. All randomness is drawn from the learner's key, the iteration and the step, so the two loops give
the same numbers on the same environment, and a run that was interrupted goes on as if it had not been.

An episode that ends is followed by a new one in the same lane; what was seen last is valued first, if the episode was
only cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.protocol import AGENT, DONE, MASK, REWARD, TERMINATED, TRUNCATED, Arrays, Backend, State
from pytest_envequiv.learning import choosing, networks
from pytest_envequiv.learning.interface import Choice, Interface, Seen, action_of, as_numpy, look
from pytest_envequiv.learning.normalise import merged, normalised, scaled
from pytest_envequiv.learning.ppo import PPO, Batch, Learner, updated
from pytest_envequiv.stimuli.play import replaced, spliced
from pytest_envequiv.verdict import Progress, silent

# What is told of each iteration; "episodes" that ended in it, and the sums of their returns and lengths.
TOLD = ("episodes", "returns", "lengths", "entropy", "divergence", "clipped", "error", "explained")


class Lanes(NamedTuple):
    """B lanes between two steps. ``state``: the environment's fields (``Arrays``); ``memory``: the policy's;
    ``begins``: bool[B], nothing was done yet in this episode; float32[B]: ``discounted`` return of the normaliser,
    ``score`` and ``length`` of the episode so far."""

    state: Any
    seen: Seen
    memory: Any
    begins: Any
    discounted: Any
    score: Any
    length: Any


class Decided(NamedTuple):
    """What was seen and chosen in one step, before the environment moved."""

    x: Any
    choice: Choice
    likelihood: Any
    value: Any
    memory: Any


class Draws(NamedTuple):
    """What is drawn in an iteration: a key for each step's actions, uint32[T, 2]; the environment's seeds of each step,
    and of the resets after it, int32[T, B] from 0 up; a key for the update."""

    acts: Any
    moves: Any
    begins: Any
    shuffle: Any


class Ended(NamedTuple):
    """Episodes that ended: how many, and the sums of their returns and lengths; float32[]."""

    episodes: Any
    returns: Any
    lengths: Any


# -- one step ----------------------------------------------------------------------------------------------------------


def decided(
    ppo: PPO, interface: Interface, learner: Learner, lanes: Lanes, key: Any
) -> tuple[Learner, Decided, dict[str, Any]]:
    """What the policy does now, and the action as the environment takes it."""
    if ppo.normalise:
        learner = learner._replace(sight=merged(learner.sight, lanes.seen.features))
    x = _normal(ppo, learner, lanes.seen.features)
    output, value, memory = networks.outputs(learner.params, x[None], lanes.memory, lanes.begins[None])
    choice, likelihood = choosing.drawn(interface, output[0], learner.params["spread"], lanes.seen, key)
    return learner, Decided(x, choice, likelihood, value[0], memory), action_of(interface, choice)


def noted(
    ppo: PPO, learner: Learner, lanes: Lanes, now: Decided, reward: Any, ends: tuple[Any, Any], last: Seen, fresh: Seen
) -> tuple[Learner, Lanes, Batch, Ended]:
    """After the environment moved: what is learned from, and the lanes before the next step (without their state).

    ``ends``: terminated and truncated, bool[B]; ``last``: what was seen then; ``fresh``: what is seen after lanes that
    ended began anew.
    """
    terminated, truncated = ends
    done, cut = terminated | truncated, truncated & ~terminated
    discounted = ppo.discount * lanes.discounted + reward
    paid = reward
    if ppo.normalise:
        learner = learner._replace(gain=merged(learner.gain, discounted[:, None]))
        paid = scaled(learner.gain, reward[:, None])[:, 0]

    def of_last() -> Any:
        x = _normal(ppo, learner, last.features)
        return networks.run(learner.params["critic"], x[None], now.memory["critic"], jnp.zeros_like(done)[None])[0][0]

    value = jax.lax.cond(cut.any(), lambda: of_last()[:, 0], lambda: jnp.zeros_like(reward))
    score, length = lanes.score + reward, lanes.length + 1
    batch = Batch(
        x=now.x,
        begins=lanes.begins,
        legal=lanes.seen.legal,
        own=lanes.seen.turn,
        choice=now.choice,
        likelihood=now.likelihood,
        value=now.value,
        reward=paid,
        after=jnp.where(cut, value, 0.0),
        done=done,
    )
    ended = Ended(done.sum().astype(jnp.float32), jnp.where(done, score, 0.0).sum(), jnp.where(done, length, 0.0).sum())
    on = (jnp.where(done, 0.0, old) for old in (discounted, score, length))
    return learner, Lanes(None, fresh, now.memory, done, *on), batch, ended


def finished(
    ppo: PPO, interface: Interface, learner: Learner, lanes: Lanes, memory: Any, batch: Batch, ended: Ended, key: Any
) -> tuple[Learner, Any]:
    """The end of an iteration: the update, and float32[len(TOLD)]. ``memory``: the policy's before the first step."""
    x = _normal(ppo, learner, lanes.seen.features)
    beyond = networks.outputs(learner.params, x[None], lanes.memory, lanes.begins[None])[1]
    going = jnp.concatenate([batch.value[1:], beyond])
    batch = batch._replace(after=jnp.where(batch.done, batch.after, going))
    learner, told = updated(ppo, interface, learner, batch, memory, key)
    sums = {name: value.sum() for name, value in ended._asdict().items()}
    return learner, jnp.stack([{**sums, **told}[name] for name in TOLD])


def draws_of(ppo: PPO, learner: Learner) -> Draws:
    """All draws of the iteration that is about to begin."""
    acts, seeds, shuffle = jax.random.split(jax.random.fold_in(learner.key, learner.iteration), 3)
    moves, begins = _seeds(seeds, (2, ppo.steps, ppo.lanes))
    return Draws(jax.random.bits(acts, (ppo.steps, 2), jnp.uint32), moves, begins, shuffle)


def beginnings(ppo: PPO, learner: Learner) -> Any:
    """int32[B]: seeds of first episodes."""
    return _seeds(jax.random.fold_in(learner.key, 2**31 - 1 - learner.iteration), (ppo.lanes,))


def _seeds(key: Any, shape: tuple[int, ...]) -> Any:
    return (jax.random.bits(key, shape, jnp.uint32) >> 1).astype(jnp.int32)


def _normal(ppo: PPO, learner: Learner, features: Any) -> Any:
    return normalised(learner.sight, features) if ppo.normalise else features


def first_lanes(ppo: PPO, seen: Seen, state: Any) -> Lanes:
    zeros = jnp.zeros(ppo.lanes, jnp.float32)
    memory = networks.empty_memory(ppo.lanes, ppo.memory)
    return Lanes(state, seen, memory, jnp.ones(ppo.lanes, bool), zeros, zeros, zeros)


def reward_of(outputs: Any) -> Any:
    """float32[B] of seat 0."""
    reward = jnp.asarray(outputs[REWARD]).astype(jnp.float32)
    return reward if reward.ndim == 1 else reward[:, 0]


def ends_of(outputs: Any) -> tuple[Any, Any]:
    """terminated and truncated, bool[B]. One merged flag counts as terminated."""
    if DONE in outputs:
        done = jnp.asarray(outputs[DONE]).astype(bool)
        return done, jnp.zeros_like(done)
    return jnp.asarray(outputs[TERMINATED]).astype(bool), jnp.asarray(outputs[TRUNCATED]).astype(bool)


# -- compiled as a whole -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Compiled:
    """The whole loop in one program, for environments that are pure JAX functions of one row.

    reset(seed) -> (fields, outputs); step(fields, action, seed) -> (fields, outputs)
    """

    ppo: PPO
    interface: Interface
    reset: Callable[..., Any]
    step: Callable[..., Any]

    def begin(self, learner: Learner) -> Lanes:
        """The first episodes."""
        return jax.jit(self._begin)(learner)  # type: ignore[no-any-return]

    def advance(
        self, learner: Learner, lanes: Lanes, iterations: int, most: int, progress: Progress = silent
    ) -> tuple[Learner, Lanes, np.ndarray]:
        """``iterations`` more, of at most ``most``, for which it is compiled; and float32[iterations, len(TOLD)]."""
        learner, lanes, told = self._program(learner, lanes, iterations, most)
        return learner, lanes, np.asarray(told)[:iterations]

    @cached_property
    def _program(self) -> Callable[..., Any]:
        return jax.jit(self._advance, static_argnums=3)

    def _begin(self, learner: Learner) -> Lanes:
        state, outputs = jax.vmap(self.reset)(beginnings(self.ppo, learner))
        return first_lanes(self.ppo, look(self.interface, outputs), state)

    def _advance(self, learner: Learner, lanes: Lanes, iterations: Any, most: int) -> tuple[Learner, Lanes, Any]:
        def one(number: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            learner, lanes, told = carry
            learner, lanes, row = self._iteration(learner, lanes)
            return learner, lanes, told.at[number].set(row)

        told = jnp.zeros((most, len(TOLD)), jnp.float32)
        return jax.lax.fori_loop(0, iterations, one, (learner, lanes, told))  # type: ignore[no-any-return]

    def _iteration(self, learner: Learner, lanes: Lanes) -> tuple[Learner, Lanes, Any]:
        memory, draws = lanes.memory, draws_of(self.ppo, learner)
        (learner, lanes), (batch, ended) = jax.lax.scan(self._step, (learner, lanes), draws[:3])
        learner, told = finished(self.ppo, self.interface, learner, lanes, memory, batch, ended, draws.shuffle)
        return learner, lanes, told

    def _step(self, carry: tuple[Learner, Lanes], draws: Any) -> tuple[tuple[Learner, Lanes], tuple[Batch, Ended]]:
        (learner, lanes), (act, moves, begins) = carry, draws
        learner, now, action = decided(self.ppo, self.interface, learner, lanes, act)
        state, outputs = jax.vmap(self.step)(lanes.state, action, moves)
        begun, shown = jax.vmap(self.reset)(begins)
        last, ends = look(self.interface, outputs), ends_of(outputs)
        over = ends[0] | ends[1]

        def renewed(new: Any, old: Any) -> Any:
            return jnp.where(over.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        fresh = jax.tree.map(renewed, look(self.interface, shown), last)
        learner, lanes, batch, ended = noted(self.ppo, learner, lanes, now, reward_of(outputs), ends, last, fresh)
        return (learner, lanes._replace(state=jax.tree.map(renewed, begun, state))), (batch, ended)


# -- step by step ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Stepped:
    """The same loop around a backend that takes and gives numpy arrays: Rust, C, processes, Python objects.

    Between two calls of ``advance`` only what a checkpoint can hold is kept: named fields, or, where a state has none,
    nothing, and all lanes begin anew. That is so whether or not a checkpoint is written.
    """

    ppo: PPO
    interface: Interface
    backend: Backend

    def begin(self, learner: Learner) -> Lanes:
        """The first episodes."""
        begun = self.backend.reset(np.asarray(beginnings(self.ppo, learner), np.int64))
        return first_lanes(
            self.ppo, _look(self.interface, _needed(self.interface, begun.outputs)), dict(begun.state.fields)
        )

    def advance(
        self, learner: Learner, lanes: Lanes, iterations: int, most: int, progress: Progress = silent
    ) -> tuple[Learner, Lanes, np.ndarray]:
        """As ``Compiled.advance``; ``progress`` hears how far it has come after every step."""
        if self.backend.spec.state == "fields":
            state = State({name: np.asarray(value) for name, value in lanes.state.items()})
        else:
            begun = self.backend.reset(np.asarray(beginnings(self.ppo, learner), np.int64))
            lanes, state = (
                first_lanes(self.ppo, _look(self.interface, _needed(self.interface, begun.outputs)), None),
                begun.state,
            )
        lanes, told = lanes._replace(state=None), []
        for taken in range(iterations):
            learner, lanes, state, row = self._iteration(learner, lanes, state, taken, progress)
            told.append(np.asarray(row))
        return learner, lanes._replace(state=dict(state.fields)), np.stack(told)

    def _iteration(
        self, learner: Learner, lanes: Lanes, state: State, taken: int, progress: Progress
    ) -> tuple[Learner, Lanes, State, Any]:
        memory, draws, kept = lanes.memory, _draws_of(self.ppo, learner), []
        acts, moves, begins = (np.asarray(drawn) for drawn in draws[:3])
        optimiser, learner = learner.optimiser, learner._replace(optimiser=None)  # the less is handed over, the faster
        for number in range(self.ppo.steps):
            learner, now, action = _decided(self.ppo, self.interface, learner, lanes, acts[number])
            outcome = self.backend.step(state, as_numpy(self.interface, action), moves[number].astype(np.int64))
            state, shown = outcome.state, outcome.outputs
            over = np.flatnonzero(outcome.done)
            if len(over):
                begun = self.backend.reset(begins[number][over].astype(np.int64))
                state = spliced(state, over, begun.state)
                shown = {k: replaced(v, over, begun.outputs[k]) for k, v in shown.items() if k in begun.outputs}
            last, fresh = (_needed(self.interface, outputs) for outputs in (outcome.outputs, shown))
            learner, lanes, *row = _noted(self.ppo, self.interface, learner, lanes, now, last, fresh)
            kept.append(row)
            progress("learning", (taken * self.ppo.steps + number + 1) * self.ppo.lanes, 0)
        batch, ended = jax.tree.map(lambda *rows: np.stack(rows), *kept)
        learner = learner._replace(optimiser=optimiser)
        learner, row = _finished(self.ppo, self.interface, learner, lanes, memory, batch, ended, draws.shuffle)
        return learner, lanes, state, row


def _needed(interface: Interface, outputs: Arrays) -> Arrays:
    """Of the outputs, those a learner looks at: others may be of any dtype."""
    names = (*(part.name for part in interface.sees), MASK, AGENT, REWARD, TERMINATED, TRUNCATED, DONE)
    return {name: outputs[name] for name in names if name in outputs}


def _noted_outputs(
    ppo: PPO, interface: Interface, learner: Learner, lanes: Lanes, now: Decided, outputs: Arrays, shown: Arrays
) -> tuple[Learner, Lanes, Batch, Ended]:
    last, fresh = look(interface, outputs), look(interface, shown)
    return noted(ppo, learner, lanes, now, reward_of(outputs), ends_of(outputs), last, fresh)


_look = jax.jit(look, static_argnums=0)
_decided = jax.jit(decided, static_argnums=(0, 1))
_noted = jax.jit(_noted_outputs, static_argnums=(0, 1))
_finished = jax.jit(finished, static_argnums=(0, 1))
_draws_of = jax.jit(draws_of, static_argnums=0)
