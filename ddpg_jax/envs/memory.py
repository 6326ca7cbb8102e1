"""One step of an agent in several environments: what it acts on, and what it remembers afterwards.

Every loop and every evaluation acts through these; for an agent without memory they hand on the observation and keep
nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.types import Agent, Array, Memory, Recalled, Seen, TrainState, Tree


class Remembered(NamedTuple):
    """What is kept of E environments between two steps.

    Attributes:
      carry: what the agent remembers, leaves `[E, ...]`.
      action: the last, `[E, A]`.
      reward: what came of it, `[E]`.
    """

    carry: Tree
    action: Any
    reward: Any


Kept: TypeAlias = Remembered | tuple[()]
"""`()` for an agent without memory."""


def init_kept(memory: Memory | None, num_envs: int, action_size: int, *, acting: bool = False) -> Kept:
    """What is remembered before the first step.

    Args:
      memory: of the agent; None: it has none.
      num_envs: E.
      action_size: A.
      acting: whether actions are all that is asked for, and no values.
    """
    if memory is None:
        return ()
    begin = memory.init_acting if acting else memory.init
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *x.shape)), begin())
    return Remembered(carry, jnp.zeros((num_envs, action_size)), jnp.zeros(num_envs))


def recall(kept: Kept, obs: Any, first: Any) -> Any:
    """What the agent acts on: the observations `[E, *O]`, or `Recalled` with leaves `[E, ...]`.

    Args:
      kept: of the step before.
      obs: `[E, *O]`.
      first: where an episode begins, bool `[E]`.
    """
    return Recalled(Seen(obs, kept.action, kept.reward, first), kept.carry) if isinstance(kept, Remembered) else obs


def remember(agent: Agent, state: TrainState, seen: Any, action: Array, reward: Array) -> Kept:
    """What is kept of a step.

    Args:
      agent: of one seed.
      state: its state.
      seen: what it acted on, from `recall`.
      action: what was done, `[E, A]`.
      reward: what came of it, `[E]`.
    """
    if agent.memory is None:
        return ()
    return Remembered(jax.vmap(agent.memory.update, (None, 0))(state, seen), action, reward)
