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

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ddpg_jax import rng
from ddpg_jax.errors import EnvironmentFault, Interrupted, NotFiniteError
from ddpg_jax.training.host.compile import (
    KEY_BLOCK,
    init_and_warm_up,
    jit_act,
    jit_diagnose,
    jit_observe,
    jit_update,
    make_explore,
    make_uniform,
)
from ddpg_jax.training.host.episodes import EpisodeLog
from ddpg_jax.training.host.metrics import EpisodeMetrics
from ddpg_jax.training.host.snapshot import HostBuffers, HostCarry, ReplayedEpisodes, init_carry, restore, snapshot
from ddpg_jax.training.host.transfer import BatchTransfer, batch_transfer
from ddpg_jax.training.report import METRICS, InitFn, Report, SnapshotFn, keep_init, no_snapshots
from ddpg_jax.training.schedule import is_boundary, resets_before, updates_per_call
from ddpg_jax.types import Agent, Batch, HostArray, Row

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.envs.host.workers import HostEnv
    from ddpg_jax.replay.host.ring import Ring


CANDIDATES = 20
"""Batches that are looked at for one that a diverged seed cannot learn from."""

PHASES = ("compile", "act", "environment", "replay", "update")


def host_loop(
    config: Config,
    agent: Agent,
    lanes: HostEnv,
    ring: Ring,
    begun: ReplayedEpisodes | InitFn = keep_init,
    should_snapshot: SnapshotFn = no_snapshots,
) -> Iterator[Report]:
    """Trains all seeds side by side.

    Args:
      config: the run.
      agent: a learner of one seed.
      lanes: S x E environments.
      ring: an empty replay.
      begun: where another loop of this configuration was, from `replay_snapshot`; or, for a run that begins, what is
        done to the fresh learner.
      should_snapshot: asked after every iteration that makes no report.

    Yields:
      A report at every multiple of `logging.every` and `evaluation.every`, and at the end; and where it is wanted, or
      an environment failed. Before all others, one that the snapshot says was not taken.

    Raises:
      EnvironmentFault: an environment failed.
      NotFiniteError: a metric or an action is NaN or infinite.
    """
    seeds, num_envs = config.seed_list, config.env.num_envs
    lap, seconds = _stopwatch(begun.snapshot.seconds if isinstance(begun, ReplayedEpisodes) else {})
    transfer = batch_transfer(ring, narrow=config.algorithm.narrow)
    squeeze_seed = len(seeds) == 1 and not config.algorithm.narrow  # narrow networks are not faster then
    act, update = jit_act(agent), jit_update(agent, transfer.unpack, errors=ring.weighted, squeeze_seed=squeeze_seed)
    keys, per_call = rng.run_keys(seeds), updates_per_call(config)
    empty = transfer.pack(np.zeros((len(seeds), per_call, config.algorithm.batch_size), np.int64))
    state, act_state = init_and_warm_up(agent, act, update, keys, num_envs, ring, empty)
    first_block = config.algorithm.warmup_steps // num_envs // KEY_BLOCK
    explore = make_explore(act, keys, num_envs, first_block)
    uniform = make_uniform(seeds, num_envs, lanes.spec.action_size, jit_observe(agent, state))
    diagnose = jit_diagnose(agent, transfer.unpack)
    jax.block_until_ready(diagnose(state, empty))
    reset = jax.jit(jax.vmap(agent.reset), donate_argnums=0)
    buffers = HostBuffers(ring, EpisodeMetrics(seeds, num_envs, METRICS), EpisodeLog((len(seeds), num_envs)))
    lap("compile")

    episode_metrics, episode_log = buffers.metrics, buffers.episodes
    if isinstance(begun, ReplayedEpisodes):
        carry = restore(begun, state, act_state, buffers)
    else:
        carry = init_carry(begun(state), act_state, lanes)
    state, act_state, obs, first, pending_action, delayed_errors, new_errors = carry[1:]
    lap("environment")
    drawn = (
        []
        if pending_action is not None
        else _sample_batches(config, ring, transfer, episode_metrics.updates, carry.iteration * num_envs)
    )
    lap("replay")
    if isinstance(begun, ReplayedEpisodes) and begun.snapshot.unrecorded is not None:
        yield _report(config, transfer, buffers, carry, begun.snapshot.unrecorded, seconds)
        lap(None)
    for i in range(carry.iteration, -(-config.total_steps // num_envs)):
        if pending_action is None:
            if resets_before(config, i):
                state = reset(state, keys)
            choose = uniform if i * num_envs < config.algorithm.warmup_steps else explore
            dispatched, act_state, moments = choose(i, state, act_state, obs, first)
            state = state._replace(stats=state.stats._replace(obs=moments))
            lap("act")
            delayed_errors, new_errors = new_errors, []
            for index, packed in drawn:
                state, metrics, td_error = update(state, packed, keys)
                episode_metrics.on_update(metrics)
                new_errors.append((index, td_error))
            lap("update")
            pending_action = np.asarray(dispatched)
            if not np.isfinite(pending_action).all():
                episode_metrics.flush(i * num_envs)  # says which loss it was, if one was
                raise NotFiniteError(f"the policy's action is not finite after {episode_metrics.updates} updates")
            lap("act")
        try:
            result = lanes.step(pending_action)
        except (EnvironmentFault, Interrupted) as error:
            carry = HostCarry(i, state, act_state, obs, first, pending_action, delayed_errors, new_errors)
            seen = partial(snapshot, carry, buffers, seconds)
            yield Report(i * num_envs, episode_metrics.updates, [], dict(seconds), state, seen, due=False, fault=error)
            raise
        lap("environment")
        step = (i + 1) * num_envs
        ring.add(obs, pending_action, result)
        for index, td_error in delayed_errors:  # of updates that the actions have waited for
            ring.write_back(index, td_error)
        obs, first = result.obs, episode_metrics.on_step(result, step)
        episode_log.on_step(pending_action, first)
        pending_action = None
        drawn = _sample_batches(config, ring, transfer, episode_metrics.updates, step)
        lap("replay")
        due = is_boundary(config, step)
        if due or should_snapshot(step):
            rows = episode_metrics.flush(step, diagnose(state, drawn[-1][1]) if drawn else None) if due else None
            lap("update")
            carry = HostCarry(i + 1, state, act_state, obs, first, None, [], new_errors)
            yield _report(config, transfer, buffers, carry, rows, seconds)
            lap(None)


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
    seen, batches = (
        partial(snapshot, carry, buffers, seconds),
        partial(_batches, config, buffers.ring, transfer, updates),
    )
    return Report(step, updates, rows or [], dict(seconds), carry.learner, seen, rows is not None, None, batches)


def _sample_batches(
    config: Config, ring: Ring, transfer: BatchTransfer, updates: int, step: int
) -> list[tuple[HostArray, Any]]:
    """The batches of the calls that are due after `step` steps of each seed: where they came from, and packed."""
    per_call, batch_size = updates_per_call(config), config.algorithm.batch_size
    calls = (config.updates_owed(step) - updates) // per_call
    numbers = range(updates // per_call, updates // per_call + calls)
    return [(index := ring.draw(per_call, batch_size, number), transfer.pack(index)) for number in numbers]


def _batches(config: Config, ring: Ring, transfer: BatchTransfer, updates: int, seed: int) -> Iterator[Batch]:
    """Batches of the calls to come, of one seed, drawn from the ring as it is."""
    per_call = updates_per_call(config)
    for number in range(updates // per_call, updates // per_call + CANDIDATES):
        batch = transfer.unpack(transfer.pack(ring.draw(per_call, config.algorithm.batch_size, number)))
        yield jax.tree.map(lambda x: np.asarray(x[seed]), batch)


def _stopwatch(before: Mapping[str, float]) -> tuple[Callable[[str | None], None], dict[str, float]]:
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
