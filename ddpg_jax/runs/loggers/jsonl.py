"""Sinks of a run's rows: the record, the timing, and TensorBoard.

`metrics.jsonl` holds only what the configuration determines, so that equal runs are equal files; clocks and rates are
in `timing.jsonl`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ddpg_jax.errors import StorageError
from ddpg_jax.loops.report import Row
from ddpg_jax.runs import files

_NOT_SCALARS = frozenset({"event", "seed", "step", "env", "episode", "episodes", "updates", "returns"})


@contextmanager
def _storage(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


class Sink(Protocol):
    """Where rows go."""

    def write(self, rows: list[Row]) -> None:
        """Writes rows."""
        ...

    def close(self) -> None:
        """Closes what it holds open."""
        ...


class JsonLines:
    """A file of JSON lines; what is written is handed to the system at once.

    While the file cannot be written, lines are kept in memory, in order, and tried again with the next ones.

    Args:
      path: the file.
      offset: it is cut back to so many bytes first; None: it is appended to.
      warn: is told when lines cannot be written, once until they can be again.

    Raises:
      StorageError: it cannot be opened, or is shorter than the offset.
    """

    def __init__(self, path: Path, offset: int | None = None, warn: Callable[[str], None] = print) -> None:
        self._path, self._warn = path, warn
        self._waiting = bytearray()
        self._failing = False
        with _storage(path):
            files.before("open", path)
            new = not path.exists()
            self._file = path.open("w+b" if new else "r+b", buffering=0)
            self._size = self._file.seek(0, os.SEEK_END)
            if new:
                files.sync_folder(path.parent)
        if offset is not None:
            try:
                self._cut(offset)
            except StorageError:
                self._file.close()
                raise

    def write(self, rows: list[Row]) -> None:
        """Appends rows, as soon as that is possible."""
        self._waiting += "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        self._try()

    def sync(self) -> int:
        """Waits until all lines are on the disk.

        Returns:
          The size of the file, in bytes.

        Raises:
          StorageError: they cannot be written.
        """
        self._try()
        with _storage(self._path):
            if self._waiting:
                raise OSError(f"{len(self._waiting)} bytes are still to be written")
            files.before("fsync", self._path)
            os.fsync(self._file.fileno())
        return self._size

    def close(self) -> None:
        """Closes the file; lines that still cannot be written are lost, and that is said."""
        self._try()
        if self._waiting:
            self._warn(f"warning: {self._path} lacks its last {len(self._waiting)} bytes, which could not be written")
        self._file.close()

    def _try(self) -> None:
        try:
            while self._waiting:
                files.before("write", self._path)
                self._file.seek(self._size)  # over what a write that failed has left
                written = self._file.write(self._waiting)
                self._size += written
                del self._waiting[:written]
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._warn(f"warning: {self._path} cannot be written: {error}; its lines are kept, training goes on")
            self._failing = True

    def _cut(self, offset: int) -> None:
        if self._size < offset:
            raise StorageError(
                f"{self._path} holds {self._size} bytes, but held {offset} when the run was saved: "
                "it was changed or lost; bring it back, or begin a run with --init-from"
            )
        with _storage(self._path):
            files.before("truncate", self._path)
            if self._size > offset:
                self._file.truncate(offset)
        self._size = offset


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

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    def _write(self, rows: list[Row]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        for row in rows:
            values = [
                Summary.Value(tag=f"{row['event']}/{name}", simple_value=value)
                for name, value in row.items()
                if name not in _NOT_SCALARS
            ]
            self._add(self._writer(row["seed"]), step=row["step"], summary=Summary(value=values))
        for writer in self._writers.values():
            writer.flush()

    def _add(self, writer: Any, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        files.before("write", self._path)
        writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def _writer(self, seed: int) -> Any:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        if seed not in self._writers:
            folder = self._path / f"seed-{seed}"
            files.make_folder(folder)
            name = f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"
            self._writers[seed] = writer = RecordWriter((folder / name).open("wb"))
            self._add(writer, file_version="brain.Event:2")
            if self._purge is not None:
                self._add(writer, step=self._purge, session_log=SessionLog(status=SessionLog.START))
        return self._writers[seed]
