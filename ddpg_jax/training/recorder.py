"""What a run leaves behind while it goes on, and at its end: rows, evaluations, checkpoints of all that, the result."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import numpy as np

from ddpg_jax.config.schema import Config
from ddpg_jax.config.wording import resume_command
from ddpg_jax.errors import Interrupted, NotFiniteError, StorageError
from ddpg_jax.rng import run_keys, stream_key
from ddpg_jax.runs.augmented import draw_augmentations
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.rows import snapshot_rows
from ddpg_jax.runs.failed_update import write_bundle
from ddpg_jax.runs.lock import TakenError
from ddpg_jax.runs.loggers.followers import Followers
from ddpg_jax.runs.loggers.jsonl import JsonLines
from ddpg_jax.runs.loggers.logger import Logger, RateMeter, Start, Status, tell
from ddpg_jax.runs.loggers.tensorboard import TensorBoard
from ddpg_jax.runs.loggers.timing import Timing
from ddpg_jax.runs.plots import learning_curve
from ddpg_jax.runs.result import Evaluated, make_result, system_info
from ddpg_jax.runs.statistics import interquartile_mean, mean_info
from ddpg_jax.runs.weights import restore_best, save_best, save_weights, stored_part
from ddpg_jax.training.callbacks import CallbackReport, call
from ddpg_jax.training.device.loop import drop_padding
from ddpg_jax.training.report import Report, training_seconds
from ddpg_jax.training.resume_point import DIVERGED, ResumePoint, evaluation_arrays
from ddpg_jax.training.run import Run, run_title
from ddpg_jax.training.schedule import is_due
from ddpg_jax.types import EnvSpec, HostArray, Row, Tree

if TYPE_CHECKING:
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.training.context import RunContext
    from ddpg_jax.training.report import Loop


_SECONDS_BETWEEN_PICTURES = 30.0


class RunRecorder:
    """The open files of a run and whoever else is told of it; they are closed with the stack of the context.

    Args:
      config: the run.
      loop: what is run.
      point: what it goes on from; what was recorded after that is cut off.
      context: where it is.

    Raises:
      StorageError: a file of the record cannot be opened, or is shorter than it was.
    """

    def __init__(self, config: Config, loop: Loop, point: ResumePoint, context: RunContext) -> None:
        self._config, self._loop, self._point, self._context = config, loop, point, context
        self._diverged = point.diverged(len(config.seed_list))
        self._evaluated = point.evaluated
        directory, stack, notify = context.directory, context.stack, context.notify
        self._best_step: int | None = point.metadata.get("best_step")
        if not restore_best(directory, self._best_step):
            notify(f"warning: {directory.best_weights.name} of step {self._best_step} is lost; the next best is kept")
            self._best_step = None
        record = JsonLines(directory.metrics, point.metrics_bytes, warn=notify, sha256=point.metrics_sha256)
        self._metrics = stack.enter_context(closing(record))
        timing = JsonLines(directory.timing, point.timing_bytes, warn=notify, spare=True)
        self._timing = stack.enter_context(closing(Timing(timing)))
        self._loggers: list[Logger] = [self._metrics, self._timing]
        if config.logging.tensorboard:
            purge = None if point.checkpoint is None else point.step + (point.unrecorded is None)
            self._loggers.append(stack.enter_context(closing(TensorBoard(directory.tensorboard, purge, warn=notify))))
        if config.logging.sinks:
            followers = Followers(directory, config.logging.sinks, context.stop.is_requested, warn=notify)
            self._loggers.append(stack.enter_context(closing(followers)))
        self._loggers += context.loggers
        tell(
            self._loggers,
            "on_start",
            Start(directory.path, run_title(config), config.total_steps, config.seed_list, point.step),
        )
        self._began, self._seconds = time.perf_counter(), sum(point.seconds.values())
        self._drawn = time.monotonic()
        self._rates = RateMeter(len(config.seed_list))
        if point.unrecorded is None and point.checkpoint is not None:
            self._rates.since(point.step, int(point.metadata["updates"]), training_seconds(point.seconds))

    def is_last(self, report: Report) -> bool:
        """Whether the run is at its end."""
        return report.step >= self._config.total_steps

    def must_save(self, report: Report) -> bool:
        """Whether a checkpoint belongs here, whatever the clock says."""
        return False

    def record(self, report: Report) -> None:
        """Records a report that was due: evaluates where it is due, writes the rows, and shows figures.

        Raises:
          NotFiniteError: the critics' value is not finite.
          EnvironmentFault: an environment failed in the evaluation; or a callback did.
        """
        config, rows, judged = self._config, report.rows, None
        if self.is_last(report) or is_due(report.step, config.evaluation.every, config.env.num_envs):
            judged = Evaluated(report.step, self._loop.evaluate(report.state))
            rows = rows + _evaluation_rows(config.seed_list, judged)
        rows = rows + self._call_callbacks(report, rows, judged)
        self._draw_augmentations_once(report)
        if judged is not None:
            self._evaluated.append(judged)
            self._keep_if_best(report)
            self._draw_now_and_then()
        diverged = self._note_diverged(report)
        for logger in self._loggers:
            logger.write(rows + diverged)
        seconds = time.perf_counter() - self._began + self._seconds
        speed = self._rates.since(report.step, report.updates, training_seconds(report.seconds))
        status = Status(report.step, report.updates, seconds, report.seconds, speed, self._score, report.state)
        tell(self._loggers, "on_report", status)
        if self._diverged.all():
            raise NotFiniteError(
                f"all seeds have diverged: {config.algorithm.max_rejected} updates in a row were not finite, up to "
                f"number {report.updates}; lower algorithm.critic_learning_rate, or set algorithm.max_grad_norm; to "
                f"look closer: ddpg-jax reproduce {self._context.directory.bundle(config.seed_list[0])}"
            )

    def checkpoint(self, report: Report, *, complete: bool = False, unrecorded: bool = False) -> Checkpoint:
        """All that the run needs to go on from a report; or with it, where `record` failed and it is untaken.

        Raises:
          StorageError: lines of the record are not on the disk, or the directory is not ours any more.
        """
        self._context.directory.check_owner()
        snapshot = report.snapshot()
        judged = bool(self._evaluated) and self._evaluated[-1].step == report.step
        for logger in self._context.loggers:
            logger.sync()
        facts = {
            "level": self._point.level,
            "complete": complete,
            "updates": report.updates,
            "config": self._config.model_dump(mode="json"),
            "changes": list(self._point.changes),
            "spec": self._loop.spec.stored(),
            "seconds": snapshot.seconds,
            "best_step": self._best_step,
            "metrics_bytes": self._metrics.sync(),
            "metrics_sha256": self._metrics.sha256,
            "timing_bytes": self._timing.sync(),
            **({"untaken": [list(row.items()) for row in report.rows]} if unrecorded else {}),  # in the order of a line
            **system_info(),
        }
        evaluated = evaluation_arrays(self._evaluated, len(self._config.seed_list))
        arrays = dict(snapshot.arrays) | evaluated | {DIVERGED: self._diverged}
        return Checkpoint(report.step, arrays, snapshot_rows(snapshot), facts, self._score if judged else None)

    def stop(self, report: Report | None) -> NoReturn:
        """Says where the run was when it was told to stop; it is saved.

        Raises:
          Interrupted: always.
        """
        raise Interrupted(
            f"interrupted after {self._point.step if report is None else report.step} of {self._config.total_steps} "
            f"steps; to go on: {resume_command(self._context.directory.path, self._config)}"
        )

    def finish(self, report: Report, save: Callable[[Callable[[], Checkpoint]], None]) -> Run:
        """Writes a last checkpoint where checkpoints are kept, then weights, picture and result of the run.

        The result is the last of it: where it is there, all of the run is on the disk.

        Raises:
          StorageError: lines of the record, or one of these, cannot be written.
        """
        config, tree = self._config, self._stored(report)
        if config.checkpoint.every:
            save(lambda: self.checkpoint(report, complete=True))
        else:
            save_weights(self._context.directory.weights, tree, self._loop.spec)  # before what may fail
            self._metrics.sync()
        figures = report.step, report.updates, report.seconds
        result = make_result(config, *figures, self._evaluated, self._diverged) | history(self._point)
        return write_end(self._context.directory, config, tree, self._loop.spec, result, self._evaluated)

    def _call_callbacks(self, report: Report, rows: list[Row], judged: Evaluated | None) -> list[Row]:
        """What the callbacks add to the record."""
        context, evaluation = self._context, None if judged is None else judged.evaluation
        figures = report.step, report.updates, tuple(rows), evaluation, report.state
        told = CallbackReport(self._config, context.directory.path, *figures, context.stop.request)
        return call(context.callbacks, told, self._config.seed_list)

    @property
    def _score(self) -> float | None:
        """The interquartile mean of the last evaluation."""
        return _score(self._evaluated[-1]) if self._evaluated else None

    def _keep_if_best(self, report: Report) -> None:
        """Keeps the weights of an evaluation that is better than all before; a failure costs these weights only."""
        scores = [_score(each) for each in self._evaluated]
        if max(scores[:-1], default=-np.inf) >= scores[-1]:
            return
        try:
            save_best(self._context.directory, report.step, self._stored(report), self._loop.spec)
            self._best_step = report.step
        except TakenError:
            raise
        except StorageError as error:
            self._context.notify(f"warning: the best weights so far cannot be kept: {error}")

    def _stored(self, report: Report) -> Tree:
        """What is stored of the learner, `[S, ...]`, on the host: each slice of a device's array is a program there."""
        return drop_padding(jax.device_get(stored_part(report.state)), len(self._config.seed_list))

    def _draw_now_and_then(self) -> None:
        """Draws the learning curve so far; not so often that it takes time from training."""
        if time.monotonic() - self._drawn < _SECONDS_BETWEEN_PICTURES:
            return
        try:
            draw_learning_curve(self._context.directory, self._config, self._evaluated, ~self._diverged)
        except StorageError as error:
            self._context.notify(f"warning: {error}; training goes on")
        self._drawn = time.monotonic()

    def _draw_augmentations_once(self, report: Report) -> None:
        """Draws a batch of the first seed before and after it is shifted, where that is asked for."""
        config, path = self._config, self._context.directory.augmentations
        if not config.logging.augmentations or not report.updates or path.exists():
            return
        batch, key = next(report.batches(0)), stream_key(run_keys(config.seed_list)[0], "augment", report.updates)
        try:
            draw_augmentations(path, config, self._loop.spec, batch, key)
        except StorageError as error:
            self._context.notify(f"warning: {error}; training goes on")

    def _note_diverged(self, report: Report) -> list[Row]:
        """Rows of the seeds that were frozen since the last report; their last good states are kept in files."""
        config, seeds = self._config, self._config.seed_list
        frozen = np.asarray(report.state.rejected)[: len(seeds)].max(1) >= config.algorithm.max_rejected
        new, self._diverged = np.flatnonzero(frozen & ~self._diverged).tolist(), frozen
        for i in new:
            state = jax.tree.map(operator.itemgetter(i), report.state)
            path = self._context.directory.bundle(seeds[i])
            try:
                same = write_bundle(path, config, self._loop.spec, seeds[i], state, report.batches(i))
                how = f"ddpg-jax reproduce {path} runs {'it' if same else 'an update (a finite one)'} again"
            except OSError as error:
                how = f"{path} cannot be written: {error}"
            self._context.notify(
                f"warning: seed {seeds[i]} has diverged and is frozen, after {config.algorithm.max_rejected} updates "
                f"in a row that were not finite and not applied; {how}"
            )
        return [{"event": "diverged", "seed": seeds[i], "step": report.step, "updates": report.updates} for i in new]


