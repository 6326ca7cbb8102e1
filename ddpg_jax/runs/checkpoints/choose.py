"""Which checkpoint a run goes on from: the newest that is whole, and whose record is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint, CheckpointInfo
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.jsonl import check_record


def newest_checkpoint(
    directory: RunDirectory, store: CheckpointStore, notify: Callable[[str], None]
) -> Checkpoint | None:
    """The newest checkpoint from which a run, or a sweep, can go on; None: it never had one.

    Where others had to be set aside for it, so is a copy of the record, of which more will be cut than a run that was
    killed would lose.

    Args:
      directory: locked by this process.
      store: its checkpoints.
      notify: is told of each checkpoint that was set aside.

    Raises:
      StorageError: there are checkpoints and none can be used, or one cannot be read now; nothing was changed.
    """

    def accept(found: CheckpointInfo) -> None:
        size: Any = found.facts.get("metrics_bytes")
        if isinstance(size, int) and size >= 0:
            sha256: Any = found.facts.get("metrics_sha256")
            check_record(directory.metrics, size, sha256 if isinstance(sha256, str) else None)

    found, warnings = store.newest(accept)
    for line in warnings:
        notify(line)
    if warnings:
        names = directory.set_aside(directory.metrics, directory.timing)
        notify(f"warning: the record as it was is kept in {names}")
    return None if found is None else store.load(found)
