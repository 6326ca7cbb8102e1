"""Actions of the agent, in [-1, 1], and of the environment, in its own units."""

from __future__ import annotations

from typing import Any


def to_units(action: Any, low: Any, high: Any) -> Any:
    """Maps actions in [-1, 1] affinely onto the bounds of each component, low·(1 − u) + high·u with u = (action + 1)/2.

    Both ends are exact, and nothing lies outside them. The same function serves the host (NumPy) and the device
    (jax.numpy); all arguments have one dtype, in which it computes.

    Args:
      action: `[..., A]`, in [-1, 1].
      low: lower bounds in the environment's units, `[A]`.
      high: upper bounds, `[A]`.

    Returns:
      The actions in the environment's units, `[..., A]`.
    """
    upper = (action + 1.0) * 0.5
    return (low * (1.0 - upper) + high * upper).clip(low, high)
