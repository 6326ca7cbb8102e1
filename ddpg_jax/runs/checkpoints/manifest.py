"""What a checkpoint's files hold, to the byte: the manifest, and arrays as safetensors.

The header of a file of arrays is never interpreted: it must be the one that the arrays of the manifest have. So
whatever a file says, its reader knows the size of everything beforehand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ddpg_jax.errors import StorageError
from ddpg_jax.types import HostArray

FORMAT = 1

MOST_SEGMENTS = 256
"""Files of rows that a checkpoint refers to at most; beyond that all rows are written anew."""

_DTYPES = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
}

_Size = Annotated[int, Field(ge=0, lt=2**53)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Leaf(_Strict):
    """Name, dtype and shape of an array; of rows, the shape of one."""

    name: str
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(_DTYPES)})$")]
    shape: Annotated[list[_Size], Field(max_length=32)]


class Segment(_Strict):
    """A file of rows."""

    name: Annotated[str, Field(pattern=r"^\d{8,}-\d+-\d+\.safetensors$")]
    first: _Size
    stop: _Size
    bytes: _Size
    sha256: _Sha256


class Manifest(_Strict):
    """What belongs to a checkpoint."""

    format: int
    step: _Size
    sequence: _Size
    score: float | None
    facts: dict[str, Any]
    leaves: list[Leaf]
    bytes: _Size
    sha256: _Sha256
    first: _Size
    stop: _Size
    row_leaves: list[Leaf]
    segments: Annotated[list[Segment], Field(max_length=2 * MOST_SEGMENTS)]
    own_sha256: str


def canonical(manifest: Manifest) -> bytes:
    """The bytes of a manifest, its own hash among them."""

    def text(own_sha256: str) -> bytes:
        values = manifest.model_dump() | {"own_sha256": own_sha256}
        return json.dumps(values, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"

    return text(hashlib.sha256(text("")).hexdigest())


def check_layout(manifest: Manifest, path: Path) -> None:
    """Refuses a manifest whose numbers contradict each other."""
    sizes = [(manifest.bytes, manifest.leaves)]
    sizes += [(each.bytes, of_rows(manifest.row_leaves, each.stop - each.first)) for each in manifest.segments]
    ends = [each.stop for each in manifest.segments]
    begins = [each.first for each in manifest.segments]
    covered = manifest.first == manifest.stop or (
        bool(ends) and begins[0] <= manifest.first and ends[-1] == manifest.stop and begins[1:] == ends[:-1]
    )
    right = all(size == len(_header(leaves)) + sum(map(bytes_of, leaves)) for size, leaves in sizes)
    unique = all(
        len({leaf.name for leaf in leaves}) == len(leaves) for leaves in (manifest.leaves, manifest.row_leaves)
    )
    if not (covered and right and unique and all(a < b for a, b in zip(begins, ends, strict=True))):
        raise StorageError(f"{path} is broken: its sizes contradict each other")


def leaf_of(name: str, array: HostArray) -> Leaf:
    """The description of an array.

    Raises:
      StorageError: its dtype is not one that is kept.
    """
    if array.dtype.name not in _DTYPES:
        raise StorageError(f"{name} is of dtype {array.dtype}, which is not kept; there are {', '.join(_DTYPES)}")
    return Leaf(name=name, dtype=array.dtype.name, shape=list(array.shape))


def of_rows(leaves: list[Leaf], count: int) -> list[Leaf]:
    """The description of so many rows, from that of one."""
    return [leaf.model_copy(update={"shape": [count, *leaf.shape]}) for leaf in leaves]


def bytes_of(leaf: Leaf) -> int:
    """The memory of an array."""
    return prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def _spans(leaves: list[Leaf]) -> Iterator[tuple[int, int]]:
    """Where the arrays lie behind the header."""
    start = 0
    for leaf in leaves:
        yield start, start + bytes_of(leaf)
        start += bytes_of(leaf)


def _header(leaves: list[Leaf], metadata: Mapping[str, str] | None = None) -> bytes:
    """The header of a safetensors file with these arrays: a length of 8 bytes, and JSON, filled up to 8 bytes."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    entries |= {
        leaf.name: {"dtype": _DTYPES[leaf.dtype], "shape": leaf.shape, "data_offsets": list(span)}
        for leaf, span in zip(leaves, _spans(leaves), strict=True)
    }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def serialized(
    leaves: list[Leaf], arrays: Iterable[HostArray], metadata: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """The parts of a safetensors file with these arrays; equal arrays are equal bytes.

    Raises:
      StorageError: an array is not as described.
    """
    yield _header(leaves, metadata)
    for leaf, array in zip(leaves, arrays, strict=True):
        if (array.dtype.name, list(array.shape)) != (leaf.dtype, leaf.shape):
            raise StorageError(f"{leaf.name}: {array.dtype.name}{list(array.shape)} is not what its rows were before")
        if array.size:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def parsed(content: bytearray, leaves: list[Leaf], path: Path) -> dict[str, HostArray]:
    """The arrays of a file whose hash was right; its header must be the one that these arrays have."""
    header = _header(leaves)
    if bytes(content[: len(header)]) != header:
        raise StorageError(f"{path} is broken: its header is not that of its arrays")
    data = memoryview(content)[len(header) :]
    return {
        leaf.name: np.frombuffer(data[start:stop], leaf.dtype).reshape(leaf.shape)
        for leaf, (start, stop) in zip(leaves, _spans(leaves), strict=True)
    }
