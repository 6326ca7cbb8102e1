"""Runs that are stopped at a step on purpose, saved, to go on later or not: the rungs of a search."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.record import read_rows

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.training.callbacks import CallbackFn, CallbackReport
    from ddpg_jax.training.sweep.grid import Sweep

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


def check_sweep_until(sweep: Sweep, until: int) -> None:
    """As `check_until`, of a sweep, whose lanes are stopped together.

    Raises:
      ConfigError: it is no such step, or the lanes cannot all be there: they are of the host loop, of several
        structures, or a population.
    """
    config, said = sweep.configs[0], option("until", str(until))
    if not config.on_device:
        raise ConfigError(
            f"{said}: lanes of environments written in JAX, as jax:pendulum, are stopped at a step; env.id = "
            f"{config.env.id!r} is not one"
        )
    if len(sweep.groups) > 1:
        raise ConfigError(f"{said}: the combinations have {len(sweep.groups)} structures: one sweep for each")
    if sweep.population is not None:
        raise ConfigError(f"{said}: a population is not stopped at a step; leave it out")
    check_until(config, until)


def stop_at(until: int) -> CallbackFn:
    """A callback that asks for a stop at the first report from a step on."""

    def stop(report: CallbackReport) -> None:
        if report.step >= until:
            report.stop()

    return stop


def has_reached(run_dir: Path, until: int) -> bool:
    """Whether a run was evaluated and saved at a step, or after it, or has come to its end.

    One that was stopped in its evaluation there is saved too, and has yet to be evaluated.

    Raises:
      StorageError: its record cannot be read.
    """
    directory = RunDirectory(run_dir)
    matches = map(_CHECKPOINT.fullmatch, filesystem.names(directory.checkpoints))
    is_saved = any(int(match[1]) >= until for match in matches if match)
    return directory.result.is_file() or (is_saved and _is_evaluated(directory.metrics, until))


def _is_evaluated(record: Path, step: int) -> bool:
    """Whether a record has an evaluation at a step or after it; several environments may arrive together after it."""
    return record.is_file() and any(row["step"] >= step for row in read_rows(record, ("evaluation",)))
