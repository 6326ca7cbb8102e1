"""What a checkpoint holds, and what tells two of them apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.runs.checkpoints.rows import Rows
from ddpg_jax.types import HostArray


class Checkpoint(NamedTuple):
    """All that a run needs to go on.

    Attributes:
      step: environment steps of each seed.
      arrays: all that is small, by name.
      rows: of the replay.
      facts: values that JSON knows.
      score: of an evaluation at this step; the checkpoint with the highest is kept.
    """

    step: int
    arrays: dict[str, HostArray]
    rows: Rows
    facts: dict[str, Any]
    score: float | None = None


class CheckpointInfo(NamedTuple):
    """A checkpoint on the disk.

    Attributes:
      path: its folder.
      step: as in `Checkpoint`, and so are `facts` and `score`.
      sequence: number of the save.
      score: of its evaluation.
      facts: about it.
      bytes: of its files, shared ones included.
    """

    path: Path
    step: int
    sequence: int
    score: float | None
    facts: dict[str, Any]
    bytes: int


def digest(checkpoint: Checkpoint) -> str:
    """SHA-256 of all arrays and rows of a checkpoint, however they are divided into files; facts do not count."""
    sha256, rows = hashlib.sha256(), checkpoint.rows
    for name, array in sorted(checkpoint.arrays.items()):
        sha256.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        sha256.update(np.ascontiguousarray(array).tobytes())
    for start in range(rows.first, rows.stop, 2**12):
        for name, array in sorted(rows.read(start, min(start + 2**12, rows.stop)).items()):
            sha256.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode() + array.tobytes())
    return sha256.hexdigest()