def history(point: ResumePoint) -> dict[str, Any]:
    """How a run came about, where it was not in one piece: what `result.json` says of that."""
    changed: dict[str, Any] = {"changes": list(point.changes)} if point.changes else {}
    return changed | ({} if point.level == "exact" else {"level": point.level})


def write_end(
    directory: RunDirectory,
    config: Config,
    tree: Tree,
    spec: EnvSpec,
    result: dict[str, Any],
    evaluated: list[Evaluated],
) -> Run:
    """Writes what a run leaves at its end: weights, picture, and last of all its result.

    Args:
      directory: of the run.
      config: the run.
      tree: from `stored_part`, at the end.
      spec: the environment.
      result: from `make_result`.
      evaluated: all evaluations, in order.

    Raises:
      StorageError: one of them cannot be written.
    """
    save_weights(directory.weights, tree, spec)
    kept = np.isin(config.seed_list, result["seeds"])
    draw_learning_curve(directory, config, evaluated, kept)
    directory.write_result(result)
    return Run(directory.path, config, result)


def draw_learning_curve(directory: RunDirectory, config: Config, evaluated: list[Evaluated], kept: HostArray) -> None:
    """Draws the evaluations of the seeds that are kept, bool `[S]`, if any is.

    Raises:
      StorageError: the picture cannot be written.
    """
    if kept.any():
        means = np.stack([each.evaluation.returns.mean(1)[kept] for each in evaluated])
        steps = np.array([each.step for each in evaluated])
        learning_curve(directory.learning_curve, steps, means, run_title(config))


def _score(evaluated: Evaluated) -> float:
    return interquartile_mean(evaluated.evaluation.returns.mean(1)).item()


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
            **mean_info(evaluated.evaluation, i),
        }
        for i, seed in enumerate(seeds)
    ]
