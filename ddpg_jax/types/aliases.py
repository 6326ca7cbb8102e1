"""Names for kinds of arrays and functions that stand in signatures everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import jax
    import numpy as np


Array: TypeAlias = "jax.Array"
"""An array on the device, or a traced one."""


HostArray: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
"""An array of the host."""


Tree: TypeAlias = Any
"""Any pytree of arrays."""


BATCH = "batch"
"""Name of the axis over the samples of an update; it is opened and closed inside the assembly."""


PAIR = "pair"
"""Name of the axis over a sample's current and next pair of observation and action, where one batch is made of both."""

Metrics: TypeAlias = "dict[str, Array]"
"""Diagnostics by name: `[]` of one update, `[U]` of a call."""


StopFn: TypeAlias = "Callable[[], bool]"
"""Whether what is going on shall end, as a signal asked for it."""


def never_stop() -> bool:
    """Nobody asks to stop."""
    return False
