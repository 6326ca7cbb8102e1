"""A run from its configuration to its result: begun, or taken up where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ddpg_jax.config.load import dump_toml, resolve
from ddpg_jax.config.parts import OwnEnv, Parts, split_env
from ddpg_jax.config.plugins import allow_imports as allow
from ddpg_jax.config.plugins import hand_over
from ddpg_jax.config.schema import Config, warn_of_idle_learner
from ddpg_jax.config.stored import read_stored
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.logger import Logger
from ddpg_jax.runs.loggers.progress import make_display, message_printer
from ddpg_jax.runs.sinks.factory import check_sinks
from ddpg_jax.runs.weights import read_weights
from ddpg_jax.training.callbacks import CallbackFn, own_callbacks, own_loggers
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.context import Session
from ddpg_jax.training.factory import start
from ddpg_jax.training.recorder import RunRecorder
from ddpg_jax.training.resume import fork, resume_directory, run_name, start_point
from ddpg_jax.training.run import Run
from ddpg_jax.training.runner import drive
from ddpg_jax.types import Agent
from ddpg_jax.xla.modes import in_numeric_modes
from ddpg_jax.xla.tuning import configure_process


@in_numeric_modes
def train(
    config: Config,
    run_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: Literal["never", "auto"] = "never",
    init_from: str | Path | None = None,
    tune_process: bool = False,
    console: Console | None = None,
    quiet: bool = False,
    env: OwnEnv | None = None,
    make_agent: Callable[..., Agent] | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[CallbackFn] = (),
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
      tune_process: whether this process is for this run alone; XLA may then be given as many threads as suit it, which
        nothing can change afterwards.
      console: where progress is shown; None: a few lines are printed, of the start and of every evaluation.
      quiet: whether these lines are left out; warnings go to the logger `ddpg_jax` all the same.
      env: an environment of one's own: a function that makes one of gymnasium, called with `env.kwargs`, or a
        `DeviceEnv`; None: the one of `env.id`.
      make_agent: an algorithm of one's own, `(config, spec) -> Agent`, called with `algorithm.kwargs` too
        (docs/adding_a_variant.md); None: that of the configuration.
      loggers: who is told of the run beside its own files; they are closed with it. What they raise is warned of.
      callbacks: functions that see every report, may add to the record and may ask for a stop; see `CallbackReport`.

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
    parts = Parts(env, make_agent)
    config = parts.name_in(config)
    with ExitStack() as stack:
        stack.enter_context(hand_over(parts.by_name(config.model_dump())))
        session = _begin(stack, config, console, quiet, loggers, callbacks)
        configure_process(config, tune_process=tune_process)
        session.heed()
        check_sinks(config.logging.sinks)
        if resume == "auto" and run_dir is not None and RunDirectory(run_dir).config.is_file():
            return resume_directory(
                session.within(RunDirectory.open(run_dir), config.checkpoint.keep), config
            )._replace(make_agent=make_agent)
        for line in warn_of_idle_learner(config):
            session.notify(line)
        checkpointer = Checkpointer(config.checkpoint, session.stop, 0, session.notify)
        weights = None if init_from is None else read_weights(RunDirectory.open(init_from))
        point, init_learner = start_point(weights)
        loop = start(config, stack, None, checkpointer.should_save, init_learner, lambda: session.stop.requested)
        if init_from is not None:
            session.notify(f"begins with the weights of {init_from}; all else is new")
        directory = RunDirectory.create(run_dir, run_name(config), overwrite=overwrite)
        context = session.within(directory, config.checkpoint.keep)
        context.lock()
        if weights is not None:  # whatever becomes of that run, this one begins so again until it has a checkpoint
            weights.write(directory.start)
        directory.write_text(directory.config, dump_toml(config))
        recorder = RunRecorder(config, loop, point, context)
        return drive(loop.reports, recorder, checkpointer, context)._replace(make_agent=make_agent)


@in_numeric_modes
def resume_run(
    run_dir: str | Path,
    *,
    step: int | None = None,
    into: str | Path | None = None,
    level: Literal["exact", "weights"] = "exact",
    tune_process: bool = False,
    console: Console | None = None,
    quiet: bool = False,
    env: OwnEnv | Mapping[str, Any] | None = None,
    make_agent: Callable[..., Agent] | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[CallbackFn] = (),
    allow_imports: bool = False,
    **overrides: Any,
) -> Run:
    """Takes a run up where its last whole checkpoint is, and brings it to its end.

    A checkpoint that is broken, or whose record is, is set aside and the one before is used; a run that never had any
    begins at its beginning, which is the same run as well. Parameters, replay and record end as if nothing had
    happened. Where none of its checkpoints can be used, nothing is begun unasked.

    Args:
      run_dir: directory of the run.
      step: take the checkpoint after so many environment steps of each seed instead, which needs `into`.
      into: a new directory for what comes of it.
      level: "weights": begins again with the networks of the newest checkpoint that holds them, whose other parts may
        be lost; the record and the checkpoints so far are set aside.
      tune_process: as in `train`.
      console: as in `train`, and so is `quiet`.
      quiet: whether nothing is printed.
      env: the environment, where it was handed over to `train`; or fields of `[env]`, as an override.
      make_agent: what makes the agent, where it was handed over to `train`.
      loggers: as in `train`.
      callbacks: as in `train`.
      allow_imports: whether the run's file may name modules to import, as no module is imported because a file says so.
      **overrides: fields that replace the run's, as in `load_config`. Those that do not concern the learner are free,
        those that change how it learns are reported, and structural ones are refused.

    Returns:
      The run.

    Raises:
      ConfigError: the configuration is wrong, or differs in structure.
      StorageError: there is no run, no such checkpoint, or another process is running it.
      EnvironmentFault: as in `train`, and so are the others.
    """
    directory = RunDirectory.open(run_dir)
    values = read_stored(directory.config)
    own_env, overrides = split_env(env, overrides)
    parts = Parts(own_env, make_agent).by_name(values)
    with hand_over(parts), allow(allow_imports):
        config = resolve(values, overrides, source=str(directory.config))
    if (step is None) != (into is None):
        raise ConfigError("a checkpoint of a certain step is taken up in a new directory: give both of them")
    if level == "weights" and step is not None:
        raise ConfigError("level weights begins in the directory of the run, not from a checkpoint of a certain step")
    with ExitStack() as stack:
        stack.enter_context(hand_over(parts))
        session = _begin(stack, config, console, quiet, loggers, callbacks)
        configure_process(config, tune_process=tune_process)
        session.heed()
        check_sinks(config.logging.sinks)
        context = session.within(directory, config.checkpoint.keep)
        if step is None or into is None:
            return resume_directory(context, config, from_networks=level == "weights")._replace(make_agent=make_agent)
        return fork(context, config, step, into)._replace(make_agent=make_agent)


def _begin(
    stack: ExitStack,
    config: Config,
    console: Console | None,
    quiet: bool,
    loggers: Sequence[Logger],
    callbacks: Sequence[CallbackFn],
) -> Session:
    notify = message_printer(console)
    told = make_display(console, quiet=quiet), *own_loggers(config, notify, loggers)
    return Session.begin(stack, notify, told, own_callbacks(config, callbacks))
