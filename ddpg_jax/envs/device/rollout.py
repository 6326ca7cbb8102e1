"""Evaluation: the greedy policy in environments of its own, with all seeds and episodes in one call.

That is a call for each step with gymnasium's environments, and one call in all with those written in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.envs.protocol import select
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.loops.report import Evaluation
from ddpg_jax.loops.transport import acting
from ddpg_jax.rng import evaluation_keys
from ddpg_jax.types import Agent, Array, DeviceEnv, HostArray, TrainState, Tree

if TYPE_CHECKING:
    from ddpg_jax.envs.factory import AnyLanes

PolicyFn: TypeAlias = Callable[[TrainState, HostArray], Array]
ValueFn: TypeAlias = Callable[[TrainState, HostArray], Array]


def jit_policy(agent: Agent) -> PolicyFn:
    """Greedy actions of all seeds: `(state, obs [S, N, *O]) -> action [S, N, A]` in [-1, 1]."""
    return jax.jit(jax.vmap(jax.vmap(agent.policy, (None, 0))))


def jit_value(agent: Agent) -> ValueFn:
    """What the critics of all seeds predict of their greedy policies: `(state, obs [S, N, *O]) -> [S, N]`."""
    return jax.jit(jax.vmap(jax.vmap(agent.value, (None, 0))))


def evaluate_episodes(policy: PolicyFn, value: ValueFn, state: TrainState, lanes: AnyLanes, gamma: float) -> Evaluation:
    """Runs one episode in every lane.

    Args:
      policy: greedy actions, from `jit_policy`.
      value: what the critics predict, from `jit_value`; asked at the beginnings and at the ends.
      state: the learner, leaves `[S, ...]`.
      lanes: S x episodes environments with evaluation seeds; episode j begins alike for all seeds.
      gamma: discount of one step.

    Returns:
      The evaluation, leaves `[S, episodes]`.

    Raises:
      EnvironmentFault: an environment failed.
      NotFiniteError: the policy's action is not finite.
    """
    readable = acting(state)
    obs = lanes.reset()
    active = np.ones(obs.shape[:2], bool)
    returns, lengths, discounted = np.zeros(active.shape), np.zeros(active.shape, np.int64), np.zeros(active.shape)
    last, cut, predicted = obs.copy(), np.zeros(active.shape, bool), np.asarray(value(state, obs), np.float64)
    while active.any():
        action = np.asarray(policy(readable, obs))
        if not np.isfinite(action).all():
            raise NotFiniteError("the policy's action is not finite: its parameters have diverged")
        step = lanes.step(action, active)
        returns += step.reward
        discounted += gamma**lengths * step.reward
        lengths += active
        last[active] = step.next_obs[active]
        cut |= active & step.truncated & ~step.terminated
        active &= ~(step.terminated | step.truncated)
        obs = step.obs
    discounted += gamma**lengths * np.where(cut, np.asarray(value(state, last), np.float64), 0.0)
    return Evaluation(returns, lengths, discounted, predicted)


class _Trial(NamedTuple):
    """Episodes of an evaluation in progress.

    Attributes:
      env_state: of the environments, `[N, ...]`.
      obs: to act on next, `[N, *O]`.
      active: whether the episode goes on, `[N]`.
      last: the true successor of the last action, `[N, *O]`.
      rest: gamma^T where the episode was cut after T steps, else 0, `[N]`: what the value of `last` counts.
      discount: gamma^t of the next reward, `[]`.
      returns: sums of rewards, `[N]`.
      lengths: steps, `[N]`.
      discounted: sums of discounted rewards, `[N]`.
    """

    env_state: Tree
    obs: Array
    active: Array
    last: Array
    rest: Array
    discount: Array
    returns: Array
    lengths: Array
    discounted: Array


def evaluate_greedy(
    env: DeviceEnv, agent: Agent, learner: TrainState, episodes: int, gamma: Array | float
) -> Evaluation:
    """Runs one episode of the greedy policy of one seed from each of the bank of evaluation keys.

    The number of steps is the time limit, whatever ends before: so devices need not tell each other who is done.

    Args:
      env: the environment.
      agent: whose policy it is.
      learner: its state; what `Agent.policy` and `Agent.value` read.
      episodes: N.
      gamma: discount of one step, `[]`.

    Returns:
      The evaluation, leaves `[N]`.
    """
    reset_keys, step_keys = evaluation_keys(episodes)
    env_state, obs = jax.vmap(env.reset)(reset_keys)

    value = jax.vmap(agent.value, (None, 0))
    predicted, zeros = value(learner, obs), jnp.zeros(episodes)

    def step(t: Array, trial: _Trial) -> _Trial:
        action = jax.vmap(agent.policy, (None, 0))(learner, trial.obs)
        keys = jax.vmap(jax.random.fold_in, (0, None))(step_keys, t)
        env_state, step = jax.vmap(env.step)(trial.env_state, action, keys)
        reward = jnp.where(trial.active, step.reward, jnp.zeros_like(step.reward))
        discount = trial.discount * gamma
        cut = trial.active & step.truncated & ~step.terminated
        return _Trial(
            env_state,
            step.obs,
            trial.active & ~(step.terminated | step.truncated),
            jax.vmap(select)(trial.active, step.next_obs, trial.last),
            jnp.where(cut, discount, trial.rest),
            discount,
            trial.returns + reward,
            trial.lengths + trial.active.astype(jnp.int32),
            trial.discounted + trial.discount * reward,
        )

    start = _Trial(
        env_state, obs, jnp.ones(episodes, bool), obs, zeros, jnp.ones(()), zeros, zeros.astype(jnp.int32), zeros
    )
    end = jax.lax.fori_loop(0, env.max_episode_steps, step, start)
    return Evaluation(end.returns, end.lengths, end.discounted + end.rest * value(learner, end.last), predicted)
