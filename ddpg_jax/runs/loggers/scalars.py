"""Which entries of a row are measurements, and which say what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpg_jax.types import Row

NOT_SCALARS = frozenset({"event", "combination", "seed", "step", "env", "episode", "episodes", "updates", "returns"})


def scalars(row: Row) -> dict[str, float]:
    """The measurements of a row, by their names."""
    return {name: value for name, value in row.items() if name not in NOT_SCALARS}
