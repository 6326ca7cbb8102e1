"""What is kept of a sweep in progress: rows, the ranking, checkpoints; and how a checkpoint of it is read back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config.load import dump_toml
from ddpg_jax.config.schema import with_values
from ddpg_jax.config.stored import BEFORE
from ddpg_jax.errors import EnvironmentFault, Interrupted, StorageError, printable
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.rows import snapshot_rows
from ddpg_jax.runs.documents import SweepFacts, validate
from ddpg_jax.runs.loggers.jsonl import JsonLines
from ddpg_jax.runs.loggers.logger import RateMeter, Start, Status, tell
from ddpg_jax.runs.plots import ranking
from ddpg_jax.runs.result import provenance, system_differences, system_info
from ddpg_jax.training.callbacks import CallbackReport, call
from ddpg_jax.training.context import NotifyFn, RunContext
from ddpg_jax.training.report import training_seconds
from ddpg_jax.training.resume_point import POPULATION, RANKING, ResumePoint
from ddpg_jax.training.schedule import is_due
from ddpg_jax.training.sweep.grid import Sweep
from ddpg_jax.training.sweep.lanes import Copies, Evolution, LaneBatch, SweepPosition, SweepReport
from ddpg_jax.training.sweep.population import Population, PopulationPlan, lane_copies
from ddpg_jax.training.sweep.ranking import Ranking
from ddpg_jax.types import Row

LAST_SECONDS = 3.0
"""How long a stop waits, at most, for an evaluation: most end sooner, and need not be made again."""


class SweepRun(NamedTuple):
    """A sweep that was run, to its end or until it was told to stop.

    Attributes:
      directory: where its files are: `sweep.toml`, `result.json`, `metrics.jsonl`, `ranking.png`, `best.toml`.
      result: what `result.json` holds.
    """

    directory: Path
    result: dict[str, Any]


class SweepRecorder:
    """The record and the ranking of a sweep; they are closed with the stack of the context.

    Args:
      sweep: what is run.
      point: what it goes on from.
      context: where it is.

    Raises:
      StorageError: the record cannot be opened or is shorter than it was, or the checkpoint is of another sweep.
    """

    def __init__(self, sweep: Sweep, point: ResumePoint, context: RunContext) -> None:
        self._sweep, self._context = sweep, context
        self._ranking = Ranking(sweep, point.ranking)
        record = JsonLines(
            context.directory.metrics, point.metrics_bytes, warn=context.notify, sha256=point.metrics_sha256
        )
        self._record = context.stack.enter_context(closing(record))
        self._population = None if sweep.population is None else self._open_population(sweep.population, point)
        self._earlier, self._began = sum(point.seconds.values()), time.perf_counter()
        self._rates = RateMeter(1)
        self._heard: float | None = None

    def begin(self, batch: LaneBatch, step: int, updates: int) -> None:
        """Shows the lanes that are about to run, or to go on after so many steps and updates of each."""
        self._rates = RateMeter(len(batch.lanes), step, updates)
        seeds = tuple(batch.config.seed_list[seed] for _, seed in batch.lanes)
        title = f"{len(batch.lanes)} lanes of {batch.config.env.id}"
        start = Start(self._context.directory.path, title, batch.config.total_steps, seeds, step)
        tell(self._context.loggers, "on_start", start)

    def _open_population(self, plan: PopulationPlan, point: ResumePoint) -> Population:
        path, warn, facts = self._context.directory.lineage, self._context.notify, point.metadata
        lineage = JsonLines(path, int(facts.get("lineage_bytes", 0)), warn=warn, sha256=facts.get("lineage_sha256"))
        self._context.stack.enter_context(closing(lineage))
        return Population(plan, self._sweep.combinations, lineage, path, point.population)

    def evolution(self, batch: LaneBatch) -> Evolution | None:
        """How lanes of a population copy each other; None: it is none."""
        plan, population = self._sweep.population, self._population
        if plan is None or population is None:
            return None
        return Evolution(partial(population.hyper, batch), partial(self._exploit, batch), plan.config.replay)

    def _exploit(self, batch: LaneBatch, step: int) -> Copies | None:
        """The lanes that go on from others after so many steps; None: none does.

        All that comes of it is a function of what was recorded there and saved, so a sweep that goes on from a
        checkpoint at that step does the same.
        """
        plan = self._sweep.population
        if plan is None or self._population is None or not plan.is_due(step, batch.config):
            return None
        parents = self._population.exploit(step, self._ranking.scores())
        self._ranking.take(parents)
        copies = lane_copies(batch.lanes, batch.size, parents)
        if plan.config.replay:
            self._context.store.forget_rows()  # those of the children are others now
        return copies if len(copies.children) else None

    def is_last(self, report: SweepReport) -> bool:
        """Whether the last lanes are at their end."""
        return report.batch.ends and report.ends_batch

    def must_save(self, report: SweepReport) -> bool:
        """Whether lanes are at their end, which would else have to be run again."""
        return report.ends_batch

    def record(self, report: SweepReport) -> None:
        """Records what the lanes did, evaluates them where that is due, and shows figures.

        Raises:
          Interrupted: evaluating them would take longer than a stop may wait; nothing is recorded.
        """
        batch, told = report.batch, report.report
        self._ranking.mark_failed(report)
        rows = report.rows + (self._evaluate(report) if self._is_judged(report) else [])
        rows = rows + self._call_callbacks(report, rows)
        self._record.write([row for row in rows if _is_finite(row)])
        speed = self._rates.since(told.step, told.updates, training_seconds(told.seconds))
        figures = self._seconds, told.seconds, speed, self._ranking.median(batch), told.state
        tell(self._context.loggers, "on_report", Status(told.step, told.updates, *figures))

    def _call_callbacks(self, report: SweepReport, rows: list[Row]) -> list[Row]:
        """What the callbacks add to the record, a row for each lane."""
        batch, seen, context = report.batch, report.report, self._context
        figures = seen.step, seen.updates, tuple(rows), None, seen.state
        told = CallbackReport(batch.config, context.directory.path, *figures, context.stop.request)
        found = call(context.callbacks, told, [batch.config.seed_list[seed] for _, seed in batch.lanes])
        return [{"combination": number, **row} for (number, _), row in zip(batch.lanes, found, strict=False)]

    def checkpoint(self, report: SweepReport, *, unrecorded: bool = False) -> Checkpoint:
        """All that the sweep needs to go on from a report; or with it, where `record` failed and it is untaken.

        Raises:
          StorageError: lines of the record are not on the disk.
        """
        untaken = [list(row.items()) for row in report.rows if _is_finite(row)]  # in the order of a line
        self._context.directory.check_owner()
        kept = report.report.snapshot()
        reached = {f"{RANKING}{name}": x for name, x in self._ranking.arrays.items()}
        if self._population is not None:
            reached |= {f"{POPULATION}{path}": x for path, x in self._population.arrays.items()}
        facts = {
            "level": "exact",
            "sweep": identify(self._sweep),
            "position": list(report.batch.position),
            "before": report.before,
            "seconds": self._seconds,
            "metrics_bytes": self._record.sync(),
            "metrics_sha256": self._record.sha256,
            **({} if self._population is None else self._population.sync()),
            **({"untaken": untaken} if unrecorded else {}),
            **system_info(),
        }
        return Checkpoint(report.step, dict(kept.arrays) | reached, snapshot_rows(kept), facts)

    def stop(self, report: SweepReport | None) -> SweepRun:
        """Judges what the lanes have reached, for the ranking only: the sweep goes on from what was saved.

        Where that takes longer than a stop may wait, the ranking shows what was judged last.
        """
        if report is not None and not (report.due and self._is_judged(report)):
            self._ranking.mark_failed(report)
            with suppress(Interrupted):
                self._evaluate(report)
        return self._write()

    def finish(self, report: SweepReport, save: Callable[[Callable[[], Checkpoint]], None]) -> SweepRun:
        """Writes the result; the checkpoints of a complete sweep are removed.

        Raises:
          EnvironmentFault: the environment was at fault in every combination.
          StorageError: lines of the record, or the result, cannot be written.
        """
        self._record.sync()
        if self._population is not None:
            self._population.sync()
        return self._write()

    @property
    def _seconds(self) -> float:
        """Spent on the sweep so far."""
        return self._earlier + time.perf_counter() - self._began

    def _is_judged(self, report: SweepReport) -> bool:
        config = report.batch.config
        return report.ends_batch or is_due(report.report.step, config.evaluation.every, config.env.num_envs)

    def _must_leave(self) -> bool:
        """Whether a stop was heard so long ago that no evaluation is waited for."""
        now = time.monotonic()
        if self._heard is None and self._context.stop.requested:
            self._heard = now
        return self._heard is not None and now - self._heard > LAST_SECONDS

    def _evaluate(self, report: SweepReport) -> list[Row]:
        return self._ranking.record_evaluation(report.batch, report.report.step, report.told.evaluate(self._must_leave))

    def _write(self) -> SweepRun:
        """Writes the result, its picture, and, where all is complete, the configuration of the best combination."""
        directory, sweep = self._context.directory, self._sweep
        came_about = provenance(sweep.source) | system_info()
        settings = sweep.combinations if self._population is None else self._population.settings
        result: dict[str, Any] = {**self._ranking.result(settings), "seconds": self._seconds, **came_about}
        ranked = [each for each in result["combinations"] if each["interquartile_mean"] is not None]
        best = ranked[0]["combination"] if ranked and result["complete"] else None
        if self._population is not None:
            result["importance"] = {}  # of the settings at its end, which many members have from one
            result["population"] = self._population.result(best)
        if best is not None:
            config = with_values(sweep.configs[best], {} if self._population is None else settings[best])
            directory.write_text(directory.path / "best.toml", dump_toml(config))
        if ranked:
            title = f"{sweep.configs[0].env.id}, {len(sweep.combinations)} combinations"
            ranking(directory.path / "ranking.png", ranked, title, result["importance"])
        directory.write_result(result)
        if result["complete"]:
            directory.drop_checkpoints()
        if all(entry["faulty_seeds"] for entry in result["combinations"]):
            raise EnvironmentFault(
                f"env.id={sweep.configs[0].env.id!r}: observations or rewards were not finite, in every combination"
            )
        return SweepRun(directory.path, result)


def sweep_point(checkpoint: Checkpoint, sweep: Sweep, notify: NotifyFn) -> ResumePoint:
    """What a checkpoint says of where the sweep was; prints what is not as it was then.

    Raises:
      StorageError: it is of another sweep, or does not say where it was.
    """
    facts, point = checkpoint.facts, ResumePoint(checkpoint)
    validate(SweepFacts, facts, "the checkpoint's description")
    if facts["position"][0] >= len(sweep.groups):
        raise StorageError(f"the checkpoint's description cannot be read: there is no turn {facts['position']}")
    lines = system_differences(facts)
    if facts.get("sweep") != identify(sweep):
        raise StorageError("the checkpoint is of another sweep: sweep.toml was changed; bring it back")
    for line in lines:
        notify(printable(line))
    return point


def position(point: ResumePoint) -> SweepPosition | None:
    """The turn that was in progress; None: none was."""
    return None if point.checkpoint is None else SweepPosition(*map(int, point.metadata["position"]))


def identify(sweep: Sweep) -> str:
    """The SHA-256 of all that a sweep computes; how often it is saved does not count.

    Neither does `env.value_range`, which earlier versions had not: what comes of it are `v_min` and `v_max`. Nor do
    other fields that they had not, where they say nothing or what those versions did.
    """
    apart: Any = {"checkpoint": True, "env": {"value_range"}, "logging": _LATER["logging"]}
    configs = [_without_later(config.model_dump(mode="json", exclude=apart)) for config in sweep.configs]
    more: list[Any] = [] if sweep.population is None else [sweep.population.stored()]
    more += [] if sweep.start is None else [sweep.start.model_dump(mode="json")]
    told = json.dumps([configs, sweep.combinations, *more], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


_LATER: dict[str, set[str]] = {
    "env": {"wrappers", "action_range", "max_instances", "info_keys", "pixels"},
    "algorithm": {
        "make_agent",
        "make_networks",
        "kwargs",
        "scale_rewards",
        "memory",
        "encoder",
        "joint_batch",
        "return_limit",
        "action_penalty",
    },
    "exploration": {"hold"},
    "logging": {"augmentations", "loggers", "callbacks", "sinks"},
}
"""Fields that came after sweeps were first kept, by section; when they say nothing they are empty."""


def _without_later(values: dict[str, Any]) -> dict[str, Any]:
    return {
        section: {
            field: x
            for field, x in table.items()
            if (x or field not in _LATER.get(section, ())) and not _says_what_was(field, x, table)
        }
        if isinstance(table, dict)
        else table
        for section, table in values.items()
    }


def _says_what_was(field: str, value: Any, table: Mapping[str, Any]) -> bool:
    """Whether a field of what normalises observations, projects weights or fades, means what was done without it."""
    normalizes = field in BEFORE and (value == BEFORE[field] or not table["normalize_observations"])
    fades = field in ("fade", "fade_floor") and table["fade"] == 1
    return normalizes or fades or (field == "project_weights" and value)


def _is_finite(row: Row) -> bool:
    return all(np.isfinite(value) for value in row.values() if isinstance(value, float))
