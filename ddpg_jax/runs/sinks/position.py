"""How far the record of a run was sent, in `followers/NAME.json` of its directory.

What is about to be sent is noted before, and that it was sent after: a process that is killed between the two leaves a
batch of which the next one knows that it may be there already.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.documents import Open, read_json, validate

if TYPE_CHECKING:
    from ddpg_jax.runs.directory import RunDirectory

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Size = Annotated[int, Field(ge=0)]


class Pending(Open):
    """Rows that are being sent, or that a process which was killed may have sent.

    Attributes:
      end: bytes of the record up to their end.
      sha256: of these bytes.
      step: the largest of them.
      when: seconds since 1970, as it was told to the sink.
    """

    end: _Size
    sha256: _Hash
    step: _Size
    when: float


class Position(Open):
    """How far one destination is.

    Attributes:
      offset: bytes of the record that were sent.
      sha256: of these bytes; empty: nothing was sent.
      step: the largest that was sent; -1: none.
      pending: what may have been sent beyond.
      arrived: whether the sink was closed since, so that all of it is there.
    """

    offset: _Size = 0
    sha256: _Hash | Annotated[str, Field(max_length=0)] = ""
    step: Annotated[int, Field(ge=-1)] = -1
    pending: Pending | None = None
    arrived: bool = True


class Positions(Open):
    """The file.

    Attributes:
      id: of the run, wherever it is sent.
      destinations: where it was sent, by `Sink.destination`.
    """

    id: Annotated[str, Field(pattern="^[0-9a-z]{16}$")]
    destinations: dict[str, Position] = Field(default_factory=dict[str, Position])


def followers_folder(directory: RunDirectory, part: str = "") -> Path:
    """Makes the folder of all that follows a run, or of what follows a part of it.

    Raises:
      StorageError: it cannot be made, or a link has its name.
    """
    for folder in (directory.followers, directory.followers / part):
        if folder.is_symlink():
            raise StorageError(f"{folder} is a link: replace it by the folder it leads to")
        try:
            filesystem.make_folder(folder)
        except OSError as error:
            raise StorageError(f"{folder} cannot be made: {error}") from error
    return directory.followers / part


def follower_file(directory: RunDirectory, name: str, suffix: str, part: str = "") -> Path:
    """A file of the follower of a sink, as `followers/wandb.json`; its folder is made.

    Raises:
      StorageError: as `followers_folder`.
    """
    return followers_folder(directory, part) / f"{name.replace(':', '.')}{suffix}"


def read_positions(path: Path) -> Positions:
    """What the file says; where there is none, a run with a new id of which nothing was sent.

    Raises:
      StorageError: it cannot be read.
    """
    if filesystem.identity(path) is None:
        return Positions(id=secrets.token_hex(8))
    return validate(Positions, read_json(path), path)


def write_positions(path: Path, positions: Positions) -> None:
    """Replaces the file.

    Raises:
      OSError: it cannot be written.
    """
    filesystem.replace_file(path, [json.dumps(positions.model_dump(), indent=1).encode()])
