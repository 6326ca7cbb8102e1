"""Exploration noise, for one environment, in units of half the action range.

Actions live in [-1, 1], so a scale of 0.1 is a tenth of half the range of every component, whatever its bounds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ddpg_jax.types import Array, Noise, Tree


def zero(action_size: int) -> Noise:
    """No exploration."""
    return Noise(init=lambda: (), sample=lambda state, key, first: (jnp.zeros(action_size), state))


def gaussian(action_size: int, sigma: Array | float) -> Noise:
    """Independent normal noise N(0, sigma²) at each step.

    Args:
      action_size: A.
      sigma: standard deviation, `[]`.

    Returns:
      The noise; it has no state.

    References:
      Fujimoto et al., section 6.1 (arXiv:1802.09477).
    """

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        return sigma * jax.random.normal(key, (action_size,)), state

    return Noise(init=lambda: (), sample=sample)


def ornstein_uhlenbeck(action_size: int, theta: Array | float, sigma: Array | float, dt: Array | float) -> Noise:
    """Temporally correlated noise, x ← x − theta·x·dt + sigma·sqrt(dt)·N(0, 1), back at 0 when an episode starts.

    Args:
      action_size: A.
      theta: rate of return to 0, `[]`, per unit of time.
      sigma: diffusion, `[]`; the stationary deviation is about sigma/sqrt(2·theta).
      dt: time between two steps, `[]`. With dt = 1 and theta = 0.15, sigma = 0.2 it is the process of the paper.

    Returns:
      The noise; its state x is `[A]`.

    References:
      Uhlenbeck and Ornstein, "On the theory of the Brownian motion" (1930); Lillicrap et al., section 7.
    """

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        x = jnp.where(first, jnp.zeros_like(state), state)
        x = x - theta * x * dt + sigma * jnp.sqrt(dt) * jax.random.normal(key, (action_size,))
        return x, x

    return Noise(init=lambda: jnp.zeros(action_size), sample=sample)
