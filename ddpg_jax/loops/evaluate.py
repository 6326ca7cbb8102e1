"""Evaluation: the greedy policy in environments of its own, with all seeds and episodes in one call.

That is a call for each step with gymnasium's environments, and one call in all with those written in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.errors import NotFiniteError
from ddpg_jax.loops.report import Evaluation
from ddpg_jax.loops.transport import acting
from ddpg_jax.rng import evaluation_keys
from ddpg_jax.types import Agent, Array, DeviceEnv, HostArray, TrainState, Tree

if TYPE_CHECKING:
    from ddpg_jax.envs.factory import AnyLanes

PolicyFn: TypeAlias = Callable[[TrainState, HostArray], Array]


def jit_policy(agent: Agent) -> PolicyFn:
    """Greedy actions of all seeds: `(state, obs [S, N, *O]) -> action [S, N, A]` in [-1, 1]."""
    return jax.jit(jax.vmap(jax.vmap(agent.policy, (None, 0))))


def evaluate_episodes(policy: PolicyFn, state: TrainState, lanes: AnyLanes) -> Evaluation:
    """Runs one episode in every lane.

    Args:
      policy: greedy actions, from `jit_policy`.
      state: the learner, leaves `[S, ...]`.
      lanes: S x episodes environments with evaluation seeds; episode j begins alike for all seeds.

    Returns:
      Returns and lengths `[S, episodes]`.

    Raises:
      EnvironmentFault: an environment failed.
      NotFiniteError: the policy's action is not finite.
    """
    readable = acting(state)
    obs = lanes.reset()
    active = np.ones(obs.shape[:2], bool)
    returns, lengths = np.zeros(active.shape), np.zeros(active.shape, np.int64)
    while active.any():
        action = np.asarray(policy(readable, obs))
        if not np.isfinite(action).all():
            raise NotFiniteError("the policy's action is not finite: its parameters have diverged")
        step = lanes.step(action, active)
        returns += step.reward
        lengths += active
        active &= ~(step.terminated | step.truncated)
        obs = step.obs
    return Evaluation(returns, lengths)


def evaluate_greedy(env: DeviceEnv, agent: Agent, learner: TrainState, episodes: int) -> Evaluation:
    """Runs one episode of the greedy policy of one seed from each of the bank of evaluation keys.

    The number of steps is the time limit, whatever ends before: so devices need not tell each other who is done.

    Args:
      env: the environment.
      agent: whose policy it is.
      learner: its state; what `Agent.policy` reads.
      episodes: N.

    Returns:
      Returns and lengths `[N]`.
    """
    reset_keys, step_keys = evaluation_keys(episodes)
    env_state, obs = jax.vmap(env.reset)(reset_keys)

    def step(t: Array, carry: tuple[Tree, Array, Array, Array, Array]) -> tuple[Tree, Array, Array, Array, Array]:
        env_state, obs, active, returns, lengths = carry
        action = jax.vmap(agent.policy, (None, 0))(learner, obs)
        env_state, step = jax.vmap(env.step)(env_state, action, jax.vmap(jax.random.fold_in, (0, None))(step_keys, t))
        returns = returns + jnp.where(active, step.reward, jnp.zeros_like(step.reward))
        lengths = lengths + active.astype(jnp.int32)
        return env_state, step.obs, active & ~(step.terminated | step.truncated), returns, lengths

    start = env_state, obs, jnp.ones(episodes, bool), jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32)
    _, _, _, returns, lengths = jax.lax.fori_loop(0, env.max_episode_steps, step, start)
    return Evaluation(returns, lengths)
