"""A run that was interrupted: from its checkpoint to a loop that goes on, or the reason why it cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from pydantic import ValidationError

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import dump_toml
from ddpg_jax.config.marks import Effect
from ddpg_jax.config.schema import Config
from ddpg_jax.config.stored import complete_stored
from ddpg_jax.config.wording import at_command_line, option
from ddpg_jax.errors import ConfigError, StorageError, printable
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.documents import RunFacts, validate
from ddpg_jax.runs.loggers.followers import Followers
from ddpg_jax.runs.result import make_result, system_differences
from ddpg_jax.runs.weights import (
    Weights,
    as_spec,
    checkpoint_weights,
    fit,
    init_from_weights,
    open_weights,
    restart_from_networks,
    restore_best,
    stored_part,
)
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.context import NotifyFn, RunContext
from ddpg_jax.training.factory import start
from ddpg_jax.training.recorder import RunRecorder, history, write_end
from ddpg_jax.training.report import InitFn, keep_init
from ddpg_jax.training.resume_point import ResumePoint
from ddpg_jax.training.run import Run
from ddpg_jax.training.runner import drive
from ddpg_jax.types import EnvSpec


def run_name(config: Config) -> str:
    """What a run is called if nobody names it: task and algorithm."""
    env, algorithm = (each.rpartition(":")[-1] for each in (config.env.id, config.algorithm_name))
    return "_".join(re.sub(r"[^\w.+-]+", "-", name).strip("-") for name in (env, algorithm))


def start_point(weights: Weights | None) -> tuple[ResumePoint, InitFn]:
    """How a run begins that has no checkpoint: anew, or with the weights of another."""
    return (ResumePoint(), keep_init) if weights is None else (ResumePoint(level="weights"), init_from_weights(weights))


def resume_directory(context: RunContext, config: Config, *, from_networks: bool = False) -> Run:
    """Goes on in the directory of a run, from its last whole checkpoint; from its beginning where there never was one.

    The run belongs to this process until the stack is closed. Where it has come to its end, what lacks of its results
    is written.

    Args:
      context: of the run.
      config: of the run.
      from_networks: begin again with the networks of the last checkpoint, level weights, as its rows may be lost.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: another process is running it, or nothing there can be taken up.
    """
    directory = context.directory
    context.lock()
    if from_networks:
        context.notify(f"begins again with the networks alone; the rest is kept in {restart_from_networks(directory)}")
    checkpoint = context.newest_checkpoint()
    result = directory.read_result()
    done = int(result["env_steps_per_seed"]) if result is not None and result.get("complete") else 0
    if checkpoint is None and 0 < done < config.total_steps:
        raise StorageError(
            f"{directory.path} came to its end after {done} steps and holds no checkpoint to go on from; "
            f"begin a run with {option('init_from')}"
        )
    reached = done if checkpoint is None else checkpoint.step
    if reached >= config.total_steps + config.env.num_envs:  # beyond the last step of a run of so many
        raise _too_few(config, reached)
    point = None if checkpoint is None else _resume_point(checkpoint, config, context.notify)
    lacks = result is None or not _is_whole(directory)
    if checkpoint is not None and point is not None and _is_at_end(point, config) and lacks:
        _send_what_lacks(config, context)
        return _write_what_lacks(checkpoint, point, config, context)
    step = done if point is None else point.step
    if step >= config.total_steps and result is not None:
        _send_what_lacks(config, context)
        context.notify(f"{directory.path} is complete after {step} steps; to go on, give more {option('total_steps')}")
        return Run(directory.path, config, result)
    weights = open_weights(directory.start) if point is None and directory.start.is_file() else None
    point, init_learner = start_point(weights) if point is None else (point, keep_init)
    _refuse_end(point, config)
    return _continue_from(point, config, context, init_learner)


def _is_at_end(point: ResumePoint, config: Config) -> bool:
    last = config.total_steps + config.env.num_envs
    return bool(point.metadata.get("complete")) and config.total_steps <= point.step < last


def _is_whole(directory: RunDirectory) -> bool:
    """Whether the final weights are there and what was written."""
    try:
        open_weights(directory.weights)
    except StorageError:
        return False
    return True


def _send_what_lacks(config: Config, context: RunContext) -> None:
    """Sends the end of a record to its sinks, which a run that was killed at its end had no time for."""
    followers = Followers(context.directory, config.logging.sinks, lambda: context.stop.requested, warn=context.notify)
    followers.begin()
    followers.close()


def _write_what_lacks(checkpoint: Checkpoint, point: ResumePoint, config: Config, context: RunContext) -> Run:
    """Writes the results of a run anew from the checkpoint at its end."""
    context.notify(f"{context.directory.path} had come to its end; its results are written anew")
    weights = checkpoint_weights(context.directory.checkpoints, checkpoint)
    agent = make_agent(config, weights.spec)
    expected = jax.eval_shape(jax.vmap(agent.init), run_keys(config.seed_list))
    tree = fit(weights, stored_part(expected))
    evaluated, diverged = point.evaluated, point.diverged(len(config.seed_list))
    figures = point.step, int(point.metadata["updates"]), point.seconds
    result = make_result(config, *figures, evaluated, diverged) | history(point)
    return write_end(context.directory, config, tree, weights.spec, result, evaluated)


def fork(context: RunContext, config: Config, step: int, into: str | Path) -> Run:
    """Goes on from the checkpoint of a run after so many steps, in a new directory; otherwise as `resume_directory`.

    Args:
      context: of that run.
      config: of the new one.
      step: of the checkpoint.
      into: the new directory.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: there is no such checkpoint, or the new directory cannot be used.
    """
    source = context.directory
    checkpoint = context.store.load(context.store.at(step))
    point = _resume_point(checkpoint, config, context.notify)
    _refuse_end(point, config)
    own = context.move_to(RunDirectory.create(into, run_name(config)), config.checkpoint.keep)
    own.lock()
    own.directory.copy_start(source.metrics, point.metrics_bytes)
    own.directory.copy_start(source.timing, point.timing_bytes)
    restore_best(own.directory, point.metadata.get("best_step"), source)
    own.store.save(checkpoint)
    own.directory.write_text(own.directory.config, dump_toml(config))
    return _continue_from(point, config, own)


def _continue_from(point: ResumePoint, config: Config, context: RunContext, init_learner: InitFn = keep_init) -> Run:
    notify, directory = context.notify, context.directory
    checkpointer = Checkpointer(config.checkpoint, context.stop, point.step, notify)
    try:
        loop = start(
            config,
            context.stack,
            point.snapshot,
            checkpointer.should_save,
            init_learner,
            lambda: context.stop.requested,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StorageError(f"the checkpoint after {point.step} steps cannot be taken up: {error!r}") from error
    if loop.restarted_episodes:
        point = point._replace(level="episode" if point.level == "exact" else point.level)
        context.store.forget_rows()
        notify(
            f"warning: {loop.restarted_episodes} episodes in progress did not repeat themselves to the bit and were "
            "begun anew; all else goes on exactly"
        )
    if loop.doubts:
        point = point._replace(level="episode" if point.level == "exact" else point.level)
        for line in loop.doubts:
            notify(f"warning: {line}")
    _check_spec(point, loop.spec, config)
    notify(f"resumes after {point.step} of {config.total_steps} steps, level {point.level}")
    recorder = RunRecorder(config, loop, point, context)
    directory.drop_results()
    directory.write_text(directory.config, dump_toml(config))
    return drive(loop.reports, recorder, checkpointer, context)


def _resume_point(checkpoint: Checkpoint, config: Config, notify: NotifyFn) -> ResumePoint:
    """What a checkpoint says of how a run goes on with a configuration; prints what differs.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: the checkpoint does not say what it is of.
    """
    facts: Mapping[str, Any] = checkpoint.facts
    known = validate(RunFacts, facts, "the checkpoint's description")
    try:
        before = Config.model_validate(complete_stored(known.config))
    except ValidationError as error:
        reason = printable(error.errors(include_url=False)[0]["msg"])
        raise StorageError(f"the configuration in the checkpoint's description cannot be read: {reason}") from error
    otherwise = system_differences(facts, single_device=config.max_devices == 1)
    changes = compare(before, config)
    refused = [change for change in changes if change.effect is Effect.STRUCTURAL]
    if refused:
        lines = "\n  ".join(map(str, refused[:10]))
        raise ConfigError(
            f"the run cannot go on with another structure:\n  {lines}\n"
            f"set these back, or begin a run with {option('init_from')}"
        )
    for change in changes:
        warned = change.effect is Effect.LEARNING
        said = f"{'warning: ' if warned else ''}changed: {change}{', so the run learns otherwise' if warned else ''}"
        notify(printable(said))
    for line in otherwise:
        notify(printable(line))
    learning = tuple(str(change) for change in changes if change.effect is Effect.LEARNING)
    return ResumePoint(
        checkpoint, known.level, (*known.changes, *(f"at step {checkpoint.step}: {each}" for each in learning))
    )


def _check_spec(point: ResumePoint, spec: EnvSpec, config: Config) -> None:
    """Refuses a checkpoint of an environment that looked otherwise, though it is called the same."""
    before = spec if point.checkpoint is None else as_spec(point.metadata["spec"])
    if differing := before.differences(spec):
        lines = "\n  ".join(differing)
        raise ConfigError(f"env.id={config.env.id!r} is not what it was when the run was saved:\n  {lines}")


def _refuse_end(point: ResumePoint, config: Config) -> None:
    last = config.total_steps + (
        0 if point.unrecorded is None else config.env.num_envs
    )  # its end is still to be judged
    if point.step >= last:
        raise _too_few(config, point.step)


def _too_few(config: Config, step: int) -> ConfigError:
    earlier = option("from") if at_command_line() else option("step")
    return ConfigError(
        f"total_steps={config.total_steps}, but the run is at step {step} already: give more {option('total_steps')}, "
        f"or take up an earlier checkpoint with {earlier}"
    )
