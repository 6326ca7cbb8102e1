"""The bounds of actions, checked once for all environments, whichever package they are of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.errors import EnvironmentFault


class Bounds(NamedTuple):
    """Bounds of each action component in the environment's units, each `[A]`."""

    low: tuple[float, ...]
    high: tuple[float, ...]


def action_bounds(space: Any, *, any_shape: bool = False) -> Bounds:
    """Bounds of an action space that has `low`, `high`, `shape` and `dtype`.

    Args:
      space: the space.
      any_shape: whether it may have any number of axes; its components are taken in C order.

    Raises:
      EnvironmentFault: it is no such box, or its bounds are not finite, floating, in order and of one axis.
    """
    named = _brief(space)
    if not (hasattr(space, "low") and hasattr(space, "high")):
        raise EnvironmentFault(f"action space {named} is not a Box: ddpg_jax trains continuous actions only")
    if "float" not in np.dtype(space.dtype).name:  # bfloat16 is none of NumPy's own
        raise EnvironmentFault(f"action space {named} is not floating: ddpg_jax trains continuous actions only")
    shape = tuple(space.shape)
    if 0 in shape or not (any_shape or len(shape) == 1):
        raise EnvironmentFault(f"action space {named} has shape {shape}: flatten it to one axis of at least one")
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), shape).ravel() for bound in (space.low, space.high))
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if not np.isfinite([a, b]).all():
            raise EnvironmentFault(
                f"action component {i} has bounds [{a}, {b}]: they must be finite; for an environment of gymnasium "
                "set env.action_range, as in [-1, 1], to the actions that it shall be given"
            )
        if not a < b:
            raise EnvironmentFault(f"action component {i} has bounds [{a}, {b}]: the lower must be below the upper")
    return Bounds(tuple(low.tolist()), tuple(high.tolist()))


def _brief(space: Any) -> str:
    """What a space says of itself, or its type where that would be an address."""
    return type(space).__name__ if type(space).__repr__ is object.__repr__ else str(space)
