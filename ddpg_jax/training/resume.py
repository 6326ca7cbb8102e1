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
from ddpg_jax.runs.loggers.progress import speaker
from ddpg_jax.runs.result import other_environment
from ddpg_jax.runs.weights import as_spec, open_weights
from ddpg_jax.training.checkpointer import Saver
from ddpg_jax.training.factory import start
from ddpg_jax.training.recorder import Begin, Record
from ddpg_jax.training.report import BeginFn, as_made
from ddpg_jax.training.runner import Run, drive, fresh, run_name
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.types import EnvSpec


def go_on(directory: RunDirectory, config: Config, stop: StopRequest, stack: ExitStack, console: Console | None) -> Run:
    """Goes on in the directory of a run, from its last whole checkpoint; from its beginning where there is none.

    The run belongs to this process until the stack is closed.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: another process is running it, or nothing there can be taken up.
    """
    say = speaker(console)
    stack.enter_context(directory.own())
    store = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
    found, lines = store.newest()
    for line in lines:
        say(line)
    result = directory.read_result()
    done = int(result["env_steps_per_seed"]) if result is not None and result.get("complete") else 0
    if found is None and 0 < done < config.total_steps:
        raise StorageError(
            f"{directory.path} came to its end after {done} steps and holds no checkpoint to go on from; "
            "begin a run with --init-from"
        )
    begin = None if found is None else _begin(store.load(found), config, say)
    step = done if begin is None else begin.step
    if step >= config.total_steps and result is not None:
        say(f"{directory.path} is complete after {step} steps; to go on, give more --total-steps")
        return Run(directory.path, config, result)
    weights = open_weights(directory.start) if begin is None and directory.start.is_file() else None
    begin, begin_with = fresh(weights) if begin is None else (begin, as_made)
    _refuse_end(begin, config)
    return _taken_up(config, begin, directory, store, stop, stack, console, begin_with)


def branch_off(
    source: RunDirectory,
    config: Config,
    step: int,
    into: str | Path,
    stop: StopRequest,
    stack: ExitStack,
    console: Console | None,
) -> Run:
    """Goes on from the checkpoint of a run after so many steps, in a new directory; otherwise as `go_on`.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: there is no such checkpoint, or the new directory cannot be used.
    """
    say = speaker(console)
    store = CheckpointStore(source.checkpoints, keep=config.checkpoint.keep)
    checkpoint = store.load(store.at(step))
    begin = _begin(checkpoint, config, say)
    _refuse_end(begin, config)
    directory = RunDirectory.create(into, run_name(config))
    stack.enter_context(directory.own())
    for path, size in zip((source.metrics, source.timing), begin.offsets, strict=True):
        directory.copy_start(path, size)
    own = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
    own.save(checkpoint)
    directory.write_text(directory.config, dump_toml(config))
    return _taken_up(config, begin, directory, own, stop, stack, console)


def _taken_up(
    config: Config,
    begin: Begin,
    directory: RunDirectory,
    store: CheckpointStore,
    stop: StopRequest,
    stack: ExitStack,
    console: Console | None,
    begin_with: BeginFn = as_made,
) -> Run:
    say = speaker(console)
    saver = Saver(config.checkpoint, stop, begin.step, say)
    try:
        loop = start(config, stack, begin.snapshot, saver.wanted, begin_with)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StorageError(f"the checkpoint after {begin.step} steps cannot be taken up: {error!r}") from error
    if loop.begun_again:
        begin = begin._replace(level="episode" if begin.level == "exact" else begin.level)
        store.forget_rows()
        say(
            f"warning: {loop.begun_again} episodes in progress did not repeat themselves to the bit and were begun "
            "anew; all else goes on exactly"
        )
    _check_spec(begin, loop.spec, config)
    say(f"resumes after {begin.step} of {config.total_steps} steps, level {begin.level}")
    record = Record(config, loop, directory, begin, console, say, stack)
    directory.drop_results()
    directory.write_text(directory.config, dump_toml(config))
    return drive(config, loop, directory, record, saver, store)


def _begin(checkpoint: Checkpoint, config: Config, say: Callable[[str], None]) -> Begin:
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
        len(Begin(checkpoint).untaken or ())
        otherwise = other_environment(facts, lone=config.max_devices == 1)
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
        say(f"{'warning: ' if warned else ''}changed: {change}{', so the run learns otherwise' if warned else ''}")
    for line in otherwise:
        say(line)
    learning = tuple(str(change) for change in changes if change.effect is Effect.LEARNING)
    return Begin(checkpoint, level, (*earlier, *(f"at step {checkpoint.step}: {each}" for each in learning)))


def _check_spec(begin: Begin, spec: EnvSpec, config: Config) -> None:
    """Refuses a checkpoint of an environment that looked otherwise, though it is called the same."""
    before = spec if begin.checkpoint is None else as_spec(begin.checkpoint.facts["spec"])
    differing = [name for name in EnvSpec._fields if getattr(before, name) != getattr(spec, name)]
    if differing:
        lines = "\n  ".join(f"{name}: {getattr(before, name)} -> {getattr(spec, name)}" for name in differing)
        raise ConfigError(f"env.id={config.env.id!r} is not what it was when the run was saved:\n  {lines}")


def _refuse_end(begin: Begin, config: Config) -> None:
    last = config.total_steps + (0 if begin.untaken is None else config.env.num_envs)  # its end is still to be judged
    if begin.step >= last:
        raise ConfigError(
            f"total_steps={config.total_steps}, but the run is at step {begin.step} already: give more --total-steps, "
            "or take up an earlier checkpoint with --from"
        )
