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
from ddpg_jax.training.host.episodes import Journal
from ddpg_jax.training.host.metrics import Meter
from ddpg_jax.training.host.snapshot import Begun, Here, Kept, beginning, restored, snapshot
from ddpg_jax.training.host.transfer import Transport, transport_of
from ddpg_jax.training.report import METRICS, BeginFn, Report, WantedFn, as_made, never
from ddpg_jax.training.schedule import is_boundary, resets_before, updates_per_call
from ddpg_jax.types import Agent, Batch, HostArray, Row

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.envs.host.workers import AnyLanes
    from ddpg_jax.replay.host.ring import Ring


CANDIDATES = 20
"""Batches that are looked at for one that a diverged seed cannot learn from."""

PHASES = ("compile", "act", "environment", "replay", "update")


def host_loop(
    config: Config,
    agent: Agent,
    lanes: AnyLanes,
    ring: Ring,
    begun: Begun | BeginFn = as_made,
    wanted: WantedFn = never,
) -> Iterator[Report]:
    """Trains all seeds side by side.

    Args:
      config: the run.
      agent: a learner of one seed.
      lanes: S x E environments.
      ring: an empty replay.
      begun: where another loop of this configuration was, from `taken_up`; or, at the beginning, what becomes of the
        fresh learner.
      wanted: asked after every iteration that makes no report.

    Yields:
      A report at every multiple of `logging.every` and `evaluation.every`, and at the end; and where it is wanted, or
      an environment failed. Before all others, one that the snapshot says was not taken.

    Raises:
      EnvironmentFault: an environment failed.
      NotFiniteError: a metric or an action is NaN or infinite.
    """
    seeds, num_envs = config.seed_list, config.env.num_envs
    lap, seconds = _stopwatch(begun.snapshot.seconds if isinstance(begun, Begun) else {})
    transport = transport_of(ring, narrow=config.algorithm.narrow)
    alone = len(seeds) == 1 and not config.algorithm.narrow  # narrow networks are not faster then
    act, update = jit_act(agent), jit_update(agent, transport.unpack, errors=ring.weighted, alone=alone)
    keys, per_call = rng.run_keys(seeds), updates_per_call(config)
    empty = transport.take(np.zeros((len(seeds), per_call, config.algorithm.batch_size), np.int64))
    state, act_state = init_and_warm_up(agent, act, update, keys, num_envs, ring, empty)
    first_block = config.algorithm.warmup_steps // num_envs // KEY_BLOCK
    explore = make_explore(act, keys, num_envs, first_block)
    uniform = make_uniform(seeds, num_envs, lanes.spec.action_size, jit_observe(agent, state))
    diagnose = jit_diagnose(agent, transport.unpack)
    jax.block_until_ready(diagnose(state, empty))
    reset = jax.jit(jax.vmap(agent.reset), donate_argnums=0)
    kept = Kept(ring, Meter(seeds, num_envs, METRICS), Journal((len(seeds), num_envs)))
    lap("compile")

    meter, journal = kept.meter, kept.journal
    if isinstance(begun, Begun):
        here = restored(begun, state, act_state, kept)
    else:
        here = beginning(begun(state), act_state, lanes)
    state, act_state, obs, first, chosen, late, returned = here[1:]
    lap("environment")
    drawn = [] if chosen is not None else _drawn(config, ring, transport, meter.updates, here.iteration * num_envs)
    lap("replay")
    if isinstance(begun, Begun) and begun.snapshot.untaken is not None:
        yield _report(config, transport, kept, here, begun.snapshot.untaken, seconds)
        lap(None)
    for i in range(here.iteration, -(-config.total_steps // num_envs)):
        if chosen is None:
            if resets_before(config, i):
                state = reset(state, keys)
            choose = uniform if i * num_envs < config.algorithm.warmup_steps else explore
            pending, act_state, moments = choose(i, state, act_state, obs, first)
            state = state._replace(stats=state.stats._replace(obs=moments))
            lap("act")
            late, returned = returned, []
            for index, packed in drawn:
                state, metrics, td_error = update(state, packed, keys)
                meter.updated(metrics)
                returned.append((index, td_error))
            lap("update")
            chosen = np.asarray(pending)
            if not np.isfinite(chosen).all():
                meter.settle(i * num_envs)  # says which loss it was, if one was
                raise NotFiniteError(f"the policy's action is not finite after {meter.updates} updates")
            lap("act")
        try:
            result = lanes.step(chosen)
        except (EnvironmentFault, Interrupted) as error:
            here = Here(i, state, act_state, obs, first, chosen, late, returned)
            seen = partial(snapshot, here, kept, seconds)
            yield Report(i * num_envs, meter.updates, [], dict(seconds), state, seen, due=False, fault=error)
            raise
        lap("environment")
        step = (i + 1) * num_envs
        ring.add(obs, chosen, result)
        for index, td_error in late:  # of updates that the actions have waited for
            ring.write_back(index, td_error)
        obs, first = result.obs, meter.stepped(result, step)
        journal.stepped(chosen, first)
        chosen = None
        drawn = _drawn(config, ring, transport, meter.updates, step)
        lap("replay")
        due = is_boundary(config, step)
        if due or wanted(step):
            rows = meter.settle(step, diagnose(state, drawn[-1][1]) if drawn else None) if due else None
            lap("update")
            here = Here(i + 1, state, act_state, obs, first, None, [], returned)
            yield _report(config, transport, kept, here, rows, seconds)
            lap(None)


def _report(
    config: Config, transport: Transport, kept: Kept, here: Here, rows: list[Row] | None, seconds: dict[str, float]
) -> Report:
    """Of the loop between two iterations; no rows where it is not due."""
    step, updates = here.iteration * config.env.num_envs, kept.meter.updates
    seen, batches = partial(snapshot, here, kept, seconds), partial(_batches, config, kept.ring, transport, updates)
    return Report(step, updates, rows or [], dict(seconds), here.learner, seen, rows is not None, None, batches)


def _drawn(config: Config, ring: Ring, transport: Transport, updates: int, step: int) -> list[tuple[HostArray, Any]]:
    """The batches of the calls that are due after `step` steps of each seed: where they came from, and packed."""
    per_call, batch_size = updates_per_call(config), config.algorithm.batch_size
    calls = (config.updates_owed(step) - updates) // per_call
    numbers = range(updates // per_call, updates // per_call + calls)
    return [(index := ring.draw(per_call, batch_size, number), transport.take(index)) for number in numbers]


def _batches(config: Config, ring: Ring, transport: Transport, updates: int, seed: int) -> Iterator[Batch]:
    """Batches of the calls to come, of one seed, drawn from the ring as it is."""
    per_call = updates_per_call(config)
    for number in range(updates // per_call, updates // per_call + CANDIDATES):
        batch = transport.unpack(transport.take(ring.draw(per_call, config.algorithm.batch_size, number)))
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
