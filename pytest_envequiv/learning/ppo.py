"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347): the settings, and one update from one batch.

Details are those of Huang et al., "The 37 Implementation Details of PPO" (ICLR blog track 2022), but the clipping of
the value loss, which does not help (Andrychowicz et al. 2020, arXiv 2006.05990).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pytest_envequiv.learning import choosing, networks
from pytest_envequiv.learning.interface import Choice, Interface
from pytest_envequiv.learning.normalise import Running, nothing


@dataclass(frozen=True)
class PPO:
    """Settings. ValueError for what cannot work, in one line.

    lanes, steps    episodes side by side, and steps of each between updates: a batch is lanes * steps transitions
    epochs, minibatches   how often a batch is gone through, in how many parts (of a policy with memory: of lanes)
    rate, anneal    Adam's step size, and whether it falls to 0 over the run
    discount, trace gamma, and lambda of generalised advantage estimation
    clip, most      of the probability ratio; largest norm of a gradient
    entropy, value  weights of the entropy bonus (of single choices only) and of the value loss
    hidden, memory  units of each dense layer, and of a GRU above them (0: none)
    normalise       observations by running mean and deviation, rewards by the deviation of discounted returns
    """

    lanes: int = 8
    steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    rate: float = 2.5e-4
    anneal: bool = True
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    most: float = 0.5
    entropy: float = 0.01
    value: float = 0.5
    hidden: tuple[int, ...] = (64, 64)
    memory: int = 0
    normalise: bool = True

    def __post_init__(self) -> None:
        least = {"lanes": 1, "steps": 1, "epochs": 1, "minibatches": 1, "memory": 0}
        for name, smallest in least.items():
            if type(getattr(self, name)) is not int or getattr(self, name) < smallest:
                raise ValueError(f"PPO: {name} = {getattr(self, name)!r}: give a whole number from {smallest} up")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"PPO: {name} = {getattr(self, name)!r}: give a number from 0 to 1")
        for name in ("rate", "clip", "most"):
            if not getattr(self, name) > 0:
                raise ValueError(f"PPO: {name} = {getattr(self, name)!r}: give a number above 0")
        if any(type(units) is not int or units < 1 for units in self.hidden):
            raise ValueError(f"PPO: hidden = {self.hidden!r}: give whole numbers from 1 up, like (64, 64)")
        whole, what = (self.lanes, "lanes") if self.memory else (self.batch, "lanes * steps")
        if whole % self.minibatches:
            raise ValueError(f"PPO: {what} = {whole} cannot be divided into {self.minibatches} minibatches")

    @property
    def batch(self) -> int:
        """Transitions of one update."""
        return self.lanes * self.steps

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "hidden": list(self.hidden)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> PPO:
        return PPO(**{f.name: data[f.name] for f in fields(PPO)} | {"hidden": tuple(data["hidden"])})


class Learner(NamedTuple):
    """All that learning changes. ``sight``: of observations; ``gain``: of discounted returns; ``key``: of all draws;
    ``iteration`` and ``total``: int32[], iterations made, and of the whole run."""

    params: Any
    optimiser: Any
    sight: Running
    gain: Running
    key: Any
    iteration: Any
    total: Any


class Batch(NamedTuple):
    """Transitions, each [T, B, ...]. ``x``: what was seen, normalised; ``begins``: an episode begins there; ``value``
    and ``likelihood``: what the critic and the policy said then; ``after``: the critic's value of what came next,
    0 where the episode terminated; ``done``: it ended there; ``own``: the policy's turn."""

    x: Any
    begins: Any
    legal: Any
    own: Any
    choice: Choice
    likelihood: Any
    value: Any
    reward: Any
    after: Any
    done: Any


def optimiser(ppo: PPO, total: Any) -> optax.GradientTransformation:
    """Adam with clipped gradients; ``total``: iterations of the whole run, over which the rate falls."""
    count = total * ppo.epochs * ppo.minibatches

    def rate(done: Any) -> Any:
        return ppo.rate * (jnp.maximum(1.0 - done / count, 0.0) if ppo.anneal else 1.0)

    return optax.chain(optax.clip_by_global_norm(ppo.most), optax.adam(rate, eps=1e-5))


def begun(ppo: PPO, interface: Interface, total: int, seed: int) -> Learner:
    """A learner that has seen nothing, of a run of ``total`` iterations."""
    outputs = choosing.width(interface)
    params = networks.begun(seed, interface.width, ppo.hidden, ppo.memory, outputs, interface.reals)
    key = jax.random.PRNGKey(seed)
    state = optimiser(ppo, total).init(params)
    counts = jnp.zeros((), jnp.int32), jnp.full((), total, jnp.int32)
    return Learner(params, state, nothing(interface.width), nothing(1), key, *counts)


