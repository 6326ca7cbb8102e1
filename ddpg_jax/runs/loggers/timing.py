"""`timing.jsonl`: clocks and rates, which no configuration determines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpg_jax.runs.loggers.jsonl import JsonLines
    from ddpg_jax.runs.loggers.logger import Status
    from ddpg_jax.types import Row


class Timing:
    """Writes when each report was, and how fast the run went.

    Args:
      lines: the file.
    """

    def __init__(self, lines: JsonLines) -> None:
        self._lines = lines

    def write(self, rows: list[Row]) -> None:
        """Takes no rows."""

    def on_report(self, status: Status) -> None:
        """Writes a line."""
        where = {"step": status.step, "updates": status.updates, "seconds": status.seconds}
        self._lines.write([where | status.phases | status.rates])

    def sync(self) -> int:
        """Waits until all lines are on the disk; returns the size of the file.

        Raises:
          StorageError: they cannot be written.
        """
        return self._lines.sync()

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()
