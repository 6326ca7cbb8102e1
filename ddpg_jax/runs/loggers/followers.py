"""The sinks of a run, seen from training: processes that are started with it, and waited for at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.sinks.process import Child

if TYPE_CHECKING:
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.runs.loggers.logger import Start
    from ddpg_jax.types import Row

SECONDS = 60.0
"""That sinks get at the end of a run to send what is left."""

SECONDS_OF_A_STOP = 3.0
"""Likewise of a run that was told to stop: its resume sends the rest."""

_GRACE = 5.0


class Followers:
    """Starts a follower for each sink; training hears nothing of them before it ends.

    Args:
      directory: of the run.
      names: of the sinks.
      stopped: whether the run was told to stop.
      warn: is told, at the end, of what could not be sent; a line for each sink.
    """

    def __init__(
        self,
        directory: RunDirectory,
        names: Sequence[str],
        stopped: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._directory, self._names, self._stopped, self._warn = directory, names, stopped, warn
        self._children: dict[str, Child] = {}
        self._problems: dict[str, str | None] = {}

    def on_start(self, start: Start) -> None:
        """Starts them."""
        self.begin()

    def begin(self) -> None:
        """Starts them, of a run that may have come to its end already."""
        for name in self._names:
            try:
                self._children[name] = Child(self._directory, name)
            except (OSError, StorageError) as error:
                self._problems[name] = str(error)

    def write(self, rows: list[Row]) -> None:
        """Takes no rows: they are read from the record."""

    def sync(self) -> int:
        """Does nothing."""
        return 0

    def close(self) -> None:
        """Lets them send what is left, for a bounded time."""
        seconds = SECONDS_OF_A_STOP if self._stopped() else SECONDS
        try:
            for child in self._children.values():
                child.end(seconds)
            last = time.monotonic() + seconds + _GRACE
            for name, child in self._children.items():
                self._problems[name] = child.wait(max(0.0, last - time.monotonic()))
        except BaseException:  # a second Ctrl-C
            for child in self._children.values():
                child.kill()
            raise
        path = self._directory.path
        for name, problem in self._problems.items():
            if problem is not None:
                self._warn(f"warning: {name} lacks rows: {problem}; to send them: ddpg-jax sync {path} --to {name}")
