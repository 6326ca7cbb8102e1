"""Runs that are stopped at a step on purpose, saved, to go on later or not: the rungs of a search."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.directory import RunDirectory

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.training.callbacks import CallbackFn, CallbackReport

_CHECKPOINT = re.compile(r"\d+-step-(\d+)")


def check_until(config: Config, until: int) -> None:
    """Refuses a step at which nothing is evaluated, or which lies beyond the end.

    Raises:
      ConfigError: it is such.
    """
    every = config.evaluation.every
    if until % every or until > config.total_steps:
        raise ConfigError(
            f"{option('until', str(until))}: expected a multiple of evaluation.every={every}, up to "
            f"total_steps={config.total_steps}"
        )


def stop_at(until: int) -> CallbackFn:
    """A callback that asks for a stop at the first report from a step on."""

    def stop(report: CallbackReport) -> None:
        if report.step >= until:
            report.stop()

    return stop


def has_reached(run_dir: Path, until: int) -> bool:
    """Whether a run was saved at a step, or after it, or has come to its end."""
    directory = RunDirectory(run_dir)
    saved = [match for name in filesystem.names(directory.checkpoints) if (match := _CHECKPOINT.fullmatch(name))]
    return directory.result.is_file() or any(int(match[1]) >= until for match in saved)
