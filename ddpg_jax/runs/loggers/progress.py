"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ddpg_jax.runs.loggers.health import Seen, advise

if TYPE_CHECKING:
    from ddpg_jax.types import Row

_log = logging.getLogger("ddpg_jax")


class Status(NamedTuple):
    """The figures shown.

    Attributes:
      step: environment steps of each seed.
      rates: steps and updates of all seeds each second, as in `timing.jsonl`.
      episode_return: mean return of the last training episodes, or None.
      evaluation: interquartile mean of the last evaluation, or None.
    """

    step: int
    rates: dict[str, float]
    episode_return: float | None
    evaluation: float | None


def message_printer(console: Console | None) -> Callable[[str], None]:
    """Prints a line for people: on the console, or as a warning of this package's logger where there is none."""
    if console is None:
        return _log.warning
    return lambda line: console.print(line, highlight=False, soft_wrap=True, markup=False)


def rates(steps: int, updates: int, seconds: float, num_seeds: int) -> dict[str, float]:
    """Steps and updates of all seeds each second, of which each seed made so many in that time."""
    return {
        "env_steps_per_second": steps * num_seeds / seconds,
        "updates_per_second": updates * num_seeds / seconds,
    }


class SafeConsole(Console):
    """A console that falls silent when its output is closed or full; a run is worth more than its display."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`, but never raises for the sake of the output."""
        try:
            super().print(*objects, **options)
        except OSError:
            self._fall_silent()

    def on_broken_pipe(self) -> None:
        """Called by rich when nobody reads any more."""
        self._fall_silent()

    def _fall_silent(self) -> None:
        self.quiet = True
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stdout.fileno())  # what is still buffered goes nowhere when the process ends
        os.close(silence)


class ProgressDisplay:
    """Shows the progress of a run; use it as a context.

    Args:
      console: where to show it.
      total_steps: environment steps of each seed.
      num_seeds: S.
    """

    def __init__(self, console: Console, total_steps: int, num_seeds: int) -> None:
        self._console, self._total, self._num_seeds = console, total_steps, num_seeds
        self._seen = Seen()
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                BarColumn(None),
                TaskProgressColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=False)
            self._task = self._bar.add_task("", total=total_steps, figures="compiling")

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, status: Status) -> None:
        """Shows new figures."""
        figures = _figures(status)
        if self._bar is not None:
            self._bar.update(self._task, completed=status.step, figures=figures)
            return
        left = (self._total - status.step) * self._num_seeds / status.rates["env_steps_per_second"]
        self.print(f"step {status.step}/{self._total}  {figures}  {_duration(left)} left")

    def warn(self, rows: Iterable[Row]) -> None:
        """Prints what the rows of a report say against the run's health, each metric once."""
        lines, self._seen = advise(rows, self._seen)
        for line in lines:
            self.print(line)

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def _figures(status: Status) -> str:
    scores = (("return", status.episode_return), ("eval", status.evaluation))
    shown = "".join(f"{name} {score:.1f}  " for name, score in scores if score is not None)
    return f"{shown}{status.rates['env_steps_per_second']:.0f} steps/s  {status.rates['updates_per_second']:.0f} upd/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
