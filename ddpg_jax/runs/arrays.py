"""Arrays by name as the bytes of a safetensors file, and back.

The arrays of a checkpoint are described by its manifest, so the header of their file is never interpreted: it must be
the one that the described arrays have. A file that stands by itself is sealed: its header holds the hash of all that is
in it, and whoever reads it sees every other bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.types import HostArray

_DTYPES = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
}

NUMBERS = tuple(_DTYPES)
"""The dtypes that are kept."""

_DIGEST, _METADATA = "sha256", "__metadata__"
_MOST_BYTES, _MOST_HEADER = 2**38, 2**24

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
    entries: dict[str, Any] = {} if metadata is None else {_METADATA: dict(metadata)}
    entries |= {
        leaf.name: {"dtype": _DTYPES[leaf.dtype], "shape": leaf.shape, "data_offsets": list(span)}
        for leaf, span in zip(leaves, _spans(leaves), strict=True)
    }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def serialize(
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


def parse(content: bytearray, leaves: list[Leaf], path: Path) -> dict[str, HostArray]:
    """The arrays of a file whose hash was right; its header must be the one that these arrays have."""
    header = header_of(leaves)
    if bytes(content[: len(header)]) != header:
        raise StorageError(f"{path} is broken: its header is not that of its arrays")
    data = memoryview(content)[len(header) :]
    spans = zip(leaves, _spans(leaves), strict=True)
    return {leaf.name: _array(data[start:stop], leaf) for leaf, (start, stop) in spans}


class Sealed(NamedTuple):
    """A file of arrays that stands by itself.

    Attributes:
      arrays: by name.
      metadata: text by name, the hash apart.
      sha256: of all of it; None: it is of version 0.1.0 or before, and holds none.
    """

    arrays: dict[str, HostArray]
    metadata: dict[str, str]
    sha256: str | None


def seal(arrays: Mapping[str, HostArray], metadata: Mapping[str, str]) -> list[Any]:
    """The parts of a safetensors file that says in its metadata what the SHA-256 of all the rest of it is."""
    leaves = [leaf_of(name, array) for name, array in arrays.items()]
    header, *data = serialize(leaves, arrays.values(), metadata)
    return [header_of(leaves, {**metadata, _DIGEST: _sha256(header, *data)}), *data]


def read_sealed(path: Path, format: str, *names: str) -> Sealed:
    """Reads a file of `seal`; one without a hash, as older versions wrote, is read as well.

    Args:
      path: the file.
      format: what its metadata must say under "format".
      *names: what else it must say; anything beyond that is refused.

    Raises:
      StorageError: there is none, it is no such file, or not what was written.
    """
    try:
        content = filesystem.read_whole(path, _MOST_BYTES)
        return _unseal(content, format, names)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        what = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StorageError(f"{path} cannot be read: {printable(what)[:200]}") from error


class _Entry(Strict):
    dtype: str
    shape: Annotated[list[Size], Field(max_length=32)]
    data_offsets: Annotated[list[Size], Field(min_length=2, max_length=2)]


_HEADER, _TEXTS = TypeAdapter(dict[str, _Entry]), TypeAdapter(dict[str, str])


def _unseal(content: bytearray, format: str, names: tuple[str, ...]) -> Sealed:
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(len(content) - 8, _MOST_HEADER):
        raise ValueError("it is no file of arrays")
    header, data = bytes(content[: 8 + length]), memoryview(content)[8 + length :]
    values: Any = json.loads(header[8:])
    metadata: Any = values.pop(_METADATA, None) if isinstance(values, dict) else None
    if not isinstance(metadata, dict) or cast("dict[str, Any]", metadata).get("format") != format:
        raise ValueError(f"it is not a file of this format ({format})")
    text = _TEXTS.validate_python(metadata)
    sha256 = text.pop(_DIGEST, None)
    if text.keys() != {"format", *names}:
        raise ValueError(f"its metadata are {', '.join(text)}, not format, {', '.join(names)}")
    leaves = _leaves(_HEADER.validate_python(values), len(data))
    if sha256 is not None:
        whole = header == header_of(leaves, {**text, _DIGEST: sha256})
        if not whole or _sha256(header_of(leaves, text), data) != sha256:
            raise ValueError("it is not what was written: its hash is another")
    spans = zip(leaves, _spans(leaves), strict=True)
    return Sealed({leaf.name: _array(data[start:stop], leaf) for leaf, (start, stop) in spans}, text, sha256)


def _leaves(entries: dict[str, _Entry], size: int) -> list[Leaf]:
    """The arrays of a header, in the order in which they lie; they must fill the file."""
    dtypes = {theirs: ours for ours, theirs in _DTYPES.items()}
    ordered = sorted(entries.items(), key=lambda item: item[1].data_offsets)
    unknown = [each.dtype for _, each in ordered if each.dtype not in dtypes]
    if unknown:
        raise ValueError(f"dtype {unknown[0]} is not one that is kept")
    leaves = [Leaf(name=name, dtype=dtypes[each.dtype], shape=each.shape) for name, each in ordered]
    spans = list(_spans(leaves))
    if [list(span) for span in spans] != [each.data_offsets for _, each in ordered]:
        raise ValueError("its arrays are not where they should be")
    if (spans[-1][1] if spans else 0) != size:
        raise ValueError(f"it holds {size} bytes of arrays, not those of its header")
    return leaves


def _array(data: memoryview, leaf: Leaf) -> HostArray:
    return np.frombuffer(data, leaf.dtype).reshape(leaf.shape)


def _sha256(*parts: Any) -> str:
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()
