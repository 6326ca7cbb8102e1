"""The whole training of one seed as pure functions: environment, replay, sampling and update in one scanned program.

Seeds, and numbers of the configuration, are added outside by `vmap`; one seed is left as it is. The nesting:

    advance                                 a chunk of iterations, their number not part of the program
        segments                            warm-up, learning: loops of their own, no branch inside
            iterate                         one step of the seed's E environments
                reset                       of the networks, where it is due
                observe, act, env.step, replay.add
                calls                       as many as are due after this step
                    replay.sample [U, B], agent.update, replay.write_back

A transition is stored before the minibatches of its own iteration are drawn, which is the order of Algorithm 1.

Iteration, ring position and owed updates are the same for all seeds and stay outside `vmap`: so a row is written by a
`dynamic_update_slice`, and a fractional ratio of updates to steps is a loop whose length no seed disputes. Random
numbers of "reset", "explore" and "environment" depend on the iteration, those of "replay" on `TrainState.step`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.agents.algorithms import MakeAgentFn, find_make_agent
from ddpg_jax.agents.recurrent import carry_size
from ddpg_jax.config.schema import with_values
from ddpg_jax.envs.device.rollout import evaluate_greedy
from ddpg_jax.envs.memory import Kept, Remembered, init_kept, recall, remember
from ddpg_jax.equations.rewards import RewardMeasure, reward_measure
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.factory import make_replay
from ddpg_jax.rng import stream_key
from ddpg_jax.training.device.carry import Clock, Lane, Totals, accumulate
from ddpg_jax.training.device.rewards import NoteFn, note_rewards, start_rewards
from ddpg_jax.training.report import DIAGNOSTICS, METRICS, Hyper
from ddpg_jax.training.schedule import calls_per_iteration, reset_period, segments, updates_per_call
from ddpg_jax.types import ActFn, Agent, Array, Batch, DeviceEnv, Evaluation, HostArray, TrainState, Tree

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


class Program(NamedTuple):
    """The training of one seed.

    Attributes:
      init: `(key, hyper) -> Lane`.
      advance: `(lane, clock, totals, counts, key, hyper) -> (lane, clock, totals)`; counts, int32 `[N]`, are the
        iterations in each of the N segments. Where a chunk is cut in pieces changes nothing.
      evaluate: `(learner, hyper) -> Evaluation` of the greedy policy, one episode each.
      counts: `(start, stop) -> counts` of the iterations from `start` up to `stop`.
      replay: where transitions rest, but for numbers that may be traced; of one seed, without an axis of lanes.
    """

    init: Callable[[Array, Hyper], Lane]
    advance: Callable[[Lane, Clock, Totals, Any, Array, Hyper], tuple[Lane, Clock, Totals]]
    evaluate: Callable[[TrainState, Hyper], Evaluation]
    counts: Callable[[int, int], HostArray]
    replay: replays.DeviceReplay


def program(
    config: Config,
    env: DeviceEnv,
    shard_batch: Callable[[Batch], Batch] = lambda batch: batch,
    make_agent: MakeAgentFn | None = None,
    stored: Callable[[replays.DeviceReplay], replays.DeviceReplay] = lambda replay: replay,
) -> Program:
    """The training of one seed of a configuration.

    Args:
      config: the run.
      env: the environment.
      shard_batch: divides the batches `[U, B, ...]` of an update over the devices that share them.
      make_agent: what builds the agent; numbers of its configuration may be traced. None: what the configuration names.
      stored: what becomes of the replay: `replay.device.with_lane_axis` for `lanes.squeezed_vmap`.

    Raises:
      ConfigError: the replay is too long for its index.
    """
    num_envs, algorithm = config.env.num_envs, config.algorithm
    steps, per_call = replays.ring_steps(config.replay.capacity, num_envs), updates_per_call(config)
    if steps * num_envs >= 2**31 - 1:
        raise ConfigError(
            f"replay.capacity={config.replay.capacity}: the device loop indexes at most 2147483646, in whole "
            f"steps of {num_envs} environments"
        )
    due = calls_per_iteration(config)
    parts = segments(config)
    make = make_agent or find_make_agent(config)  # here, as what follows may be traced in another thread

    def built(hyper: Hyper) -> tuple[Agent, replays.DeviceReplay]:
        changed = with_values(config, hyper)
        agent = make(changed, env.spec)
        return agent, stored(make_replay(changed, env.spec, carry_size(agent)))

    def measure(hyper: Hyper) -> RewardMeasure:
        gamma = with_values(config, hyper).algorithm.gamma
        return reward_measure(algorithm.reward_scale or "deviation", gamma, algorithm.return_limit)

    def init(key: Array, hyper: Hyper) -> Lane:
        agent, replay = built(hyper)
        env_state, obs = jax.vmap(env.reset)(jax.random.split(stream_key(key, "reset"), num_envs))
        learner, act_state, zeros = agent.init(key), agent.init_act(num_envs), jnp.zeros(num_envs)
        first = jnp.ones(num_envs, bool)
        rewards = start_rewards(num_envs, measure(hyper)) if jax.tree.leaves(learner.stats.reward) else ()
        lengths = zeros.astype(jnp.int32)
        kept = init_kept(agent.memory, num_envs, env.spec.action_size, acting=True)
        return Lane(learner, act_state, env_state, obs, first, replay.init(), zeros, lengths, rewards, kept)

    def advance(
        lane: Lane, clock: Clock, totals: Totals, counts: Array, key: Array, hyper: Hyper
    ) -> tuple[Lane, Clock, Totals]:
        agent, replay = built(hyper)
        learn = partial(update_steps, agent, replay, per_call, algorithm.batch_size, due, shard_batch, key)
        note = partial(note_rewards, measure(hyper))
        carry = lane, clock, totals
        for i, part in enumerate(parts):
            choose = _uniform(env.spec.action_size) if part.uniform else agent.act
            renew = _maybe_reset(agent, reset_period(config) if part.learns else 0, key)
            ready = partial(_observe, agent, renew)
            iterate = partial(
                env_step, env, agent, ready, choose, note, replay, steps, learn if part.learns else None, key
            )
            carry = jax.lax.fori_loop(0, counts[i], iterate, carry)
        lane, clock, totals = carry
        diagnostics = _diagnose(agent, replay, algorithm.batch_size, key, lane, clock)
        return lane, clock, totals._replace(diagnostics=diagnostics)

    def evaluate(learner: TrainState, hyper: Hyper) -> Evaluation:
        gamma = with_values(config, hyper).algorithm.gamma
        return evaluate_greedy(env, built(hyper)[0], learner, config.evaluation.episodes, gamma)

    def counts(start: int, stop: int) -> HostArray:
        bounds = [(max(start, part.begin), stop if part.end is None else min(stop, part.end)) for part in parts]
        return np.array([max(0, end - begin) for begin, end in bounds], np.int32)

    return Program(init, advance, evaluate, counts, make_replay(config, env.spec, carry_size(make(config, env.spec))))


_Learn: TypeAlias = Callable[[Lane, Clock, Totals], tuple[Lane, Clock, Totals]]
_Carry: TypeAlias = tuple[Lane, Clock, Totals]


def _maybe_reset(agent: Agent, period: int, key: Array) -> Callable[[TrainState, Array], TrainState]:
    """Resets the networks at every multiple of the period but the first; the iteration is the same for all seeds."""
    if not period:
        return lambda learner, iteration: learner

    def renew(learner: TrainState, iteration: Array) -> TrainState:
        due = (iteration > 0) & (iteration % period == 0)
        return jax.lax.cond(due, lambda state: agent.reset(state, key), lambda state: state, learner)

    return renew


def _observe(agent: Agent, renew: Callable[[TrainState, Array], TrainState], lane: Lane, clock: Clock) -> TrainState:
    """The learner that is about to act."""
    return agent.observe(renew(lane.learner, clock.iteration), lane.obs)


def env_step(
    env: DeviceEnv,
    agent: Agent,
    ready: Callable[[Lane, Clock], TrainState],
    choose: ActFn,
    note: NoteFn,
    replay: replays.DeviceReplay,
    steps: int,
    learn: _Learn | None,
    key: Array,
    i: Array,
    carry: _Carry,
) -> _Carry:
    """One step of the seed's environments, and the updates that are due after it."""
    lane, clock, totals = carry
    num_envs = lane.first.shape[0]
    act_keys, env_keys = (
        jax.random.split(stream_key(key, name, clock.iteration), num_envs) for name in ("explore", "environment")
    )
    obs, observed = _finite(lane.obs)
    learner = ready(lane._replace(obs=obs), clock)
    seen = recall(lane.kept, obs, lane.first)
    action, act_state = choose(learner, lane.act_state, seen, lane.first, act_keys)
    env_state, step = jax.vmap(env.step)(lane.env_state, action, env_keys)
    (reward, rewarded), (next_obs, followed) = _finite(step.reward), _finite(step.next_obs)
    step = step._replace(reward=reward, next_obs=next_obs)
    kept = remember(agent, learner, seen, action, reward)
    store = replay.add(lane.store, clock.position, obs, action, step, *_carry_to_keep(agent, lane.kept))
    clock = clock._replace(iteration=clock.iteration + 1, position=replays.advance(clock.position, steps))
    done = step.terminated | step.truncated
    episode_return, episode_length = lane.episode_return + step.reward, lane.episode_length + 1
    answered = rewarded & followed | ~jnp.isfinite(action).all()  # what comes of such an action is not its fault
    totals = accumulate(totals, done, episode_return, episode_length, ~(observed & answered))
    learner, rewards = note(learner, lane.rewards, step.reward, done)
    lane = Lane(
        learner,
        act_state,
        env_state,
        step.obs,
        done,
        store,
        jnp.where(done, jnp.zeros_like(episode_return), episode_return),
        jnp.where(done, jnp.zeros_like(episode_length), episode_length),
        rewards,
        kept,
    )
    return (lane, clock, totals) if learn is None else learn(lane, clock, totals)


