"""What a checkpoint's files hold, to the byte: the manifest, and arrays as safetensors.

The header of a file of arrays is never interpreted: it must be the one that the arrays of the manifest have. So
whatever a file says, its reader knows the size of everything beforehand.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.arrays import Leaf, Size, Strict, bytes_of, header_of

FORMAT = 1

MAX_SEGMENTS = 256
"""Files of rows that a checkpoint refers to at most; beyond that all rows are written anew."""
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Segment(Strict):
    """A file of rows; `entries` says how many there are of leaves that are not one for each row."""

    name: Annotated[str, Field(pattern=r"^\d{8,}-\d+-\d+\.safetensors$")]
    first: Size
    stop: Size
    bytes: Size
    sha256: _Sha256
    entries: dict[str, Size] = Field(default={})


class Manifest(Strict):
    """What belongs to a checkpoint."""

    format: int
    step: Size
    sequence: Size
    score: float | None
    facts: dict[str, Any]
    leaves: list[Leaf]
    bytes: Size
    sha256: _Sha256
    first: Size
    stop: Size
    row_leaves: list[Leaf]
    segments: Annotated[list[Segment], Field(max_length=2 * MAX_SEGMENTS)]
    own_sha256: str


def canonical(manifest: Manifest) -> bytes:
    """The bytes of a manifest, its own hash among them."""
    return canonical_bytes(manifest.model_dump(exclude_defaults=True))


def canonical_bytes(values: dict[str, Any]) -> bytes:
    """As `canonical`, of any format."""

    def text(own_sha256: str) -> bytes:
        hashed = values | {"own_sha256": own_sha256}
        return json.dumps(hashed, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"

    return text(hashlib.sha256(text("")).hexdigest())


def mark_of(name: str) -> str | None:
    """The leaf beside it that says how often a leaf has an entry, as `a/begins` of `a/firsts@begins`; None: each row.

    There is one for each that is true of that leaf, bool `[rows, ...]`, in order.
    """
    folder, slash, own = name.rpartition("/")
    _, at, mark = own.partition("@")
    return f"{folder}{slash}{mark}" if at else None


def leaves_of(row_leaves: list[Leaf], segment: Segment) -> list[Leaf]:
    """What a file of rows holds, from the description of one row."""
    rows = segment.stop - segment.first
    counts = [rows if mark_of(leaf.name) is None else segment.entries.get(leaf.name, 0) for leaf in row_leaves]
    return [
        leaf.model_copy(update={"shape": [count, *leaf.shape]}) for leaf, count in zip(row_leaves, counts, strict=True)
    ]


def check_layout(manifest: Manifest, path: Path) -> None:
    """Refuses a manifest whose numbers contradict each other."""
    sizes = [(manifest.bytes, manifest.leaves)]
    sizes += [(each.bytes, leaves_of(manifest.row_leaves, each)) for each in manifest.segments]
    marks = {leaf.name: mark_of(leaf.name) for leaf in manifest.row_leaves if mark_of(leaf.name) is not None}
    flags = {leaf.name for leaf in manifest.row_leaves if leaf.dtype == "bool" and leaf.name not in marks}
    marked = flags.issuperset(marks.values()) and all(each.entries.keys() <= marks.keys() for each in manifest.segments)
    ends = [each.stop for each in manifest.segments]
    begins = [each.first for each in manifest.segments]
    covered = manifest.first == manifest.stop or (
        bool(ends) and begins[0] <= manifest.first and ends[-1] == manifest.stop and begins[1:] == ends[:-1]
    )
    right = all(size == len(header_of(leaves)) + sum(map(bytes_of, leaves)) for size, leaves in sizes)
    unique = all(
        len({leaf.name for leaf in leaves}) == len(leaves) for leaves in (manifest.leaves, manifest.row_leaves)
    )
    if not (covered and right and unique and marked and all(a < b for a, b in zip(begins, ends, strict=True))):
        raise StorageError(f"{path} is broken: its sizes contradict each other")
