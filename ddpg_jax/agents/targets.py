"""What fills the small slots of the assembly: whose action a target takes, and how targets follow."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddpg_jax.agents.slots import ActionFn, TargetUpdateFn
from ddpg_jax.equations.polyak import soft_update
from ddpg_jax.types import Array, Params, Transition


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


def no_augmentation(transition: Transition, key: Array) -> Transition:
    """No augmentation."""
    return transition


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
