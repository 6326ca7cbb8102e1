"""The directory of a run: where its files are, and who may use it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ddpg_jax.config.wording import option
from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem

_FILES = (
    "config.toml",
    "start.safetensors",
    "metrics.jsonl",
    "timing.jsonl",
    "result.json",
    "learning_curve.png",
    "ranking.png",
    "best.toml",
    "sweep.toml",
)
_FOLDERS = ("tensorboard", "checkpoints")
_LOCK = "run.lock"
_PART = ".part"
_NO_RUN = frozenset(
    {_LOCK, "start.safetensors" + _PART, "start.safetensors", "config.toml" + _PART, "sweep.toml" + _PART}
)
"""What a run leaves that was cut off before it had begun."""


class RunDirectory:
    """The files of one run.

    Only one process may write into them: the one that holds the lock on the file `run.lock`. The system takes a lock
    back when its holder ends, however that comes about; what the file says is only for people.

    Args:
      path: the directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.sweep = self.path / "sweep.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.start = self.path / "start.safetensors"
        self.weights = self.checkpoints / "final.safetensors"
        self.learning_curve = self.path / "learning_curve.png"
        self.result = self.path / "result.json"
        self._lock: Callable[[], object] | None = (
            None  # gives it back; called at the latest with the end of this object
        )

    @classmethod
    def create(cls, path: str | Path | None, name: str, *, overwrite: bool = False) -> RunDirectory:
        """Makes a directory for a new run, and locks it.

        Args:
          path: where; None: a new directory `runs/<name>_<time>`.
          name: name of the run.
          overwrite: whether the files of a run that is there may be removed. Other files are never touched.

        Raises:
          StorageError: the directory holds files and `overwrite` is not set, another process is using it, or it cannot
            be made.
        """
        try:
            run = cls(path if path is not None else _new_folder(f"{name}_{datetime.now():%Y-%m-%dT%H-%M-%S}"))
            filesystem.make_folder(run.path)
            if not overwrite:
                run._refuse_if_used()
            run._take_lock()
            try:
                run._clear() if overwrite else run._refuse_if_used()
            except (OSError, StorageError):
                run._release()
                raise
        except OSError as error:
            raise StorageError(f"{path or 'runs/'} cannot be used as run directory: {error}") from error
        return run

    @classmethod
    def open(cls, path: str | Path, of: Literal["run", "sweep"] = "run") -> RunDirectory:
        """The directory of a run, or of a sweep, that is there.

        Raises:
          StorageError: there is none.
        """
        run = cls(path)
        held = {"run": run.config, "sweep": run.sweep}
        if not held[of].is_file():
            other = "; it holds a sweep: train its best.toml" if of == "run" and run.sweep.is_file() else ""
            raise StorageError(f"{run.path} is not a {of} directory: it holds no {held[of].name}{other}")
        if (run.path / "process-0").is_dir():
            raise StorageError(f"{run.path} holds the runs of several processes: name one of them, as process-0")
        return run

    def bundle(self, seed: int) -> Path:
        """Where a seed that diverges leaves its last good state and the batch."""
        return self.path / f"not-finite-seed-{seed}.safetensors"

    def bundles(self) -> list[Path]:
        """The bundles that are there, by name."""
        return sorted(self.path.glob("not-finite-seed-*.safetensors"))

    @contextmanager
    def lock(self) -> Generator[None]:
        """Holds the lock for as long as the context lasts.

        Raises:
          StorageError: another process is using the directory, or it cannot be locked.
        """
        try:
            if self._lock is None:
                self._take_lock()
        except OSError as error:
            raise StorageError(f"{self.path / _LOCK} cannot be used: {error}") from error
        try:
            yield
        finally:
            self._release()

    def write_text(self, path: Path, text: str) -> None:
        """Writes a whole file at once, and for good: a reader sees the old one or the new one.

        Raises:
          StorageError: it cannot be written.
        """
        try:
            part = path.with_name(path.name + _PART)
            filesystem.write_file(part, [text.encode()])
            filesystem.rename(part, path)
            filesystem.sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`."""
        self.write_text(self.result, json.dumps(result, indent=2) + "\n")

    def read_result(self) -> dict[str, Any] | None:
        """What `result.json` holds; None: there is none.

        Raises:
          StorageError: it cannot be read.
        """
        try:
            return json.loads(self.result.read_text(encoding="utf-8")) if self.result.exists() else None
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.result} cannot be read: {error}") from error

    def copy_start(self, path: Path, size: int) -> None:
        """Copies the first bytes of a file of another run to where it is here.

        Raises:
          StorageError: it holds fewer, or cannot be copied.
        """
        try:
            with path.open("rb") as file:
                content = file.read(size)
            if len(content) < size:
                raise OSError(f"it holds {len(content)} bytes, but held {size}")
            filesystem.write_file(self.path / path.name, [content])
        except OSError as error:
            raise StorageError(f"{path} cannot be copied: {error}") from error

    def drop_results(self) -> None:
        """Removes what a run or a sweep has written at its end, as it goes on.

        Raises:
          StorageError: they cannot be removed.
        """
        try:
            of_sweep = self.path / "ranking.png", self.path / "best.toml"
            for path in (self.result, self.weights, self.learning_curve, *of_sweep):
                filesystem.remove(path)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error

    def drop_checkpoints(self) -> None:
        """Removes the checkpoints of what has come to its end; those that cannot be removed stay."""
        with suppress(OSError):
            filesystem.remove(self.checkpoints)

    def _refuse_if_used(self) -> None:
        if any(path.name not in _NO_RUN for path in self.path.iterdir()):
            raise StorageError(
                f"{self.path} is not empty: name another {option('run_dir')}, go on with the run there by ddpg-jax "
                f"resume, or replace it with {option('overwrite')}"
            )

    def _take_lock(self) -> None:
        """Takes the lock, or says who holds it."""
        path = self.path / _LOCK
        filesystem.fault_point("open", path)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        lock = weakref.finalize(self, os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            started = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            owner = json.dumps({"host": platform.node(), "process": os.getpid(), "started": started})
            os.truncate(file, 0)
            os.write(file, owner.encode())
        except BlockingIOError:
            owner = os.pread(file, 4096, 0)
            lock()
            raise StorageError(f"{self.path} is being used by another process: {_described(owner)}") from None
        except OSError:
            lock()
            raise
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock()
        self._lock = None

    def _clear(self) -> None:
        for path in (*(self.path / name for name in (*_FILES, *_FOLDERS)), *self.bundles()):
            filesystem.remove(path)


def _described(owner: bytes) -> str:
    """What a lock file says of its owner, if it says anything."""
    try:
        values = json.loads(owner)
        return f"host {values['host']}, process {values['process']}, since {values['started']}"
    except (ValueError, KeyError, TypeError):
        return "which one is not known"


def _new_folder(name: str) -> Path:
    """A folder under `runs/` that nobody else has, even if many begin in the same second."""
    for i in range(1, 1000):
        path = Path("runs") / (name if i == 1 else f"{name}_{i}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise StorageError(f"runs/{name} and 999 more are taken; name another {option('run_dir')}")
