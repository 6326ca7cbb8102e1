"""What an environment reports, as numbers: what can only be meant in one way is taken, and all else refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpg_jax.envs.host.spaces import flatten
from ddpg_jax.types import EnvSpec, HostArray

_LARGE = 2.0**12
_WATCHED = 64


def as_number(value: Any) -> float:
    """A reward: one number, of whatever type and shape.

    Raises:
      TypeError: it is not one number.
      OverflowError: it is too large for a float.
    """
    if isinstance(value, (float, int)):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biufO":
        raise TypeError(f"a reward must be one number, not {_describe(value, array)}")
    return float(array.item())


def as_flag(value: Any) -> bool:
    """Whether an episode has ended: one bool, or one number that is 0 or 1.

    Raises:
      TypeError: it is not one of these.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
        raise TypeError(f"an end must be True or False, 1 or 0, not {_describe(value, array)}")
    return bool(array.item())


def as_observation(value: Any, spec: EnvSpec) -> HostArray | None:
    """An array of the shape that is stored, of a dtype that casts to what is stored; None: it is no such observation.

    What the environment gives in several arrays, or with other axes, becomes a vector.
    """
    if spec.layout:
        value = flatten(value, spec.layout)
        return value if value is not None and value.ndim == 1 else None
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(value)
        except (ValueError, TypeError):  # lists of unequal lengths
            return None
        listed = spec.obs_dtype == "uint8" and value.dtype == np.int64 and value.size > 0
        if listed and 0 <= value.min() <= value.max() <= 255:
            value = value.astype(np.uint8)
    kinds = value.dtype == np.uint8 if spec.obs_dtype == "uint8" else value.dtype.kind in "fiub"
    return value if kinds and value.shape == spec.obs_shape else None


class PrecisionWatch:
    """Looks at the first observations of one environment for changes that float32 cannot tell apart.

    Seconds since 1970 are an example: neighbours in float32 are 128 s apart there. A component counts whose changes
    from one step to the next are lost in over half of them; those below 4096 do not, as they may come to rest.
    """

    def __init__(self) -> None:
        self._last: HostArray | None = None
        self._changed: Any = 0
        self._lost: Any = 0
        self._left = _WATCHED

    def begin(self, obs: HostArray) -> None:
        """Notes the first observation of an episode."""
        self._last = np.array(obs)

    def step(self, obs: HostArray) -> list[int] | None:
        """Notes an observation; after the last that is looked at the components that are lost, before that None."""
        if obs.dtype.kind not in "fiu" or obs.dtype.itemsize <= 4 or self._last is None:
            return []
        moved = obs != self._last
        with np.errstate(over="ignore"):
            equal = obs.astype(np.float32) == self._last.astype(np.float32)
        self._changed = self._changed + moved
        self._lost = self._lost + (moved & equal & (np.abs(obs) >= _LARGE))
        self._last, self._left = np.array(obs), self._left - 1
        if self._left:
            return None
        return np.flatnonzero((self._lost * 2 > self._changed) & (self._changed * 2 > _WATCHED)).tolist()


def _describe(value: Any, array: HostArray) -> str:
    name = type(value).__name__
    return f"{name} of shape {array.shape}" if array.ndim else f"{name} {value!r}"
