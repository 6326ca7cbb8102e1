"""Configurations that earlier versions stored: what fields that came later mean in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ddpg_jax.config.load import read_toml

BEFORE: dict[str, Any] = {"observation_moments": "plain", "observation_epsilon": 1e-2, "observation_clip": 0.0}
"""Fields of `[algorithm]` whose defaults are not what versions without them did, as those did it."""


def read_stored(path: str | Path) -> dict[str, Any]:
    """The configuration of a run's directory; arguments and errors are those of `read_toml`."""
    return complete_stored(read_toml(path))


def complete_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration, nested, with what it means by fields that the version that stored it had not.

    A version stores every field that it has, so one that is not there came later.
    """
    table = values.get("algorithm", {})
    if not isinstance(table, Mapping) or "observation_moments" in table:
        return dict(values)
    return {**values, "algorithm": {**BEFORE, **cast("Mapping[str, Any]", table)}}