def _carry_to_keep(agent: Agent, kept: Kept) -> tuple[Array, ...]:
    """What was remembered before the step, `[E, K]`, for a replay that keeps states."""
    if agent.memory is None or not agent.memory.keep_every or not isinstance(kept, Remembered):
        return ()
    return (jax.vmap(agent.memory.flatten)(kept.carry),)


def update_steps(
    agent: Agent,
    replay: replays.DeviceReplay,
    per_call: int,
    batch_size: int,
    due: Fraction,
    shard_batch: Callable[[Batch], Batch],
    key: Array,
    lane: Lane,
    clock: Clock,
    totals: Totals,
) -> _Carry:
    """The calls of the update that are due; their number is the same for all seeds."""

    def call(_: Array, carry: tuple[TrainState, Tree, Totals]) -> tuple[TrainState, Tree, Totals]:
        learner, store, totals = carry
        draw = stream_key(key, "replay", learner.step)
        batch = shard_batch(replay.sample(store, clock.position, draw, learner.step, per_call, batch_size))
        learner, metrics, td_error = agent.update(learner, batch, key)
        store = replay.write_back(store, batch.index, td_error)
        values = jnp.stack([metrics[name] for name in METRICS], -1)
        return (
            learner,
            store,
            totals._replace(
                updates=totals.updates + per_call,
                metrics=totals.metrics + values.sum(0),
                max_q=jnp.maximum(totals.max_q, jnp.where(metrics["rejected"] > 0, -jnp.inf, metrics["max_q"]).max()),
            ),
        )

    carry = lane.learner, lane.store, totals
    if due == 1:  # a loop of one round would only keep the compiler from seeing through it
        carry = call(jnp.int32(0), carry)
    else:
        credit = clock.credit + due.numerator
        carry = jax.lax.fori_loop(0, credit // due.denominator, call, carry)
        clock = clock._replace(credit=credit % due.denominator)
    learner, store, totals = carry
    return lane._replace(learner=learner, store=store), clock, totals


def _diagnose(
    agent: Agent, replay: replays.DeviceReplay, batch_size: int, key: Array, lane: Lane, clock: Clock
) -> Array:
    """`DIAGNOSTICS` of a learner, `[D]`."""
    draw = stream_key(key, "diagnose", clock.iteration)
    batch = replay.sample(lane.store, clock.position, draw, lane.learner.step, 1, batch_size)
    found = agent.diagnose(lane.learner, jax.tree.map(lambda x: x[0], batch))
    return jnp.stack([found[name] for name in DIAGNOSTICS])


def _uniform(action_size: int) -> ActFn:
    """Uniformly random actions, in the place of `Agent.act`."""

    def act(state: TrainState, act_state: Tree, obs: Array, first: Array, keys: Array) -> tuple[Array, Tree]:
        draw = partial(jax.random.uniform, shape=(action_size,), minval=-1.0, maxval=1.0)
        return jax.vmap(draw)(keys), act_state

    return act


def _finite(values: Array) -> tuple[Array, Array]:
    """The values with 0 for those that are not finite, so that none is learned from or kept; and if all were, `[]`."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values, jnp.bool_(True)
    finite = jnp.isfinite(values)
    return jnp.where(finite, values, jnp.zeros_like(values)), finite.all()
