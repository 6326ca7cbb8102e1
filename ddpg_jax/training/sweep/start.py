"""A sweep that goes on from lanes of other sweeps, which were stopped at a step: `[start]` of its file.

Its first checkpoint is put together from theirs, and its record begins with the rows of the lanes that it takes, so
that it ends as if these lanes had been together from the beginning. From then on it is a sweep as any other; until then
it is put together anew whenever it is started, so the others must be kept.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import numpy as np

from ddpg_jax.config.diff import compare
from ddpg_jax.config.sweep_file import StartConfig, StartSource
from ddpg_jax.errors import ConfigError, StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.rows import snapshot_rows
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.jsonl import check_record
from ddpg_jax.runs.result import system_info
from ddpg_jax.training.context import RunContext
from ddpg_jax.training.resume_point import RANKING, ResumePoint
from ddpg_jax.training.sweep.grid import Sweep, load_stored_sweep
from ddpg_jax.training.sweep.join import join_lanes, join_records
from ddpg_jax.training.sweep.lanes import SweepPosition
from ddpg_jax.training.sweep.recorder import identify, position, sweep_point
from ddpg_jax.types import HostArray, Row, Snapshot


class _Stopped(NamedTuple):
    """A sweep that lanes are taken from.

    Attributes:
      sweep: what it is.
      snapshot: where its loop is.
      ranking: what its lanes have reached, `[combinations, seeds]` each.
      rows: of its record up to there.
    """

    sweep: Sweep
    snapshot: Snapshot
    ranking: dict[str, HostArray]
    rows: list[Row]


def first_point(sweep: Sweep, context: RunContext) -> ResumePoint:
    """Where a sweep that has no checkpoint begins: at its beginning, or where the lanes are that it goes on from.

    Args:
      sweep: what is run.
      context: its directory, locked; those of its sources lie beside it.

    Raises:
      ConfigError: a source is of another configuration, or of other swept fields.
      StorageError: there is no such source, it is not at the step, or it cannot be read.
    """
    if sweep.start is None:
        return ResumePoint()
    beside = context.directory.path.parent
    names = list(dict.fromkeys(source.run for source in sweep.start.sources))
    stopped = [_open(RunDirectory.open(beside / name, of="sweep"), sweep.start.step, context) for name in names]
    chosen = [(names.index(source.run), source.combination) for source in sweep.start.sources]
    for number, (place, source) in enumerate(zip(chosen, sweep.start.sources, strict=True)):
        _refuse_another(sweep, number, stopped[place[0]].sweep, source)
    checkpoint = _first_checkpoint(sweep, sweep.start, stopped, chosen, context)
    context.store.save(checkpoint)
    context.notify(f"goes on after {checkpoint.step} steps from lanes of {', '.join(names)}")
    own = context.newest_checkpoint()
    return ResumePoint() if own is None else sweep_point(own, sweep, context.notify)


def _open(directory: RunDirectory, step: int, context: RunContext) -> _Stopped:
    """A sweep as it was after so many steps; nothing of it is changed."""
    sweep, store = load_stored_sweep(directory.sweep), CheckpointStore(directory.checkpoints)
    point = sweep_point(store.load(store.at(step)), sweep, context.notify)
    turn, snapshot = position(point), point.snapshot
    lanes = len(sweep.combinations) * len(sweep.configs[0].seed_list)
    if turn is None or snapshot is None or len(sweep.groups) > 1 or turn[:2] != (0, 0) or turn.lanes < lanes:
        raise StorageError(f"{directory.path} runs in turns, or has several structures: no lanes can be taken from it")
    if point.unrecorded is not None:
        raise StorageError(f"{directory.path} was stopped while it was evaluated after {step} steps: go on with it")
    check_record(directory.metrics, point.metrics_bytes, point.metrics_sha256)
    try:
        text = b"".join(filesystem.read_pieces(directory.metrics, point.metrics_bytes))
    except OSError as error:
        raise StorageError(f"{directory.metrics} cannot be read: {error}") from error
    return _Stopped(sweep, snapshot, point.ranking or {}, [json.loads(line) for line in text.splitlines()])


def _refuse_another(sweep: Sweep, number: int, before: Sweep, source: StartSource) -> None:
    """Refuses a combination that is not the one that its lanes were trained as; how often it is saved may differ."""
    said = f"combination {number} goes on from combination {source.combination} of {source.run}"
    if source.combination >= len(before.combinations):
        raise ConfigError(f"{said}, which has {len(before.combinations)} of them, from 0 on")
    changes = [
        change
        for change in compare(before.configs[source.combination], sweep.configs[number])
        if not change.path.startswith("checkpoint.")
    ]
    if changes:
        lines = "\n  ".join(map(str, changes[:10]))
        raise ConfigError(printable(f"{said}, which is another:\n  {lines}", lines=True))
    old, new = (sorted(each.groups[0].hyper) for each in (before, sweep))
    if old != new:
        raise ConfigError(
            printable(f"{said}, whose lanes differ in other fields: {', '.join(old)}, and here {', '.join(new)}")
        )


def _first_checkpoint(
    sweep: Sweep,
    start: StartConfig,
    stopped: list[_Stopped],
    chosen: list[tuple[int, int]],
    context: RunContext,
) -> Checkpoint:
    """The checkpoint that the sweep would have written at the step; its record is written."""
    seeds = len(sweep.configs[0].seed_list)
    lanes = [(number, place * seeds + seed) for number, place in chosen for seed in range(seeds)]
    joined = join_lanes([each.snapshot for each in stopped], lanes)
    ranking = {
        f"{RANKING}{name}": np.stack([stopped[number].ranking[name][place] for number, place in chosen])
        for name in stopped[0].ranking
    }
    rows = join_records([each.rows for each in stopped], chosen)
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    context.directory.write_text(context.directory.metrics, text)
    facts = {
        "level": "exact",
        "sweep": identify(sweep),
        "position": list(SweepPosition(0, 0, len(lanes))),
        "before": 0,
        "seconds": 0.0,
        "metrics_bytes": len(text.encode()),
        "metrics_sha256": hashlib.sha256(text.encode()).hexdigest(),
        **system_info(),
    }
    return Checkpoint(start.step, dict(joined.arrays) | ranking, snapshot_rows(joined), facts)
