"""A run that has begun, to its result: passes on what the loop reports, and saves what is due."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config.schema import Config
from ddpg_jax.errors import DdpgJaxError, EnvironmentFault, Interrupted, StorageError
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.plots import learning_curve
from ddpg_jax.runs.result import make_result
from ddpg_jax.runs.weights import Weights, init_from_weights, save_weights, stored_part
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.device.loop import drop_padding
from ddpg_jax.training.recorder import Recorder, ResumePoint
from ddpg_jax.training.report import InitFn, Loop, Report, keep_init


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


def run_name(config: Config) -> str:
    """What a run is called if nobody names it: task and algorithm."""
    return f"{config.env.id.rpartition(':')[-1].replace('/', '-')}_{config.algorithm.name}"


def start_point(weights: Weights | None) -> tuple[ResumePoint, InitFn]:
    """How a run begins that has no checkpoint: anew, or with the weights of another."""
    return (ResumePoint(), keep_init) if weights is None else (ResumePoint(level="weights"), init_from_weights(weights))


def drive(
    config: Config,
    loop: Loop,
    directory: RunDirectory,
    recorder: Recorder,
    checkpointer: Checkpointer,
    store: CheckpointStore,
) -> Run:
    """Passes the reports of a loop on, saves where that is due, and writes the result at the end.

    Raises:
      Interrupted: the run was told to stop; it is saved.
    """
    last = _to_the_end(config, loop, directory, recorder, checkpointer, store)
    state = drop_padding(last.state, len(config.seed_list))
    save_weights(directory.weights, stored_part(state), loop.spec)
    result = (
        make_result(config, last.step, last.updates, last.seconds, recorder.evaluated, recorder.diverged)
        | recorder.history
    )
    steps = np.array([e.step for e in recorder.evaluated])
    means = np.stack([e.evaluation.returns.mean(1)[~recorder.diverged] for e in recorder.evaluated])
    learning_curve(directory.learning_curve, steps, means, f"{config.env.id}, {config.algorithm.name}")
    directory.write_result(result)
    if config.checkpoint.every:
        checkpointer.save_now(store, lambda: recorder.checkpoint(last, complete=True))
    return Run(directory.path, config, result)


def _to_the_end(
    config: Config,
    loop: Loop,
    directory: RunDirectory,
    recorder: Recorder,
    checkpointer: Checkpointer,
    store: CheckpointStore,
) -> Report:
    """The last report of a loop, which has not gone on from it: its state is still whole."""
    for report in loop.reports:
        if report.due:
            try:
                recorder.record(report)
            except EnvironmentFault as fault:
                _save_before(
                    fault, partial(checkpointer.save_now, store, partial(recorder.checkpoint, report, unrecorded=True))
                )
                raise
        if report.step >= config.total_steps:
            return report
        make = partial(recorder.checkpoint, report)
        if report.fault is not None:
            _save_before(report.fault, partial(checkpointer.save_now, store, make))
        elif checkpointer.stopping:
            checkpointer.save_now(store, make)
            raise Interrupted(
                f"interrupted after {report.step} of {config.total_steps} steps; "
                f"to go on: ddpg-jax resume {directory.path}"
            )
        elif checkpointer.should_save(report.step):
            checkpointer.save(store, make)
    raise AssertionError("a loop ends with a report after its last step")


def _save_before(fault: DdpgJaxError, save: Callable[[], None]) -> None:
    """Saves before an error that ends the run; what goes wrong with that is said beside it."""
    try:
        save()
    except StorageError as error:
        fault.add_note(f"nor could the run be saved: {error}")
