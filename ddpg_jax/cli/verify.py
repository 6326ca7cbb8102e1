"""A look at what is kept of a run: every checkpoint read, every hash compared, nothing changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rich.console import Console

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.checkpoints.store import CheckpointInfo, CheckpointStore, digest
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.xla.memory import human_bytes


def verify(run_dir: str | Path, console: Console) -> int:
    """Reads the checkpoints of a run and prints whether they are whole.

    Of the newest that is whole it prints a hash of its contents, which two runs have in common if they are equal to the
    bit, and one of the record up to there.

    Args:
      run_dir: directory of a run, or of a sweep that is not complete.
      console: where to print.

    Returns:
      The exit code: 0 if all checkpoints are whole, and there is one or the run is complete; else `StorageError`'s.
    """
    directory = RunDirectory.open(run_dir, of="sweep" if RunDirectory(run_dir).sweep.is_file() else "run")
    store = CheckpointStore(directory.checkpoints)
    examined = store.examine()
    for name, each in examined:
        console.print(f"{name}  {_said(each)}", highlight=False, soft_wrap=True, markup=False)
    if not examined and (directory.read_result() or {}).get("complete"):
        console.print("complete; no checkpoints are kept of it", highlight=False)
        return 0
    whole = [each for _, each in examined if isinstance(each, CheckpointInfo)]
    if whole:
        newest = max(whole, key=lambda found: found.sequence)
        checkpoint = store.load(newest)
        size = int(checkpoint.facts["metrics_bytes"])
        record = _start(directory.metrics, size)
        console.print(
            f"contents after step {newest.step}:  sha256 {digest(checkpoint)}", highlight=False, soft_wrap=True
        )
        lost = len(record) < size
        said = (
            f"BROKEN: holds {len(record)} bytes of {size}" if lost else f"sha256 {hashlib.sha256(record).hexdigest()}"
        )
        console.print(f"metrics.jsonl up to there:  {said}", highlight=False, soft_wrap=True)
        if lost:
            return StorageError.exit_code
    else:
        console.print("there is no whole checkpoint: resume would begin at the beginning", highlight=False)
    return 0 if whole and len(whole) == len(examined) else StorageError.exit_code


def _start(path: Path, size: int) -> bytes:
    """The first bytes of a file, as many as there are of those asked for."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""


def _said(each: CheckpointInfo | str) -> str:
    if isinstance(each, str):
        return f"BROKEN: {each}"
    return f"whole, step {each.step}, {human_bytes(each.bytes)}, level {each.facts.get('level')}"
