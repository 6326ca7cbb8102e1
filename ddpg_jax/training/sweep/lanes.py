"""Lanes of a sweep that run together, on either loop: what they are, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple, TypeAlias

from ddpg_jax.config.schema import Config
from ddpg_jax.errors import EnvironmentFault, Interrupted
from ddpg_jax.training.report import Report, SnapshotFn
from ddpg_jax.types import HostArray, Row, Snapshot, StopFn

Lane = tuple[int, int]
"""A combination and the position of a seed."""


class SweepPosition(NamedTuple):
    """Which turn of a sweep.

    Attributes:
      group: number of its structure.
      first: its first lane, among those of the group.
      lanes: how many each turn of the group has, but for the last, which may have fewer; 0: not settled yet.
    """

    group: int
    first: int
    lanes: int


class LaneReport(NamedTuple):
    """A report of lanes that run together.

    Attributes:
      report: of their loop; its rows are those of the sweep's record.
      faulty: the lanes whose environment reported a number that is not finite, bool `[L]`.
      evaluate: `stop -> returns [L, episodes]` of the greedy policies of now.
    """

    report: Report
    faulty: HostArray
    evaluate: Callable[[StopFn], HostArray]


class LaneLoop(NamedTuple):
    """The loop of lanes that run together, about to begin or to go on.

    Attributes:
      step: environment steps of each lane so far.
      updates: critic updates of each lane so far.
      reports: of the loop.
      restarted_episodes: as in `Loop`, and so are the doubts.
      doubts: as in `Loop`.
    """

    step: int
    updates: int
    reports: Iterator[LaneReport]
    restarted_episodes: int = 0
    doubts: tuple[str, ...] = ()


class Copies(NamedTuple):
    """Lanes that go on from others; see `copy_lanes`.

    Attributes:
      children: their numbers, int32 `[K]`.
      parents: those of the others, int32 `[K]`.
    """

    children: HostArray
    parents: HostArray


class Evolution(NamedTuple):
    """How the lanes of a population copy each other between chunks; on the device loop alone.

    Attributes:
      hyper: `-> numbers by path, each [L]`, as they are now.
      exploit: `step -> copies`: the lanes that go on from others after so many steps; None: none does.
      whole: as in `copy_lanes`.
    """

    hyper: Callable[[], dict[str, HostArray]]
    exploit: Callable[[int], Copies | None]
    whole: bool = False


BeginFn: TypeAlias = Callable[[ExitStack, Snapshot | None, SnapshotFn, Evolution | None], LaneLoop]
"""`(stack, snapshot, should_snapshot, evolution) -> loop`: begins, or goes on; the stack closes what the loop holds
open."""


class LaneBatch(NamedTuple):
    """Lanes that run together.

    Attributes:
      position: which turn.
      ends: whether it is the last of the sweep.
      config: of their structure.
      lanes: those that count; the loop may have more of them behind, for padding.
      begin: their loop.
      size: L, with the padding.
    """

    position: SweepPosition
    ends: bool
    config: Config
    lanes: tuple[Lane, ...]
    begin: BeginFn
    size: int


class SweepReport(NamedTuple):
    """Lanes that run together, between two iterations; see `runner.Boundary`.

    Attributes:
      batch: the lanes.
      told: what their loop said.
      before: environment steps of a lane in the turns before, added up.
    """

    batch: LaneBatch
    told: LaneReport
    before: int

    @property
    def report(self) -> Report:
        """Of the loop."""
        return self.told.report

    @property
    def rows(self) -> list[Row]:
        """The lines of the record since the last report that was due."""
        return self.report.rows

    @property
    def step(self) -> int:
        """Over all turns."""
        return self.before + self.report.step

    @property
    def due(self) -> bool:
        """Whether the configuration asks for it."""
        return self.report.due

    @property
    def fault(self) -> EnvironmentFault | Interrupted | None:
        """What ends the sweep: on the host, an environment that failed is not one that reports what is not finite."""
        return self.report.fault

    @property
    def ends_batch(self) -> bool:
        """Whether its lanes are at their end."""
        return self.report.step >= self.batch.config.total_steps
