"""What is kept of a sweep in progress, and what it goes on from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import NamedTuple

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.checkpoints.rows import snapshot_rows
from ddpg_jax.runs.checkpoints.store import Checkpoint, CheckpointStore
from ddpg_jax.runs.loggers.jsonl import JsonLines
from ddpg_jax.runs.result import system_differences, system_info
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.device.loop import Chunk
from ddpg_jax.training.device.snapshot import snapshot
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.training.sweep.batches import LaneBatch, SweepPosition
from ddpg_jax.training.sweep.grid import Sweep
from ddpg_jax.training.sweep.ranking import Ranking
from ddpg_jax.types import Snapshot

_BOARD = "board/"


class SweepResumePoint(NamedTuple):
    """What a sweep goes on from.

    Attributes:
      checkpoint: all that was kept; None: nothing, it begins at the beginning.
      position: the turn that was in progress.
      before: environment steps of a lane in the turns before, added up.
      seconds: spent so far.
      metrics_bytes: size of the record.
    """

    checkpoint: Checkpoint | None = None
    position: SweepPosition | None = None
    before: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0

    @property
    def snapshot(self) -> Snapshot | None:
        """Where the turn was."""
        if self.checkpoint is None:
            return None
        arrays, rows = self.checkpoint.arrays, self.checkpoint.rows
        own = {name: x for name, x in arrays.items() if not name.startswith(_BOARD)}
        return Snapshot(own, rows.first, rows.stop, rows.read, {})

    def board(self, sweep: Sweep) -> Ranking:
        """What was reached."""
        if self.checkpoint is None:
            return Ranking(sweep)
        kept = {name.removeprefix(_BOARD): x for name, x in self.checkpoint.arrays.items() if name.startswith(_BOARD)}
        return Ranking(sweep, kept)


class SweepCheckpointer:
    """Saves a sweep where it is due; steps are counted over all turns.

    Args:
      sweep: what is run.
      store: where to.
      stop: whether it shall stop.
      board: what is reached.
      record: the lanes' rows.
      begun: what it goes on from.
      notify: prints a line of warning.
    """

    def __init__(
        self,
        sweep: Sweep,
        store: CheckpointStore,
        stop: StopRequest,
        board: Ranking,
        record: JsonLines,
        begun: SweepResumePoint,
        notify: Callable[[str], None],
    ) -> None:
        self._store, self._board, self._record, self._sweep = store, board, record, _identity(sweep)
        self._before, self._earlier, self._began = begun.before, begun.seconds, time.perf_counter()
        step = 0 if begun.checkpoint is None else begun.checkpoint.step
        self._saver = Checkpointer(sweep.configs[0].checkpoint, stop, step, notify)

    @property
    def seconds(self) -> float:
        """Spent on the sweep so far."""
        return self._earlier + time.perf_counter() - self._began

    def ended(self, batch: LaneBatch) -> None:
        """Counts a turn that came to its end; the rows of the next one are others."""
        self._before += batch.config.total_steps
        self._store.forget_rows()

    def should_save(self, step: int) -> bool:
        """Whether the sweep shall be saved, or stop, after so many steps of its turn."""
        return self._saver.should_save(self._before + step)

    def save(self, batch: LaneBatch, chunk: Chunk) -> None:
        """Saves, or says why that failed and when it is tried again."""
        self._saver.save(self._store, lambda: self._checkpoint(batch, chunk))

    def save_now(self, batch: LaneBatch, chunk: Chunk) -> None:
        """Saves before the sweep stops."""
        self._saver.save_now(self._store, lambda: self._checkpoint(batch, chunk))

    def _checkpoint(self, batch: LaneBatch, chunk: Chunk) -> Checkpoint:
        kept = snapshot(chunk.carry, batch.compiled.replay, len(batch.lanes), {})
        board = {f"{_BOARD}{name}": x for name, x in self._board.arrays.items()}
        facts = {
            "level": "exact",
            "sweep": self._sweep,
            "position": list(batch.position),
            "before": self._before,
            "seconds": self.seconds,
            "metrics_bytes": self._record.sync(),
            **system_info(),
        }
        return Checkpoint(self._before + chunk.step, dict(kept.arrays) | board, snapshot_rows(kept), facts)


def load_sweep_resume_point(checkpoint: Checkpoint, sweep: Sweep, notify: Callable[[str], None]) -> SweepResumePoint:
    """What a checkpoint says of where the sweep was; prints what is not as it was then.

    Raises:
      StorageError: it is of another sweep, or does not say where it was.
    """
    facts = checkpoint.facts
    try:
        group, first, count = map(int, facts["position"])
        if min(group, first) < 0 or count < 1:
            raise ValueError(f"there is no turn {facts['position']}")
        numbers = int(facts["before"]), float(facts["seconds"]), int(facts["metrics_bytes"])
        lines = system_differences(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"the checkpoint's description cannot be read: {error}") from error
    if facts.get("sweep") != _identity(sweep):
        raise StorageError("the checkpoint is of another sweep: sweep.toml was changed; bring it back")
    for line in lines:
        notify(line)
    return SweepResumePoint(checkpoint, SweepPosition(group, first, count), *numbers)


def _identity(sweep: Sweep) -> str:
    """SHA-256 of all that a sweep computes; how often it is saved does not count."""
    configs = [config.model_dump(mode="json", exclude={"checkpoint"}) for config in sweep.configs]
    return hashlib.sha256(json.dumps([configs, sweep.combinations], sort_keys=True).encode()).hexdigest()
