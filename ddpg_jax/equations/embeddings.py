"""Embeddings of states and actions."""

from __future__ import annotations

import jax.numpy as jnp

from ddpg_jax.types import Array


def avg_l1_norm(x: Array, epsilon: float = 1e-8) -> Array:
    """Scales a vector so that the mean of its components' sizes is 1, x / mean |x_i|.

    Args:
      x: `[Z]`.
      epsilon: the mean counts as no smaller.

    Returns:
      `[Z]`; zeros stay zeros.

    References:
      Fujimoto et al., "For SALE: state-action representation learning for deep reinforcement learning"
      (arXiv:2306.02451), AvgL1Norm.
    """
    return x / jnp.maximum(jnp.mean(jnp.abs(x)), epsilon)
