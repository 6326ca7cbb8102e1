"""Files of JSON lines: the record and the timing of a run.

`metrics.jsonl` holds only what the configuration determines, so that equal runs are equal files; clocks and rates are
in `timing.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable
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

    While the file cannot be written, lines are kept in memory, in order, and tried again with the next ones. A file
    that is gone is written anew. One that is cut back is replaced by its start: its other names keep what they had.

    Args:
      path: the file.
      offset: it is cut back to so many bytes first; None: it is appended to.
      warn: is told when lines cannot be written, once until they can be again.
      sha256: of the bytes up to the offset; None: it is not known.
      spare: it may be shorter than the offset: what lacks is lost, which is said, and lines are added to the rest.

    Raises:
      StorageError: it cannot be opened, is shorter than the offset, or its start is not what it was.
    """

    def __init__(
        self,
        path: Path,
        offset: int | None = None,
        warn: Callable[[str], None] = print,
        *,
        sha256: str | None = None,
        spare: bool = False,
    ) -> None:
        self._path, self._warn = path, warn
        self._waiting = bytearray()
        self._failing = False
        with _storage(path):
            if offset is not None:
                self._cut(offset, sha256, spare)
            self._open()

    @property
    def sha256(self) -> str:
        """Of all that has been written."""
        return self._hash.hexdigest()

    def write(self, rows: list[Row]) -> None:
        """Appends rows, as soon as that is possible."""
        self._waiting += "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        self._try()

    def sync(self) -> int:
        """Waits until all lines are on the disk.

        Returns:
          The size of the file, in bytes.

        Raises:
          StorageError: they cannot be written, or another file has taken the name.
        """
        self._try()
        with _storage(self._path):
            if self._waiting:
                raise OSError(f"{len(self._waiting)} bytes are still to be written")
            self._write_anew_if_gone()
            filesystem.fault_point("fsync", self._path)
            os.fsync(self._file.fileno())
        return self._size

    def close(self) -> None:
        """Closes the file; lines that still cannot be written are lost, and that is said."""
        self._try()
        if self._waiting:
            self._warn(f"warning: {self._path} lacks its last {len(self._waiting)} bytes, which could not be written")
        self._file.close()

    def _open(self) -> None:
        filesystem.fault_point("open", self._path)
        new = filesystem.identity(self._path) is None
        self._hash = hashlib.sha256()
        if not new:
            for piece in filesystem.read_pieces(self._path):
                self._hash.update(piece)
        self._file = filesystem.open_file(self._path, os.O_RDWR | os.O_CREAT)
        self._size = self._file.seek(0, os.SEEK_END)
        if new:
            filesystem.sync_folder(self._path.parent)

    def _try(self) -> None:
        try:
            while self._waiting:
                filesystem.fault_point("write", self._path)
                self._file.seek(self._size)  # over what a write that failed has left
                written = self._file.write(self._waiting)
                self._size += written
                self._hash.update(self._waiting[:written])
                del self._waiting[:written]
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._warn(f"warning: {self._path} cannot be written: {error}; its lines are kept, training goes on")
            self._failing = True

    def _write_anew_if_gone(self) -> None:
        """The lines are still to be had as long as the file is open, whatever became of its name."""
        found, held = filesystem.identity(self._path), os.fstat(self._file.fileno())
        if found == (held.st_dev, held.st_ino):
            return
        if found is not None:
            raise OSError("another file has taken its place while it was written")
        self._file.seek(0)
        filesystem.replace_file(self._path, iter(lambda: self._file.read(2**20), b""))
        self._file.close()
        self._file = filesystem.open_file(self._path, os.O_RDWR)
        self._warn(f"warning: {self._path} was gone and is written anew")

    def _cut(self, offset: int, sha256: str | None, spare: bool) -> None:
        """Replaces the file by its first bytes."""
        there = filesystem.file_size(self._path) if filesystem.identity(self._path) is not None else 0
        if there < offset and not spare:
            raise StorageError(
                f"{self._path} holds {there} bytes, but held {offset} when the run was saved: it was changed or lost; "
                f"bring it back, or begin a run with {option('init_from')}"
            )
        kept = min(offset, there)
        if there < offset:
            kept = self._whole_lines(kept) if kept else 0
            self._warn(f"warning: {self._path} holds {there} bytes, but held {offset}; what lacks is lost")
        filesystem.fault_point("truncate", self._path)
        part = self._path.with_name(self._path.name + ".part")
        written = filesystem.write_file(part, filesystem.read_pieces(self._path, kept) if kept else ())
        if sha256 is not None and written != (offset, sha256):
            filesystem.remove(part)
            raise StorageError(f"{self._path} is not what it was when the run was saved: bytes of it were changed")
        filesystem.rename(part, self._path)
        filesystem.sync_folder(self._path.parent)

    def _whole_lines(self, size: int) -> int:
        """The bytes up to the last end of a line among the first ones."""
        end = at = 0
        for piece in filesystem.read_pieces(self._path, size):
            at, last = at + len(piece), bytes(piece).rfind(b"\n")
            end = end if last < 0 else at - len(piece) + last + 1
        return end


def record_hashes(path: Path, sizes: Iterable[int]) -> dict[int, str | None]:
    """The hashes of a record up to some of its bytes, by their number; None where it holds fewer.

    Raises:
      StorageError: it is no file, or cannot be read.
    """
    try:
        return filesystem.hash_starts(path, sizes) if filesystem.identity(path) is not None else dict.fromkeys(sizes)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def check_record(path: Path, size: int, sha256: str | None) -> None:
    """Makes sure that a record begins with the bytes that it had when a checkpoint was written.

    Args:
      path: the record.
      size: how many they were.
      sha256: their hash; None: it was not kept, and their number alone is compared.

    Raises:
      StorageError: it does not.
    """
    found = record_hashes(path, [size])[size]
    if found is None:
        raise StorageError(f"{path} is shorter than the {size} bytes that it held when the checkpoint was written")
    if sha256 not in (None, found):
        raise StorageError(f"{path} is not what it was when the checkpoint was written: bytes of it were changed")
