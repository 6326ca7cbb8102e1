"""A look at what is kept of a run: every checkpoint read, every hash compared, nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs.arrays import read_sealed
from ddpg_jax.runs.checkpoints.checkpoint import CheckpointInfo, digest
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.documents import FAILED_UPDATE, WEIGHTS, RunFacts, SweepFacts, validate
from ddpg_jax.runs.loggers.jsonl import check_record, record_hashes
from ddpg_jax.xla.memory import human_bytes

_SayFn = Callable[[str, str], None]


def verify(run_dir: str | Path, console: Console) -> int:
    """Reads all that is kept of a run and prints whether it is whole: checkpoints, record, weights, result.

    Of the newest checkpoint that is whole it prints a hash of its contents, which two runs have in common if they are
    equal to the bit, and one of the record up to there.

    Args:
      run_dir: directory of a run, or of a sweep that is not complete.
      console: where to print.

    Returns:
      The exit code: 0 if all of it is whole, and there is a checkpoint or the run is complete; else `StorageError`'s.
    """
    directory = RunDirectory.open(run_dir, of="sweep" if RunDirectory(run_dir).sweep.is_file() else "run")
    lines: list[str] = []

    def say(what: str, found: str) -> None:
        lines.append(found)
        console.print(f"{printable(what)}  {printable(found)}", highlight=False, soft_wrap=True, markup=False)

    store = CheckpointStore(directory.checkpoints)
    examined = store.examine()
    for name, each in examined:
        say(name, _describe(each))
    whole = [each for _, each in examined if isinstance(each, CheckpointInfo)]
    _verify_files(directory, say)
    complete = _verify_result(directory, say)
    if whole:
        newest = max(whole, key=lambda found: found.sequence)
        say(f"contents after step {newest.step}:", f"sha256 {digest(store.load(newest))}")
        _verify_record(directory, whole, say)
    elif not examined and complete:
        console.print("complete; no checkpoints are kept of it", highlight=False)
    else:
        would = "refuse" if examined else "begin at the beginning"
        console.print(f"there is no whole checkpoint: resume would {would}", highlight=False)
    broken = any(line.startswith("BROKEN") for line in lines)
    return StorageError.exit_code if broken or not (whole or (complete and not examined)) else 0


def _verify_files(directory: RunDirectory, say: _SayFn) -> None:
    """Files of arrays that stand by themselves: weights, and updates that failed."""
    weights = (directory.weights, directory.best_weights, directory.start)
    for path, form in (
        *((path, WEIGHTS) for path in weights),
        *((path, FAILED_UPDATE) for path in directory.bundles()),
    ):
        if not path.is_symlink() and not path.exists():
            continue
        try:
            sha256 = read_sealed(path, *form).sha256
            found = "whole" if sha256 else "no digest: it was written before files of weights had one"
        except StorageError as error:
            found = f"BROKEN: {error}"
        say(path.relative_to(directory.path).as_posix(), found)


def _verify_result(directory: RunDirectory, say: _SayFn) -> bool:
    """Whether there is the result of a run that came to its end."""
    try:
        return bool((directory.read_result() or {}).get("complete"))
    except StorageError as error:
        say(directory.result.name, f"BROKEN: {error}")
        return False


def _verify_record(directory: RunDirectory, whole: list[CheckpointInfo], say: _SayFn) -> None:
    """Compares the record with what each checkpoint says of it; it is read once."""
    model = SweepFacts if directory.sweep.is_file() else RunFacts
    facts: dict[str, Any] = {}
    for each in whole:
        try:
            facts[each.path.name] = validate(model, each.facts, f"the description in {each.path.name}")
        except StorageError as error:
            say(each.path.name, f"BROKEN: {error}")
    hashes = record_hashes(directory.metrics, [each.metrics_bytes for each in facts.values()])
    for name, each in list(facts.items())[:-1]:
        if not _fits(each, hashes):
            say(name, f"BROKEN: {directory.metrics.name} is not what it was at this checkpoint")
    for each in list(facts.values())[-1:]:
        size, found = each.metrics_bytes, hashes[each.metrics_bytes]
        is_other = f"BROKEN: it is not what it was, sha256 {each.metrics_sha256}"
        there = directory.metrics.stat().st_size if directory.metrics.is_file() else 0
        lost = f"BROKEN: holds {there} bytes of {size}"
        say("metrics.jsonl up to there:", f"sha256 {found}" if _fits(each, hashes) else is_other if found else lost)
        if isinstance(each, SweepFacts) and each.lineage_sha256 is not None:
            _verify_lineage(directory, each.lineage_bytes, each.lineage_sha256, say)


def _verify_lineage(directory: RunDirectory, size: int, sha256: str, say: _SayFn) -> None:
    """Compares the lineage of a population with what the newest checkpoint says of it."""
    try:
        check_record(directory.lineage, size, sha256)
        found = f"sha256 {sha256}"
    except StorageError as error:
        found = f"BROKEN: {error}"
    say("lineage.jsonl up to there:", found)


def _fits(facts: Any, hashes: dict[int, str | None]) -> bool:
    found = hashes[facts.metrics_bytes]
    return found is not None and facts.metrics_sha256 in (None, found)


def _describe(each: CheckpointInfo | str) -> str:
    if isinstance(each, str):
        return f"BROKEN: {each}"
    return f"whole, step {each.step}, {human_bytes(each.bytes)}, level {each.facts.get('level')}"
