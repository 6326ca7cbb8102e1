"""What `ddpg-jax sweep` shows at its end, where it is one program; a search shows its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpg_jax.cli.show import show_files
from ddpg_jax.cli.streams import tell
from ddpg_jax.config.wording import resume_command
from ddpg_jax.errors import Interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from ddpg_jax.config.schema import Config
    from ddpg_jax.training.sweep.run import SweepRun

_FILES = ("ranking.png", "best.toml", "result.json", "metrics.jsonl", "lineage.jsonl")


def show_sweep(console: Console, run: SweepRun, config: Config | None = None, until: int | None = None) -> int:
    """Shows the ranking of a sweep and its files.

    Args:
      console: where.
      run: the sweep.
      config: of one of its combinations, for the command that goes on; None: that needs no more than the directory.
      until: the step at which it was to stop; None: its end.

    Returns:
      The exit code: that of an interruption if it has not come so far, which is said with how it goes on.
    """
    from ddpg_jax.cli.tables import ranking_table

    console.print(ranking_table(run.result))
    show_files(console, run.directory, _FILES)
    reached = until is not None and all(entry["step"] >= until for entry in run.result["combinations"])
    if run.result["complete"] or reached:
        return 0
    tell(f"ddpg-jax: interrupted; to go on: {resume_command(run.directory, config)}")
    return Interrupted.exit_code
