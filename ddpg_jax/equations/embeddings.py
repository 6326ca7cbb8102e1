"""Embeddings of states and actions."""

from __future__ import annotations

import jax
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


def contrast(said: Array, own: Array, temperature: float, axis_name: str) -> Array:
    """How badly a vector tells its own counterpart from those of the batch, by their cosines.

    −log of the softmax of cos(said, others)/temperature at its own, InfoNCE.

    Args:
      said: `[Z]`.
      own: what it shall be near to, `[Z]`, of each sample of the batch.
      temperature: positive.
      axis_name: of the `vmap` over the batch.

    Returns:
      `[]`, 0 at best, and log B where it says nothing.

    References:
      van den Oord et al., "Representation learning with contrastive predictive coding" (arXiv:1807.03748), eq. 4.
    """
    said, own = (x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x)), 1e-12)) for x in (said, own))
    cosines = jax.lax.all_gather(own, axis_name) @ said
    return -jax.nn.log_softmax(cosines / temperature)[jax.lax.axis_index(axis_name)]
