"""From the policy network's output to choices, and how likely they were.

Single choices are categorical, real numbers normal with a spread that does not depend on what is seen (details 2 and 5
of the continuous ones in "The 37 Implementation Details of PPO"). Illegal values have probability 0.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from pytest_envequiv.learning.interface import Choice, Interface, Seen


def width(interface: Interface) -> int:
    """Outputs the policy network needs."""
    return sum(interface.choices) + interface.reals


def drawn(interface: Interface, output: Any, spread: Any, seen: Seen, key: Any) -> tuple[Choice, Any]:
    """A choice for each of B lanes, and its log-probability float32[B].

    ``output``: float32[B, width]; ``key``: one for all lanes. The same key and nearly the same output give the same
    choice, so two sides that are given the same keys act alike for as long as they look alike. Where it is another
    seat's turn the choice is uniform among what is legal.
    """
    for_values, for_reals = jax.random.split(key)
    rows = output.shape[0]
    picks, reals = jnp.zeros((rows, 0), jnp.int32), jnp.zeros((rows, 0), jnp.float32)
    if interface.choices:
        scores = jnp.where(seen.turn[:, None, None], _scores(interface, output), 0.0)
        noise = jax.random.gumbel(for_values, scores.shape, jnp.float32)
        picks = jnp.where(seen.legal, scores + noise, -jnp.inf).argmax(-1).astype(jnp.int32)
    if interface.reals:
        shape = (rows, interface.reals)
        own = _means(interface, output) + jnp.exp(spread) * jax.random.normal(for_reals, shape, jnp.float32)
        reals = jnp.where(seen.turn[:, None], own, jax.random.uniform(for_reals, shape, jnp.float32, -1.0, 1.0))
    choice = Choice(picks, reals)
    return choice, log_probability(interface, output, spread, seen.legal, choice)[0]


def likeliest(interface: Interface, output: Any, seen: Seen) -> Choice:
    """The most probable choice of each of B lanes."""
    picks, reals = jnp.zeros((output.shape[0], 0), jnp.int32), _means(interface, output)
    if interface.choices:
        scores = _scores(interface, output)
        picks = jnp.where(seen.legal, scores, -jnp.inf).argmax(-1).astype(jnp.int32)
    return Choice(picks, reals)


def log_probability(interface: Interface, output: Any, spread: Any, legal: Any, choice: Choice) -> tuple[Any, Any]:
    """float32[...] of the choices, and the entropy of the single choices they were drawn from; any leading axes.

    The entropy of the real ones is left out: it is the spread's alone, and a bonus for it only makes policies noisy.
    """
    total = jnp.zeros(output.shape[:-1], jnp.float32)
    entropy = jnp.zeros(output.shape[:-1], jnp.float32)
    if interface.choices:
        logs = jax.nn.log_softmax(jnp.where(legal, _scores(interface, output), -jnp.inf), -1)
        chosen = jnp.take_along_axis(logs, choice.picks[..., None], -1)[..., 0]
        total += chosen.sum(-1)
        entropy -= jnp.where(legal, jnp.exp(logs) * jnp.where(legal, logs, 0.0), 0.0).sum((-1, -2))
    if interface.reals:
        off = (choice.reals - _means(interface, output)) / jnp.exp(spread)
        total += (-0.5 * off**2 - spread - 0.5 * math.log(2 * math.pi)).sum(-1)
    return total, entropy


def _scores(interface: Interface, output: Any) -> Any:
    """float32[..., choices, most]: the unnormalised log-probabilities; what does not exist is masked by ``legal``."""
    counts = interface.choices
    parts, at = [], 0
    for count in counts:
        part = output[..., at : at + count]
        parts.append(jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, max(counts) - count)]))
        at += count
    return jnp.stack(parts, -2)


def _means(interface: Interface, output: Any) -> Any:
    return output[..., output.shape[-1] - interface.reals :]
