"""Sinks of a run's rows: the record, the timing, and TensorBoard.

`metrics.jsonl` holds only what the configuration determines, so that equal runs are equal files; clocks and rates are
in `timing.jsonl`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from ddpg_jax.config.wording import option
from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.types import Row


@contextmanager
def _storage(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


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
            filesystem.fault_point("open", path)
            new = not path.exists()
            self._file = path.open("w+b" if new else "r+b", buffering=0)
            self._size = self._file.seek(0, os.SEEK_END)
            if new:
                filesystem.sync_folder(path.parent)
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
            filesystem.fault_point("fsync", self._path)
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
                filesystem.fault_point("write", self._path)
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
                f"it was changed or lost; bring it back, or begin a run with {option('init_from')}"
            )
        with _storage(self._path):
            filesystem.fault_point("truncate", self._path)
            if self._size > offset:
                self._file.truncate(offset)
        self._size = offset
