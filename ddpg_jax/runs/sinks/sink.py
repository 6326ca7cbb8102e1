"""What a sink can do, and what it is told of a run.

A sink brings rows of the record to another place. It knows nothing of files and offsets: `follower` reads the record,
sends each row once, and tries again where a sink raises. A sink lives in a process of its own, so it may be slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ddpg_jax.runs.loggers.scalars import scalars

if TYPE_CHECKING:
    from ddpg_jax.types import Row


class Identity(NamedTuple):
    """The run that is sent.

    Attributes:
      id: 16 characters, drawn once for each run directory and sink.
      name: of its directory.
      title: its task and its algorithm.
      config: its configuration: numbers, texts, lists and tables.
      directory: of the run.
      files: a folder in it where a sink may keep files of its own.
      group: what it is shown together with: runs of one task and algorithm, or the seeds of a sweep's combination.
      one_seed: whether it is one seed, a lane of a sweep, whose numbers are called as those of its group's others.
    """

    id: str
    name: str
    title: str
    config: dict[str, Any]
    directory: Path
    files: Path
    group: str = ""
    one_seed: bool = False


class Sink(Protocol):
    """Where rows go. Any method may raise: it is called again later, on a sink that is made anew."""

    def destination(self, run: Identity) -> str:
        """Where the rows of a run go, in words that tell it from every other place; called before `open`."""
        ...

    def open(self, run: Identity, *, resumes: bool) -> bool:
        """Connects.

        Args:
          run: what will be sent.
          resumes: whether rows of it were sent there before.

        Returns:
          Whether those rows are all there, so that only newer ones are sent; False: all are sent from the first one.
        """
        ...

    def send(self, rows: list[Row], when: float, *, again: bool) -> None:
        """Sends rows in the order of the record; those of one step come together.

        Args:
          rows: as they stand in the record.
          when: seconds since 1970; the same where the same rows are sent again.
          again: whether these very rows may have been sent before, by a process that was killed or a call that raised:
            then they must not be there twice.
        """
        ...

    def close(self) -> None:
        """Waits until all that was sent has arrived."""
        ...


class Point(NamedTuple):
    """All that was measured at a step: numbers by `event/name/seed-N`, or `event/name`."""

    step: int
    values: dict[str, float]


def points(rows: Iterable[Row], *, one_seed: bool = False) -> list[Point]:
    """The measurements of some rows, a point for each step.

    Where several episodes of a seed end at one step, their mean is taken. Names do not say of which seed they are
    where all are of one.
    """
    found: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        at = found.setdefault(row["step"], {})
        whose = "" if one_seed else f"/seed-{row['seed']}"
        for name, value in scalars(row).items():
            at.setdefault(f"{row['event']}/{name}{whose}", []).append(value)
    return [
        Point(step, {name: values[0] if len(values) == 1 else sum(values) / len(values) for name, values in at.items()})
        for step, at in found.items()
    ]
