"""How target parameters follow the online ones."""

from __future__ import annotations

import jax

from ddpg_jax.types import Array, Tree


def soft_update(params: Tree, target_params: Tree, tau: Array | float) -> Tree:
    """Moves the targets toward the online parameters, θ′ ← τ·θ + (1 − τ)·θ′.

    Args:
      params: online parameters θ, any pytree of floating-point leaves.
      target_params: target parameters θ′, same structure.
      tau: mixing factor τ in [0, 1], `[]`; 1 copies.

    Returns:
      The new targets, same structure and dtypes as `target_params`.

    References:
      Lillicrap et al., "Continuous control with deep reinforcement learning", Algorithm 1 (arXiv:1509.02971).
    """
    return jax.tree.map(lambda new, old: tau * new + (1.0 - tau) * old, params, target_params)
