"""A disk that keeps nothing but what was asked for, and a power failure at any call of the file system."""

import os
import shutil
from pathlib import Path

from ddpg_jax.runs import filesystem as filesystem


class Killed(BaseException):
    """The process ends here: nothing after it runs, what was written stays."""


class Disk:
    """What a disk holds if the power fails: bytes of files that were synced, names in folders that were synced.

    It is the hardest disk: whatever was not asked for explicitly is lost, or, of bytes, torn. Files and folders are
    told apart by their inodes, which are held open so that no other gets their numbers.
    """

    def __init__(self, folder, monkeypatch, at):
        self._at, self._count, self._held, self._sync = at, 0, [], os.fsync
        self._bytes, self._names = {}, {}  # by inode: of files, and of folders the inodes by name
        self._root = folder.stat().st_ino
        for path in (folder, *folder.rglob("*")):
            descriptor = os.open(path, os.O_RDONLY)
            self._note(descriptor)
            os.close(descriptor)
        monkeypatch.setattr(filesystem, "fault_point", self)
        monkeypatch.setattr(os, "fsync", self._note)

    def __call__(self, operation, path):
        self._count += 1
        if self._count > self._at:
            raise Killed

    def _note(self, descriptor):
        """A file, or a folder, is safe as it is now."""
        self._sync(descriptor)
        self._held.append(os.dup(descriptor))
        path, inode = Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino
        if path.is_dir():
            self._names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
            for name in self._names[inode]:
                self._held.append(os.open(path / name, os.O_RDONLY))
        else:
            self._bytes[inode] = path.read_bytes()

    def forget(self):
        for held in self._held:
            os.close(held)

    def after_the_power_failed(self, folder):
        known = {os.fstat(held).st_ino: Path(f"/proc/self/fd/{held}") for held in self._held}

        def write(inode, path):
            if known[inode].is_dir():
                path.mkdir()
                for name, each in self._names.get(inode, {}).items():
                    write(each, path / name)
            else:
                now = known[inode].read_bytes()
                path.write_bytes(self._bytes.get(inode, now[: len(now) // 2]))

        write(self._root, folder.with_name("left"))
        self.forget()
        shutil.rmtree(folder)
        folder.with_name("left").rename(folder)