def advantages(ppo: PPO, batch: Batch) -> Any:
    """float32[T, B]: generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438).

    An episode that was cut off (truncated) has a future: ``after`` holds its value, and the sum stops there all the
    same. One that terminated has none (Pardo et al. 2018, arXiv 1712.00378).
    """
    surprise = batch.reward + ppo.discount * batch.after - batch.value

    def back(later: Any, row: tuple[Any, Any]) -> tuple[Any, Any]:
        delta, done = row
        now = delta + ppo.discount * ppo.trace * jnp.where(done, 0.0, later)
        return now, now

    nothing_yet = jnp.zeros_like(surprise[0])
    return jax.lax.scan(back, nothing_yet, (surprise, batch.done), reverse=True)[1]


def updated(
    ppo: PPO, interface: Interface, learner: Learner, batch: Batch, memory: Any, key: Any
) -> tuple[Learner, dict[str, Any]]:
    """One update from one batch, the same for every kind of environment, and numbers that describe it.

    ``memory``: what the lanes remembered before the first step. Without memory the transitions are shuffled one by
    one, with it the lanes are, and their sequences are run through the network again.
    """
    advantage = advantages(ppo, batch)
    data = (batch, advantage, advantage + batch.value)
    rows = ppo.lanes if ppo.memory else ppo.batch
    if not ppo.memory:  # every transition is a sequence of length 1
        data = jax.tree.map(lambda leaf: leaf.reshape(1, rows, *leaf.shape[2:]), data)
        memory = networks.empty_memory(rows, 0)
    method = optimiser(ppo, learner.total)

    def minibatch(state: tuple[Any, Any], which: Any) -> tuple[Any, Any]:
        params, kept = state
        part = jax.tree.map(lambda leaf: jnp.take(leaf, which, 1), data)
        remembered = jax.tree.map(lambda leaf: leaf[which], memory)
        grads, told = jax.grad(_loss, argnums=2, has_aux=True)(ppo, interface, params, *part, remembered)
        change, kept = method.update(grads, kept, params)
        return (optax.apply_updates(params, change), kept), told

    # A shuffle is the order of random numbers: one sort, where jax.random.permutation compiles several.
    orders = jnp.argsort(jax.random.bits(key, (ppo.epochs, rows), jnp.uint32)).reshape(-1, rows // ppo.minibatches)
    (params, kept), told = jax.lax.scan(minibatch, (learner.params, learner.optimiser), orders)
    told = {name: value.mean() for name, value in told.items()}
    rest = jnp.var(data[2] - data[0].value) / jnp.maximum(jnp.var(data[2]), 1e-8)
    learner = learner._replace(params=params, optimiser=kept, iteration=learner.iteration + 1)
    return learner, {**told, "explained": 1.0 - rest}


def _loss(
    ppo: PPO, interface: Interface, params: Any, batch: Batch, advantage: Any, target: Any, memory: Any
) -> tuple[Any, dict[str, Any]]:
    """The clipped objective, the value's squared error and the entropy; sequences [T, B, ...]."""
    output, value, _ = networks.outputs(params, batch.x, memory, batch.begins)
    likelihood, entropy = choosing.log_probability(interface, output, params["spread"], batch.legal, batch.choice)
    own = batch.own.astype(jnp.float32)
    weight = own / jnp.maximum(own.sum(), 1.0)  # what others chose teaches the critic only
    mean = (weight * advantage).sum()
    deviation = jnp.sqrt((weight * (advantage - mean) ** 2).sum())
    advantage = (advantage - mean) / (deviation + 1e-8)
    change = jnp.where(batch.own, likelihood - batch.likelihood, 0.0)
    ratio = jnp.exp(change)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - ppo.clip, 1 + ppo.clip) * advantage)
    error = 0.5 * ((value - target) ** 2).mean()
    told = {
        "entropy": (weight * entropy).sum(),
        "divergence": (weight * (ratio - 1 - change)).sum(),  # of the new policy from the old: Schulman's estimate
        "clipped": (weight * (jnp.abs(ratio - 1) > ppo.clip)).sum(),
        "error": error,
    }
    return -(weight * gain).sum() + ppo.value * error - ppo.entropy * told["entropy"], told
