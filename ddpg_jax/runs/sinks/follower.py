"""Sends the record of a run to a sink: each row once, wherever a process is killed and the run resumed.

A run that goes on cuts its record back to a checkpoint and writes the same bytes again. So what counts is how many
bytes were sent: a follower reads the record from its beginning, waits until it is as long as what was sent, and
compares the hashes. Where the record goes on otherwise (another `logging.every`, other numbers), rows of later steps
alone are sent.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddpg_jax.config.load import read_toml
from ddpg_jax.runs.lock import Lock
from ddpg_jax.runs.sinks.position import (
    Pending,
    Position,
    follower_file,
    read_positions,
    write_positions,
)
from ddpg_jax.runs.sinks.record import Record, RunRecord
from ddpg_jax.runs.sinks.sink import Identity, Sink

if TYPE_CHECKING:
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.types import Row

_PIECE = 2**20


class Part(NamedTuple):
    """A lane of a sweep, which is sent as a run is.

    Attributes:
      record: its rows.
      folder: in `followers`, for its files.
      name: what it is called.
      group: with which others it is shown.
      config: its configuration.
    """

    record: Record
    folder: str
    name: str
    group: str
    config: dict[str, Any]


class Follower:
    """The way of a record to one sink; one process at a time has it.

    Args:
      directory: of the run.
      name: of the sink.
      make: makes it; called again after it has raised.
      part: of a sweep, whose follower holds the lock; None: all of a run.

    Raises:
      StorageError: another process follows the run to this sink, or its files cannot be used.
      OSError: likewise.
    """

    def __init__(self, directory: RunDirectory, name: str, make: Callable[[], Sink], part: Part | None = None) -> None:
        self._directory, self._make = directory, make
        self._record = RunRecord(directory.metrics) if part is None else part.record
        self._path = follower_file(directory, name, ".json", "" if part is None else part.folder)
        self._lock = Lock(follower_file(directory, name, ".lock")) if part is None else None
        self._positions = read_positions(self._path)
        self._run = _identify(directory, self._positions.id, self._path.parent, part)
        self._sink: Sink | None = None
        self._opened, self._destination = False, ""
        self._begin()
        self.sent = 0

    def advance(self, *, at_end: bool) -> bool:
        """Sends the next rows, if there are some.

        Args:
          at_end: whether nothing is added to the record any more.

        Returns:
          Whether there may be more at once.

        Raises:
          Exception: whatever the sink raises; the next call tries again, with another one.
        """
        try:
            if self._sink is None:
                self._sink = self._make()
                self._destination = self._sink.destination(self._run)
                self._begin()
            return self._advance(self._sink, at_end)
        except Exception:
            self._drop_sink()
            raise

    def close(self) -> None:
        """Waits until all that was sent has arrived, and lets others follow the run."""
        sink, self._sink = self._sink, None
        try:
            if sink is not None and self._opened:
                sink.close()
                if not self._position.arrived:
                    self._write(self._position.model_copy(update={"arrived": True}))
        finally:
            if self._lock is not None:
                self._lock.release()

    def _advance(self, sink: Sink, at_end: bool) -> bool:
        if not self._agrees and not self._compare(at_end):
            return False
        rows, content = self._next_rows(at_end)
        if not content:  # what was sent may still have to arrive
            unsure = at_end and not self._position.arrived and not self._opened
            return unsure and (self._open(sink) or True)
        if not self._position.offset:
            rows = [row for row in rows if row["step"] > self._position.step]
        if not rows:
            self._pass(content)
        elif self._opened or self._open(sink):
            self._send(sink, rows, content)
        return True

    @property
    def _position(self) -> Position:
        return self._positions.destinations.get(self._destination, Position())

    def _begin(self) -> None:
        """Reads the record from its beginning."""
        self._at, self._hash, self._size = 0, hashlib.sha256(), -1
        self._agrees = not self._position.offset

    def _compare(self, at_end: bool) -> bool:
        """Reads the record up to where it was sent; False: it is still shorter."""
        position = self._position
        while self._at < position.offset:
            piece = self._record.read(self._at, min(_PIECE, position.offset - self._at))
            if not piece and not (at_end and self._directory.result.exists()):
                return False
            if not piece:
                break
            self._pass(piece)
        self._agrees = self._at == position.offset and self._hash.hexdigest() == position.sha256
        if not self._agrees:
            self._go_by_steps()
        return True

    def _go_by_steps(self) -> None:
        """The record is not what was sent: goes on with later steps than any that may have been."""
        position = self._position
        last = position.step if position.pending is None else max(position.step, position.pending.step)
        self._write(Position(step=last))
        self._begin()

    def _next_rows(self, at_end: bool) -> tuple[list[Row], bytes]:
        """Rows of whole steps, and the bytes that they are; those that a killed process may have sent stay together."""
        pending = self._position.pending
        if pending is not None:
            content, whole = self._record.read(self._at, pending.end - self._at), self._hash.copy()
            if len(content) < pending.end - self._at:
                return [], b""
            whole.update(content)
            if whole.hexdigest() == pending.sha256:
                return _parse(content), content
            self._go_by_steps()
        size = self._record.size()
        settled, self._size = at_end or size == self._size, size
        content = b""
        while piece := self._record.read(self._at + len(content), _PIECE):
            content += piece
            at_last = self._at + len(content) >= size
            if whole_steps := _whole_steps(content, with_last=settled and at_last):
                return _parse(whole_steps), whole_steps
        return [], b""

    def _open(self, sink: Sink) -> bool:
        """Opens the sink; False: it has nothing of what was sent, so that the record is read anew."""
        resumes = self._position != Position()
        write_positions(self._path, self._positions)  # its id is kept before anybody hears it
        kept = sink.open(self._run, resumes=resumes)
        self._opened = True
        if kept or not resumes:
            return True
        self._write(Position())
        self._begin()
        return False

    def _send(self, sink: Sink, rows: list[Row], content: bytes) -> None:
        """Sends rows; it is noted before that they will be, and after that they were."""
        position, after = self._position, self._hash.copy()
        after.update(content)
        end, step, digest = self._at + len(content), max(row["step"] for row in rows), after.hexdigest()
        pending, again = position.pending, position.pending is not None
        if pending is None:
            pending = Pending(end=end, sha256=digest, step=step, when=round(time.time(), 3))
            self._write(position.model_copy(update={"pending": pending, "arrived": False}))
        sink.send(rows, pending.when, again=again)
        self._write(Position(offset=end, sha256=digest, step=step, arrived=False))
        self._pass(content)
        self.sent += len(rows)

    def _write(self, position: Position) -> None:
        changed = self._positions.destinations | {self._destination: position}
        positions = self._positions.model_copy(update={"destinations": changed})
        write_positions(self._path, positions)
        self._positions = positions

    def _pass(self, content: bytes) -> None:
        self._hash.update(content)
        self._at += len(content)

    def _drop_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None and self._opened:
            with suppress(Exception):
                sink.close()
        self._opened = False


def _identify(directory: RunDirectory, identifier: str, files: Path, part: Part | None) -> Identity:
    """What a sink is told of a run, from its configuration as it stands there: no name in it is imported."""
    config = read_toml(directory.config) if part is None else part.config
    algorithm = config.get("algorithm", {})
    title = f"{config.get('env', {}).get('id')}, {algorithm.get('make_agent') or algorithm.get('name')}"
    name, group = (directory.path.name, title) if part is None else (part.name, part.group)
    return Identity(identifier, name, title, config, directory.path, files, group, one_seed=part is not None)


def _whole_steps(content: bytes, *, with_last: bool) -> bytes:
    """The lines of whole steps: the last step may go on in lines that are not there yet."""
    lines = content[: content.rfind(b"\n") + 1]
    if with_last and len(lines) == len(content):
        return lines
    end, last = len(lines), None
    while end:
        begin = lines.rfind(b"\n", 0, end - 1) + 1
        step = json.loads(lines[begin:end])["step"]
        if last is not None and step != last:
            return lines[:end]
        end, last = begin, step
    return b""


def _parse(content: bytes) -> list[Row]:
    return [json.loads(line) for line in content.splitlines()]
