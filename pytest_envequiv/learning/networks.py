"""The policy's and the critic's networks: two towers of dense layers, each with a GRU on top if it is to remember.

A tower is a dict of arrays and these functions; no framework. Orthogonal beginnings, tanh and separate towers are
details 2 and 13 of "The 37 Implementation Details of PPO" (Huang et al. 2022); the GRU is that of Cho et al. (2014,
arXiv 1406.1078). Every function takes whole sequences, float32[T, B, ...]; one step is a sequence of length 1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]


def begun(seed: int, inputs: int, hidden: tuple[int, ...], memory: int, outputs: int, reals: int) -> Params:
    """New parameters. ``memory``: units of the GRU, 0 for none; ``outputs``: of the policy; ``reals``: real actions."""
    rng = np.random.default_rng([seed, 1])
    return {
        "policy": _tower(rng, inputs, hidden, memory, outputs, 0.01),
        "critic": _tower(rng, inputs, hidden, memory, 1, 1.0),
        "spread": jnp.zeros(reals, jnp.float32),  # log of the standard deviation of each real action
    }


def empty_memory(rows: int, memory: int) -> Params:
    """What B lanes remember when an episode begins: float32[B, memory] for each tower."""
    return {tower: jnp.zeros((rows, memory), jnp.float32) for tower in ("policy", "critic")}


def outputs(params: Params, x: Any, memory: Params, begins: Any) -> tuple[Any, Any, Params]:
    """The policy's float32[T, B, outputs], the critic's value float32[T, B], and what is remembered after it.

    ``x``: float32[T, B, inputs]; ``begins``: bool[T, B], steps with which an episode begins.
    """
    policy, kept = run(params["policy"], x, memory["policy"], begins)
    value, known = run(params["critic"], x, memory["critic"], begins)
    return policy, value[..., 0], {"policy": kept, "critic": known}


def run(tower: Params, x: Any, memory: Any, begins: Any) -> tuple[Any, Any]:
    """One tower: float32[T, B, outputs], and what it remembers after it."""
    for weight, bias in tower["layers"]:
        x = jnp.tanh(x @ weight + bias)
    if "gru" in tower:
        memory, x = jax.lax.scan(lambda h, row: _remember(tower["gru"], h, *row), memory, (x, begins))
    weight, bias = tower["out"]
    return x @ weight + bias, memory


def size(params: Params) -> int:
    """How many numbers there are to learn."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _remember(gru: Params, memory: Any, x: Any, begins: Any) -> tuple[Any, Any]:
    memory = jnp.where(begins[:, None], 0.0, memory)
    update, reset, new = jnp.split(x @ gru["input"] + gru["bias"], 3, axis=-1)
    old_update, old_reset, old_new = jnp.split(memory @ gru["memory"], 3, axis=-1)
    keep = jax.nn.sigmoid(update + old_update)
    candidate = jnp.tanh(new + jax.nn.sigmoid(reset + old_reset) * old_new)
    memory = keep * memory + (1 - keep) * candidate
    return memory, memory


def _tower(
    rng: np.random.Generator, inputs: int, hidden: tuple[int, ...], memory: int, outputs: int, gain: float
) -> Params:
    sizes = (inputs, *hidden)
    tower: Params = {"layers": [_dense(rng, a, b, 2**0.5) for a, b in pairwise(sizes)]}
    last = sizes[-1]
    if memory:
        tower["gru"] = {
            "input": _orthogonal(rng, last, 3 * memory, 1.0),
            "memory": _orthogonal(rng, memory, 3 * memory, 1.0),
            "bias": jnp.zeros(3 * memory, jnp.float32),
        }
        last = memory
    tower["out"] = _dense(rng, last, outputs, gain)
    return tower


def _dense(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> tuple[Any, Any]:
    return _orthogonal(rng, inputs, outputs, gain), jnp.zeros(outputs, jnp.float32)


def _orthogonal(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Any:
    """float32[inputs, outputs] with orthogonal rows or columns of length ``gain``. In numpy: XLA compiles a QR
    decomposition for each shape, and for longer than it takes."""
    tall = rng.normal(size=(max(inputs, outputs), min(inputs, outputs)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))  # uniform over all orthogonal matrices: Mezzadri 2007, math-ph/0609050
    return jnp.asarray(gain * (q if inputs >= outputs else q.T), jnp.float32)
