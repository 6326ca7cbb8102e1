"""What every logger of rows can do."""

from __future__ import annotations

from typing import Protocol

from ddpg_jax.types import Row


class Sink(Protocol):
    """Where rows go."""

    def write(self, rows: list[Row]) -> None:
        """Writes rows."""
        ...

    def close(self) -> None:
        """Closes what it holds open."""
        ...
