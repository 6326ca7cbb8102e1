"""What a follower reads: the record of a run, or the rows of one lane of a sweep, as if they were a record of its own.

A sweep writes the rows of all its lanes into one file, and lanes that run in turns begin at step 0 each. Row by row, a
lane has what a run of its own would have recorded, its steps in order.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple, Protocol

from ddpg_jax.runs import filesystem as filesystem


class Record(Protocol):
    """Lines that grow, and may be cut back and written again."""

    def size(self) -> int:
        """Bytes that are there."""
        ...

    def read(self, start: int, most: int) -> bytes:
        """Bytes from one on, at most so many; fewer, or none, where there are no more."""
        ...


class RunRecord:
    """The record of a run, by its name: a run that goes on puts another file in its place.

    Args:
      path: of the file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """Bytes that are there."""
        return filesystem.file_size(self._path) if self._path.exists() else 0

    def read(self, start: int, most: int) -> bytes:
        """Bytes from one on, at most so many."""
        if filesystem.identity(self._path) is None:
            return b""
        with filesystem.open_file(self._path, os.O_RDONLY) as file:
            file.seek(start)
            return file.read(most)


class Lane(NamedTuple):
    """A combination of a sweep with one of its seeds."""

    combination: int
    seed: int


class SweepRecord:
    """The record of a sweep, split into its lanes.

    Args:
      path: of the file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._at = 0
        self.lanes: dict[Lane, LaneRecord] = {}
        """those that have rows, in the order of their first ones"""

    def look(self) -> None:
        """Reads what was added since; from the beginning where another file is in its place.

        Raises:
          OSError: the file cannot be read.
        """
        file = filesystem.identity(self._path)
        if file is None:
            return
        if file != self._file or filesystem.file_size(self._path) < self._at:
            self._file, self._at = file, 0
            for record in self.lanes.values():
                record.clear(file)
        with filesystem.open_file(self._path, os.O_RDONLY) as lines, open(lines.fileno(), "rb", closefd=False) as text:
            text.seek(self._at)
            for line in text:
                if not line.endswith(b"\n"):
                    return
                self._add(line, file)

    def _add(self, line: bytes, file: tuple[int, int]) -> None:
        row = json.loads(line)
        lane = Lane(row["combination"], row["seed"])
        if lane not in self.lanes:
            self.lanes[lane] = LaneRecord(self._path, file)
        self.lanes[lane].add(self._at, len(line))
        self._at += len(line)


class LaneRecord:
    """The rows of one lane; see `Record`.

    Args:
      path: of the record of the sweep.
      file: its identity.
    """

    def __init__(self, path: Path, file: tuple[int, int]) -> None:
        self._path = path
        self.clear(file)

    def clear(self, file: tuple[int, int]) -> None:
        """Forgets its rows, which are in another file."""
        self._file, self._places, self._ends = file, array("q"), array("q", [0])

    def add(self, place: int, length: int) -> None:
        """Adds a row: where it is in the file, and how long."""
        self._places.append(place)
        self._ends.append(self._ends[-1] + length)

    def size(self) -> int:
        """Bytes of its rows."""
        return self._ends[-1]

    def read(self, start: int, most: int) -> bytes:
        """Bytes from one on, at most so many; none where another file is in the place of the one that was split."""
        end = min(start + most, self.size())
        if start >= end or filesystem.identity(self._path) != self._file:
            return b""
        content = bytearray()
        with filesystem.open_file(self._path, os.O_RDONLY) as file:
            for i in range(bisect_right(self._ends, start) - 1, len(self._places)):
                if self._ends[i] >= end:
                    break
                skipped = max(0, start - self._ends[i])
                file.seek(self._places[i] + skipped)
                content += file.read(min(self._ends[i + 1], end) - self._ends[i] - skipped)
        return bytes(content)
