"""What fills the small slots of the assembly: whose action a target takes, how it is judged, how targets follow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents.slots import OF_ONE_BATCH, ActionFn, LearnAux, Network, Pair, Pairing, TargetRange, TargetUpdateFn
from ddpg_jax.equations.polyak import soft_update
from ddpg_jax.types import PAIR, Array, Params, TrainState, Transition, Tree


def greedy(action: Array, key: Array, step: Array) -> Array:
    """The action of the policy as it is."""
    return action


def smoothing(sigma: Array | float, clip: Array | float) -> ActionFn:
    """Target policy smoothing, a ← clip(a + clip(sigma·N(0, 1), ±clip), ±1).

    Both are in units of half the action range, `[]`. All critics judge the same action: noise is drawn once for a
    transition.

    References:
      Fujimoto et al., "Addressing function approximation error in actor-critic methods", eq. 14 (arXiv:1802.09477).
    """

    def smooth(action: Array, key: Array, step: Array) -> Array:
        noise = jnp.clip(sigma * jax.random.normal(key, action.shape), -clip, clip)
        return jnp.clip(action + noise, -1.0, 1.0)

    return smooth


def scheduled_noise(sigma: Callable[[Array], Array | float], clip: Array | float) -> ActionFn:
    """The action plus clip(sigma(step)·N(0, 1), ±clip), kept in [-1, 1]; to a gradient it is the action itself.

    So where the noise drives an action beyond its bounds, or the policy has saturated, the gradient is not cut off.

    Args:
      sigma: `update [] -> deviation []`, in units of half the action range.
      clip: largest noise, likewise, `[]`.

    References:
      Yarats et al., "Mastering visual continuous control", section 3.2 (arXiv:2107.09645).
    """

    def disturb(action: Array, key: Array, step: Array) -> Array:
        noise = jnp.clip(sigma(step) * jax.random.normal(key, action.shape), -clip, clip)
        return action + jax.lax.stop_gradient(jnp.clip(action + noise, -1.0, 1.0) - action)

    return disturb


def with_target(params: Params, target_params: Params) -> Params:
    """The target actor chooses the next action (DDPG, TD3)."""
    return target_params


def with_online(params: Params, target_params: Params) -> Params:
    """The online actor chooses the next action (DrQ-v2, FastTD3)."""
    return params


def with_online_encoder(params: Params, target_params: Params) -> Params:
    """The target critics judge it, on what the online encoder makes of the successor (DrQ-v2)."""
    return target_params._replace(encoder=params.encoder)


def _judge_alone(
    critic: Network, params: Tree, moments: Tree, pair: Pair, other: Callable[[], Pair]
) -> tuple[Array, LearnAux]:
    return critic.learn(params, moments, *pair)


SEPARATE = Pairing(_judge_alone, lambda critic, params, moments, pair: critic.learn(params, moments, *pair)[0])
"""A batch of current pairs and one of next pairs; batch normalisation goes by the moments of each."""


def _judge_both(
    critic: Network, params: Tree, moments: Tree, pair: Pair, other: Callable[[], Pair]
) -> tuple[Array, LearnAux]:
    beside, action = other()
    both = jax.tree.map(lambda *each: jnp.stack(each), pair, (beside, jax.lax.stop_gradient(action)))
    judge = jax.vmap(partial(critic.learn, params, moments), out_axes=(0, OF_ONE_BATCH), axis_name=PAIR)
    outputs, aux = judge(*both)
    return outputs[0], aux._replace(active=aux.active[0], penalty=jax.tree.map(lambda x: x[0], aux.penalty))


JOINT = Pairing(_judge_both, lambda critic, params, moments, pair: critic.apply(params, moments, *pair))
"""One batch of current and next pairs, of whose moments the running ones are made, by which the actor's action is
judged.

The critics take their moments over `PAIR` too.

References:
  Bhatt et al., "CrossQ: batch normalization in deep reinforcement learning for greater sample efficiency and
  simplicity" (arXiv:1902.05605), there without target networks.
"""


def no_augmentation(transition: Transition, key: Array) -> Transition:
    """No augmentation."""
    return transition


def no_auxiliary(encoder: Tree, transition: Transition) -> dict[str, Array]:
    """The critics' loss alone teaches the encoder."""
    return {}


def unchanged(state: TrainState) -> TrainState:
    """Nothing more becomes of the learner after a round."""
    return state


UNBOUNDED = TargetRange(init=lambda: (), observe=lambda seen, y: seen, clip=lambda seen, next_outputs: next_outputs)
"""Targets may take any value."""


class Range(NamedTuple):
    """Lowest and highest target, each `[]`.

    Attributes:
      low: which bounds the values in targets.
      high: likewise.
      seen_low: so far, which bounds nothing before `refresh`.
      seen_high: likewise.
    """

    low: Array
    high: Array
    seen_low: Array
    seen_high: Array

    def refresh(self) -> Range:
        """What has been seen so far bounds what comes."""
        return self._replace(low=self.seen_low, high=self.seen_high)


_FAR = 1e8
"""What was seen before anything was, which any target is nearer than."""


def seen_range() -> TargetRange:
    """The next value in a target stays between the lowest and the highest target seen at the last refresh.

    Before the first refresh it is 0. The value of each critic is clipped, which for their minimum is the same as to
    clip that.

    References:
      Fujimoto et al., "For SALE: state-action representation learning for deep reinforcement learning"
      (arXiv:2306.02451), clipped values.
    """

    def init() -> Range:
        return Range(jnp.zeros(()), jnp.zeros(()), jnp.full((), _FAR), jnp.full((), -_FAR))

    def observe(seen: Range, y: Array) -> Range:
        return seen._replace(
            seen_low=jnp.minimum(seen.seen_low, jnp.min(y)), seen_high=jnp.maximum(seen.seen_high, jnp.max(y))
        )

    def clip(seen: Range, next_outputs: Array) -> Array:
        return jnp.clip(next_outputs, seen.low, seen.high)

    return TargetRange(init, observe, clip)


def polyak(tau: Array | float) -> TargetUpdateFn:
    """Targets follow by `soft_update` after every round."""
    return lambda params, target_params, step: soft_update(params, target_params, tau)


def keep_targets(params: Params, target_params: Params, step: Array) -> Params:
    """Targets stay."""
    return target_params


def polyak_critic(tau: Array | float) -> TargetUpdateFn:
    """The target critic alone follows by `soft_update`."""
    return lambda params, target_params, step: target_params._replace(
        critic=soft_update(params.critic, target_params.critic, tau)
    )
