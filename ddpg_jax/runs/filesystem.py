"""Every call of the file system by which a run keeps something, so that tests can make any of them fail."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_PIECE = 2**20


class Written(NamedTuple):
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


def fault_point(operation: str, path: Path) -> None:
    """Called before every call of the system, with its name and the path it is about; tests let it raise."""


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, whose names are on the disk then; one that is there is taken."""
    fault_point("mkdir", path)
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def write_file(path: Path, parts: Iterable[Any]) -> Written:
    """Writes a file from what has a buffer, and waits until it is on the disk."""
    size, sha256 = 0, hashlib.sha256()
    fault_point("open", path)
    with path.open("wb", buffering=0) as file:
        for piece in _pieces(parts):
            fault_point("write", path)
            rest = piece
            while rest:
                rest = rest[file.write(rest) :]
            sha256.update(piece)
            size += len(piece)
        fault_point("fsync", path)
        os.fsync(file.fileno())
    return Written(size, sha256.hexdigest())


def read_file(path: Path, size: int) -> bytearray:
    """Reads a regular file, which is no link, of that very size.

    Raises:
      OSError: there is none, or it is of another size, or cannot be read.
    """
    with _opened(path) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise OSError(f"holds {found} bytes instead of {size}")
        content = bytearray(size)
        if file.readinto(content) != size:
            raise OSError("ends too early")
    return content


def file_size(path: Path) -> int:
    """The size of a regular file, which is no link, in bytes."""
    with _opened(path) as file:
        return os.fstat(file.fileno()).st_size


def hash_file(path: Path) -> Written:
    """Size and hash of a regular file, which is no link."""
    size, sha256, buffer = 0, hashlib.sha256(), memoryview(bytearray(_PIECE))
    with _opened(path) as file:
        while count := file.readinto(buffer):
            sha256.update(buffer[:count])
            size += count
    return Written(size, sha256.hexdigest())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    fault_point("fsync", path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, to: Path) -> None:
    """Gives a file or a folder another name; a file that has it is replaced."""
    fault_point("rename", path)
    os.replace(path, to)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; what is not there is as good as removed."""
    fault_point("remove", path)
    try:
        if path.is_dir() and not path.is_symlink():
            for each in names(path):
                remove(path / each)
            fault_point("rmdir", path)
            path.rmdir()
        else:
            path.unlink()
    except FileNotFoundError:
        pass


def names(path: Path) -> list[str]:
    """What is in a folder, in order; nothing where there is none."""
    fault_point("list", path)
    return sorted(os.listdir(path)) if path.is_dir() else []


def _opened(path: Path) -> Any:
    fault_point("read", path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("is no regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def _pieces(parts: Iterable[Any]) -> Iterator[memoryview]:
    for part in parts:
        whole = memoryview(part).cast("B")
        for start in range(0, len(whole), _PIECE):
            yield whole[start : start + _PIECE]
