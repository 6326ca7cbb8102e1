"""Sends the record of a sweep to a sink: each of its lanes, a combination with a seed, is a run there.

A lane is sent as the record of a run is (`follower`), with a folder of its own in `followers`. So each of its rows is
sent once, whether all lanes run side by side or in turns.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpg_jax.config.load import Source, compose, dump_toml, resolve_sources
from ddpg_jax.config.plugins import allow_imports
from ddpg_jax.config.sweep_file import SweepFile, Values, list_combinations, nest, read_sweep_file
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.lock import Lock
from ddpg_jax.runs.sinks.follower import Follower, Part
from ddpg_jax.runs.sinks.position import follower_file
from ddpg_jax.runs.sinks.record import Lane, SweepRecord

if TYPE_CHECKING:
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.runs.sinks.sink import Sink


class SweepFollower:
    """The way of a sweep's record to one sink; one process at a time has it.

    Args:
      directory: of the sweep.
      name: of the sink.
      make: makes it, for each lane; called again after it has raised.

    Raises:
      StorageError: another process follows the sweep to this sink, or its files cannot be used.
      OSError: likewise.
    """

    def __init__(self, directory: RunDirectory, name: str, make: Callable[[], Sink]) -> None:
        self._directory, self._name, self._make = directory, name, make
        self._lock = Lock(follower_file(directory, name, ".lock"))
        self._record = SweepRecord(directory.metrics)
        self._combinations = Combinations(directory.sweep)
        self._ways: dict[Lane, Follower] = {}
        self._turn, self._idle = 0, 0

    def advance(self, *, at_end: bool) -> bool:
        """Sends the next rows of one lane, in turn, so that no call takes longer than that of a run does.

        Args:
          at_end: as in `Follower.advance`.

        Returns:
          Whether there may be more at once, of this lane or of one that has not had its turn.

        Raises:
          Exception: whatever the sink raises; the next call tries the next lane.
        """
        if not self._idle:
            self._look()
        if not self._ways:
            return False
        way = list(self._ways.values())[self._turn % len(self._ways)]
        self._turn += 1
        self._idle = 0 if way.advance(at_end=at_end) else self._idle + 1
        if self._idle < len(self._ways):
            return True
        self._idle = 0
        return False

    @property
    def sent(self) -> int:
        """Rows that were sent."""
        return sum(way.sent for way in self._ways.values())

    def close(self) -> None:
        """Closes every lane, whatever becomes of the others.

        Raises:
          Exception: the first that a sink has raised.
        """
        failed: Exception | None = None
        for way in self._ways.values():
            try:
                way.close()
            except Exception as error:  # whatever a back-end raises
                failed = failed or error
        self._lock.release()
        if failed is not None:
            raise failed

    def _look(self) -> None:
        """Finds the lanes that have rows."""
        self._record.look()
        for lane in self._record.lanes:
            if lane not in self._ways:
                self._ways[lane] = self._follow(lane)

    def _follow(self, lane: Lane) -> Follower:
        number, seed = lane
        sweep = self._directory.path.name
        part = Part(
            record=self._record.lanes[lane],
            folder=f"combination-{number}-seed-{seed}",
            name=f"{sweep}-combination-{number}-seed-{seed}",
            group=f"{sweep}-combination-{number}",
            config=self._combinations.config(lane),
        )
        return Follower(self._directory, self._name, self._make, part)


class Combinations:
    """The configurations of a sweep, from its file as it stands there: no name in it is imported.

    Args:
      path: `sweep.toml` of its directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def config(self, lane: Lane) -> dict[str, Any]:
        """The configuration of a run that would be this lane; without the defaults where it cannot be made here."""
        file = self._file
        base = file.base if isinstance(file.base, dict) else {}
        values = compose((base, file.config, nest(self._values[lane.combination]), {"seeds": [lane.seed]}))
        try:
            with allow_imports():
                config = resolve_sources([Source(str(self._path), values)])
        except ConfigError:  # as where it names an algorithm of a package that is not installed here
            return values
        return tomllib.loads(dump_toml(config))

    @cached_property
    def _file(self) -> SweepFile:
        return read_sweep_file(self._path)

    @cached_property
    def _values(self) -> tuple[Values, ...]:
        return list_combinations(self._file, self._path, {})
