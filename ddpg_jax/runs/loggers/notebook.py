"""Progress in a notebook: a kernel is no terminal, but a line that it has shown can be shown anew."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddpg_jax.runs.loggers.progress import BriefDisplay, progress_line

if TYPE_CHECKING:
    from ddpg_jax.runs.loggers.logger import Start, Status
    from ddpg_jax.types import Row

_SECONDS = 0.5
"""Between two changes of the line."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookDisplay(BriefDisplay):
    """The lines of `BriefDisplay`, and one that tells how far the run is; a logger."""

    def __init__(self) -> None:
        super().__init__()
        self._line: Any = None
        self._shown, self._seeds = 0.0, 1
        self._return: float | None = None

    def on_start(self, start: Start) -> None:
        """Says what begins; until the first report it compiles."""
        super().on_start(start)
        self._seeds = len(start.seeds)
        display = import_module("IPython.display").display
        self._line = display(_plain("compiling ..."), raw=True, display_id=True)

    def write(self, rows: list[Row]) -> None:
        """Takes note of an evaluation, and of the returns."""
        super().write(rows)
        returns = [row["episode_return"] for row in rows if "episode_return" in row]
        self._return = sum(returns) / len(returns) if returns else self._return

    def on_report(self, status: Status) -> None:
        """Shows new figures, and says what an evaluation has found."""
        if time.monotonic() - self._shown > _SECONDS or status.step >= self._total:
            self._shown = time.monotonic()
            self._line.update(_plain(progress_line(status, self._total, self._seeds, self._return)), raw=True)
        super().on_report(status)


def _plain(line: str) -> dict[str, str]:
    return {"text/plain": line}
