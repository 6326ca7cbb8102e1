"""The assembly with memory: `policy_gradient` over windows in the place of transitions.

Nothing of the assembly is written again: a sample is a window, and each slot is lifted over its L steps that are
learned from. An agent is `recurrent(...)` of what would make it by `policy_gradient(...)`:

    network     sees the window, and from its cell's state at each step, gives L outputs in the place of one
    head        judges each step; the loss is the mean, the error a mixture of the largest and the mean
    actions     noise is drawn for each step

In the actor's loss the action of every step is that of the policy, while the history before it stays the recorded one
(Heess et al., arXiv:1512.04455, algorithm 1). Actor and critics remember apart, each by an encoder of its own, which
all critics of an ensemble share (Ni et al., arXiv:2110.05038).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents import normalizers as normalize
from ddpg_jax.agents.memory_networks import MemoryEncoder, Next, Now, with_memory
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.slots import ActionFn, CriticHead, Normalizer
from ddpg_jax.agents.targets import greedy
from ddpg_jax.types import Agent, Array, Batch, Memory, Metrics, Params, Recalled, TrainState, Transition, Tree, Window


class Carry(NamedTuple):
    """What an agent remembers of an episode.

    Attributes:
      actor: of the actor's encoder.
      critic: of the critics'; `()` where values are not asked for.
    """

    actor: Tree
    critic: Tree


class WindowSettings(NamedTuple):
    """How agents learn from windows.

    Attributes:
      length: steps that are learned from, L.
      burn_in: steps before them, b, that are only remembered.
      keep_every: steps between two states that the replay keeps, P; 0: windows begin from zeros.
      share: of a window's largest error in what its priority is made of; the rest is the mean.
    """

    length: int
    burn_in: int = 0
    keep_every: int = 0
    share: float = 0.9


def recurrent(
    settings: WindowSettings,
    encoders: tuple[MemoryEncoder, MemoryEncoder],
    *,
    networks: Params,
    head: CriticHead,
    normalizer: Normalizer = normalize.UNCHANGED,
    next_action: ActionFn = greedy,
    actor_action: ActionFn = greedy,
    **slots: Any,
) -> Agent:
    """Assembles an agent with memory, of one seed.

    Args:
      settings: of the windows.
      encoders: what remembers for the actor and for the critics.
      networks: as in `policy_gradient`; actor and critic see features `[F]` of an encoder in the place of observations.
      head: as in `policy_gradient`, and so are `normalizer`, `next_action` and `actor_action`.
      normalizer: of the observations.
      next_action: what becomes of the action in the target.
      actor_action: what becomes of the action in the actor's loss.
      **slots: the others, as they are.

    Returns:
      The agent; its `memory` is not None.

    References:
      Heess et al., "Memory-based control with recurrent neural networks" (arXiv:1512.04455); Ni et al., "Recurrent
      model-free RL can be a strong baseline for many POMDPs" (arXiv:2110.05038).
    """
    of_actor, of_critic = encoders
    actor = with_memory(of_actor, networks.actor, settings.burn_in, lambda carry: carry.actor)
    critic = with_memory(of_critic, networks.critic, settings.burn_in, lambda carry: carry.critic)
    views_normalizer = _over_views(normalizer)
    agent = policy_gradient(
        networks=networks._replace(actor=actor, critic=critic),
        head=_over_steps(head, settings.share),
        normalizer=views_normalizer,
        next_action=_at_each_step(next_action),
        actor_action=_at_each_step(actor_action),
        **slots,
    )

    def init() -> Carry:
        return Carry(of_actor.carry(), of_critic.carry())

    def flatten(carry: Carry) -> Array:
        return jnp.concatenate([of_actor.flatten(carry.actor), of_critic.flatten(carry.critic)])

    def update_carry(state: TrainState, recalled: Recalled) -> Carry:
        seen: Any = views_normalizer.apply(state.stats.obs, recalled)  # pyright: ignore[reportArgumentType]  a view
        carry = recalled.carry
        after = of_actor.step(state.params.actor["memory"], seen._replace(carry=carry.actor))
        if not jax.tree.leaves(carry.critic):
            return Carry(after, ())
        return Carry(after, of_critic.step(state.params.critic["memory"], seen._replace(carry=carry.critic)))

    def views(batch: Batch) -> Batch:
        """The windows as the networks take them; of actions, rewards and discounts those that are learned from."""
        window = batch.data.obs
        if jax.tree.leaves(window.carry):
            window = window._replace(carry=Carry(*jnp.split(window.carry, [of_actor.carry_size], -1)))
        axis, total = batch.weight.ndim, settings.burn_in + settings.length
        action, reward, discount = (
            jax.lax.slice_in_dim(x, settings.burn_in, total, axis=axis) for x in batch.data[1:4]
        )
        return batch._replace(data=Transition(Now(window), action, reward, discount, Next(window)))

    def update(state: TrainState, batches: Batch, run_key: Array) -> tuple[TrainState, Metrics, Array]:
        return agent.update(state, views(batches), run_key)

    def diagnose(state: TrainState, batch: Batch) -> Metrics:
        return agent.diagnose(state, views(batch))

    begin = init if settings.keep_every else lambda: init()._replace(critic=())
    memory = Memory(init, begin, update_carry, flatten, settings.keep_every)
    return agent._replace(update=update, diagnose=diagnose, memory=memory)


def carry_size(agent: Agent) -> int:
    """Numbers of the carry that a replay keeps of an environment, K; 0: it keeps none."""
    memory = agent.memory
    return 0 if memory is None or not memory.keep_every else memory.flatten(memory.init()).size


def _over_steps(head: CriticHead, share: float) -> CriticHead:
    """The head of L steps; `value` is of each of them, or of a single step.

    The error, of which priorities are made, is share·max + (1 − share)·mean over the steps (Kapturowski et al.,
    "Recurrent experience replay in distributed reinforcement learning", section 2.3).
    """

    def loss(outputs: Array, y: Array) -> tuple[Array, Array]:
        losses, errors = jax.vmap(head.loss)(outputs, y)
        return jnp.mean(losses), share * jnp.max(errors) + (1 - share) * jnp.mean(errors)

    def value(outputs: Array) -> Array:
        return jax.vmap(head.value)(outputs) if outputs.ndim == 3 else head.value(outputs)

    def actor_critics(critics: Tree) -> Tree:
        return critics | {"body": head.actor_critics(critics["body"])}

    return CriticHead(jax.vmap(head.target, (0, 0, 0, None)), loss, value, actor_critics)


def _at_each_step(change: ActionFn) -> ActionFn:
    def each(action: Array, key: Array, step: Array) -> Array:
        return jax.vmap(change, (0, 0, None))(action, jax.random.split(key, action.shape[0]), step)

    return each


def _over_views(normalizer: Normalizer) -> Normalizer:
    """Normalises what a view shows of observations."""

    def of_window(moments: Tree, window: Window) -> Window:
        each: Callable[[Array], Array] = jax.vmap(lambda obs: normalizer.apply(moments, obs))
        return window._replace(obs=each(window.obs), next_obs=each(window.next_obs))

    def apply(moments: Tree, view: Any) -> Any:
        if isinstance(view, Recalled):
            return view._replace(seen=view.seen._replace(obs=normalizer.apply(moments, view.seen.obs)))
        return view._replace(window=of_window(moments, view.window))

    return normalizer._replace(apply=apply)
