"""Lanes of several device loops that stand at one step, side by side as lanes of one: pure functions of snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.checkpoints.manifest import mark_of
from ddpg_jax.types import HostArray, Row, Snapshot

_BY_LANE = "lane/", "totals/"
"""What the names of arrays begin with that have an axis of lanes; the others are alike for all lanes of a loop."""

_ORDER = {"episodes": 0, "update": 0, "evaluation": 1}
"""In which order a sweep records what its lanes did up to a step; rows of callbacks come last."""


def join_lanes(snapshots: Sequence[Snapshot], chosen: Sequence[tuple[int, int]]) -> Snapshot:
    """A snapshot of chosen lanes, which a loop of that width goes on from.

    Args:
      snapshots: of device loops of one structure.
      chosen: for each new lane, the number of a snapshot and of a lane in it.

    Raises:
      StorageError: the loops are not at the same step, or not of one structure.
    """
    first = snapshots[0]
    names = [name for name in first.arrays if name.startswith(_BY_LANE)]
    for other in snapshots[1:]:
        if not _is_alike(first, other):
            raise StorageError("the checkpoints to go on from are not of the same step, or not of one structure")
    counts = [snapshot.arrays[names[0]].shape[0] for snapshot in snapshots]
    places = _places(counts, chosen)
    joined = {name: np.concatenate([each.arrays[name] for each in snapshots])[places] for name in names}

    def read(start: int, stop: int) -> dict[str, HostArray]:
        return _join_rows([each.read_rows(start, stop) for each in snapshots], places)

    return Snapshot({**first.arrays, **joined}, first.first_row, first.stop_row, read, {})


def _is_alike(one: Snapshot, other: Snapshot) -> bool:
    """Whether lanes of both may stand side by side: what they share is equal to the bit, the rest of one form."""
    if one.arrays.keys() != other.arrays.keys() or (one.first_row, one.stop_row) != (other.first_row, other.stop_row):
        return False
    pairs = [(name, one.arrays[name], other.arrays[name]) for name in one.arrays]
    return all(
        (a.shape[1:], a.dtype) == (b.shape[1:], b.dtype) if name.startswith(_BY_LANE) else np.array_equal(a, b)
        for name, a, b in pairs
    )


def _places(counts: Sequence[int], chosen: Sequence[tuple[int, int]]) -> HostArray:
    """Where the chosen lanes are if all lanes of all snapshots stand in one row, `[L]`."""
    before = np.concatenate([[0], np.cumsum(counts)])
    return np.array([before[number] + lane for number, lane in chosen])


def _join_rows(rows: Sequence[Mapping[str, HostArray]], places: HostArray) -> dict[str, HostArray]:
    """Rows `[steps, lanes, ...]` of each snapshot as those of the chosen lanes."""
    found = {
        name: np.concatenate([each[name] for each in rows], 1)[:, places] for name in rows[0] if mark_of(name) is None
    }
    for name in rows[0]:
        if (mark := mark_of(name)) is not None:
            found[name] = _join_marked([(each[mark], each[name]) for each in rows], places)
    return found


def _join_marked(parts: Sequence[tuple[HostArray, HostArray]], places: HostArray) -> HostArray:
    """Entries of which there is one for each flag that is set, `[steps, lanes, ...]`, in the order of the flags."""
    numbers: list[HostArray] = []
    before = 0
    for flags, entries in parts:
        numbers.append(before + np.cumsum(flags).reshape(flags.shape) - 1)
        before += len(entries)
    flags = np.concatenate([flags for flags, _ in parts], 1)[:, places]
    return np.concatenate([entries for _, entries in parts])[np.concatenate(numbers, 1)[:, places][flags]]


def join_records(records: Sequence[Sequence[Row]], chosen: Sequence[tuple[int, int]]) -> list[Row]:
    """The rows of chosen combinations, in the order in which one sweep of them would have recorded them.

    Args:
      records: the rows of each sweep.
      chosen: for each new combination, the number of a record and of a combination in it.
    """
    rows: list[Row] = []
    for combination, (number, place) in enumerate(chosen):
        rows += [row | {"combination": combination} for row in records[number] if row["combination"] == place]
    return sorted(rows, key=lambda row: (row["step"], _ORDER.get(str(row["event"]), 2), row["combination"]))
