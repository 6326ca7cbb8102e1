"""Greedy episodes in gymnasium environments: one call of the policy for each step of all seeds and episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.envs.device.autoreset import select
from ddpg_jax.envs.host.pool import Pool
from ddpg_jax.envs.memory import Kept, init_kept, recall, remember
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.types import Agent, Array, Evaluation, HostArray, Recalled, Seen, TrainState

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


class HostMemory(NamedTuple):
    """What agents with memory keep of an evaluation.

    Attributes:
      begin: `(S, N) -> kept`, before the first step, leaves `[S, N, ...]`.
      update: `(state, kept, seen, action [S, N, A], reward [S, N], active [S, N]) -> kept`, where active; else as
        before.
    """

    begin: Callable[[int, int], Kept]
    update: Callable[..., Kept]


def jit_memory(agent: Agent, action_size: int) -> HostMemory | None:
    """The memory of all seeds; None: the agent has none."""
    memory = agent.memory
    if memory is None:
        return None

    def begin(seeds: int, episodes: int) -> Kept:
        kept = init_kept(memory, episodes, action_size)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), kept)

    def update_one(state: TrainState, kept: Kept, seen: Any, action: Array, reward: Array, active: Array) -> Kept:
        return jax.vmap(select)(active, remember(agent, state, seen, action, reward), kept)

    return HostMemory(begin, jax.jit(jax.vmap(update_one)))


ProgressFn: TypeAlias = Callable[[int, int], None]
"""`(steps, episodes ended)`: how far an evaluation has come."""


def no_progress(steps: int, ended: int) -> None:
    """Tells nobody."""


WatchFn: TypeAlias = Callable[[Any, HostArray], None]
"""`(seen, active [S, N])`: what the policy acts on, leaves `[S, N, ...]`, and where episodes are running."""


def no_watch(seen: Any, active: HostArray) -> None:
    """Keeps nothing."""


class Told:
    """What agents with memory were told in an evaluation, which it is given to as `watch`."""

    def __init__(self) -> None:
        self._lanes, self._rows = list[HostArray](), list[Seen]()

    def __call__(self, seen: Recalled, active: HostArray) -> None:
        """Keeps the rows of episodes that are running."""
        self._lanes.append(np.flatnonzero(active))
        self._rows.append(jax.tree.map(lambda x: np.asarray(x)[active], seen.seen))

    def by_episode(self, lengths: HostArray) -> Seen:
        """What was told at each step, leaves `[S, N, T, ...]`, zeros after an episode's end.

        Args:
          lengths: steps of each, `[S, N]`, of which T is the largest.
        """
        order = np.argsort(np.concatenate(self._lanes), kind="stable")  # by episode, and by time within it
        taken = np.arange(lengths.max()) < lengths[..., None]

        def place(*parts: HostArray) -> HostArray:
            rows = np.concatenate(parts)[order]
            placed = np.zeros((*taken.shape, *rows.shape[1:]), rows.dtype)
            placed[taken] = rows
            return placed

        return jax.tree.map(place, *self._rows)


def evaluate_episodes(
    policy: PolicyFn,
    value: ValueFn,
    state: TrainState,
    lanes: HostEnv | Pool,
    gamma: float,
    progress: ProgressFn = no_progress,
    info_keys: Sequence[str] = (),
    memory: HostMemory | None = None,
    watch: WatchFn = no_watch,
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
      memory: of the agent, from `jit_memory`.
      watch: told before every step.

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
    begun = kept = () if memory is None else memory.begin(*active.shape)
    while active.any():
        seen = recall(kept, obs, lengths == 0)
        watch(seen, active)
        action = np.asarray(policy(readable, seen))
        if not np.isfinite(action).all():
            raise NotFiniteError("the policy's action is not finite: its parameters have diverged")
        step = lanes.step(action, active)
        if memory is not None:
            kept = memory.update(state, kept, seen, action, step.reward.astype(np.float32), active)
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
    at_first, at_last = recall(begun, first, np.ones(over.shape, bool)), recall(kept, last, np.zeros(over.shape, bool))
    predicted = np.asarray(value(state, at_first), np.float64)
    discounted += gamma**lengths * np.where(cut, np.asarray(value(state, at_last), np.float64), 0.0)
    found = {key: lanes.ended_info[..., k].copy() for k, key in enumerate(info_keys)}
    return Evaluation(returns, lengths, discounted, predicted, found or ())
