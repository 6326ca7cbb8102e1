"""The directory of a run: where its files are, and who may use it."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from ddpg_jax.errors import StorageError

_FILES = (
    "config.toml",
    "metrics.jsonl",
    "timing.jsonl",
    "result.json",
    "learning_curve.png",
    "ranking.png",
    "best.toml",
    "sweep.toml",
)
_FOLDERS = ("tensorboard", "checkpoints")


class RunDirectory:
    """The files of one run.

    Args:
      path: the directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.weights = self.path / "checkpoints" / "final.safetensors"
        self.learning_curve = self.path / "learning_curve.png"
        self.result = self.path / "result.json"

    @classmethod
    def create(cls, path: str | Path | None, name: str, *, overwrite: bool = False) -> RunDirectory:
        """Makes a directory for a new run.

        Args:
          path: where; None: a new directory `runs/<name>_<time>`.
          name: name of the run.
          overwrite: whether the files of a run that is there may be removed. Other files are never touched.

        Raises:
          StorageError: the directory holds files and `overwrite` is not set, or it cannot be made.
        """
        try:
            run = cls(path if path is not None else _new_folder(f"{name}_{datetime.now():%Y-%m-%dT%H-%M-%S}"))
            run.path.mkdir(parents=True, exist_ok=True)
            if any(run.path.iterdir()):
                if not overwrite:
                    raise StorageError(
                        f"{run.path} is not empty: name another --run-dir, or replace the run there with --overwrite"
                    )
                run._clear()
        except OSError as error:
            raise StorageError(f"{path or 'runs/'} cannot be used as run directory: {error}") from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """The directory of a run that is there.

        Raises:
          StorageError: there is no run.
        """
        run = cls(path)
        if not run.config.is_file():
            raise StorageError(f"{run.path} is not a run directory: it holds no config.toml")
        if (run.path / "process-0").is_dir():
            raise StorageError(f"{run.path} holds the runs of several processes: name one of them, as process-0")
        return run

    def write_text(self, path: Path, text: str) -> None:
        """Writes a whole file at once: a reader sees the old one or the new one.

        Raises:
          StorageError: it cannot be written.
        """
        try:
            part = path.with_name(path.name + ".part")
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`."""
        self.write_text(self.result, json.dumps(result, indent=2) + "\n")

    def _clear(self) -> None:
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)


def _new_folder(name: str) -> Path:
    """A folder under `runs/` that nobody else has, even if many begin in the same second."""
    for i in range(1, 1000):
        path = Path("runs") / (name if i == 1 else f"{name}_{i}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise StorageError(f"runs/{name} and 999 more are taken; name another --run-dir")
