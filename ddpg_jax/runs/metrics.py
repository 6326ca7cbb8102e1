"""Sinks of a run's rows: the record, the timing, and TensorBoard.

`metrics.jsonl` holds only what the configuration determines, so that equal runs are equal files; clocks and rates are
in `timing.jsonl`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ddpg_jax.errors import StorageError
from ddpg_jax.loops.report import Row

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

    Args:
      path: the file; it is appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _storage(path):
            self._file = path.open("a", encoding="utf-8")

    def write(self, rows: list[Row]) -> None:
        """Appends rows."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with _storage(self._path):
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard:
    """TensorBoard event files, one directory for each seed, by TensorBoard's own writer.

    Args:
      path: the directory of all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: dict[int, Any] = {}

    def write(self, rows: list[Row]) -> None:
        """Writes every number of the rows as a scalar `event/name` at the row's step."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        for row in rows:
            values = [
                Summary.Value(tag=f"{row['event']}/{name}", simple_value=value)
                for name, value in row.items()
                if name not in _NOT_SCALARS
            ]
            event = Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values))
            self._writer(row["seed"]).add_event(event)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, seed: int) -> Any:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if seed not in self._writers:
            self._writers[seed] = EventFileWriter(str(self._path / f"seed-{seed}"))
        return self._writers[seed]
