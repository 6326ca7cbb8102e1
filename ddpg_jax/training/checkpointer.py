"""When a run is saved, and what happens if it cannot be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.lock import TakenError

if TYPE_CHECKING:
    from ddpg_jax.config.sections import CheckpointConfig
    from ddpg_jax.training.signals import StopRequest

MAX_FAILURES = 10
"""Failures in a row after which a run gives up."""

_FIRST_WAIT, _LONGEST_WAIT = 5.0, 300.0
_LAST_TRIES = 3


class Checkpointer:
    """Saves a run where it is due, and where it is told to stop.

    A save that fails is tried again later, at longer and longer intervals, while training goes on; the checkpoints that
    are there stay as they are.

    Args:
      config: how often.
      stop: whether the run shall stop.
      step: environment steps of each seed at the last checkpoint.
      notify: prints a line of warning.
      clock: seconds, never running backward.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        stop: StopRequest,
        step: int,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._stop, self._say, self._clock = config, stop, notify, clock
        self._step, self._failures = step, 0
        self._not_before = clock() + config.min_seconds

    def should_save(self, step: int) -> bool:
        """Whether the run shall be saved, or stop, after so many environment steps of each seed."""
        every = self._config.every
        due = every > 0 and step // every > self._step // every
        return self._stop.requested or (due and self._clock() >= self._not_before)

    @property
    def stopping(self) -> bool:
        """Whether the run was told to stop."""
        return self._stop.requested

    def save(self, store: CheckpointStore, make: Callable[[], Checkpoint]) -> None:
        """Saves, or says why that failed and when it is tried again.

        Raises:
          StorageError: it failed too often, or another process has taken the directory.
        """
        try:
            self._step = store.save(make()).step
        except TakenError:
            raise
        except StorageError as error:
            self._failures += 1
            wait = min(_FIRST_WAIT * 2 ** (self._failures - 1), _LONGEST_WAIT)
            self._not_before = self._clock() + wait
            if self._failures >= MAX_FAILURES:
                raise StorageError(f"{self._failures} checkpoints in a row failed, the last one: {error}") from error
            self._say(f"warning: no checkpoint: {error}; trying again in {wait:.0f} s, training goes on")
            return
        self._failures, self._not_before = 0, self._clock() + self._config.min_seconds

    def save_now(self, store: CheckpointStore, make: Callable[[], Checkpoint]) -> None:
        """Saves before the run ends; a failure is tried again at once, and then raised.

        Raises:
          StorageError: it failed.
        """
        for left in reversed(range(_LAST_TRIES)):
            try:
                self._step = store.save(make()).step
            except StorageError as error:
                if not left or isinstance(error, TakenError):
                    raise
                self._say(f"warning: no checkpoint: {error}; trying again")
                time.sleep(1.0)
            else:
                return
