"""A sweep run: every combination and seed a lane of one program, in turns where memory does not hold them all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import tomli_w
from rich.console import Console

from ddpg_jax.config.diff import compare
from ddpg_jax.config.parts import OwnEnv, Parts
from ddpg_jax.config.plugins import allow_imports as allow
from ddpg_jax.config.plugins import hand_over
from ddpg_jax.config.schema import Config
from ddpg_jax.config.wording import option
from ddpg_jax.envs.factory import device_env, make_training_envs
from ddpg_jax.errors import ConfigError, Interrupted
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.followers import Followers
from ddpg_jax.runs.loggers.logger import Logger
from ddpg_jax.runs.loggers.progress import Display, make_display, message_printer
from ddpg_jax.runs.sinks.factory import check_sinks
from ddpg_jax.training.callbacks import CallbackFn, own_callbacks, own_loggers
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.context import RunContext, Session
from ddpg_jax.training.forecast import check_forecast
from ddpg_jax.training.resume_point import ResumePoint
from ddpg_jax.training.runner import drive
from ddpg_jax.training.sweep.batches import lane_batches
from ddpg_jax.training.sweep.grid import Group, Sweep, load_stored_sweep, name_parts, swept_values
from ddpg_jax.training.sweep.lanes import LaneBatch, LaneLoop, SweepPosition, SweepReport
from ddpg_jax.training.sweep.population import count_replaced
from ddpg_jax.training.sweep.recorder import SweepRecorder, SweepRun, position, sweep_point
from ddpg_jax.training.sweep.start import first_point
from ddpg_jax.training.until import check_sweep_until, stop_at
from ddpg_jax.types import Agent, DeviceEnv, EnvSpec, Snapshot
from ddpg_jax.xla.modes import in_numeric_modes
from ddpg_jax.xla.process import limit_to_one_thread, make_core_devices
from ddpg_jax.xla.tuning import tuning


@in_numeric_modes
def run_sweep(
    sweep: Sweep,
    run_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: Literal["never", "auto"] = "never",
    tune_process: bool = False,
    console: Console | None = None,
    env: OwnEnv | None = None,
    make_agent: Callable[..., Agent] | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[CallbackFn] = (),
    until: int | None = None,
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
      tune_process: as in `train`; it has an effect on the host loop.
      console: where progress is shown; None: nowhere.
      env: as in `train`, and so are the others; the state in a callback's report has a lane for each of the rows.
      make_agent: as in `train`.
      loggers: as in `train`.
      callbacks: as in `train`.
      until: environment steps of each seed after which all lanes end, saved and ranked, to go on later or not; they may
        not run in turns then. None: they are trained to their end.

    Raises:
      ConfigError: not even one lane fits into memory, another sweep is in the directory, or lanes cannot be stopped, or
        not go on from others, as was asked for.
      EnvironmentFault: an environment cannot be made, or reported numbers that are not finite in every combination; on
        the host loop, one failed in any lane.
      StorageError: the directory cannot be used, or too many checkpoints failed.
    """
    parts = Parts(env, make_agent)
    sweep = name_parts(sweep, parts)
    if until is not None:
        check_sweep_until(sweep, until)
    with ExitStack() as stack:
        stack.enter_context(hand_over(parts.by_name(sweep.configs[0].model_dump())))
        check_sinks(_sinks(sweep))
        envs = _environments(sweep, tune_process=tune_process)
        session, display = _begin(stack, sweep, console, loggers, callbacks)
        if resume == "auto" and run_dir is not None and RunDirectory(run_dir).sweep.is_file():
            directory = RunDirectory.open(run_dir, of="sweep")
            _refuse_another(sweep, load_stored_sweep(directory.sweep), directory)
            return _resume(sweep, envs, session.within(directory, _keep(sweep)), display, until)
        name = f"{sweep.configs[0].env.id.rpartition(':')[-1]}_sweep"
        context = session.within(RunDirectory.create(run_dir, name, overwrite=overwrite), _keep(sweep))
        context.lock()
        context.directory.write_text(context.directory.sweep, tomli_w.dumps(sweep.source))
        return _continue_from(first_point(sweep, context), sweep, envs, context, display, until)


