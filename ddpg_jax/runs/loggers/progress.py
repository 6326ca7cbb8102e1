"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from ddpg_jax.errors import printable
from ddpg_jax.runs.loggers.health import Seen, advise
from ddpg_jax.runs.statistics import show_return

if TYPE_CHECKING:
    from ddpg_jax.runs.loggers.logger import Start, Status
    from ddpg_jax.types import Row

_NARROWEST_BAR, _WIDEST_FIGURES = 8, 72

_log = logging.getLogger("ddpg_jax")


def message_printer(console: Console | None) -> Callable[[str], None]:
    """Prints a line for people: on the console, or as a warning of this package's logger where there is none."""
    if console is None:
        return lambda line: _log.warning("%s", printable(line, lines=True))
    return lambda line: console.print(printable(line, lines=True), highlight=False, soft_wrap=True, markup=False)


class SafeConsole(Console):
    """A console that falls silent when its output is closed or full; a run is worth more than its display.

    What others have written is shown as it is: markup is off, and text is made printable.
    """

    def __init__(self, **options: Any) -> None:
        settings: Any = {"markup": False} | options
        super().__init__(**settings)

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`, but never raises for the sake of the output."""
        try:
            super().print(
                *(printable(each, lines=True) if isinstance(each, str) else each for each in objects), **options
            )
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
    """Shows the progress of a run; a logger.

    Args:
      console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen, self._return = Seen(), None
        self._total, self._num_seeds = 1, 1
        self._bar: Progress | None = None
        if console.is_terminal and not console.quiet:
            width = max(_NARROWEST_BAR, min(40, console.width - _WIDEST_FIGURES))
            self._bar = Progress(BarColumn(width), _Figures(), console=console)
            self._task = self._bar.add_task("", total=None, figures=None, ends=None)
            self._bar.start()

    def on_start(self, start: Start) -> None:
        """Says where the run's files are, and how far it is."""
        self._total, self._num_seeds = start.total_steps, len(start.seeds)
        self.print(describe_start(start))
        if self._bar is not None:
            self._bar.reset(self._task, total=start.total_steps, completed=start.step, figures=None, ends=None)

    def write(self, rows: list[Row]) -> None:
        """Takes note of the returns; prints what the rows say against the run's health, each metric once."""
        self._return = _mean_return(rows, self._return)
        lines, self._seen = advise(rows, self._seen)
        for line in lines:
            self.print(line)

    def on_report(self, status: Status) -> None:
        """Shows new figures."""
        if self._bar is None:
            self.print(progress_line(status, self._total, self._num_seeds, self._return))
            return
        shown, left = _figures(status, self._total, self._num_seeds, self._return)
        figures = f"{_short(status.step)}/{_short(self._total)}  {shown}"
        self._bar.update(self._task, completed=status.step, figures=figures, ends=time.monotonic() + left)

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def sync(self) -> int:
        """Does nothing: what was shown was seen."""
        return 0

    def close(self) -> None:
        """Stops the bar."""
        if self._bar is not None:
            self._bar.stop()


class BriefDisplay:
    """A few lines on standard output, for who trains from Python: the start, every evaluation, the end; a logger."""

    def __init__(self) -> None:
        self._total, self._evaluated = 0, False

    def on_start(self, start: Start) -> None:
        """Says what begins and where its files are."""
        self._total = start.total_steps
        self.print(describe_start(start))

    def write(self, rows: list[Row]) -> None:
        """Takes note of an evaluation."""
        self._evaluated = any(row["event"] == "evaluation" for row in rows)

    def on_report(self, status: Status) -> None:
        """Says what an evaluation has found."""
        if self._evaluated and status.evaluation is not None:
            done = ", done" if status.step >= self._total else ""
            score, clock = f"evaluation {status.evaluation:.1f}", _clock(status.seconds)
            self.print(f"step {status.step}/{self._total}: {score} after {clock}{done}")

    def print(self, line: str) -> None:
        """Prints a line; an output that is closed costs no run."""
        with suppress(OSError, ValueError):
            print(line, flush=True)

    def sync(self) -> int:
        """Does nothing."""
        return 0

    def close(self) -> None:
        """Does nothing."""


def progress_line(status: Status, total: int, num_seeds: int, mean_return: float | None) -> str:
    """How far a run is, on one line.

    Args:
      status: at a report.
      total: environment steps of each seed in the end.
      num_seeds: S.
      mean_return: of the last episodes; None: none has ended.
    """
    shown, left = _figures(status, total, num_seeds, mean_return)
    return f"step {status.step}/{total}  {shown}  {_clock(left)} left"


def _figures(status: Status, total: int, num_seeds: int, mean_return: float | None) -> tuple[str, float]:
    """What is shown at a report, and the seconds that are left."""
    rate = status.rates["env_steps_per_second"] / num_seeds
    scores = (("return", mean_return), ("eval", status.evaluation))
    shown = "".join(f"{name} {show_return(score)}  " for name, score in scores if score is not None)
    shown += f"{rate:.0f} steps/s" + (f" x {num_seeds}" if num_seeds > 1 else "")
    return shown, (total - status.step) / rate if rate else float("inf")


Display: TypeAlias = ProgressDisplay | BriefDisplay


def make_display(console: Console | None, *, quiet: bool = True) -> Display:
    """A display on a console; without one, a brief one, that of a notebook, or one that shows nothing."""
    if console is None and not quiet:
        from ddpg_jax.runs.loggers.notebook import NotebookDisplay, in_notebook

        return NotebookDisplay() if in_notebook() else BriefDisplay()
    return ProgressDisplay(console or Console(quiet=True))


def describe_start(start: Start) -> str:
    """What begins, of how many seeds and steps; and on a line of its own where its files are."""
    seeds = f"{len(start.seeds)} seeds" if len(start.seeds) > 1 else "1 seed"
    begun = f" from step {start.step}" if start.step else ""
    return f"{start.title}: {seeds}, {start.total_steps} steps each{begun}\nfiles in {start.directory}"


class _Figures(ProgressColumn):
    """The figures of the last report and the time left since then; before the first one, the time spent compiling."""

    def render(self, task: Task) -> Text:
        if task.fields["figures"] is None:
            return Text(f"compiling {_clock(task.elapsed or 0.0)}")
        left = max(0.0, task.fields["ends"] - time.monotonic())
        return Text(f"{task.fields['figures']}  {_clock(left)} left", no_wrap=True)


def _mean_return(rows: list[Row], otherwise: float | None) -> float | None:
    returns = [row["episode_return"] for row in rows if "episode_return" in row]
    return float(np.mean(returns)) if returns else otherwise


def _short(count: int) -> str:
    """At most five characters of a number of steps."""
    if count < 100_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 10**7 else f"{count / 10**6:.0f}M"


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
