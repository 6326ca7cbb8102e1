"""Numbers that environments put into their `info` at an episode's end, as whether it was a success."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ddpg_jax.envs.host.reports import as_number
from ddpg_jax.types import HostArray

_log = logging.getLogger("ddpg_jax")


class EndedInfo:
    """What the last ends of episodes said under some keys; a key that is missing is warned of once.

    Args:
      keys: K of them.
      count: of environments.
    """

    def __init__(self, keys: Sequence[str], count: int) -> None:
        self._keys, self._warned = tuple(keys), set[str]()
        self.values: HostArray = np.full((count, len(self._keys)), np.nan)

    def note(self, lane: int, info: Any) -> None:
        """Notes an end; what is no finite number is NaN."""
        for k, key in enumerate(self._keys):
            self.values[lane, k] = self._number(key, info)

    def _number(self, key: str, info: Any) -> float:
        if not isinstance(info, Mapping) or key not in info:
            table = cast("Mapping[Any, Any]", info) if isinstance(info, Mapping) else {}
            held = ", ".join(map(str, table)) or "nothing"
            self._warn(key, f"is not in the info of an episode's end, which holds {held}")
            return np.nan
        try:
            value = as_number(info[key])
        except (TypeError, ValueError, OverflowError):
            self._warn(key, f"is no number, but {type(info[key]).__name__}")
            return np.nan
        return value if np.isfinite(value) else np.nan

    def _warn(self, key: str, what: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            _log.warning("warning: env.info_keys: %r %s; it is left out of the record there", key, what)
