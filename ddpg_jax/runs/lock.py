"""The lock on a directory: one process writes into it.

The system takes a lock back when its holder ends, however that comes about; what the file says is only for people.
"""

from __future__ import annotations

import json
import os
import platform
import weakref
from datetime import datetime
from pathlib import Path

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.documents import Owner, validate

try:
    import fcntl
except ImportError:  # Windows, where runs can be read but not written
    fcntl = None

_TRIES = 100


class TakenError(StorageError):
    """Another process may be using the directory: this one must not go on."""


class Lock:
    """The lock of a directory, held until it is released or this object ends.

    Args:
      path: its file.

    Raises:
      StorageError: another process holds it, or this system has no such locks.
      OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, filesystem.identity(path.parent)
        self._take()

    def release(self) -> None:
        """Gives it back."""
        self._close()

    def check(self) -> None:
        """Makes sure that it is still held, as a file can be removed by hand; a lock that is missing is made anew.

        Raises:
          TakenError: another process may be using the directory.
          StorageError: it is not where it was.
        """
        filesystem.fault_point("stat", self._path)
        folder = self._path.parent
        if filesystem.identity(folder) != self._folder:
            raise StorageError(f"{folder} was moved or removed while it was in use; put it back where it was")
        found = filesystem.identity(self._path)
        if found is None:
            self._close()
            try:
                self._take()
            except StorageError as error:
                raise TakenError(str(error)) from error
        elif found != self._file:
            raise TakenError(
                f"{self._path} was replaced while this process held it, {_owner(self._path)}: another process may be "
                f"using {folder}, so this one writes nothing more there"
            )

    def _take(self) -> None:
        for _ in range(_TRIES):
            if self._take_once():
                return
        raise StorageError(f"{self._path} is being replaced all the time; another process must be using it")

    def _take_once(self) -> bool:
        """Takes the lock, or says who holds it; False: what was locked is not the file of that name any more."""
        if fcntl is None:
            raise StorageError(
                f"{self._path.parent} cannot be locked: runs are trained on Linux and macOS; on this system they can "
                "be read (evaluate, verify, load_policy)"
            )
        filesystem.fault_point("open", self._path)
        file = filesystem.open_file(self._path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            if filesystem.identity(self._path) != (found.st_dev, found.st_ino):
                file.close()
                return False
            if found.st_nlink > 1:  # a copy by hard links: its lock is not the other's
                filesystem.remove(self._path)
                file.close()
                return False
            started = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            owner = json.dumps({"host": platform.node(), "process": os.getpid(), "started": started})
            file.truncate(0)
            os.write(file.fileno(), owner.encode())
        except BlockingIOError:
            file.close()
            raise StorageError(f"{self._path.parent} is being used by another process: {_owner(self._path)}") from None
        except BaseException:
            file.close()
            raise
        self._file = found.st_dev, found.st_ino
        self._close = weakref.finalize(self, file.close)
        return True


def _owner(path: Path) -> str:
    """What a lock file says of its owner, if it says anything."""
    owner = read_owner(path)
    if owner is None:
        return "which one is not known"
    return printable(f"host {owner.host}, process {owner.process}, since {owner.started}")


def read_owner(path: Path) -> Owner | None:
    """Who wrote a lock file last, if it is one."""
    try:
        return validate(Owner, json.loads(filesystem.read_whole(path, 4096)), path)
    except (OSError, ValueError, RecursionError, StorageError):
        return None
