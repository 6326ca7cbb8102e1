"""From a configuration to a loop about to begin, and what judges its learner."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from math import prod
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import jax

from ddpg_jax.agents.algorithms import find_make_agent, make_agent
from ddpg_jax.agents.recurrent import carry_size
from ddpg_jax.config.schema import with_values
from ddpg_jax.envs.device.rollout import fetch
from ddpg_jax.envs.factory import device_env, make_evaluation_envs, make_training_envs, open_goal_task
from ddpg_jax.envs.host.rollout import PolicyFn, evaluate_episodes, jit_memory, jit_policy, jit_value
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.factory import make_ring, wants_goals
from ddpg_jax.rng import run_keys
from ddpg_jax.training.device.compile import (
    Compiled,
    compile_program,
    free_bytes,
    lane_mesh,
    largest_fit,
    memory_bytes,
    round_up_lanes,
)
from ddpg_jax.training.device.loop import device_loop, drop_padding, reports
from ddpg_jax.training.device.snapshot import DeviceCarry, restore
from ddpg_jax.training.forecast import check_forecast
from ddpg_jax.training.host.loop import Lanes, host_loop
from ddpg_jax.training.host.snapshot import ReplayedEpisodes, replay_snapshot
from ddpg_jax.training.report import AgentFn, Hyper, InitFn, Loop, SnapshotFn, keep_init, no_snapshots
from ddpg_jax.types import Agent, EnvSpec, Evaluation, Snapshot, StopFn, TrainState, never_stop
from ddpg_jax.xla.memory import human_bytes

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


def start(
    config: Config,
    stack: ExitStack,
    snapshot: Snapshot | None = None,
    should_snapshot: SnapshotFn = no_snapshots,
    begin: InitFn = keep_init,
    stop: StopFn = never_stop,
) -> Loop:
    """Prepares the loop that a configuration asks for; the device loop is compiled then.

    Args:
      config: the run.
      stack: closes what the loop holds open.
      snapshot: where a loop of this configuration was; None: at the beginning.
      should_snapshot: where the loop's state shall be seen beside its reports.
      begin: what becomes of the fresh learner of a loop at the beginning.
      stop: asked while environments are made, reset and stepped, and while a program or an evaluation is waited for.

    Raises:
      ConfigError: the run does not fit into memory.
      EnvironmentFault: an environment cannot be made or trained.
      Interrupted: `stop` said so while programs were compiled, or environments made or brought to where they were.
      StorageError: the snapshot is not one of this configuration.
    """
    if not config.on_device:
        return start_host(config, stack, snapshot, should_snapshot, begin, stop)
    check_forecast(config)
    return _device(config, stack, snapshot, should_snapshot, begin, stop)


def start_host(
    config: Config,
    stack: ExitStack,
    snapshot: Snapshot | None = None,
    should_snapshot: SnapshotFn = no_snapshots,
    begin: InitFn = keep_init,
    stop: StopFn = never_stop,
    hyper: Hyper | None = None,
    stop_evaluation: StopFn | None = None,
) -> Loop:
    """The host loop, whose environments are closed with the stack; otherwise as `start`.

    Args:
      config: the run; of lanes, the seed of each, so that one may come several times.
      stack: as in `start`, and so are the others.
      snapshot: as in `start`.
      should_snapshot: as in `start`.
      begin: as in `start`.
      stop: as in `start`.
      hyper: numbers of lanes, `[L]` by path; their rows give a lane's position as its seed. None: the seeds of a run.
      stop_evaluation: as `stop`, of evaluations; None: it is the same.
    """
    check_forecast(config)
    lanes = stack.enter_context(closing(make_training_envs(config, stop)))
    trials = make_evaluation_envs(config, config.evaluation.episodes, stop_evaluation or stop, beside=lanes)
    stack.enter_context(closing(trials))
    check_forecast(config, prod(lanes.spec.obs_shape), lanes.spec.action_size)
    agent = make_agent(config, lanes.spec)
    goals = stack.enter_context(open_goal_task(config)) if wants_goals(config) else None
    ring = make_ring(config, lanes.spec, goals, carry_size(agent))
    policy, value, gamma, own = jit_policy(agent), jit_value(agent), config.algorithm.gamma, None
    if hyper is not None:
        own = Lanes(tuple(range(len(config.seed_list))), agent_by_numbers(config, lanes.spec), hyper)
        policy, value = (_over_lanes(own, attrgetter(name)) for name in ("policy", "value"))
    memory = jit_memory(agent, lanes.spec.action_size)
    begun = begin if snapshot is None else replay_snapshot(snapshot, lanes)
    return Loop(
        lanes.spec,
        host_loop(config, agent, lanes, ring, begun, should_snapshot, stop, own),
        lambda state: evaluate_episodes(
            policy, value, state, trials, gamma, info_keys=config.env.info_keys, memory=memory
        ),
        int(begun.again.sum()) if isinstance(begun, ReplayedEpisodes) else 0,
        begun.doubts if isinstance(begun, ReplayedEpisodes) else (),
    )


def agent_by_numbers(config: Config, spec: EnvSpec) -> AgentFn:
    """What makes the agent of a configuration with other numbers, which may be traced.

    Raises:
      ConfigError: as in `find_make_agent`.
    """
    make = find_make_agent(config)  # here, as what calls it may be traced in another thread
    return lambda hyper: make(with_values(config, hyper), spec)


def _over_lanes(lanes: Lanes, part: Callable[[Agent], Callable[..., Any]]) -> PolicyFn:
    """As `jit_policy` or `jit_value`, which are a part of the agent each, of agents that differ by their numbers."""

    def of_lane(hyper: Hyper, state: TrainState, obs: Any) -> Any:
        agent = cast("AgentFn", lanes.agent_of)(hyper)
        return jax.vmap(part(agent), (None, 0))(state, obs)

    return partial(jax.jit(jax.vmap(of_lane)), jax.device_put(dict(lanes.hyper)))


def _device(
    config: Config,
    stack: ExitStack,
    snapshot: Snapshot | None,
    should_snapshot: SnapshotFn,
    begin: InitFn,
    stop: StopFn,
) -> Loop:
    """The device loop, compiled already."""
    began = perf_counter()
    env = device_env(config)
    check_forecast(config, prod(env.spec.obs_shape), env.spec.action_size)
    seeds = config.seed_list
    mesh = lane_mesh(len(seeds), config.data_parallel)
    keys = run_keys([*seeds, *seeds[-1:] * (round_up_lanes(len(seeds), mesh) - len(seeds))])
    compiled = compile_program(config, env, keys, {}, mesh, stop)
    _check_memory(config, compiled)
    carry = begin if snapshot is None else restore(compiled, snapshot, len(seeds))
    chunks = device_loop(config, compiled, keys, {}, carry, should_snapshot)
    before = {} if snapshot is None else snapshot.seconds
    again = (carry, snapshot.unrecorded) if snapshot is not None and isinstance(carry, DeviceCarry) else None
    return Loop(
        env.spec,
        reports(config, compiled, chunks, before, perf_counter() - began, again),
        lambda state: Evaluation(*drop_padding(fetch(partial(compiled.evaluate, state, {}), stop), len(seeds))),
    )


def _check_memory(config: Config, compiled: Compiled) -> None:
    """Refuses a run that does not fit; nothing has been allocated yet."""
    seeds, capacity = len(config.seed_list), config.replay.capacity
    needed, free, fit = memory_bytes(compiled, seeds), free_bytes(compiled.mesh), largest_fit(compiled, seeds)
    if needed > free:
        beside = needed - -(-seeds // compiled.mesh.shape["seed"]) * compiled.lane_bytes["replay"]
        most = max(0, free - beside) * capacity // max(1, needed - beside)
        raise ConfigError(
            f"{seeds} seeds with replay.capacity={capacity} need {human_bytes(needed)} on each device, "
            f"{human_bytes(free)} are free; what fits is {fit} seeds, or replay.capacity={most}"
        )