@in_numeric_modes
def resume_sweep(
    run_dir: str | Path,
    console: Console | None = None,
    *,
    tune_process: bool = False,
    env: OwnEnv | None = None,
    make_agent: Callable[..., Agent] | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[CallbackFn] = (),
    allow_imports: bool = False,
) -> SweepRun:
    """Takes a sweep up where its last whole checkpoint is, and brings it to its end.

    Its record and its ranking end as if nothing had happened; a sweep without a checkpoint begins at its beginning.

    Args:
      run_dir: directory of the sweep.
      console: where progress is shown; None: nowhere.
      tune_process: as in `run_sweep`.
      env: as in `resume_run`, and so are the others.
      make_agent: as in `resume_run`.
      loggers: as in `resume_run`.
      callbacks: as in `resume_run`.
      allow_imports: as in `resume_run`.

    Raises:
      StorageError: there is no sweep, or another process is running it.
      ConfigError: as in `run_sweep`, and so are the others.
    """
    directory = RunDirectory.open(run_dir, of="sweep")
    parts = Parts(env, make_agent).by_name(swept_values(directory.sweep)) if env or make_agent else {}
    with ExitStack() as stack:
        stack.enter_context(hand_over(parts))
        stack.enter_context(allow(allow_imports))
        sweep = load_stored_sweep(directory.sweep)
        check_sinks(_sinks(sweep))
        envs = _environments(sweep, tune_process=tune_process)
        session, display = _begin(stack, sweep, console, loggers, callbacks)
        return _resume(sweep, envs, session.within(directory, _keep(sweep)), display)


def _begin(
    stack: ExitStack,
    sweep: Sweep,
    console: Console | None,
    loggers: Sequence[Logger],
    callbacks: Sequence[CallbackFn],
) -> tuple[Session, Display]:
    """The session of a sweep, whose combinations share the loggers and callbacks that are named."""
    config, notify, display = sweep.configs[0], message_printer(console), make_display(console)
    told = display, *own_loggers(config, notify, loggers)
    session = Session.begin(stack, notify, told, own_callbacks(config, callbacks))
    session.heed()
    return session, display


def _environments(sweep: Sweep, *, tune_process: bool = False) -> list[DeviceEnv | EnvSpec]:
    """Returns the environment of each group, or what it looks like on the host; makes the devices for them first."""
    if any(group.config.on_device for group in sweep.groups):
        make_core_devices()  # before anything asks jax for its devices, which settles their number
    elif tune_process and all(tuning(_of_lanes(group)).one_thread for group in sweep.groups):
        limit_to_one_thread()
    for group in sweep.groups:
        check_forecast(group.config.model_copy(update={"seeds": 1}))  # lanes run in turns, but one at least must fit
    return [device_env(each.config) if each.config.on_device else _host_spec(each.config) for each in sweep.groups]


def _of_lanes(group: Group) -> Config:
    """The configuration of a group with a seed for each of its lanes."""
    return group.config.model_copy(update={"seeds": len(group.numbers) * len(group.config.seed_list)})


def _host_spec(config: Config) -> EnvSpec:
    """What the environments of the host look like, by those of one seed."""
    with closing(make_training_envs(config.model_copy(update={"seeds": 1}))) as made:
        return made.spec


def _refuse_another(sweep: Sweep, before: Sweep, directory: RunDirectory) -> None:
    """Refuses to go on with a sweep that is not the one asked for; how often it is saved may differ."""
    if sweep.population != before.population:
        raise ConfigError(f"{directory.path} holds a sweep of another [population]; name another {option('run_dir')}")
    if sweep.start != before.start:
        raise ConfigError(f"{directory.path} holds a sweep of another [start]; name another {option('run_dir')}")
    if sweep.combinations != before.combinations:
        raise ConfigError(f"{directory.path} holds a sweep of other combinations; name another {option('run_dir')}")
    for old, new in zip(before.configs, sweep.configs, strict=True):
        changes = [change for change in compare(old, new) if not change.path.startswith("checkpoint.")]
        if changes:
            lines = "\n  ".join(map(str, changes[:10]))
            raise ConfigError(
                f"{directory.path} holds another sweep:\n  {lines}\nset these back, or name another {option('run_dir')}"
            )


def _sinks(sweep: Sweep) -> tuple[str, ...]:
    return sweep.configs[0].logging.sinks


def _start_sinks(sweep: Sweep, context: RunContext) -> None:
    """Starts what sends the record; it is waited for when the context is closed."""
    sinks = Followers(context.directory, _sinks(sweep), context.stop.is_requested, warn=context.notify)
    context.stack.enter_context(closing(sinks))
    sinks.begin()


def _keep(sweep: Sweep) -> int:
    return sweep.configs[0].checkpoint.keep


def _resume(
    sweep: Sweep,
    envs: Sequence[DeviceEnv | EnvSpec],
    context: RunContext,
    display: Display,
    until: int | None = None,
) -> SweepRun:
    """Goes on in the directory of a sweep; of one that has reached the step where it shall stop, it ranks the lanes."""
    directory = context.directory
    context.lock()
    checkpoint = context.newest_checkpoint()
    result = directory.read_result()
    if result is not None and result.get("complete"):
        _start_sinks(sweep, context)  # which a sweep that was killed at its end had no time for
        context.notify(f"{directory.path} is complete")
        return SweepRun(directory.path, result)
    begun = None if checkpoint is None else sweep_point(checkpoint, sweep, context.notify)
    point = begun or first_point(sweep, context)
    if until is not None and point.step >= until and point.unrecorded is None:
        return SweepRecorder(sweep, point, context).stop(None)
    context.notify(f"resumes after {point.step} steps, all turns added up")
    directory.drop_results()
    return _continue_from(point, sweep, envs, context, display, until)


