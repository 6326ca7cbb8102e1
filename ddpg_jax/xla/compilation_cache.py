"""Compiled programs, kept from one start to the next in the user's cache folder.

jax has such a cache. What it leaves out is here: where the folder is, a check of every entry before XLA loads it as
machine code, entries that appear whole or not at all, a bound, and threads and processor as parts of the key. Nothing
in it can end a run: an entry that cannot be read is compiled again, one that cannot be written is not kept.

Off where jax's own cache was asked for (`JAX_COMPILATION_CACHE_DIR`) or forbidden (`JAX_ENABLE_COMPILATION_CACHE=0`).
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ddpg_jax.__about__ import __version__
from ddpg_jax.xla.memory import available_cores
from ddpg_jax.xla.process import limited_to_one_thread

FOLDER_VARIABLE = "DDPG_JAX_CACHE"
MOST_BYTES = 2**30
UNUSED_SECONDS = 30 * 24 * 3600.0
"""Programs that were not used for so long are removed."""

_FORMAT = "1"
_PRUNE_EVERY = MOST_BYTES // 32
_TOUCH_EVERY, _ABANDONED = 3600.0, 3600.0
_ENTRY, _WRITING = ".program", ".writing"
_DIGEST_SIZE = hashlib.sha256().digest_size

_logger = logging.getLogger(__name__)


class Usage(NamedTuple):
    """What a cache folder holds."""

    programs: int
    size: int


def cache_folder() -> Path:
    """The user's folder for compiled programs: below `DDPG_JAX_CACHE`, or where the system keeps what can be made anew.

    Raises:
      RuntimeError: the user has no home directory.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser().absolute() / "programs"
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        named = os.environ.get("XDG_CACHE_HOME", "")
        caches = Path(named) if os.path.isabs(named) else Path.home() / ".cache"  # as the standard has it
    return caches / "ddpg_jax" / "programs"


def enable_compilation_cache() -> Path | None:
    """Keeps what this process compiles for later starts, and takes from earlier ones; call it before jax compiles.

    The numbers are those of a run without it. It changes jax for the whole process, so only the command line calls it
    by itself.

    Returns:
      The folder; None where there is no cache: jax's own was set or forbidden, this jax has no place for another, or
      the folder cannot be used.
    """
    settings: Any = jax.config
    try:
        if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
            return None
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(folder)
        _install(CheckedCache(folder))
    except (OSError, RuntimeError, ImportError, AttributeError) as error:
        _logger.debug("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def usage(folder: Path) -> Usage:
    """Number and bytes of the programs that a folder holds."""
    sizes = [each.stat.st_size for each in _files(folder)]
    return Usage(len(sizes), sum(sizes))


class CheckedCache:
    """Entries with their SHA-256, behind the two methods that jax asks a cache for (`CacheInterface`).

    Safe under any number of processes: an entry is renamed into place when it is whole, and whoever has begun to read
    one that is removed or replaced reads it to its end.
    """

    def __init__(self, folder: Path) -> None:
        """Touches no file.

        Args:
          folder: of all machines and versions; the entries lie in one folder for each.
        """
        self._path = folder  # by this name jax mentions it in its log
        self._unpruned = _PRUNE_EVERY

    @cached_property
    def entries(self) -> Path:
        """Where this process's entries are; asked for when jax compiles, as threads are settled by then."""
        return self._path / machine_key()

    def get(self, key: str) -> bytes | None:
        """The entry that was put under a key of jax, to the bit; None if there is none.

        One that is damaged is removed, and compiled again.
        """
        path = self._file(key)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        digest, value = stored[:_DIGEST_SIZE], stored[_DIGEST_SIZE:]
        whole = digest == _digest(key, value)
        with suppress(OSError):
            if not whole:
                _logger.debug("a compiled program is damaged and is compiled again: %s", path)
                path.unlink()
            elif time.time() - path.stat().st_mtime > _TOUCH_EVERY:
                os.utime(path)
        return value if whole else None

    def put(self, key: str, value: bytes) -> None:
        """Keeps an entry, in the place of what is there under its key."""
        path, written = self._file(key), None
        try:
            self.entries.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.entries, suffix=_WRITING, delete=False) as file:
                written = Path(file.name)
                file.write(_digest(key, value) + value)
            written.replace(path)
        except OSError as error:
            _logger.debug("a compiled program is not kept: %s", error)
            with suppress(OSError):
                if written is not None:
                    written.unlink(missing_ok=True)
        self._unpruned += len(value)
        if self._unpruned > _PRUNE_EVERY:
            self._unpruned = 0
            prune(self._path)

    def _file(self, key: str) -> Path:
        return self.entries / (hashlib.sha256(key.encode()).hexdigest() + _ENTRY)


