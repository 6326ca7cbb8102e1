"""`trials.jsonl`: what a search has decided, line by line, each on the disk before its effect.

A line is a JSON object with an `event`, and `check`: the hash of the line before it and of its own text, so that no
line is lost, doubled or changed unseen. It holds only what the search file determines, no clocks, no hosts and no
attempts, so that a search that was killed ends with the record of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem

_DIGITS = 16
"""Of a hash that are kept."""

Line = dict[str, Any]


class TrialsRecord:
    """The lines of a search: those that are there are gone through again, in order, and then new ones are added.

    A search is run again from its first decision each time it is started. What it decided before, it decides again, and
    finds the line there; what it had found out before, it is told by the line.

    Args:
      path: the file; it need not be there. Its last line is dropped if a crash has torn it.

    Raises:
      StorageError: it cannot be read or written, or a line that is not the last was changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines, size, self._check = read_lines(path)
        self._next = 0
        try:
            self._file = filesystem.open_file(path, os.O_RDWR | os.O_CREAT)
            self._file.truncate(size)
            self._file.seek(size)
            filesystem.sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error

    @property
    def ahead(self) -> list[Line]:
        """Lines that are there and were not gone through yet."""
        return self._lines[self._next :]

    def once(self, event: str, keys: Mapping[str, Any], find_out: Callable[[], Mapping[str, Any]] = dict) -> Line:
        """The line of an event: the one that is there, or a new one with what is found out now.

        Args:
          event: its name.
          keys: what the search knows of it beforehand, which the line there must agree with.
          find_out: called where it is not there; what it returns stands in the line too.

        Raises:
          StorageError: the line there is of another event, or the new one cannot be written.
        """
        known = {"event": event, **keys}
        if self._next < len(self._lines):
            line = self._lines[self._next]
            if any(line.get(name) != value for name, value in known.items()):
                raise StorageError(
                    f"{self._path}, line {self._next + 1}: holds {_short(line)}, but this search comes to "
                    f"{_short(known)}: its file or its version is another; name another directory"
                )
            self._next += 1
            return line
        line = json.loads(json.dumps(known | dict(find_out()), allow_nan=False))
        self._append(line)
        return line

    def take(self) -> Line:
        """The next line that is there and was not gone through, as it is; for a search that decides by its record."""
        self._next += 1
        return self._lines[self._next - 1]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, line: Line) -> None:
        text, self._check = _sealed(line, self._check)
        try:
            filesystem.fault_point("write", self._path)
            while text:
                text = text[self._file.write(text) :]
            filesystem.fault_point("fsync", self._path)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error}") from error
        self._lines.append(line)
        self._next += 1


def read_lines(path: Path) -> tuple[list[Line], int, str]:
    """The whole lines of a record, how many bytes they are, and the hash of the last.

    Raises:
      StorageError: it cannot be read, or a line before the last is none.
    """
    try:
        content = b"".join(filesystem.read_pieces(path)) if filesystem.identity(path) is not None else b""
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    lines: list[Line] = []
    size, check = 0, ""
    pieces = content.splitlines(keepends=True)
    for number, piece in enumerate(pieces, 1):
        line = _opened(piece, check)
        if line is None:
            if number < len(pieces):
                raise StorageError(f"{path}, line {number}: was changed, or a line before it was lost")
            break
        lines.append(line)
        size, check = size + len(piece), _sealed(line, check)[1]
    return lines, size, check


def _sealed(line: Line, before: str) -> tuple[bytes, str]:
    """The bytes of a line, and its hash, of that of the line before and of its own text."""
    text = json.dumps(line, allow_nan=False)
    check = hashlib.sha256((before + text).encode()).hexdigest()[:_DIGITS]
    return f'{text[:-1]}, "check": "{check}"}}\n'.encode(), check


def _opened(piece: bytes, before: str) -> Line | None:
    """The line that some bytes are; None: they are none that follows the one before."""
    try:
        line = json.loads(piece)
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    given = {name: value for name, value in line.items() if name != "check"}  # pyright: ignore[reportUnknownVariableType]
    return given if _sealed(given, before)[0] == piece else None


def _short(line: Mapping[str, Any]) -> str:
    text = json.dumps(line)
    return text if len(text) <= 120 else f"{text[:117]}..."
