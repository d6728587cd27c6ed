"""A trained policy: what it does when it is shown something, whichever environment shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.protocol import AGENT, MASK, Arrays
from pytest_envequiv.learning import choosing, networks
from pytest_envequiv.learning.interface import Interface, Seen, action_of, as_numpy, look
from pytest_envequiv.learning.normalise import Running, normalised
from pytest_envequiv.learning.ppo import PPO


@dataclass(frozen=True, eq=False)
class Policy:
    """Frozen: neither its parameters nor its normaliser change any more."""

    ppo: PPO
    interface: Interface
    params: Any
    sight: Running

    def actor(self, lanes: int, seed: int, greedy: bool = False, name: str = "trained") -> Actor:
        """The policy at work in ``lanes`` lanes. The same seed and the same sights give the same actions."""
        return Actor(self, lanes, seed, greedy, np.full(lanes, name))


@dataclass
class Actor:
    """One policy in many lanes, with what it remembers in each; ``stimuli.play.play`` takes it as an actor.

    ``greedy``: the likeliest action instead of a drawn one.
    """

    policy: Policy
    lanes: int
    seed: int
    greedy: bool
    names: np.ndarray
    _step: int = 0
    _shown: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._memory = networks.empty_memory(self.lanes, self.policy.ppo.memory)

    def act(self, seen: Arrays, rows: np.ndarray) -> Arrays:
        """Actions for the lanes ``rows``, which see ``seen``: name -> (len(rows), *shape)."""
        policy = self.policy
        # All lanes are always computed, with old sights where an episode is over: one shape, one program.
        for name in (*(part.name for part in policy.interface.sees), MASK, AGENT):
            if name in seen:
                value = np.asarray(seen[name])
                if name not in self._shown:
                    self._shown[name] = np.zeros((self.lanes, *value.shape[1:]), value.dtype)
                self._shown[name][rows] = value
        begins = np.full(self.lanes, self._step == 0)
        learned = (policy.params, policy.sight)
        action, self._memory = _acted(
            policy.ppo, policy.interface, self.greedy, learned, self._shown, self._memory, begins, self.seed, self._step
        )
        self._step += 1
        return {name: value[rows] for name, value in as_numpy(policy.interface, action).items()}


@partial(jax.jit, static_argnums=(0, 1, 2))
def _acted(
    ppo: PPO,
    interface: Interface,
    greedy: bool,
    learned: tuple[Any, Running],
    shown: dict[str, Any],
    memory: Any,
    begins: Any,
    seed: Any,
    step: Any,
) -> tuple[dict[str, Any], Any]:
    params, sight = learned
    seen: Seen = look(interface, shown)
    x = normalised(sight, seen.features) if ppo.normalise else seen.features
    output, _, memory = networks.outputs(params, x[None], memory, begins[None])
    key = jax.random.fold_in(jax.random.PRNGKey(seed), step)
    choice = choosing.drawn(interface, output[0], params["spread"], seen, key)[0]
    if greedy:
        best = choosing.likeliest(interface, output[0], seen)
        choice = jax.tree.map(
            lambda own, other: jnp.where(seen.turn.reshape(-1, *[1] * (own.ndim - 1)), own, other), best, choice
        )
    return action_of(interface, choice), memory
