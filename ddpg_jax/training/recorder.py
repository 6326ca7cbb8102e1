"""What a run leaves behind while it goes on: rows, evaluations, figures on the terminal, checkpoints of all that."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from ddpg_jax.errors import NotFiniteError
from ddpg_jax.runs.checkpoints.rows import snapshot_rows
from ddpg_jax.runs.checkpoints.store import Checkpoint
from ddpg_jax.runs.failed_update import write_bundle
from ddpg_jax.runs.loggers.jsonl import JsonLines
from ddpg_jax.runs.loggers.logger import Sink
from ddpg_jax.runs.loggers.progress import ProgressDisplay, Status, rates
from ddpg_jax.runs.loggers.tensorboard import TensorBoard
from ddpg_jax.runs.result import Evaluated, system_info
from ddpg_jax.runs.statistics import interquartile_mean
from ddpg_jax.training.report import Report
from ddpg_jax.training.schedule import is_due
from ddpg_jax.types import Evaluation, HostArray, Row, Snapshot

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.training.report import Loop

_EVALUATIONS, _DIVERGED = "evaluations", "diverged"


class ResumePoint(NamedTuple):
    """What a run goes on from.

    Attributes:
      checkpoint: all that was kept; None: nothing, it begins at the beginning.
      level: of resumption so far: "exact", or "episode" where an environment did not repeat itself, or "weights".
      changes: how its configuration was changed, over all times it was resumed.
    """

    checkpoint: Checkpoint | None = None
    level: str = "exact"
    changes: tuple[str, ...] = ()

    @property
    def snapshot(self) -> Snapshot | None:
        """Where the loop was."""
        if self.checkpoint is None:
            return None
        rows = self.checkpoint.rows
        return Snapshot(
            {name: x for name, x in self.checkpoint.arrays.items() if not name.startswith((_EVALUATIONS, _DIVERGED))},
            rows.first,
            rows.stop,
            rows.read,
            {str(name): float(spent) for name, spent in self.checkpoint.facts["seconds"].items()},
            self.unrecorded,
        )

    @property
    def unrecorded(self) -> list[Row] | None:
        """The rows of the report that the checkpoint is at, where its evaluation failed."""
        rows: Any = None if self.checkpoint is None else self.checkpoint.facts.get("untaken")
        return None if rows is None else [dict(row) for row in rows]

    @property
    def evaluated(self) -> list[Evaluated]:
        """The evaluations so far."""
        if self.checkpoint is None:
            return []
        arrays = self.checkpoint.arrays
        steps, cuts = arrays[f"{_EVALUATIONS}/step"].tolist(), np.cumsum(arrays[f"{_EVALUATIONS}/episodes"])[:-1]
        parts = [np.split(arrays[f"{_EVALUATIONS}/{name}"], cuts, axis=1) for name in Evaluation._fields]
        return [Evaluated(step, Evaluation(*(part[i] for part in parts))) for i, step in enumerate(steps)]

    def diverged(self, seeds: int) -> HostArray:
        """Which seeds were frozen, bool `[S]`."""
        none = np.zeros(seeds, bool)
        return none if self.checkpoint is None else self.checkpoint.arrays.get(_DIVERGED, none)

    @property
    def offsets(self) -> tuple[int, int]:
        """Sizes of the record and of the timing, in bytes, when it was saved."""
        facts: Any = {} if self.checkpoint is None else self.checkpoint.facts
        return int(facts.get("metrics_bytes", 0)), int(facts.get("timing_bytes", 0))

    @property
    def step(self) -> int:
        """Environment steps of each seed."""
        return 0 if self.checkpoint is None else self.checkpoint.step


class Recorder:
    """The open files and the display of a run; they are closed with the stack.

    Args:
      config: the run.
      loop: what is run.
      directory: where its files are.
      begin: what it goes on from; what was recorded after that is cut off.
      console: where progress is shown.
      notify: prints a line of warning.
      stack: closes everything.

    Raises:
      StorageError: a file of the record cannot be opened, or is shorter than it was.
    """

    def __init__(
        self,
        config: Config,
        loop: Loop,
        directory: RunDirectory,
        begin: ResumePoint,
        console: Console | None,
        notify: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._config, self._loop, self._begin, self._directory, self._say = config, loop, begin, directory, notify
        self._diverged = begin.diverged(len(config.seed_list))
        self.evaluated = begin.evaluated
        metrics_bytes, timing_bytes = begin.offsets
        self._metrics = stack.enter_context(closing(JsonLines(directory.metrics, metrics_bytes, warn=notify)))
        self._timing = stack.enter_context(closing(JsonLines(directory.timing, timing_bytes, warn=notify)))
        self._sinks: list[Sink] = [self._metrics]
        self._board: TensorBoard | None = None
        if config.logging.tensorboard:
            purge = None if begin.checkpoint is None else begin.step + (begin.unrecorded is None)
            self._board = stack.enter_context(closing(TensorBoard(directory.tensorboard, purge, warn=notify)))
            self._sinks.append(self._board)
        display = ProgressDisplay(console or Console(quiet=True), config.total_steps, len(config.seed_list))
        self._progress = stack.enter_context(display)
        self._began, self._before, self._episode_return = time.perf_counter(), None, None
        self._seconds = sum(begin.snapshot.seconds.values()) if begin.snapshot else 0.0

    def record(self, report: Report) -> None:
        """Records a report that was due: evaluates where it is due, writes the rows, and shows figures.

        Raises:
          NotFiniteError: the critics' value is not finite.
          EnvironmentFault: an environment failed in the evaluation.
        """
        config, rows, seeds = self._config, report.rows, self._config.seed_list
        if report.step >= config.total_steps or is_due(report.step, config.evaluation.every, config.env.num_envs):
            self.evaluated.append(Evaluated(report.step, self._loop.evaluate(report.state)))
            rows = rows + _evaluation_rows(seeds, self.evaluated[-1])
        diverged = self._note_diverged(report)
        rows = rows + diverged
        for sink in self._sinks:
            sink.write(rows)
        speed = self._rates(report)
        seconds = time.perf_counter() - self._began + self._seconds
        self._timing.write(
            [{"step": report.step, "updates": report.updates, "seconds": seconds, **report.seconds, **speed}]
        )
        if self._board is not None:
            self._board.write([{"event": "rate", "seed": seed, "step": report.step, **speed} for seed in seeds])
        self._episode_return = _mean_return(rows, self._episode_return)
        self._progress.show(Status(report.step, speed, self._episode_return, self.score))
        self._progress.warn(rows)
        if self._diverged.all():
            raise NotFiniteError(
                f"all seeds have diverged: {config.algorithm.max_rejected} updates in a row were not finite, up to "
                f"number {report.updates}; lower algorithm.critic_learning_rate, or set algorithm.max_grad_norm; to "
                f"look closer: ddpg-jax reproduce {self._directory.bundle(seeds[0])}"
            )

    @property
    def diverged(self) -> HostArray:
        """Which seeds are frozen, bool `[S]`."""
        return self._diverged

    def _note_diverged(self, report: Report) -> list[Row]:
        """Rows of the seeds that were frozen since the last report; their last good states are kept in files."""
        config, seeds = self._config, self._config.seed_list
        frozen = np.asarray(report.state.rejected)[: len(seeds)].max(1) >= config.algorithm.max_rejected
        new, self._diverged = np.flatnonzero(frozen & ~self._diverged).tolist(), frozen
        for i in new:
            state = jax.tree.map(operator.itemgetter(i), report.state)
            path = self._directory.bundle(seeds[i])
            try:
                same = write_bundle(path, config, self._loop.spec, seeds[i], state, report.batches(i))
                how = f"ddpg-jax reproduce {path} runs {'it' if same else 'an update (a finite one)'} again"
            except OSError as error:
                how = f"{path} cannot be written: {error}"
            self._say(
                f"warning: seed {seeds[i]} has diverged and is frozen, after {config.algorithm.max_rejected} updates "
                f"in a row that were not finite and not applied; {how}"
            )
        return [{"event": "diverged", "seed": seeds[i], "step": report.step, "updates": report.updates} for i in new]

    @property
    def history(self) -> dict[str, Any]:
        """How the run came about, where it was not in one piece: what `result.json` says of that."""
        begin = self._begin
        changed: dict[str, Any] = {"changes": list(begin.changes)} if begin.changes else {}
        return changed | ({} if begin.level == "exact" else {"level": begin.level})

    @property
    def score(self) -> float | None:
        """The interquartile mean of the last evaluation."""
        return interquartile_mean(self.evaluated[-1].evaluation.returns.mean(1)).item() if self.evaluated else None

    def checkpoint(self, report: Report, *, complete: bool = False, unrecorded: bool = False) -> Checkpoint:
        """All that the run needs to go on from a report; or with it, where `record` failed and it is untaken.

        Raises:
          StorageError: lines of the record are not on the disk.
        """
        snapshot = report.snapshot()
        judged = bool(self.evaluated) and self.evaluated[-1].step == report.step
        facts = {
            "level": self._begin.level,
            "complete": complete,
            "updates": report.updates,
            "config": self._config.model_dump(mode="json"),
            "changes": list(self._begin.changes),
            "spec": self._loop.spec._asdict(),
            "seconds": snapshot.seconds,
            "metrics_bytes": self._metrics.sync(),
            "timing_bytes": self._timing.sync(),
            **({"untaken": [list(row.items()) for row in report.rows]} if unrecorded else {}),  # in the order of a line
            **system_info(),
        }
        arrays = dict(snapshot.arrays) | _as_arrays(self.evaluated, self._config) | {_DIVERGED: self._diverged}
        rows = snapshot_rows(snapshot)
        return Checkpoint(report.step, arrays, rows, facts, self.score if judged else None)

    def _rates(self, report: Report) -> dict[str, float]:
        """Rates of training, compiling apart, since the report before; where a run begins with one, of all of it."""
        spent, (before, self._before) = dict(report.seconds), (self._before, report)
        step, updates, past = 0, 0, dict[str, float]()
        if before is not None:
            step, updates, past = before.step, before.updates, before.seconds
        elif self._begin.checkpoint is not None and self._begin.snapshot is not None and report.step > self._begin.step:
            step, past = self._begin.step, self._begin.snapshot.seconds
            updates = int(self._begin.checkpoint.facts["updates"])
        phases = [phase for phase in spent if phase != "compile"]
        seconds = sum(spent[phase] - past.get(phase, 0.0) for phase in phases)
        return rates(report.step - step, report.updates - updates, seconds, len(self._config.seed_list))


def _as_arrays(evaluated: list[Evaluated], config: Config) -> dict[str, HostArray]:
    """Side by side, `[S, episodes of all]`, as their number may be another after a resume."""
    found: dict[str, HostArray] = {
        f"{_EVALUATIONS}/step": np.array([each.step for each in evaluated], np.int64),
        f"{_EVALUATIONS}/episodes": np.array([each.evaluation.returns.shape[1] for each in evaluated], np.int64),
    }
    for name in Evaluation._fields:
        each = [np.asarray(getattr(e.evaluation, name)) for e in evaluated]
        found[f"{_EVALUATIONS}/{name}"] = np.concatenate(each, 1) if each else np.zeros((len(config.seed_list), 0))
    return found


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


def _mean_return(rows: list[Row], otherwise: float | None) -> float | None:
    returns = [row["episode_return"] for row in rows if "episode_return" in row]
    return float(np.mean(returns)) if returns else otherwise
