"""Every call of the file system by which a run keeps something, so that tests can make any of them fail.

What is read is a regular file of bounded size, and what is written is a file of its own: a link, a device or a pipe in
the place of one is refused or replaced, never followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_PIECE = 2**20
_NO_DETOUR = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Opens no link, and waits for nobody at the other end of a pipe."""


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
    """Writes a file from what has a buffer, and waits until it is on the disk.

    What has the name already loses it: other names of the same file, and what a link leads to, stay as they are.
    """
    size, sha256 = 0, hashlib.sha256()
    fault_point("open", path)
    path.unlink(missing_ok=True)
    with open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
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


def replace_file(path: Path, parts: Iterable[Any]) -> Written:
    """Writes a whole file at once, and for good: a reader sees the old one or the new one."""
    part = path.with_name(path.name + ".part")
    written = write_file(part, parts)
    rename(part, path)
    sync_folder(path.parent)
    return written


def read_file(path: Path, size: int) -> bytearray:
    """Reads a regular file, which is no link, of that very size.

    Raises:
      OSError: there is none, or it is of another size, or cannot be read.
    """
    with _open(path) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise OSError(f"holds {found} bytes instead of {size}")
        return _read_exactly(file, size)


def read_whole(path: Path, most: int) -> bytearray:
    """Reads a regular file, which is no link, of at most so many bytes.

    Raises:
      OSError: there is none, or it is larger, or cannot be read.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"holds {size} bytes, which are too many: {most} may be")
        return _read_exactly(file, size)


def file_size(path: Path) -> int:
    """The size of a regular file, which is no link, in bytes."""
    with _open(path) as file:
        return os.fstat(file.fileno()).st_size


def hash_file(path: Path) -> Written:
    """Size and hash of a regular file, which is no link."""
    size, sha256 = 0, hashlib.sha256()
    for piece in read_pieces(path):
        sha256.update(piece)
        size += len(piece)
    return Written(size, sha256.hexdigest())


def hash_starts(path: Path, sizes: Iterable[int]) -> dict[int, str | None]:
    """The hashes of the first bytes of a file, by their number; None where it holds fewer. It is read once."""
    hashes: dict[int, str | None] = dict.fromkeys(sizes)
    left, at, sha256 = sorted(hashes), 0, hashlib.sha256()
    for piece in read_pieces(path, max(left, default=0)):
        while left and left[0] <= at + len(piece):
            start = sha256.copy()
            start.update(piece[: left[0] - at])
            hashes[left.pop(0)] = start.hexdigest()
        sha256.update(piece)
        at += len(piece)
    return hashes | {size: hashlib.sha256().hexdigest() for size in left if size == 0}


def read_pieces(path: Path, most: int | None = None) -> Iterator[memoryview]:
    """The bytes of a regular file, at most so many, piece by piece; each piece is overwritten by the next one."""
    buffer = memoryview(bytearray(_PIECE))
    with _open(path) as file:
        left = os.fstat(file.fileno()).st_size if most is None else most
        while left and (count := file.readinto(buffer[: min(left, _PIECE)])):
            yield buffer[:count]
            left -= count


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


def links(paths: Sequence[Path]) -> Iterator[Path]:
    """Those of some paths that are links, and those that lie below the folders among them."""
    for path in paths:
        if path.is_symlink():
            yield path
        elif path.is_dir():
            yield from links([path / each for each in sorted(os.listdir(path))])


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or a folder from every other that has had its name; None: there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def open_file(path: Path, flags: int) -> Any:
    """Opens a regular file, which is no link, without a buffer.

    Raises:
      OSError: it is something else, or cannot be opened.
    """
    descriptor = os.open(path, flags | _NO_DETOUR, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("is no regular file")
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    return os.fdopen(descriptor, {0: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[writes], buffering=0)


def _open(path: Path) -> Any:
    fault_point("read", path)
    return open_file(path, os.O_RDONLY)


def _read_exactly(file: Any, size: int) -> bytearray:
    """So many bytes; one call of the system gives at most 2 GiB."""
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise OSError("ends too early")
        rest = rest[count:]
    return content


def _pieces(parts: Iterable[Any]) -> Iterator[memoryview]:
    for part in parts:
        whole = memoryview(part).cast("B")
        for start in range(0, len(whole), _PIECE):
            yield whole[start : start + _PIECE]
