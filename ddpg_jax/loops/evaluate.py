"""Evaluation: the greedy policy in environments of its own, all seeds and episodes in one call per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np

from ddpg_jax.errors import NotFiniteError
from ddpg_jax.loops.report import Evaluation
from ddpg_jax.loops.transport import acting
from ddpg_jax.types import Agent, Array, HostArray, TrainState

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
