"""What every logger can do: the record, the timing, TensorBoard, the terminal, and those of users.

A row's "event" says what it tells. The host loop writes an "episode" for each one that ends, the device loop "episodes"
with the means of those that ended since the last report, and their number: these names stand in the records of old
runs and stay. Both have `episode_return` and `episode_length`, so who asks for these fields reads either.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ddpg_jax.types import Row, TrainState


class Start(NamedTuple):
    """What begins, or goes on.

    Attributes:
      directory: where its files are.
      title: the task and the algorithm.
      total_steps: environment steps of each seed in the end.
      seeds: of the run; of a sweep, lanes that run together have one entry each.
      step: environment steps of each seed that are done.
    """

    directory: Path
    title: str
    total_steps: int
    seeds: tuple[int, ...]
    step: int = 0


class Status(NamedTuple):
    """Where a run is at a report; its rows were written before.

    Attributes:
      step: environment steps of each seed.
      updates: critic updates of each seed.
      seconds: since the run began.
      phases: seconds spent by phase.
      rates: steps and updates of all seeds each second.
      evaluation: interquartile mean of the last evaluation, or None.
      learner: leaves `[S, ...]`; its buffers are given away when the loop goes on, so copy what is to be kept.
    """

    step: int
    updates: int
    seconds: float
    phases: dict[str, float]
    rates: dict[str, float]
    evaluation: float | None
    learner: TrainState


class Logger(Protocol):
    """Who is told of a run. It may have `on_start(start: Start)` and `on_report(status: Status)` too."""

    def write(self, rows: list[Row]) -> None:
        """Takes the rows of a report, which the configuration alone determines."""
        ...

    def sync(self) -> int:
        """Waits until all that was written is kept, as a checkpoint is about to be; returns the bytes of its file."""
        ...

    def close(self) -> None:
        """Closes what it holds open."""
        ...


def tell(loggers: Iterable[Logger], event: str, about: Any) -> None:
    """Calls the method `event` of those loggers that have it."""
    for logger in loggers:
        method = getattr(logger, event, None)
        if method is not None:
            method(about)


def rates(steps: int, updates: int, seconds: float, num_seeds: int) -> dict[str, float]:
    """Steps and updates of all seeds each second, of which each seed made so many in that time; 0 in no time."""
    seconds = seconds or float("inf")  # a report that is taken again at a resume
    return {
        "env_steps_per_second": steps * num_seeds / seconds,
        "updates_per_second": updates * num_seeds / seconds,
    }


class RateMeter:
    """Rates since it was asked before.

    Args:
      num_seeds: S.
      step: environment steps of each seed at the beginning.
      updates: critic updates of each seed then.
      seconds: spent until then.
    """

    def __init__(self, num_seeds: int, step: int = 0, updates: int = 0, seconds: float = 0.0) -> None:
        self._num_seeds, self._before = num_seeds, (step, updates, seconds)

    def since(self, step: int, updates: int, seconds: float) -> dict[str, float]:
        """Steps and updates of all seeds each second until now."""
        before, self._before = self._before, (step, updates, seconds)
        return rates(step - before[0], updates - before[1], seconds - before[2], self._num_seeds)
