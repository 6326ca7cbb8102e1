"""How far critics that know a window of an episode are from those that know all of it, for one seed.

The recurrent state of a window begins from zeros, that of an acting agent where the episode did. With states that are
warm, as after a burn-in or from `keep_every`, the difference is small; where it is not, critics learn of windows what
does not hold of the episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.types import Agent, Array, Recalled, Seen, TrainState, Tree


def window_gap(agent: Agent, state: TrainState, seen: Seen, lengths: Array, warmed: Sequence[int]) -> Array:
    """The mean difference between Q of windows and Q of whole episodes, ΔQ = |Q_window − Q_whole| / max |Q_whole|.

    The mean is over all steps t > k for k steps since zeros: a window of the others reaches back to the episode's
    beginning, where the state is zeros anyway, so they are equal by definition and left out. The largest |Q| is that
    of all steps; where it is 0, so is the difference.

    Args:
      agent: of one seed, from `recurrent`.
      state: its state; what `Agent.value` reads.
      seen: what it was told at each step of N episodes, leaves `[N, T, ...]`.
      lengths: steps of each, int32 `[N]`, at most T; what is told after them does not count.
      warmed: steps since zeros, W numbers that rise.

    Returns:
      `[W]`, 0 or more; NaN where no step is left, or a value is not finite.

    References:
      Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", section 3 (2019).
    """
    whole, windows = jax.lax.map(lambda episode: values_of_windows(agent, state, episode, warmed), seen)
    t = jnp.arange(whole.shape[1])[None]
    played = t < lengths[:, None]
    largest = jnp.max(jnp.abs(whole), where=played, initial=0.0)
    counted = [played & (t > k) for k in warmed]
    means = [jnp.mean(jnp.abs(windows[:, i] - whole), where=counted[i]) for i in range(len(warmed))]
    return jnp.stack(means) / jnp.where(largest == 0, jnp.inf, largest)


def values_of_windows(agent: Agent, state: TrainState, seen: Seen, warmed: Sequence[int]) -> tuple[Array, Array]:
    """What the critics say at each step of an episode, by how long they have remembered.

    It is `Agent.value`, what the actor ascends: the value of the first critic, or of all by `ascend`, and with atoms
    the mean of the distribution. The action is the one that the policy took, knowing the whole history.

    Args:
      agent: as in `window_gap`, and so is `state`.
      state: of the agent.
      seen: of one episode, leaves `[T, ...]`.
      warmed: likewise.

    Returns:
      `(whole [T], windows [W, T])`: with the state since the beginning, and with one that was zeros so many steps
      before the step.
    """
    memory: Any = agent.memory
    update = memory.update

    def remember(carry: Tree, now: Seen) -> tuple[Tree, Tree]:
        return update(state, Recalled(now, carry)), carry

    whole = jax.lax.scan(remember, memory.init(), seen)[1]

    def recalled(critic: Tree) -> Any:
        return Recalled(seen, whole._replace(critic=critic))

    def value(critic: Tree) -> Array:
        return jax.vmap(agent.value, (None, 0))(state, recalled(critic))

    def warm(_: Array | int, critic: Tree) -> Tree:
        """One step more; what comes around to the first step is forgotten there."""
        after = jax.vmap(update, (None, 0))(state, recalled(critic)).critic
        return jax.tree.map(lambda x: jnp.roll(x, 1, 0), after)

    critic, windows = jax.tree.map(jnp.zeros_like, whole.critic), list[Array]()
    for done, steps in pairwise((0, *warmed)):
        critic = jax.lax.fori_loop(done, steps, warm, critic)
        windows.append(value(critic))
    return value(whole.critic), jnp.stack(windows)
