"""The directory of a run: where its files are, whose they are, and who may write them."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ddpg_jax.__about__ import __version__
from ddpg_jax.config.wording import option
from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.documents import Format, RunResult, SweepResult, read_json, validate
from ddpg_jax.runs.lock import Lock, read_owner

FORMAT = 2
"""Of run directories. 1, without `format.json`: version 0.1.0 up to commit c8ec0f3."""

_FILES = (
    "config.toml",
    "start.safetensors",
    "metrics.jsonl",
    "timing.jsonl",
    "result.json",
    "augmentations.png",
    "learning_curve.png",
    "ranking.png",
    "best.toml",
    "sweep.toml",
    "search.toml",
    "trials.jsonl",
    "lineage.jsonl",
    "fault.txt",
)
_FOLDERS = ("tensorboard", "checkpoints")
_LOCK, _FORMAT = "run.lock", "format.json"
_PART = ".part"
_NO_RUN = frozenset(
    {_LOCK, _FORMAT, *(f"{name}{_PART}" for name in (_FORMAT, "start.safetensors", "config.toml", "sweep.toml"))}
    | {"start.safetensors"}
)
"""What a run leaves that was cut off before it had begun."""

_OURS = re.compile(
    r"(not-finite-seed-\d+\.safetensors|aside-\d+-(metrics|timing)\.jsonl"
    r"|tensorboard/seed-\d+/events\.out\.tfevents\.[\w.]+|aside-\d+-checkpoints(/.*)?"
    r"|checkpoints/((corrupt-|\.staging-)?\d+(-step-\d+)?(/.*)?|rows/[\d-]+\.safetensors|best/step-\d+\.safetensors"
    r"|(best|final)\.safetensors))(\.part)?"
)
"""What a run writes beside the files that have fixed names."""


class RunDirectory:
    """The files of one run.

    Only one process may write into them: the one that holds the lock. What is below the directory is never reached
    through a link, whoever made it. The path is absolute from the start, as an environment may change the working
    directory.

    Args:
      path: the directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.config = self.path / "config.toml"
        self.sweep = self.path / "sweep.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.lineage = self.path / "lineage.jsonl"
        self.followers = self.path / "followers"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.start = self.path / "start.safetensors"
        self.weights = self.checkpoints / "final.safetensors"
        self.best_weights = self.checkpoints / "best.safetensors"
        self.learning_curve = self.path / "learning_curve.png"
        self.augmentations = self.path / "augmentations.png"
        self.result = self.path / "result.json"
        self.fault = self.path / "fault.txt"
        self.format = self.path / _FORMAT
        self._lock: Lock | None = None

    @classmethod
    def create(cls, path: str | Path | None, name: str, *, overwrite: bool = False) -> RunDirectory:
        """Makes a directory for a new run, and locks it.

        Args:
          path: where; None: a new directory `runs/<name>_<time>`.
          name: name of the run.
          overwrite: whether the files of a run that is there may be removed. Other files are never touched, nor is a
            directory that never was one of a run.

        Raises:
          StorageError: the directory holds files and `overwrite` is not set, or is not that of a run; another process
            is using it, or it cannot be made.
        """
        try:
            run = cls(path if path is not None else _new_folder(f"{name}_{datetime.now():%Y-%m-%dT%H-%M-%S}"))
            filesystem.make_folder(run.path)
            run._refuse_if_used(overwrite)
            run._take_lock()
            try:
                run._refuse_if_used(overwrite)
                if overwrite:
                    run._clear()
                run._mark()
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
          StorageError: there is none, or a newer version wrote it.
        """
        run = cls(path)
        held = {"run": run.config, "sweep": run.sweep}
        if not held[of].is_file():
            other = "; it holds a sweep: train its best.toml" if of == "run" and run.sweep.is_file() else ""
            raise StorageError(f"{run.path} is not a {of} directory: it holds no {held[of].name}{other}")
        if (run.path / "process-0").is_dir():
            raise StorageError(f"{run.path} holds the runs of several processes: name one of them, as process-0")
        run.check_format()
        return run

    def check_format(self) -> Format | None:
        """What the directory says of its format; None: it is of the first one, which had no mark.

        Raises:
          StorageError: a newer version wrote it, or the mark cannot be read.
        """
        if filesystem.identity(self.format) is None:
            return None
        found = validate(Format, read_json(self.format, 4096), self.format)
        if found.format > FORMAT:
            raise StorageError(
                f"{self.path} was written by ddpg-jax {printable(found.version)} in format {found.format}; this is "
                f"ddpg-jax {__version__}, which knows formats up to {FORMAT}: use that version"
            )
        return found

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
          StorageError: another process is using the directory, it cannot be locked, or something in it is a link.
        """
        try:
            if self._lock is None:
                self._take_lock()
                self._mark()
        except OSError as error:
            self._release()
            raise StorageError(f"{self.path / _LOCK} cannot be used: {error}") from error
        try:
            yield
        finally:
            self._release()

    def check_owner(self) -> None:
        """Makes sure, before something is written for good, that the directory is still where it was, and ours.

        Raises:
          StorageError: it is not.
        """
        try:
            if self._lock is not None:
                self._lock.check()
        except OSError as error:
            raise StorageError(f"{self.path / _LOCK} cannot be used: {error}") from error

    def check_links(self) -> None:
        """Refuses a directory in which a link stands in the place of something that is written or removed.

        Raises:
          StorageError: one does.
        """
        fixed = [self.path / name for name in (*_FILES, *_FOLDERS, _LOCK, _FORMAT)]
        try:
            parts = [path for path in self.path.iterdir() if path.name.endswith(_PART)]
            for link in filesystem.links([*fixed, *parts, *self.path.glob("process-*"), *self.bundles()]):
                raise StorageError(
                    f"{printable(link)} is a link: nothing below a run directory is written or removed through one; "
                    "replace it by what it leads to"
                )
        except FileNotFoundError:
            return

    def write_text(self, path: Path, text: str) -> None:
        """Writes a whole file at once, and for good: a reader sees the old one or the new one.

        Raises:
          StorageError: it cannot be written.
        """
        self.check_owner()
        try:
            filesystem.replace_file(path, [text.encode()])
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`."""
        self.write_text(self.result, json.dumps(result, indent=2) + "\n")

    def read_result(self) -> dict[str, Any] | None:
        """What `result.json` holds; None: there is none.

        Raises:
          StorageError: it cannot be read, or is no result.
        """
        if filesystem.identity(self.result) is None:
            return None
        values = read_json(self.result)
        validate(SweepResult if self.sweep.is_file() else RunResult, values, self.result)
        return values

    def copy_start(self, path: Path, size: int) -> None:
        """Copies the first bytes of a file of another run to where it is here.

        Raises:
          StorageError: it holds fewer, or cannot be copied.
        """
        try:
            found = filesystem.write_file(self.path / path.name, filesystem.read_pieces(path, size))
            if found.bytes < size:
                raise OSError(f"it holds {found.bytes} bytes, but held {size}")
        except OSError as error:
            raise StorageError(f"{path} cannot be copied: {error}") from error

    def set_aside(self, *paths: Path) -> str:
        """Copies what is about to be cut, or moves it if it is a folder, to names that nothing uses; returns them.

        Raises:
          StorageError: that cannot be done.
        """
        self.check_owner()
        taken = [int(name.split("-")[1]) for name in filesystem.names(self.path) if re.match(r"aside-\d+-", name)]
        kept = [path for path in paths if filesystem.identity(path) is not None]
        asides = [path.with_name(f"aside-{max(taken, default=0) + 1}-{path.name}") for path in kept]
        try:
            for path, aside in zip(kept, asides, strict=True):
                if path.is_dir():
                    filesystem.rename(path, aside)
                else:
                    filesystem.replace_file(aside, filesystem.read_pieces(path))
            filesystem.sync_folder(self.path)
        except OSError as error:
            raise StorageError(f"{self.path}: the record cannot be set aside: {error}") from error
        return ", ".join(aside.name for aside in asides)

    def drop_results(self) -> None:
        """Removes what a run or a sweep has written at its end, as it goes on.

        Raises:
          StorageError: they cannot be removed.
        """
        self.check_owner()
        try:
            of_sweep = self.path / "ranking.png", self.path / "best.toml"
            for path in (self.result, self.weights, self.learning_curve, self.augmentations, self.fault, *of_sweep):
                filesystem.remove(path)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error

    def drop_checkpoints(self) -> None:
        """Removes the checkpoints of what has come to its end; those that cannot be removed stay."""
        with suppress(OSError):
            filesystem.remove(self.checkpoints)

    def _refuse_if_used(self, overwrite: bool) -> None:
        there = [path.name for path in self.path.iterdir() if path.name not in _NO_RUN]
        if not there:
            return
        if not overwrite:
            raise StorageError(
                f"{self.path} is not empty: name another {option('run_dir')}, go on with the run there by ddpg-jax "
                f"resume, or replace it with {option('overwrite')}"
            )
        if self.check_format() is None and read_owner(self.path / _LOCK) is None:
            raise StorageError(
                f"{self.path} is not empty and was never the directory of a run, so {option('overwrite')} replaces "
                f"nothing in it: name another {option('run_dir')}"
            )

    def _take_lock(self) -> None:
        self.check_links()
        self._lock = Lock(self.path / _LOCK)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def _mark(self) -> None:
        """Marks the directory as ours, where that has not been done."""
        if self.check_format() is None:
            values = {"format": FORMAT, "version": __version__}
            filesystem.replace_file(self.format, [json.dumps(values).encode() + b"\n"])

    def _clear(self) -> None:
        """Removes what a run has written: files by their names, folders where nothing else is left in them."""
        for path in (*(self.path / name for name in _FILES), *(self.path / (name + _PART) for name in _FILES)):
            filesystem.remove(path)
        filesystem.remove(self.followers)  # all of it is written by sinks, under names of their own
        inside = [path for name in _FOLDERS for path in (self.path / name, *(self.path / name).rglob("*"))]
        for path in sorted({*self.path.iterdir(), *inside}, reverse=True):  # what is in a folder before the folder
            name = path.relative_to(self.path).as_posix()
            if _OURS.fullmatch(name) or (
                name.split("/")[0] in _FOLDERS and path.is_dir() and not filesystem.names(path)
            ):
                filesystem.remove(path)


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
