"""Running mean and variance, and numbers divided by them.

Batches are merged as Chan, Golub and LeVeque (1979, Stanford STAN-CS-79-773) merge samples, which is exact however the
numbers were batched. Clipping at 10 is one of "The 37 Implementation Details of PPO" (Huang et al. 2022).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

CLIP = 10.0  # standard deviations
TINY = 1e-8


class Running(NamedTuple):
    """float32[]; float32[n], float32[n]: how many rows were seen, their mean, and the mean square distance from it."""

    count: Any
    mean: Any
    variance: Any


def nothing(width: int) -> Running:
    return Running(jnp.zeros((), jnp.float32), jnp.zeros(width, jnp.float32), jnp.ones(width, jnp.float32))


def merged(running: Running, rows: Any) -> Running:
    """After the rows of float32[B, n]. From 2**24 / B batches on, the count stands still and old rows fade slowly."""
    count = running.count + rows.shape[0]
    share = rows.shape[0] / count
    mean, variance = rows.mean(0), rows.var(0)
    apart = mean - running.mean
    kept = jnp.where(running.count > 0, running.variance, 0.0)
    return Running(
        count,
        running.mean + share * apart,
        (1 - share) * kept + share * variance + share * (1 - share) * apart**2,
    )


def normalised(running: Running, rows: Any) -> Any:
    """float32[..., n]: mean 0, deviation 1, at most CLIP."""
    return jnp.clip((rows - running.mean) / jnp.sqrt(running.variance + TINY), -CLIP, CLIP)


def scaled(running: Running, rows: Any) -> Any:
    """Divided by the deviation, at most CLIP: rewards keep their sign and their zero."""
    return jnp.clip(rows / jnp.sqrt(running.variance + TINY), -CLIP, CLIP)
