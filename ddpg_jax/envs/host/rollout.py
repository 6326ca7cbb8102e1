"""Greedy episodes in gymnasium environments: one call of the policy for each step of all seeds and episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np

from ddpg_jax.envs.host.pool import Pool
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.types import Agent, Array, Evaluation, HostArray, TrainState

if TYPE_CHECKING:
    from ddpg_jax.envs.host.workers import HostEnv


PolicyFn: TypeAlias = Callable[[TrainState, HostArray], Array]
ValueFn: TypeAlias = Callable[[TrainState, HostArray], Array]


def jit_policy(agent: Agent) -> PolicyFn:
    """Greedy actions of all seeds: `(state, obs [S, N, *O]) -> action [S, N, A]` in [-1, 1]."""
    return jax.jit(jax.vmap(jax.vmap(agent.policy, (None, 0))))


def jit_value(agent: Agent) -> ValueFn:
    """What the critics of all seeds predict of their greedy policies: `(state, obs [S, N, *O]) -> [S, N]`."""
    return jax.jit(jax.vmap(jax.vmap(agent.value, (None, 0))))


ProgressFn: TypeAlias = Callable[[int, int], None]
"""`(steps, episodes ended)`: how far an evaluation has come."""


def no_progress(steps: int, ended: int) -> None:
    """Tells nobody."""


def evaluate_episodes(
    policy: PolicyFn,
    value: ValueFn,
    state: TrainState,
    lanes: HostEnv | Pool,
    gamma: float,
    progress: ProgressFn = no_progress,
    info_keys: Sequence[str] = (),
) -> Evaluation:
    """Runs one episode in every lane; those of a pool take turns.

    Args:
      policy: greedy actions, from `jit_policy`.
      value: what the critics predict, from `jit_value`; asked at the beginnings and at the ends.
      state: the learner, leaves `[S, ...]`.
      lanes: S x episodes environments with evaluation seeds; episode j begins alike for all seeds.
      gamma: discount of one step.
      progress: told after every step.
      info_keys: what the lanes were asked for of the info of an episode's end.

    Returns:
      The evaluation, leaves `[S, episodes]`.

    Raises:
      EnvironmentFault: an environment failed.
      Interrupted: the lanes were asked to stop.
      NotFiniteError: the policy's action is not finite.
    """
    readable, pool = state.for_acting, lanes if isinstance(lanes, Pool) else None
    first = obs = lanes.reset()
    first = first.copy()
    active = np.ones(obs.shape[:2], bool) if pool is None else pool.running
    returns, lengths, discounted = np.zeros(active.shape), np.zeros(active.shape, np.int64), np.zeros(active.shape)
    last, cut, steps = obs.copy(), np.zeros(active.shape, bool), 0
    over = np.zeros(active.shape, bool)
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
        over |= active & (step.terminated | step.truncated)
        running = active & ~over if pool is None else pool.running
        first[running & ~active] = step.obs[running & ~active]
        active, obs, steps = running, step.obs, steps + 1
        progress(steps, int(over.sum()))
    predicted = np.asarray(value(state, first), np.float64)
    discounted += gamma**lengths * np.where(cut, np.asarray(value(state, last), np.float64), 0.0)
    found = {key: lanes.ended_info[..., k].copy() for k, key in enumerate(info_keys)}
    return Evaluation(returns, lengths, discounted, predicted, found or ())