def _continue_from(
    point: ResumePoint,
    sweep: Sweep,
    envs: Sequence[DeviceEnv | EnvSpec],
    context: RunContext,
    display: Display,
    until: int | None,
) -> SweepRun:
    """Runs the batches of lanes that are left, up to a step if one is given, and writes what was reached."""
    if until is not None:
        context = context._replace(callbacks=(*context.callbacks, stop_at(until)))
    recorder = SweepRecorder(sweep, point, context)
    _start_sinks(sweep, context)
    checkpointer = Checkpointer(sweep.configs[0].checkpoint, context.stop, point.step, context.notify)
    rest = _rest(point, sweep)
    if rest.snapshot is None:
        context.store.forget_rows()  # those that are there are of other lanes
    together = _together(sweep) if until is None else len(sweep.combinations) * len(sweep.configs[0].seed_list)
    turns = lane_batches(sweep.groups, envs, display.print, rest.position, context.stop.is_requested, together)
    with closing(_reports(turns, rest, recorder, checkpointer, context)) as reports:
        return drive(_until_stopped(reports), recorder, checkpointer, context)


def _together(sweep: Sweep) -> int:
    """Lanes that must fit into memory: those of a population, and those that are copied at a time; 0: it is none."""
    if sweep.population is None:
        return 0
    config, members = sweep.population.config, len(sweep.combinations)
    copied = count_replaced(config.replace, members) if config.replay else 0
    return (members + copied) * len(sweep.configs[0].seed_list)


class _Rest(NamedTuple):
    """What is left of a sweep.

    Attributes:
      position: the batch of lanes to go on with; None: the first.
      before: environment steps of a lane in the batches before it, added up.
      snapshot: where that batch was; None: at its beginning.
    """

    position: SweepPosition | None = None
    before: int = 0
    snapshot: Snapshot | None = None


def _rest(point: ResumePoint, sweep: Sweep) -> _Rest:
    """What is left from a checkpoint on; lanes that were at their end are passed over."""
    begun, before, snapshot = position(point), int(point.metadata.get("before", 0)), point.snapshot
    if begun is None or snapshot is None:
        return _Rest()
    group = sweep.groups[begun.group]
    config = group.config
    if point.unrecorded is not None or int(snapshot.arrays["iteration"]) * config.env.num_envs < config.total_steps:
        return _Rest(begun, before, snapshot)
    first = begun.first + begun.lanes
    more = first < len(group.numbers) * len(config.seed_list)
    following = begun._replace(first=first) if more else SweepPosition(begun.group + 1, 0, 0)
    return _Rest(following, before + config.total_steps)


def _reports(
    batches: Iterator[LaneBatch],
    rest: _Rest,
    recorder: SweepRecorder,
    checkpointer: Checkpointer,
    context: RunContext,
) -> Generator[SweepReport]:
    """The reports of one batch of lanes after another, until a stop is requested."""
    _, before, resumed = rest
    for batch in batches:
        if context.stop.requested:
            return
        with ExitStack() as stack:
            loop = batch.begin(stack, resumed, partial(_should_save, checkpointer, before), recorder.evolution(batch))
            if _warn_of(loop, context):
                context.store.forget_rows()
            recorder.begin(batch, loop.step, loop.updates)
            for told in loop.reports:
                yield SweepReport(batch, told, before)
        before, resumed = before + batch.config.total_steps, None
        context.store.forget_rows()  # those of the next batch are others


def _warn_of(loop: LaneLoop, context: RunContext) -> bool:
    """Says where lanes do not go on to the bit; whether episodes were begun anew, so that rows are others now."""
    if loop.restarted_episodes:
        context.notify(
            f"warning: {loop.restarted_episodes} episodes in progress did not repeat themselves to the bit and were "
            "begun anew; all else goes on exactly"
        )
    for line in loop.doubts:
        context.notify(f"warning: {line}")
    return loop.restarted_episodes > 0


def _until_stopped(reports: Iterator[SweepReport]) -> Iterator[SweepReport]:
    """The reports, up to a stop that is heard while a turn is made ready."""
    with suppress(Interrupted):
        yield from reports


def _should_save(checkpointer: Checkpointer, before: int, step: int) -> bool:
    """Whether lanes shall be saved, or stop, after so many steps of theirs."""
    return checkpointer.should_save(before + step)
