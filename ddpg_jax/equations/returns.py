"""Returns and bootstrapped targets."""

from __future__ import annotations

from typing import Any

from ddpg_jax.types import Array


def bootstrapped_return(reward: Array, discount: Array, value: Array) -> Array:
    """The target of the critic, y = r + d·v.

    With d = gamma^n·(1 − terminated) this is the target of Algorithm 1 for n = 1, and the n-step target of D4PG.

    Args:
      reward: r, sum of gamma^i r_i over n steps, `[]`.
      discount: d, `[]`.
      value: v, value of the successor, `[]`.

    Returns:
      y, `[]`.

    References:
      Lillicrap et al., "Continuous control with deep reinforcement learning", Algorithm 1 (arXiv:1509.02971);
      Barth-Maron et al., "Distributed distributional deterministic policy gradients", eq. 2 (arXiv:1804.08617).
    """
    return reward + discount * value


def fold_steps(reward: Any, terminated: Any, truncated: Any, available: Any, gamma: Any) -> tuple[Any, Any, Any]:
    """Folds a window of n consecutive rows into one n-step transition.

    The window is cut after the first row that ends an episode, by termination or time limit, and at the write head of
    the replay. The same function serves the host replay (NumPy) and the device replay (jax.numpy); the window is the
    last axis and any axes may lead.

    Args:
      reward: `[..., n]`.
      terminated: bool `[..., n]`.
      truncated: bool `[..., n]`.
      available: how many rows of the window are stored, int `[...]`, at least 1.
      gamma: discount of one step, a number or `[]`.

    Returns:
      `(reward, discount, last)`, each `[...]`: sum of gamma^i r_i over the rows kept; gamma^rows, 0 if the last row
      terminates; and the offset of the last row, whose successor is the n-step successor.

    References:
      Sutton and Barto, "Reinforcement learning", 2nd edition, eq. 7.1.
    """
    xp = reward.__array_namespace__()
    gamma = xp.asarray(gamma, dtype=reward.dtype)
    total, discount, terminal = reward[..., 0], xp.broadcast_to(gamma, reward.shape[:-1]), terminated[..., 0]
    last = xp.zeros_like(available)
    going_on = ~(terminal | truncated[..., 0])
    for i in range(1, reward.shape[-1]):
        going_on = going_on & (available > i)
        total = xp.where(going_on, total + discount * reward[..., i], total)
        discount = xp.where(going_on, discount * gamma, discount)
        last = xp.where(going_on, xp.full_like(last, i), last)
        terminal = xp.where(going_on, terminated[..., i], terminal)
        going_on = going_on & ~(terminal | truncated[..., i])
    return total, xp.where(terminal, xp.zeros_like(gamma), discount), last
