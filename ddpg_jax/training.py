"""A run from its configuration to its result: drives the loop, evaluates, and feeds the sinks."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from ddpg_jax.config import Config
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.loops.device import first_lanes
from ddpg_jax.loops.report import Report, Row
from ddpg_jax.loops.schedule import is_due
from ddpg_jax.loops.start import Loop, start
from ddpg_jax.reading import dump_toml
from ddpg_jax.reports.plots import learning_curve
from ddpg_jax.reports.result import Evaluated, make_result
from ddpg_jax.reports.statistics import interquartile_mean
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.metrics import JsonLines, Sink, TensorBoard
from ddpg_jax.runs.progress import ProgressDisplay, Status, rates
from ddpg_jax.runs.signals import StopRequest
from ddpg_jax.runs.weights import save_weights, stored_part


class Run(NamedTuple):
    """A finished run.

    Attributes:
      directory: where its files are.
      config: what it was.
      result: what `result.json` holds.
    """

    directory: Path
    config: Config
    result: dict[str, Any]


def train(
    config: Config, run_dir: str | Path | None = None, *, overwrite: bool = False, console: Console | None = None
) -> Run:
    """Trains all seeds of a configuration and leaves a run directory.

    The first Ctrl-C ends the run at its next report, with everything written; the second at once. The device loop hears
    of neither before the end of its chunk.

    Args:
      config: the run.
      run_dir: where its files go; None: a new directory under `runs/`.
      overwrite: whether the files of an earlier run there may be removed.
      console: where progress is shown; None: nowhere.

    Returns:
      The run.

    Raises:
      ConfigError: the replay does not fit into memory.
      EnvironmentFault: an environment cannot be trained, or failed.
      NotFiniteError: a loss is not finite.
      StorageError: the run directory cannot be used.
    """
    with ExitStack() as stack:
        loop = start(config, stack)
        directory = RunDirectory.create(run_dir, run_name(config), overwrite=overwrite)
        directory.write_text(directory.config, dump_toml(config))
        report, evaluated = _drive(config, loop, directory, console)
        state = first_lanes(report.state, len(config.seed_list))
        save_weights(directory.weights, stored_part(state), loop.spec)
    result = make_result(config, report, evaluated)
    directory.write_result(result)
    steps = np.array([e.step for e in evaluated])
    means = np.stack([e.evaluation.returns.mean(1) for e in evaluated])
    learning_curve(directory.learning_curve, steps, means, f"{config.env.id}, {config.algorithm.name}")
    return Run(directory.path, config, result)


def run_name(config: Config) -> str:
    """What a run is called if nobody names it: task and algorithm."""
    return f"{config.env.id.rpartition(':')[-1].replace('/', '-')}_{config.algorithm.name}"


def _drive(
    config: Config,
    loop: Loop,
    directory: RunDirectory,
    console: Console | None,
) -> tuple[Report, list[Evaluated]]:
    """Passes the reports of a loop to the sinks and evaluates where it is due.

    Returns:
      The last report, whose state is still whole, and all evaluations; there is one at the last report.
    """
    evaluated: list[Evaluated] = []
    began, episode_return, report, before = time.perf_counter(), None, None, None
    with ExitStack() as stack:
        sinks: list[Sink] = [stack.enter_context(closing(JsonLines(directory.metrics)))]
        board = stack.enter_context(closing(TensorBoard(directory.tensorboard))) if config.logging.tensorboard else None
        if board is not None:
            sinks.append(board)
        timing = stack.enter_context(closing(JsonLines(directory.timing)))
        display = ProgressDisplay(console or Console(quiet=True), config.total_steps, len(config.seed_list))
        progress = stack.enter_context(display)
        stop = stack.enter_context(StopRequest())
        for report in loop.reports:
            rows, stopping = report.rows, stop.requested
            if _evaluation_due(config, report.step) or stopping:
                evaluated.append(Evaluated(report.step, loop.evaluate(report.state)))
                rows = rows + _evaluation_rows(config.seed_list, evaluated[-1])
            for sink in sinks:
                sink.write(rows)
            speed = _rates(report, before, len(config.seed_list))
            seconds = time.perf_counter() - began
            timing.write(
                [{"step": report.step, "updates": report.updates, "seconds": seconds, **report.seconds, **speed}]
            )
            if board is not None:
                board.write(
                    [{"event": "rate", "seed": seed, "step": report.step, **speed} for seed in config.seed_list]
                )
            before = report
            episode_return = _mean_return(rows, episode_return)
            score = interquartile_mean(evaluated[-1].evaluation.returns.mean(1)).item() if evaluated else None
            progress.show(Status(report.step, speed, episode_return, score))
            progress.warn(rows)
            if stopping:
                break
    assert report is not None, "a loop makes at least one report"  # noqa: S101
    return report, evaluated


def _evaluation_due(config: Config, step: int) -> bool:
    return step >= config.total_steps or is_due(step, config.evaluation.every, config.env.num_envs)


def _evaluation_rows(seeds: tuple[int, ...], evaluated: Evaluated) -> list[Row]:
    returns, lengths, q_bias = evaluated.evaluation.returns, evaluated.evaluation.lengths, evaluated.evaluation.q_bias
    if not np.isfinite(q_bias).all():
        raise NotFiniteError(f"the critics' value is not finite after {evaluated.step} steps: they have diverged")
    return [
        {
            "event": "evaluation",
            "seed": seed,
            "step": evaluated.step,
            "mean_return": float(returns[i].mean()),
            "mean_length": float(lengths[i].mean()),
            "q_bias": float(q_bias[i]),
            "returns": returns[i].tolist(),
        }
        for i, seed in enumerate(seeds)
    ]


def _rates(report: Report, before: Report | None, num_seeds: int) -> dict[str, float]:
    """Rates of training, compiling apart, since the report before."""
    spent = sum(report.seconds.values()) - report.seconds["compile"]
    if before is not None:
        spent -= sum(before.seconds.values()) - before.seconds["compile"]
    step, updates = (0, 0) if before is None else (before.step, before.updates)
    return rates(report.step - step, report.updates - updates, spent, num_seeds)


def _mean_return(rows: list[Row], otherwise: float | None) -> float | None:
    returns = [row["episode_return"] for row in rows if row["event"] in ("episode", "episodes")]
    return float(np.mean(returns)) if returns else otherwise
