"""What the device loop carries from iteration to iteration, and what it adds up on the way."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.memory import Kept
from ddpg_jax.equations.rewards import ReturnMoments
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.training.report import DIAGNOSTICS, METRICS
from ddpg_jax.types import Array, TrainState, Tree


class Clock(NamedTuple):
    """What counts alike for all seeds, and therefore stays out of `vmap`.

    Attributes:
      iteration: of the loop, uint32 `[]`; it only selects random numbers, so it may wrap.
      position: of the replay.
      credit: calls of the update that are due in part, int32 `[]`.
    """

    iteration: Array
    position: replays.Position
    credit: Array


class Lane(NamedTuple):
    """What one seed carries from iteration to iteration.

    Attributes:
      learner: the learner.
      act_state: of the exploration noise, `[E, ...]`.
      env_state: of the environments, `[E, ...]`.
      obs: to act on next, `[E, *O]`.
      first: whether an episode begins with it, `[E]`.
      store: the replay.
      episode_return: of the episodes in progress, `[E]`.
      episode_length: of the episodes in progress, `[E]`.
      rewards: moments of the discounted returns; `()` where rewards are not scaled.
      kept: of an agent with memory, what it remembers of its environments; else `()`.
    """

    learner: TrainState
    act_state: Tree
    env_state: Tree
    obs: Array
    first: Array
    store: Tree
    episode_return: Array
    episode_length: Array
    rewards: Tree = ()
    kept: Kept = ()


class Totals(NamedTuple):
    """Sums over the iterations of a chunk, for one seed.

    Attributes:
      updates: critic updates, int32 `[]`.
      metrics: sums of `METRICS` over the updates, those that were rejected 0 but for "rejected", `[K]`.
      max_q: the largest predicted Q, `[]`.
      diagnostics: `DIAGNOSTICS` of the learner at the chunk's end, on a minibatch drawn for them, `[D]`.
      episodes: episodes that ended, int32 `[]`.
      episode_return: sum of their returns, `[]`.
      episode_length: sum of their lengths, int32 `[]`.
      faults: steps at which an environment reported a number that is not finite, though its action was, int32 `[]`;
        0 is learned from and stored in the place of such a number.
    """

    updates: Array
    metrics: Array
    max_q: Array
    diagnostics: Array
    episodes: Array
    episode_return: Array
    episode_length: Array
    faults: Array


def copy_lanes(lanes: Lane, children: Array, parents: Array, *, whole: bool) -> Lane:
    """Lanes of which some go on from where others are.

    Args:
      lanes: all, leaves `[L, ...]`.
      children: numbers of those that do, `[K]`, each once.
      parents: numbers of the lanes that they go on from, `[K]`.
      whole: whether replay and environments are taken too; else what was learned: the learner, and the moments of the
        returns by which rewards are scaled.

    Returns:
      Leaves `[L, ...]`, the same to the bit but for the children.
    """

    def moved(x: Array) -> Array:
        floats = jnp.issubdtype(x.dtype, jnp.floating)  # moved as integers: between devices zeros are added to them
        bits = jax.lax.bitcast_convert_type(x, f"uint{jnp.finfo(x.dtype).bits}") if floats else x
        bits = bits.at[children].set(bits[parents])
        return jax.lax.bitcast_convert_type(bits, x.dtype) if floats else bits

    def copied(tree: Tree) -> Any:
        return jax.tree.map(moved, tree)

    if whole:
        return copied(lanes)
    rewards = copied(lanes.rewards)
    if isinstance(rewards, ReturnMoments):
        rewards = rewards._replace(returns=lanes.rewards.returns)  # of episodes that are not taken
    return lanes._replace(learner=copied(lanes.learner), rewards=rewards)


def start_clock() -> Clock:
    """The clock of a run that begins."""
    return Clock(jnp.zeros((), jnp.uint32), replays.start(), jnp.zeros((), jnp.int32))


def zero_totals() -> Totals:
    """The sums of a chunk that begins."""
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    return Totals(
        none, jnp.zeros(len(METRICS)), jnp.full((), -jnp.inf), jnp.zeros(len(DIAGNOSTICS)), none, zero, none, none
    )


def accumulate(totals: Totals, done: Array, episode_return: Array, episode_length: Array, fault: Array) -> Totals:
    """The sums with one step of the seed's environments; shapes `[E]`, but `fault` `[]`."""
    ended = done.astype(jnp.int32)
    return totals._replace(
        episodes=totals.episodes + ended.sum(),
        episode_return=totals.episode_return + jnp.where(done, episode_return, jnp.zeros_like(episode_return)).sum(),
        episode_length=totals.episode_length + (episode_length * ended).sum(),
        faults=totals.faults + fault.astype(jnp.int32),
    )
