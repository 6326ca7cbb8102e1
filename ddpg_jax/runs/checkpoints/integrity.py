"""Files of checkpoints, read only if every byte is the one that was written.

What is parsed has been hashed before, but for the manifest, which must be the very bytes that its own contents would be
written as.
"""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.checkpoints.manifest import FORMAT, Manifest, canonical, canonical_bytes, check_layout

_FOR_NOW = {
    getattr(errno, name)
    for name in [
        "EACCES",
        "EPERM",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "EAGAIN",
        "EINTR",
        "EBUSY",
        "ESTALE",
        "ETIMEDOUT",
        "ENOTCONN",
        "EHOSTDOWN",
    ]
    if hasattr(errno, name)
}

_MANIFEST_BYTES = 2**26


class UnreadableError(StorageError):
    """A file that may be whole, but cannot be read now: it is not to be taken for broken."""


def _refused(path: Path, error: OSError) -> StorageError:
    if error.errno in _FOR_NOW:
        return UnreadableError(f"{path} cannot be read: {error.strerror}; nothing was changed, mend that and try again")
    return StorageError(f"{path} is broken: {error}")


def read_manifest(folder: Path) -> Manifest:
    """The manifest in the folder of a checkpoint, right in itself; of its files nothing has been read yet.

    Raises:
      StorageError: it is not.
    """
    path = folder / "manifest.json"
    try:
        size = filesystem.file_size(path)
        if size > _MANIFEST_BYTES:
            raise StorageError(f"{path} is broken: {size} bytes are too many")
        content = bytes(filesystem.read_file(path, size))
        _refuse_newer(content, path)
        manifest = Manifest.model_validate_json(content)
        if content != canonical(manifest):
            raise StorageError(f"{path} is broken: it is not what was written")
    except OSError as error:
        raise _refused(path, error) from error
    except (ValidationError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} is broken: {printable(str(error).splitlines()[0])}") from error
    if manifest.format != FORMAT or folder.name != f"{manifest.sequence:08d}-step-{manifest.step}":
        raise StorageError(f"{path} is broken: format {manifest.format}, step {manifest.step}")
    check_layout(manifest, path)
    return manifest


def _refuse_newer(content: bytes, path: Path) -> None:
    """Tells a manifest that a newer version wrote from one that is broken: its hash is right, and it must stay.

    Raises:
      UnreadableError: it is one.
    """
    values: Any = json.loads(content)
    if not isinstance(values, dict) or not isinstance(values.get("format"), int) or values["format"] <= FORMAT:
        return
    if content == canonical_bytes(values):
        facts = values.get("facts")
        versions: Any = facts.get("versions") if isinstance(facts, dict) else None
        version = versions.get("ddpg-jax") if isinstance(versions, dict) else None
        raise UnreadableError(
            f"{path} was written by ddpg-jax {printable(version or 'of a newer version')} in format "
            f"{values['format']}, and formats up to {FORMAT} are known here: use that version; nothing was changed"
        )


def check(path: Path, size: int, sha256: str) -> None:
    """Reads a file and compares its size and its hash.

    Raises:
      StorageError: they are others, or it cannot be read.
    """
    try:
        if (found := filesystem.file_size(path)) != size:
            raise StorageError(f"{path} is broken: it holds {found} bytes instead of {size}")
        if filesystem.hash_file(path) != (size, sha256):
            raise StorageError(f"{path} is broken: its hash is another")
    except OSError as error:
        raise _refused(path, error) from error


def read(path: Path, size: int, sha256: str) -> bytearray:
    """The bytes of a file, whose size and hash are right.

    Raises:
      StorageError: they are not, or it cannot be read.
    """
    try:
        content = filesystem.read_file(path, size)
    except OSError as error:
        raise _refused(path, error) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StorageError(f"{path} is broken: its hash is another")
    return content