def prune(folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Removes programs that were not used for `UNUSED_SECONDS`, and the least recently used beyond a size.

    Needs no lock: two processes at once choose the same files, and one that is gone already is none to remove.

    Args:
      folder: of all machines and versions.
      most_bytes: what may remain.
    """
    now, size = time.time(), 0
    with suppress(OSError):
        for each in sorted(_files(folder), key=lambda each: each.stat.st_mtime, reverse=True):
            size += each.stat.st_size
            age = now - each.stat.st_mtime
            if size > most_bytes or age > (_ABANDONED if each.path.suffix == _WRITING else UNUSED_SECONDS):
                with suppress(OSError):
                    each.path.unlink()
        for each in folder.iterdir():
            with suppress(OSError):
                each.rmdir()  # only where it is empty


def machine_key() -> str:
    """What a compiled program depends on and jax's own key may leave out, in 16 hexadecimal digits.

    jax's key holds the program, the compiler's options, the devices and jaxlib. XLA:CPU also divides its work by the
    number of threads.
    """
    flags = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NPROC", "PJRT_NPROC")
    facts = (
        *(_FORMAT, __version__, platform.python_version(), jax.__version__),
        *(_processor(), available_cores(), limited_to_one_thread()),
        *(os.environ.get(name, "") for name in flags),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _processor() -> tuple[str, ...]:
    """The machine's instruction set and its extensions."""
    machine = (platform.system(), platform.machine(), platform.processor())
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU implementer", "CPU part")
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return machine
    return (*machine, *(line for line in first.splitlines() if line.split(":")[0].strip() in wanted))


class _File(NamedTuple):
    path: Path
    stat: os.stat_result


def _files(folder: Path) -> Iterator[_File]:
    """Files of this cache and no others, should somebody keep his own beside them."""
    for path in folder.glob("*/*"):
        if path.suffix in (_ENTRY, _WRITING):
            with suppress(OSError):  # gone meanwhile
                yield _File(path, path.stat())


def _digest(key: str, value: bytes) -> bytes:
    """Of an entry and its key: an entry under the name of another is as wrong as a damaged one."""
    return hashlib.sha256(key.encode() + b"\0" + value).digest()


def _check_owner(folder: Path) -> None:
    """Whoever can write there can have this process run any code."""
    if sys.platform != "win32":
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(f"{folder} belongs to another user, or others may write there")


def _install(cache: CheckedCache) -> None:
    """Puts a cache in the place of jax's, for which there is no public way; a jax without that place is left alone."""
    from jax._src import compilation_cache
    from jax._src.compilation_cache_interface import CacheInterface

    there: Any = compilation_cache
    asked = {name: list(inspect.signature(getattr(CacheInterface, name)).parameters) for name in ("get", "put")}
    abstract = getattr(CacheInterface, "__abstractmethods__", None)
    if asked != {"get": ["self", "key"], "put": ["self", "key", "value"]} or abstract != asked.keys():
        raise AttributeError(f"jax {jax.__version__} asks other things of a cache: {asked}")
    with there._cache_initialized_mutex:
        _ = there._cache, there._cache_initialized
    there.reset_cache()
    with there._cache_initialized_mutex:
        there._cache, there._cache_initialized = cache, True
