"""A sweep run: every combination and seed a lane of one program, in turns where memory does not hold them all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tomli_w
from rich.console import Console

from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import dump_toml
from ddpg_jax.envs.factory import device_env
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.jsonl import JsonLines
from ddpg_jax.runs.loggers.progress import ProgressDisplay, Status, message_printer, rates
from ddpg_jax.runs.plots import ranking
from ddpg_jax.runs.result import system_info
from ddpg_jax.training.device.loop import Chunk, device_loop, lane_rows
from ddpg_jax.training.device.snapshot import DeviceCarry, restore
from ddpg_jax.training.report import keep_init
from ddpg_jax.training.schedule import is_due
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.training.sweep.batches import LaneBatch, lane_batches
from ddpg_jax.training.sweep.checkpoint import SweepCheckpointer, SweepResumePoint, load_sweep_resume_point
from ddpg_jax.training.sweep.grid import Sweep, load_sweep
from ddpg_jax.training.sweep.ranking import Ranking
from ddpg_jax.types import DeviceEnv, Snapshot
from ddpg_jax.xla.process import make_core_devices


class SweepRun(NamedTuple):
    """A sweep that was run, to its end or until it was told to stop.

    Attributes:
      directory: where its files are: `sweep.toml`, `result.json`, `metrics.jsonl`, `ranking.png`, `best.toml`.
      result: what `result.json` holds.
    """

    directory: Path
    result: dict[str, Any]


def run_sweep(
    sweep: Sweep,
    run_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: Literal["never", "auto"] = "never",
    console: Console | None = None,
) -> SweepRun:
    """Trains every combination with every seed and ranks the combinations by their final evaluations.

    A lane whose numbers stop being finite is marked, ranks last, and does not disturb the others. Ctrl-C, SIGTERM and
    SIGUSR1 end the sweep within about a second, with a checkpoint from which `resume_sweep` goes on to the bit and a
    ranking of what was reached; a second Ctrl-C ends it at once. The last checkpoints are removed when it is complete.

    Args:
      sweep: from `load_sweep`.
      run_dir: where its files go; None: a new directory under `runs/`.
      overwrite: whether the files of an earlier run there may be removed.
      resume: "auto": where the directory holds this sweep, it goes on, as a cluster starts the same command again.
      console: where progress is shown; None: nowhere.

    Raises:
      ConfigError: the environment is not one written in JAX, not even one lane fits into memory, or another sweep is in
        the directory.
      EnvironmentFault: an environment cannot be made, or reported numbers that are not finite in every combination.
      StorageError: the directory cannot be used, or too many checkpoints failed.
    """
    envs = _environments(sweep)
    if resume == "auto" and run_dir is not None and RunDirectory(run_dir).sweep.is_file():
        directory = RunDirectory.open(run_dir, of="sweep")
        _refuse_another(sweep, load_sweep(directory.sweep), directory)
        return _resumed(sweep, envs, directory, console)
    name = f"{sweep.configs[0].env.id.rpartition(':')[-1]}_sweep"
    directory = RunDirectory.create(run_dir, name, overwrite=overwrite)
    with ExitStack() as stack:
        stack.enter_context(directory.lock())
        directory.write_text(directory.sweep, tomli_w.dumps(sweep.source))
        store = CheckpointStore(directory.checkpoints, keep=sweep.configs[0].checkpoint.keep)
        return _drive(sweep, envs, directory, store, SweepResumePoint(), console, stack)


def resume_sweep(run_dir: str | Path, console: Console | None = None) -> SweepRun:
    """Takes a sweep up where its last whole checkpoint is, and brings it to its end.

    Its record and its ranking end as if nothing had happened; a sweep without a checkpoint begins at its beginning.

    Args:
      run_dir: directory of the sweep.
      console: where progress is shown; None: nowhere.

    Raises:
      StorageError: there is no sweep, or another process is running it.
      ConfigError: as in `run_sweep`, and so are the others.
    """
    directory = RunDirectory.open(run_dir, of="sweep")
    sweep = load_sweep(directory.sweep)
    return _resumed(sweep, _environments(sweep), directory, console)


def _environments(sweep: Sweep) -> list[DeviceEnv]:
    """Of each group, after the devices were made that they are compiled for."""
    for group in sweep.groups:
        if not group.config.on_device:
            raise ConfigError(
                f"a sweep runs environments written in JAX, as jax:pendulum; env.id={group.config.env.id!r} is not one"
            )
    make_core_devices()
    return [device_env(group.config) for group in sweep.groups]


def _refuse_another(sweep: Sweep, before: Sweep, directory: RunDirectory) -> None:
    """Refuses to go on with a sweep that is not the one asked for; how often it is saved may differ."""
    if sweep.combinations != before.combinations:
        raise ConfigError(f"{directory.path} holds a sweep of other combinations; name another --run-dir")
    for old, new in zip(before.configs, sweep.configs, strict=True):
        changes = [change for change in compare(old, new) if not change.path.startswith("checkpoint.")]
        if changes:
            lines = "\n  ".join(map(str, changes[:10]))
            raise ConfigError(
                f"{directory.path} holds another sweep:\n  {lines}\nset these back, or name another --run-dir"
            )


def _resumed(sweep: Sweep, envs: Sequence[DeviceEnv], directory: RunDirectory, console: Console | None) -> SweepRun:
    """Goes on in the directory of a sweep."""
    notify = message_printer(console)
    with ExitStack() as stack:
        stack.enter_context(directory.lock())
        result = directory.read_result()
        if result is not None and result.get("complete"):
            notify(f"{directory.path} is complete")
            return SweepRun(directory.path, result)
        store = CheckpointStore(directory.checkpoints, keep=sweep.configs[0].checkpoint.keep)
        found, lines = store.newest()
        for line in lines:
            notify(line)
        begun = SweepResumePoint() if found is None else load_sweep_resume_point(store.load(found), sweep, notify)
        notify(f"resumes after {0 if begun.checkpoint is None else begun.checkpoint.step} steps, all turns added up")
        directory.drop_results()
        return _drive(sweep, envs, directory, store, begun, console, stack)


def _drive(
    sweep: Sweep,
    envs: Sequence[DeviceEnv],
    directory: RunDirectory,
    store: CheckpointStore,
    begun: SweepResumePoint,
    console: Console | None,
    stack: ExitStack,
) -> SweepRun:
    """Runs the turns that are left, and writes what was reached."""
    notify, quiet = message_printer(console), console or Console(quiet=True)
    board = begun.board(sweep)
    record = stack.enter_context(closing(JsonLines(directory.metrics, begun.metrics_bytes, warn=notify)))
    stop = stack.enter_context(StopRequest())
    checkpointer = SweepCheckpointer(sweep, store, stop, board, record, begun, notify)
    resumed = begun.snapshot
    for batch in lane_batches(sweep.groups, envs, quiet, begun.position):
        if stop.requested:  # while it compiled
            break
        _run_turn(batch, resumed, board, record, checkpointer, stop, quiet)
        resumed = None
    result: dict[str, Any] = {**board.result(), "seconds": checkpointer.seconds, **system_info()}
    _write(directory, sweep, result)
    if all(entry["faulty_seeds"] for entry in result["combinations"]):
        raise EnvironmentFault(
            f"env.id={sweep.configs[0].env.id!r}: observations or rewards were not finite, in every combination"
        )
    return SweepRun(directory.path, result)


def _write(directory: RunDirectory, sweep: Sweep, result: dict[str, Any]) -> None:
    """Writes the result, its picture, and the configuration of the best combination if all were run to their end."""
    ranked = [each for each in result["combinations"] if each["interquartile_mean"] is not None]
    if ranked and result["complete"]:
        directory.write_text(directory.path / "best.toml", dump_toml(sweep.configs[ranked[0]["combination"]]))
    if ranked:
        title = f"{sweep.configs[0].env.id}, {len(sweep.combinations)} combinations"
        ranking(directory.path / "ranking.png", ranked, title)
    directory.write_result(result)
    if result["complete"]:
        directory.drop_checkpoints()


def _run_turn(
    batch: LaneBatch,
    resumed: Snapshot | None,
    board: Ranking,
    record: JsonLines,
    checkpointer: SweepCheckpointer,
    stop: StopRequest,
    console: Console,
) -> None:
    """Trains the lanes of a turn to their end; where a stop is requested, saves them and judges what they reached."""
    config, compiled = batch.config, batch.compiled
    keys, hyper = compiled.shard((batch.keys, batch.hyper))
    begun = keep_init if resumed is None else restore(compiled, resumed, len(batch.lanes))
    last = (
        (begun.iteration * config.env.num_envs, begun.updates, 0.0) if isinstance(begun, DeviceCarry) else (0, 0, 0.0)
    )

    def evaluated(chunk: Chunk) -> list[dict[str, Any]]:
        return board.evaluated(batch, chunk.step, np.asarray(compiled.evaluate(chunk.learner, hyper).returns))

    with ProgressDisplay(console, config.total_steps, len(batch.lanes)) as progress:
        for chunk in device_loop(config, compiled, keys, hyper, begun, checkpointer.should_save):
            judged = is_due(chunk.step, config.evaluation.every, config.env.num_envs)
            judged = chunk.due and (judged or chunk.step >= config.total_steps)
            if chunk.due:
                board.mark_failed(batch, chunk)
                rows = [
                    {"combination": number, **row}
                    for i, (number, seed) in enumerate(batch.lanes)
                    for row in lane_rows(chunk, i, config.seed_list[seed])
                ]
                rows += evaluated(chunk) if judged else []
                record.write([row for row in rows if _is_finite(row)])
                progress.show(Status(chunk.step, _rates(chunk, last, len(batch.lanes)), None, board.median(batch)))
                last = chunk.step, chunk.updates, chunk.seconds
            if stop.requested:
                checkpointer.save_now(batch, chunk)
                if not judged:  # for the ranking only: the sweep goes on from what was saved
                    board.mark_failed(batch, chunk)
                    evaluated(chunk)
                break
            if checkpointer.should_save(chunk.step) or (chunk.step >= config.total_steps and not batch.ends):
                checkpointer.save(batch, chunk)
    checkpointer.ended(batch)


def _rates(chunk: Chunk, last: tuple[int, int, float], lanes: int) -> dict[str, float]:
    """Since the steps, updates and seconds of the report before."""
    step, updates, seconds = last
    return rates(chunk.step - step, chunk.updates - updates, chunk.seconds - seconds, lanes)


def _is_finite(row: dict[str, Any]) -> bool:
    return all(np.isfinite(value) for value in row.values() if isinstance(value, float))
