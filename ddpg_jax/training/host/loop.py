"""The host loop: gymnasium environments and the NumPy ring around one jitted, donated update for all seeds.

An iteration, E environment steps of each seed:

    act                 dispatched with the current parameters
    update              dispatched on batches that were drawn already
    actions             the host waits for them, not for the update
        environments    step meanwhile
        ring            stores the step, takes back the errors of the iteration before, which are there since the
                        actions are, and draws the batches of the next iteration, meanwhile

The order is fixed, so a run is deterministic. A minibatch is drawn before the transition of its own iteration is
stored, and the updates that the last iteration brings are not made. Nothing is read back from the device but the
actions, the keys of exploration a block at a time, the metrics at a report, and the errors where priorities want them.

The host waits for the update of an iteration when it reads the actions of the next: on a CPU the seconds that are
counted as "act" contain the update's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import jax
import numpy as np

from ddpg_jax.envs.factory import shares_instances
from ddpg_jax.equations.rewards import reward_measure
from ddpg_jax.errors import EnvironmentFault, Interrupted, NotFiniteError
from ddpg_jax.replay.host.sequences import SequenceRing
from ddpg_jax.training.host.compile import NO_NUMBERS, ActState, HostPrograms, compile_programs
from ddpg_jax.training.host.episodes import EpisodeLog, replay_episodes
from ddpg_jax.training.host.metrics import EpisodeMetrics
from ddpg_jax.training.host.rewards import RewardScale
from ddpg_jax.training.host.snapshot import (
    Errors,
    HostBuffers,
    HostCarry,
    ReplayedEpisodes,
    cut_episodes,
    init_carry,
    restore,
    snapshot,
)
from ddpg_jax.training.host.transfer import BatchTransfer, batch_transfer
from ddpg_jax.training.report import (
    METRICS,
    AgentFn,
    Hyper,
    InitFn,
    Report,
    SnapshotFn,
    keep_init,
    no_batches,
    no_snapshots,
)
from ddpg_jax.training.schedule import is_boundary, is_due, resets_before, updates_per_call
from ddpg_jax.types import Agent, Batch, HostArray, Row, Step, StopFn, never_stop
from ddpg_jax.xla.tuning import tuning

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.envs.host.workers import HostEnv
    from ddpg_jax.replay.host.ring import Ring


_log = logging.getLogger("ddpg_jax")

CANDIDATES = 20
"""Batches that are looked at for one that a diverged seed cannot learn from."""

PHASES = ("compile", "act", "environment", "replay", "update")

Drawn: TypeAlias = tuple[HostArray, Any]
"""A batch of one call: where its transitions stand, `[S, U, B]`, and what `BatchTransfer.pack` made of it."""


class Lanes(NamedTuple):
    """What lanes of a sweep have of their own beside their seed, which may be that of another, too.

    Attributes:
      names: what the rows call them in the place of their seeds.
      agent_of: the agent by their numbers; None: they have none.
      hyper: these numbers, `[S]` by path.
    """

    names: tuple[int, ...]
    agent_of: AgentFn | None
    hyper: Hyper


LapFn: TypeAlias = Callable[[str | None], None]
"""Adds the time since its last call to a phase (None: to no phase)."""


def host_loop(
    config: Config,
    agent: Agent,
    envs: HostEnv,
    ring: Ring,
    begun: ReplayedEpisodes | InitFn = keep_init,
    should_snapshot: SnapshotFn = no_snapshots,
    stop: StopFn = never_stop,
    lanes: Lanes | None = None,
) -> Iterator[Report]:
    """Trains all seeds side by side.

    Args:
      config: the run.
      agent: a learner of one seed.
      envs: S x E environments.
      ring: an empty replay.
      begun: where another loop of this configuration was, from `replay_snapshot`; or, for a run that begins, what is
        done to the fresh learner.
      should_snapshot: asked after every iteration that makes no report.
      stop: asked while the programs are compiled.
      lanes: where the seeds are lanes of a sweep: what tells them apart.

    Yields:
      A report at every multiple of `logging.every` and `evaluation.every`, and at the end; and where it is wanted, or
      an environment failed. Before all others, one that the snapshot says was not taken.

    Raises:
      EnvironmentFault: an environment failed.
      Interrupted: `stop` said so, or the environments were asked to stop.
      NotFiniteError: a metric or an action is NaN or infinite.
    """
    seeds, num_envs = config.seed_list, config.env.num_envs
    lap, seconds = _stopwatch(begun.snapshot.seconds if isinstance(begun, ReplayedEpisodes) else {})
    transfer = batch_transfer(ring, raw=tuning(config).raw_rows)
    lanes = lanes or Lanes(seeds, None, NO_NUMBERS)
    programs = compile_programs(config, agent, ring, transfer, stop, lanes.agent_of, lanes.hyper)
    state, act_state = programs.init()
    metrics = EpisodeMetrics(lanes.names, num_envs, METRICS, config.env.info_keys)
    shape = len(seeds), num_envs
    kind = config.algorithm.reward_scale
    measured = config.algorithm.gamma, config.algorithm.return_limit
    rewards = None if kind is None else RewardScale(shape, reward_measure(kind, *measured))
    buffers = HostBuffers(ring, metrics, EpisodeLog(shape), rewards)
    lap("compile")

    if isinstance(begun, ReplayedEpisodes):
        carry = restore(begun, state, act_state, buffers)
    else:
        carry = init_carry(begun(state), act_state, envs)
    del state  # its buffers are donated
    lap("environment")
    drawn = _sample_batches(config, buffers, transfer, carry) if carry.pending_action is None else []
    lap("replay")
    if isinstance(begun, ReplayedEpisodes) and begun.snapshot.unrecorded is not None:
        yield _report(config, transfer, buffers, carry, begun.snapshot.unrecorded, seconds)
        lap(None)
        carry = _take_back(config, envs, buffers, carry)
        lap("environment")
    while carry.iteration * num_envs < config.total_steps:
        if carry.pending_action is None:
            carry = _act_and_update(config, programs, buffers, carry, drawn, lap)
        action = cast("HostArray", carry.pending_action)
        try:
            result = envs.step(action)
        except (EnvironmentFault, Interrupted) as error:
            report = _report(config, transfer, buffers, carry, None, seconds)
            yield report._replace(fault=error, batches=no_batches)
            raise
        lap("environment")
        carry = _store(buffers, carry, action, result, envs.ended_info if config.env.info_keys else None)
        drawn = _sample_batches(config, buffers, transfer, carry)
        lap("replay")
        step = carry.iteration * num_envs
        due = is_boundary(config, step)
        if due or should_snapshot(step):
            diagnostics = programs.diagnose(carry.learner, drawn[-1][1]) if due and drawn else None
            rows = buffers.metrics.flush(step, diagnostics) if due else None
            lap("update")
            yield _report(config, transfer, buffers, carry, rows, seconds)
            lap(None)
            carry = _take_back(config, envs, buffers, carry) if due else carry
            lap("environment")


def _act_and_update(
    config: Config, programs: HostPrograms, buffers: HostBuffers, carry: HostCarry, drawn: list[Drawn], lap: LapFn
) -> HostCarry:
    """Chooses the actions of an iteration, and makes its updates while they are on their way."""
    i, num_envs, state = carry.iteration, config.env.num_envs, carry.learner
    if resets_before(config, i):
        state = programs.reset(state)
    ring = buffers.ring
    if isinstance(ring, SequenceRing) and ring.keeps_next:
        ring.keep(np.asarray(programs.flatten(carry.act_state)))
    choose = programs.uniform if i * num_envs < config.algorithm.warmup_steps else programs.explore
    action, act_state, moments = choose(i, state, carry.act_state, carry.obs, carry.first)
    state = state._replace(stats=state.stats._replace(obs=moments))
    lap("act")
    if buffers.rewards is not None and drawn:
        state = buffers.rewards.put(state)
    new_errors: Errors = []
    for index, packed in drawn:
        state, metrics, td_error = programs.update(state, packed)
        buffers.metrics.on_update(metrics)
        new_errors.append((index, td_error))
    lap("update")
    action = np.asarray(action)
    if not np.isfinite(action).all():
        buffers.metrics.flush(i * num_envs)  # says which loss it was, if one was
        raise NotFiniteError(f"the policy's action is not finite after {buffers.metrics.updates} updates")
    lap("act")
    return HostCarry(i, state, act_state, carry.obs, carry.first, action, carry.new_errors, new_errors)


def _store(
    buffers: HostBuffers, carry: HostCarry, action: HostArray, result: Step, info: HostArray | None
) -> HostCarry:
    """Keeps what the environments reported, and takes back the errors that the actions have waited for."""
    buffers.ring.add(carry.obs, action, result)
    for index, td_error in carry.delayed_errors:
        buffers.ring.write_back(index, td_error)
    iteration = carry.iteration + 1
    first = buffers.metrics.on_step(result, iteration * carry.first.shape[1], info)
    buffers.episodes.on_step(action, first)
    if buffers.rewards is not None:
        buffers.rewards.on_step(result.reward, first)
    act_state = carry.act_state
    if isinstance(act_state, ActState):
        act_state = act_state.with_reward(result.reward)
    return HostCarry(iteration, carry.learner, act_state, result.obs, first, None, [], carry.new_errors)


def _take_back(config: Config, envs: HostEnv, buffers: HostBuffers, carry: HostCarry) -> HostCarry:
    """Brings environments in which the policy was evaluated to where they were; nothing if those were others.

    Where an episode does not repeat itself to the bit it is cut here, as at a resume.

    Raises:
      EnvironmentFault: an environment failed.
      Interrupted: the environments were asked to stop.
    """
    step = carry.iteration * config.env.num_envs
    evaluated = is_due(step, config.evaluation.every, config.env.num_envs)
    if not (evaluated and shares_instances(config)) or step >= config.total_steps:
        return carry
    state = buffers.episodes.state(buffers.ring.spec.action_size)
    replay = replay_episodes(envs, state, carry.obs, buffers.metrics.returns)
    if replay.again.any():
        _log.warning(
            "warning: env.max_instances=%s: an evaluation used the environments that train, and %d of their episodes "
            "did not repeat themselves to the bit afterwards; they were cut at step %d",
            config.env.max_instances,
            replay.again.sum(),
            step,
        )
        buffers.episodes.restore(state, replay.again)
        cut_episodes(buffers, replay.again)
    return carry._replace(obs=replay.obs, first=carry.first | replay.again)


def _report(
    config: Config,
    transfer: BatchTransfer,
    buffers: HostBuffers,
    carry: HostCarry,
    rows: list[Row] | None,
    seconds: dict[str, float],
) -> Report:
    """Of the loop between two iterations; no rows where it is not due."""
    step, updates = carry.iteration * config.env.num_envs, buffers.metrics.updates
    batches = partial(_batches, config, buffers.ring, transfer, updates)
    whole = partial(snapshot, carry, buffers, seconds)
    return Report(step, updates, rows or [], dict(seconds), carry.learner, whole, rows is not None, None, batches)


def _sample_batches(config: Config, buffers: HostBuffers, transfer: BatchTransfer, carry: HostCarry) -> list[Drawn]:
    """The batches of the calls that are due by now: where they came from, and packed."""
    per_call, batch_size, updates = updates_per_call(config), config.algorithm.batch_size, buffers.metrics.updates
    calls = (config.updates_owed(carry.iteration * config.env.num_envs) - updates) // per_call
    numbers = range(updates // per_call, updates // per_call + calls)
    ring = buffers.ring
    return [(index := ring.draw(per_call, batch_size, number), transfer.pack(index)) for number in numbers]


def _batches(config: Config, ring: Ring, transfer: BatchTransfer, updates: int, seed: int) -> Iterator[Batch]:
    """Batches of the calls to come, of one seed, drawn from the ring as it is."""
    per_call = updates_per_call(config)
    for number in range(updates // per_call, updates // per_call + CANDIDATES):
        batch = transfer.unpack(transfer.pack(ring.draw(per_call, config.algorithm.batch_size, number)))
        yield jax.tree.map(lambda x: np.asarray(x[seed]), batch)


def _stopwatch(before: Mapping[str, float]) -> tuple[LapFn, dict[str, float]]:
    """A function that adds the time since its last call to a phase (None: to no phase), and the sums so far."""
    seconds = {phase: before.get(phase, 0.0) for phase in PHASES}
    last = perf_counter()

    def lap(phase: str | None) -> None:
        nonlocal last
        now = perf_counter()
        if phase is not None:
            seconds[phase] += now - last
        last = now

    return lap, seconds
