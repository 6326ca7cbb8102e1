"""A run that was interrupted: from its checkpoint to a loop that goes on, or the reason why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import dump_toml
from ddpg_jax.config.marks import Effect
from ddpg_jax.config.schema import Config
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs.checkpoints.store import Checkpoint, CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.progress import message_printer
from ddpg_jax.runs.result import system_differences
from ddpg_jax.runs.weights import as_spec, open_weights
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.factory import start
from ddpg_jax.training.recorder import Recorder, ResumePoint
from ddpg_jax.training.report import InitFn, keep_init
from ddpg_jax.training.runner import Run, drive, run_name, start_point
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.types import EnvSpec


def resume_directory(
    directory: RunDirectory, config: Config, stop: StopRequest, stack: ExitStack, console: Console | None
) -> Run:
    """Goes on in the directory of a run, from its last whole checkpoint; from its beginning where there is none.

    The run belongs to this process until the stack is closed.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: another process is running it, or nothing there can be taken up.
    """
    notify = message_printer(console)
    stack.enter_context(directory.lock())
    store = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
    found, lines = store.newest()
    for line in lines:
        notify(line)
    result = directory.read_result()
    done = int(result["env_steps_per_seed"]) if result is not None and result.get("complete") else 0
    if found is None and 0 < done < config.total_steps:
        raise StorageError(
            f"{directory.path} came to its end after {done} steps and holds no checkpoint to go on from; "
            "begin a run with --init-from"
        )
    begin = None if found is None else _begin(store.load(found), config, notify)
    step = done if begin is None else begin.step
    if step >= config.total_steps and result is not None:
        notify(f"{directory.path} is complete after {step} steps; to go on, give more --total-steps")
        return Run(directory.path, config, result)
    weights = open_weights(directory.start) if begin is None and directory.start.is_file() else None
    begin, init_learner = start_point(weights) if begin is None else (begin, keep_init)
    _refuse_end(begin, config)
    return _continue_from(config, begin, directory, store, stop, stack, console, init_learner)


def fork(
    source: RunDirectory,
    config: Config,
    step: int,
    into: str | Path,
    stop: StopRequest,
    stack: ExitStack,
    console: Console | None,
) -> Run:
    """Goes on from the checkpoint of a run after so many steps, in a new directory; otherwise as `resume_directory`.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: there is no such checkpoint, or the new directory cannot be used.
    """
    notify = message_printer(console)
    store = CheckpointStore(source.checkpoints, keep=config.checkpoint.keep)
    checkpoint = store.load(store.at(step))
    begin = _begin(checkpoint, config, notify)
    _refuse_end(begin, config)
    directory = RunDirectory.create(into, run_name(config))
    stack.enter_context(directory.lock())
    for path, size in zip((source.metrics, source.timing), begin.offsets, strict=True):
        directory.copy_start(path, size)
    own = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
    own.save(checkpoint)
    directory.write_text(directory.config, dump_toml(config))
    return _continue_from(config, begin, directory, own, stop, stack, console)


def _continue_from(
    config: Config,
    begin: ResumePoint,
    directory: RunDirectory,
    store: CheckpointStore,
    stop: StopRequest,
    stack: ExitStack,
    console: Console | None,
    init_learner: InitFn = keep_init,
) -> Run:
    notify = message_printer(console)
    checkpointer = Checkpointer(config.checkpoint, stop, begin.step, notify)
    try:
        loop = start(config, stack, begin.snapshot, checkpointer.should_save, init_learner)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StorageError(f"the checkpoint after {begin.step} steps cannot be taken up: {error!r}") from error
    if loop.restarted_episodes:
        begin = begin._replace(level="episode" if begin.level == "exact" else begin.level)
        store.forget_rows()
        notify(
            f"warning: {loop.restarted_episodes} episodes in progress did not repeat themselves to the bit and were "
            "begun anew; all else goes on exactly"
        )
    _check_spec(begin, loop.spec, config)
    notify(f"resumes after {begin.step} of {config.total_steps} steps, level {begin.level}")
    recorder = Recorder(config, loop, directory, begin, console, notify, stack)
    directory.drop_results()
    directory.write_text(directory.config, dump_toml(config))
    return drive(config, loop, directory, recorder, checkpointer, store)


def _begin(checkpoint: Checkpoint, config: Config, notify: Callable[[str], None]) -> ResumePoint:
    """What a checkpoint says of how a run goes on with a configuration; prints what differs.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: the checkpoint does not say what it is of.
    """
    facts: Mapping[str, Any] = checkpoint.facts
    try:
        before = Config.model_validate(facts["config"])
        level, earlier = str(facts["level"]), tuple(map(str, facts["changes"]))
        sum(map(float, facts["seconds"].values()), float(facts["updates"]))
        len(ResumePoint(checkpoint).unrecorded or ())
        otherwise = system_differences(facts, single_device=config.max_devices == 1)
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise StorageError(f"the checkpoint's description cannot be read: {error}") from error
    changes = compare(before, config)
    refused = [change for change in changes if change.effect is Effect.STRUCTURAL]
    if refused:
        lines = "\n  ".join(map(str, refused[:10]))
        raise ConfigError(
            f"the run cannot go on with another structure:\n  {lines}\nset these back, or begin a run with --init-from"
        )
    for change in changes:
        warned = change.effect is Effect.LEARNING
        notify(f"{'warning: ' if warned else ''}changed: {change}{', so the run learns otherwise' if warned else ''}")
    for line in otherwise:
        notify(line)
    learning = tuple(str(change) for change in changes if change.effect is Effect.LEARNING)
    return ResumePoint(checkpoint, level, (*earlier, *(f"at step {checkpoint.step}: {each}" for each in learning)))


def _check_spec(begin: ResumePoint, spec: EnvSpec, config: Config) -> None:
    """Refuses a checkpoint of an environment that looked otherwise, though it is called the same."""
    before = spec if begin.checkpoint is None else as_spec(begin.checkpoint.facts["spec"])
    differing = [name for name in EnvSpec._fields if getattr(before, name) != getattr(spec, name)]
    if differing:
        lines = "\n  ".join(f"{name}: {getattr(before, name)} -> {getattr(spec, name)}" for name in differing)
        raise ConfigError(f"env.id={config.env.id!r} is not what it was when the run was saved:\n  {lines}")


def _refuse_end(begin: ResumePoint, config: Config) -> None:
    last = config.total_steps + (
        0 if begin.unrecorded is None else config.env.num_envs
    )  # its end is still to be judged
    if begin.step >= last:
        raise ConfigError(
            f"total_steps={config.total_steps}, but the run is at step {begin.step} already: give more --total-steps, "
            "or take up an earlier checkpoint with --from"
        )
