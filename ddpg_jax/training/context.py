"""What everything in a run shares: where its files are, how it hears of its end, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from typing import NamedTuple, TypeAlias

from ddpg_jax.errors import Interrupted
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.choose import newest_checkpoint
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.logger import Logger
from ddpg_jax.training.callbacks import CallbackFn
from ddpg_jax.training.signals import StopRequest

NotifyFn: TypeAlias = Callable[[str], None]
"""Prints a line that a person must not miss."""


class Session(NamedTuple):
    """A call of `train` and its like, before it is known where its files go; as in `RunContext`."""

    stop: StopRequest
    notify: NotifyFn
    loggers: tuple[Logger, ...]
    callbacks: tuple[CallbackFn, ...]
    stack: ExitStack

    @classmethod
    def begin(
        cls, stack: ExitStack, notify: NotifyFn, loggers: Iterable[Logger], callbacks: tuple[CallbackFn, ...]
    ) -> Session:
        """Hears signals, and holds the loggers open, until the stack is closed."""
        for logger in (loggers := tuple(loggers)):
            stack.enter_context(closing(logger))
        return cls(stack.enter_context(StopRequest()), notify, loggers, callbacks, stack)

    def heed(self) -> None:
        """Ends here what has not begun, where a stop was requested while the program was loaded.

        Raises:
          Interrupted: so it was.
        """
        if self.stop.requested:
            raise Interrupted("interrupted before it began; start it again")

    def within(self, directory: RunDirectory, keep: int) -> RunContext:
        """What belongs to a run in a directory, of whose checkpoints so many are kept."""
        return RunContext(directory, _store(directory, keep, self.notify), *self)


class RunContext(NamedTuple):
    """A run, or a sweep, in its directory.

    Attributes:
      directory: where its files are.
      store: its checkpoints.
      stop: whether it shall stop.
      notify: prints a line of warning.
      loggers: who is told of its rows and figures, beside its own files.
      callbacks: who is asked at its reports.
      stack: closes what it holds open.
    """

    directory: RunDirectory
    store: CheckpointStore
    stop: StopRequest
    notify: NotifyFn
    loggers: tuple[Logger, ...]
    callbacks: tuple[CallbackFn, ...]
    stack: ExitStack

    def move_to(self, directory: RunDirectory, keep: int) -> RunContext:
        """The same in another directory."""
        return self._replace(directory=directory, store=_store(directory, keep, self.notify))

    def lock(self) -> None:
        """Takes the directory for this process, until the stack is closed.

        Raises:
          StorageError: another process is using it.
        """
        self.stack.enter_context(self.directory.lock())

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of the locked directory from which it can go on; as `choose.newest_checkpoint`."""
        return newest_checkpoint(self.directory, self.store, self.notify)


def _store(directory: RunDirectory, keep: int, notify: NotifyFn) -> CheckpointStore:
    return CheckpointStore(directory.checkpoints, keep=keep, guard=directory.check_owner, warn=notify)
