"""What the command line shows at the end of a run: its table, its files, and what may come next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ddpg_jax.training.run import Run

PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
"""How a console prints what may be copied."""


def show_run(console: Console, run: Run, record: str) -> None:
    """The table of a run that came to its end, and its files."""
    from ddpg_jax.cli.tables import training_table

    console.print(training_table(run.result))
    show_files(console, run.directory, ("learning_curve.png", "result.json", "checkpoints/best.safetensors", record))
    _show_next(console, run)


def _show_next(console: Console, run: Run) -> None:
    """What may come next, each on a line to be copied; a terminal breaks none of them."""
    from ddpg_jax.config.schema import imported_names

    own = run.directory / "process-0"  # of several processes, each has a run of its own
    directory = own if own.is_dir() else run.directory
    path = shlex.quote(min(os.path.relpath(directory), str(directory), key=len))
    allowed = " --allow-imports" if imported_names(run.config.model_dump()) else ""
    more = f"{path} --total-steps {2 * run.config.total_steps}"
    commands = {"evaluate": path + allowed, "resume": more + allowed, "export": path + allowed, "compare": path}
    if run.config.algorithm.memory is not None:
        del commands["export"]  # of agents without memory only
    console.print("next:", **PLAIN)
    for name, words in commands.items():
        console.print(f"  ddpg-jax {name} {words}", **PLAIN)


def show_files(console: Console, directory: Path, names: Sequence[str]) -> None:
    """The files that are there, one a line, so that a terminal breaks none of them."""
    for name in names:
        if any(directory.glob(name)):
            console.print(f"{directory}/{name}", **PLAIN)
