"""Rows of a replay in files: written once, when they are new, and shared by the checkpoints that need them.

A leaf has an entry for each row, or, as its name says (`mark_of`), one for each that is true of another leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import Leaf, bytes_of, leaf_of, parse, serialize
from ddpg_jax.runs.checkpoints.integrity import read
from ddpg_jax.runs.checkpoints.manifest import MAX_SEGMENTS, Manifest, Segment, leaves_of, mark_of
from ddpg_jax.types import HostArray, Snapshot

SEGMENT_BYTES = 2**26
"""Rows in one file take at most about so much."""


class Rows(NamedTuple):
    """Rows of a replay, numbered since the run began.

    Attributes:
      first: the first that is held.
      stop: the one after the last.
      read: `(a, b) -> rows`, arrays `[b - a, ...]` by name, for `first <= a <= b <= stop`; see `mark_of` for others.
    """

    first: int
    stop: int
    read: Callable[[int, int], dict[str, HostArray]]


def snapshot_rows(snapshot: Snapshot) -> Rows:
    """The rows that a loop's snapshot holds."""
    return Rows(snapshot.first_row, snapshot.stop_row, lambda a, b: dict(snapshot.read_rows(a, b)))


def row_form(rows: Rows) -> list[Leaf]:
    """Name, dtype and shape of what a row is made of; nothing where there are no rows."""
    if rows.first == rows.stop:
        return []
    one = rows.read(rows.first, rows.first + 1)
    return [leaf_of(name, np.empty(x.shape[1:], x.dtype)) for name, x in sorted(one.items())]


def reusable(rows: Rows, leaves: list[Leaf], written: list[Segment], written_leaves: list[Leaf]) -> list[Segment]:
    """The segments of those written before that hold the first of these rows, without a gap; there may be none."""
    usable = [each for each in written if each.stop > rows.first]
    fits = usable and leaves == written_leaves and usable[0].first <= rows.first and usable[-1].stop <= rows.stop
    if not fits or len(usable) - (usable[-1].stop - rows.stop) // _rows_of_a_file(leaves) > MAX_SEGMENTS:
        return []
    return usable


def write_rows(folder: Path, rows: Rows, leaves: list[Leaf], start: int, sequence: int, new: list[Segment]) -> None:
    """Writes rows from `start` on.

    Args:
      folder: where to.
      rows: of which those are.
      leaves: from `row_form`.
      start: the first that is written.
      sequence: number of the save.
      new: is added to before a segment is written, so that it can be removed whatever happens.

    Raises:
      OSError: they cannot be written.
    """
    count = _rows_of_a_file(leaves)
    for a in range(start, rows.stop, count):
        b = min(a + count, rows.stop)
        name = f"{sequence:08d}-{a}-{b}.safetensors"
        new.append(Segment(name=name, first=a, stop=b, bytes=0, sha256="0" * 64))
        found = rows.read(a, b)
        new[-1] = new[-1].model_copy(update={"entries": _entries(found)})
        parts = serialize(leaves_of(leaves, new[-1]), [found[leaf.name] for leaf in leaves])
        size, sha256 = filesystem.write_file(folder / name, parts)
        new[-1] = new[-1].model_copy(update={"bytes": size, "sha256": sha256})
    if new:
        filesystem.sync_folder(folder)


def mend_rows(path: Path, rows: Rows, leaves: list[Leaf], segment: Segment) -> bool:
    """Writes a file of rows anew, whose rows are still at hand, and returns whether it is what it was.

    Raises:
      OSError: it cannot be written.
    """
    if not rows.first <= segment.first <= segment.stop <= rows.stop:
        return False
    found = rows.read(segment.first, segment.stop)
    if _entries(found) != segment.entries:
        return False
    parts = serialize(leaves_of(leaves, segment), [found[leaf.name] for leaf in leaves])
    return filesystem.replace_file(path, parts) == (segment.bytes, segment.sha256)


def rows_of(manifest: Manifest, folder: Path) -> Rows:
    """The rows of a checkpoint, read when they are asked for; one segment at a time is held.

    Raises:
      StorageError: from `read`, where a segment is not what was written.
    """
    last: list[tuple[Segment, dict[str, HostArray]]] = []

    def segment(each: Segment) -> dict[str, HostArray]:
        if not last or last[0][0] != each:
            content = read(folder / each.name, each.bytes, each.sha256)
            found = parse(content, leaves_of(manifest.row_leaves, each), folder / each.name)
            if _entries(found) != each.entries:
                raise StorageError(f"{folder / each.name} is broken: its entries are not those that are marked")
            last[:] = [(each, found)]
        return last[0][1]

    def between(a: int, b: int) -> dict[str, HostArray]:
        parts: list[dict[str, HostArray]] = []
        for each in manifest.segments:
            start, stop = max(a, each.first), min(b, each.stop)
            if start < stop:
                parts.append(_between(segment(each), start - each.first, stop - each.first))
        empty = {leaf.name: np.zeros((0, *leaf.shape), leaf.dtype) for leaf in manifest.row_leaves}
        return {name: np.concatenate([x, *(part[name] for part in parts)]) for name, x in empty.items()}

    return Rows(manifest.first, manifest.stop, between)


def _entries(rows: Mapping[str, HostArray]) -> dict[str, int]:
    """How many entries are marked of the leaves that are not one for each row."""
    return {name: int(rows[mark].sum()) for name in rows if (mark := mark_of(name)) is not None}


def _between(rows: Mapping[str, HostArray], start: int, stop: int) -> dict[str, HostArray]:
    """Rows of those given, by their numbers among them."""

    def bounds(name: str) -> slice:
        mark = mark_of(name)
        return slice(start, stop) if mark is None else slice(*(int(rows[mark][:i].sum()) for i in (start, stop)))

    return {name: x[bounds(name)] for name, x in rows.items()}


def _rows_of_a_file(leaves: list[Leaf]) -> int:
    return max(1, SEGMENT_BYTES // max(1, sum(bytes_of(leaf) for leaf in leaves)))
