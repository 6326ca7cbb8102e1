"""Regression of which large errors pull no harder than others."""

from __future__ import annotations

import jax.numpy as jnp

from ddpg_jax.types import Array


def huber(error: Array, threshold: float = 1.0) -> Array:
    """Half the square of an error, from the threshold on linear with the same slope.

    Args:
      error: δ, `[...]`.
      threshold: positive.

    Returns:
      δ²/2 where |δ| is at most the threshold κ, else κ·(|δ| − κ/2), `[...]`.

    References:
      Huber, "Robust estimation of a location parameter" (1964).
    """
    size = jnp.abs(error)
    return jnp.where(size <= threshold, 0.5 * jnp.square(size), threshold * (size - 0.5 * threshold))
