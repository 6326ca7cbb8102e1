"""Arrays by name as the bytes of a safetensors file, and back.

The header of a file of arrays is never interpreted: it must be the one that the described arrays have. So whatever a
file says, its reader knows the size of everything beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ddpg_jax.errors import StorageError
from ddpg_jax.types import HostArray

_DTYPES = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
}

Size = Annotated[int, Field(ge=0, lt=2**53)]


class Strict(BaseModel):
    """A stored record: no unknown fields, no conversion of types, nothing that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Leaf(Strict):
    """Name, dtype and shape of an array; of rows, the shape of one."""

    name: str
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(_DTYPES)})$")]
    shape: Annotated[list[Size], Field(max_length=32)]


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


def header_of(leaves: list[Leaf], metadata: Mapping[str, str] | None = None) -> bytes:
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
    yield header_of(leaves, metadata)
    for leaf, array in zip(leaves, arrays, strict=True):
        if (array.dtype.name, list(array.shape)) != (leaf.dtype, leaf.shape):
            raise StorageError(f"{leaf.name}: {array.dtype.name}{list(array.shape)} is not what its rows were before")
        if array.size:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def parsed(content: bytearray, leaves: list[Leaf], path: Path) -> dict[str, HostArray]:
    """The arrays of a file whose hash was right; its header must be the one that these arrays have."""
    header = header_of(leaves)
    if bytes(content[: len(header)]) != header:
        raise StorageError(f"{path} is broken: its header is not that of its arrays")
    data = memoryview(content)[len(header) :]
    return {
        leaf.name: np.frombuffer(data[start:stop], leaf.dtype).reshape(leaf.shape)
        for leaf, (start, stop) in zip(leaves, _spans(leaves), strict=True)
    }
