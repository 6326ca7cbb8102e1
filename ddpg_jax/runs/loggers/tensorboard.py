"""TensorBoard event files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.loggers.logger import Start, Status
from ddpg_jax.runs.loggers.scalars import scalars
from ddpg_jax.types import Row


class TensorBoard:
    """TensorBoard event files, one directory for each seed, by TensorBoard's own writer of records.

    That writer is used without its thread, which blocks for ever when a disk is full. What cannot be written ends the
    event files, with a warning, and nothing else.

    Args:
      path: the directory of all.
      purge: a step; what TensorBoard has from there on is of a run that was cut off, and is not shown. None: nothing.
      warn: is told when event files cannot be written.
    """

    def __init__(self, path: Path, purge: int | None = None, warn: Callable[[str], None] = print) -> None:
        self._path, self._purge, self._warn = path, purge, warn
        self._seeds: tuple[int, ...] = ()
        self._writers: dict[int, Any] = {}
        self._works = True

    def write(self, rows: list[Row]) -> None:
        """Writes every number of the rows as a scalar `event/name` at the row's step."""
        try:
            if self._works:
                self._write(rows)
        except OSError as error:
            self._works = False
            self._warn(f"warning: event files for TensorBoard end here: {error}")

    def on_start(self, start: Start) -> None:
        """Notes whose rates will be written."""
        self._seeds = start.seeds

    def on_report(self, status: Status) -> None:
        """Writes the rates, the same for each seed."""
        self.write([{"event": "rate", "seed": seed, "step": status.step, **status.rates} for seed in self._seeds])

    def sync(self) -> int:
        """Does nothing: every row was handed to the system when it was written."""
        return 0

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    def _write(self, rows: list[Row]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        for row in rows:
            values = [
                Summary.Value(tag=f"{row['event']}/{name}", simple_value=value) for name, value in scalars(row).items()
            ]
            self._add(self._writer(row["seed"]), step=row["step"], summary=Summary(value=values))
        for writer in self._writers.values():
            writer.flush()

    def _add(self, writer: Any, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        filesystem.fault_point("write", self._path)
        writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def _writer(self, seed: int) -> Any:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        if seed not in self._writers:
            folder = self._path / f"seed-{seed}"
            filesystem.make_folder(folder)
            name = f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"
            self._writers[seed] = writer = RecordWriter((folder / name).open("wb"))
            self._add(writer, file_version="brain.Event:2")
            if self._purge is not None:
                self._add(writer, step=self._purge, session_log=SessionLog(status=SessionLog.START))
        return self._writers[seed]
