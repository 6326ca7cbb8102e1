"""A run from its configuration to its result: begins it or takes it up, drives the loop, and saves what is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import ValidationError
from rich.console import Console

from ddpg_jax.changes import Effect, compare
from ddpg_jax.config import Config
from ddpg_jax.envs.catalogue import chosen_loop
from ddpg_jax.errors import ConfigError, DdpgJaxError, EnvironmentFault, Interrupted, StorageError
from ddpg_jax.loops.compiled import spread_over_cores
from ddpg_jax.loops.device import first_lanes
from ddpg_jax.loops.report import BeginFn, Report, as_made
from ddpg_jax.loops.start import Loop, start, suit_process
from ddpg_jax.reading import dump_toml, read_toml, resolve
from ddpg_jax.reports.plots import learning_curve
from ddpg_jax.reports.result import make_result, other_environment
from ddpg_jax.runs.checkpoint import Checkpoint, CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.progress import speaker
from ddpg_jax.runs.record import Begin, Record
from ddpg_jax.runs.saver import Saver
from ddpg_jax.runs.signals import StopRequest
from ddpg_jax.runs.weights import (
    Weights,
    as_spec,
    beginning_with,
    open_weights,
    read_weights,
    save_weights,
    stored_part,
)
from ddpg_jax.types import EnvSpec


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
    config: Config,
    run_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: Literal["never", "auto"] = "never",
    init_from: str | Path | None = None,
    own_process: bool = False,
    console: Console | None = None,
) -> Run:
    """Trains all seeds of a configuration and leaves a run directory.

    SIGINT (Ctrl-C), SIGTERM and SIGUSR1 end the run after the iteration that is going on, with a checkpoint from which
    `resume_run` goes on to the bit; a second Ctrl-C ends it at once.

    Args:
      config: the run.
      run_dir: where its files go; None: a new directory under `runs/`.
      overwrite: whether the files of an earlier run there may be removed.
      resume: "auto": where the directory holds a run, that one goes on, as a cluster starts the same command again.
      init_from: directory of a run whose parameters and moments this one begins with; its seeds take them in turn.
        Nothing else is taken over: optimisers, replay and counters begin anew.
      own_process: whether this process is for this run alone; XLA may then be given as many threads as suit it, which
        nothing can change afterwards.
      console: where progress is shown; None: nowhere.

    Returns:
      The run.

    Raises:
      ConfigError: the replay does not fit into memory, or a run there is of another configuration.
      EnvironmentFault: an environment cannot be trained, or failed; where a step did, of training or of an evaluation
        on the host loop, after a checkpoint.
      Interrupted: a signal ended the run, which can be resumed.
      NotFiniteError: all seeds have diverged, or an action, a metric or a value of the critics is not finite.
      StorageError: the run directory cannot be used, or too many checkpoints failed.
    """
    if resume == "auto" and run_dir is not None and RunDirectory(run_dir).config.is_file():
        return _resumed(RunDirectory.open(run_dir), config, console, own_process)
    say = speaker(console)
    with ExitStack() as stack:
        saver = Saver(config.checkpoint, stack.enter_context(StopRequest()), 0, say)
        if own_process:
            suit_process(config)
        weights = None if init_from is None else read_weights(RunDirectory.open(init_from))
        begin, fresh = _fresh(weights)
        loop = start(config, stack, None, saver.wanted, fresh)
        if init_from is not None:
            say(f"begins with the weights of {init_from}; all else is new")
        directory = RunDirectory.create(run_dir, run_name(config), overwrite=overwrite)
        stack.enter_context(directory.own())
        if weights is not None:  # whatever becomes of that run, this one begins so again until it has a checkpoint
            weights.write(directory.start)
        directory.write_text(directory.config, dump_toml(config))
        store = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
        record = Record(config, loop, directory, begin, console, say, stack)
        return _drive(config, loop, directory, record, saver, store)


def resume_run(
    run_dir: str | Path,
    *,
    step: int | None = None,
    into: str | Path | None = None,
    own_process: bool = False,
    console: Console | None = None,
    **overrides: Any,
) -> Run:
    """Takes a run up where its last whole checkpoint is, and brings it to its end.

    A checkpoint that is broken is set aside and the one before is used; a run without any begins at its beginning,
    which is the same run as well. Parameters, replay and record end as if nothing had happened.

    Args:
      run_dir: directory of the run.
      step: take the checkpoint after so many environment steps of each seed instead, which needs `into`.
      into: a new directory for what comes of it.
      own_process: as in `train`.
      console: where progress is shown; None: nowhere.
      **overrides: fields that replace the run's, as in `load_config`. Those that do not concern the learner are free,
        those that change how it learns are reported, and structural ones are refused. An environment named "module:id"
        must be named again, as no module is imported because a file says so.

    Returns:
      The run.

    Raises:
      ConfigError: the configuration is wrong, or differs in structure.
      StorageError: there is no run, no such checkpoint, or another process is running it.
      EnvironmentFault: as in `train`, and so are the others.
    """
    directory = RunDirectory.open(run_dir)
    config = resolve(read_toml(directory.config), overrides, source=str(directory.config))
    if (step is None) != (into is None):
        raise ConfigError("a checkpoint of a certain step is taken up in a new directory: give both of them")
    if step is None or into is None:
        return _resumed(directory, config, console, own_process)
    return _branched(directory, config, step, into, console, own_process)


def run_name(config: Config) -> str:
    """What a run is called if nobody names it: task and algorithm."""
    return f"{config.env.id.rpartition(':')[-1].replace('/', '-')}_{config.algorithm.name}"


def _resumed(directory: RunDirectory, config: Config, console: Console | None, own_process: bool) -> Run:
    """Goes on in the directory of a run."""
    say = speaker(console)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(directory.own())
        if own_process:
            suit_process(config)
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
        begin, fresh = _fresh(weights) if begin is None else (begin, as_made)
        _refuse_end(begin, config)
        return _go_on(config, begin, directory, store, stop, stack, console, fresh)


def _branched(
    source: RunDirectory, config: Config, step: int, into: str | Path, console: Console | None, own_process: bool
) -> Run:
    """Goes on from a checkpoint of a run in a directory of its own."""
    say = speaker(console)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        if own_process:
            suit_process(config)
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
        return _go_on(config, begin, directory, own, stop, stack, console)


def _fresh(weights: Weights | None) -> tuple[Begin, BeginFn]:
    """How a run begins that has no checkpoint: anew, or with weights."""
    return (Begin(), as_made) if weights is None else (Begin(level="weights"), beginning_with(weights))


def _refuse_end(begin: Begin, config: Config) -> None:
    last = config.total_steps + (0 if begin.untaken is None else config.env.num_envs)  # its end is still to be judged
    if begin.step >= last:
        raise ConfigError(
            f"total_steps={config.total_steps}, but the run is at step {begin.step} already: give more --total-steps, "
            "or take up an earlier checkpoint with --from"
        )


def _begin(checkpoint: Checkpoint, config: Config, say: Callable[[str], None]) -> Begin:
    """What a checkpoint says of how a run goes on with a configuration; prints what differs.

    Raises:
      ConfigError: the configuration differs in structure.
      StorageError: the checkpoint does not say what it is of.
    """
    facts: Mapping[str, Any] = checkpoint.facts
    if chosen_loop(config) == "device":
        spread_over_cores()  # before `environment` counts the devices, which it makes thereby
    try:
        before = Config.model_validate(facts["config"])
        level, earlier = str(facts["level"]), tuple(map(str, facts["changes"]))
        sum(map(float, facts["seconds"].values()), float(facts["updates"]))
        len(Begin(checkpoint).untaken or ())
        otherwise = other_environment(facts)
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


def _go_on(
    config: Config,
    begin: Begin,
    directory: RunDirectory,
    store: CheckpointStore,
    stop: StopRequest,
    stack: ExitStack,
    console: Console | None,
    fresh: BeginFn = as_made,
) -> Run:
    say = speaker(console)
    saver = Saver(config.checkpoint, stop, begin.step, say)
    try:
        loop = start(config, stack, begin.snapshot, saver.wanted, fresh)
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
    return _drive(config, loop, directory, record, saver, store)


def _check_spec(begin: Begin, spec: EnvSpec, config: Config) -> None:
    """Refuses a checkpoint of an environment that looked otherwise, though it is called the same."""
    before = spec if begin.checkpoint is None else as_spec(begin.checkpoint.facts["spec"])
    differing = [name for name in EnvSpec._fields if getattr(before, name) != getattr(spec, name)]
    if differing:
        lines = "\n  ".join(f"{name}: {getattr(before, name)} -> {getattr(spec, name)}" for name in differing)
        raise ConfigError(f"env.id={config.env.id!r} is not what it was when the run was saved:\n  {lines}")


def _drive(
    config: Config,
    loop: Loop,
    directory: RunDirectory,
    record: Record,
    saver: Saver,
    store: CheckpointStore,
) -> Run:
    """Passes the reports of a loop on, saves where that is due, and writes the result at the end.

    Raises:
      Interrupted: the run was told to stop; it is saved.
    """
    last = _to_the_end(config, loop, directory, record, saver, store)
    state = first_lanes(last.state, len(config.seed_list))
    save_weights(directory.weights, stored_part(state), loop.spec)
    result = make_result(config, last, record.evaluated, record.diverged) | record.history
    steps = np.array([e.step for e in record.evaluated])
    means = np.stack([e.evaluation.returns.mean(1)[~record.diverged] for e in record.evaluated])
    learning_curve(directory.learning_curve, steps, means, f"{config.env.id}, {config.algorithm.name}")
    directory.write_result(result)
    if config.checkpoint.every:
        saver.save_now(store, lambda: record.checkpoint(last, complete=True))
    return Run(directory.path, config, result)


def _to_the_end(
    config: Config, loop: Loop, directory: RunDirectory, record: Record, saver: Saver, store: CheckpointStore
) -> Report:
    """The last report of a loop, which has not gone on from it: its state is still whole."""
    for report in loop.reports:
        if report.due:
            try:
                record.take(report)
            except EnvironmentFault as fault:
                _save_before(fault, partial(saver.save_now, store, partial(record.checkpoint, report, untaken=True)))
                raise
        if report.step >= config.total_steps:
            return report
        make = partial(record.checkpoint, report)
        if report.fault is not None:
            _save_before(report.fault, partial(saver.save_now, store, make))
        elif saver.stopping:
            saver.save_now(store, make)
            raise Interrupted(
                f"interrupted after {report.step} of {config.total_steps} steps; "
                f"to go on: ddpg-jax resume {directory.path}"
            )
        elif saver.wanted(report.step):
            saver.save(store, make)
    raise AssertionError("a loop ends with a report after its last step")


def _save_before(fault: DdpgJaxError, save: Callable[[], None]) -> None:
    """Saves before an error that ends the run; what goes wrong with that is said beside it."""
    try:
        save()
    except StorageError as error:
        fault.add_note(f"nor could the run be saved: {error}")
