"""What fills the slots of the assembly beside networks, heads and exploration: small functions of one sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.equations.targets import soft_update
from ddpg_jax.types import Array, Params, Transition

ActionFn: TypeAlias = Callable[[Array, Array, Array], Array]
"""`(action [A], key, step []) -> action [A]`: what becomes of mu(s) inside a loss. The key is consumed."""

SelectFn: TypeAlias = Callable[[Params, Params], Params]
"""`(params, target_params) -> Params`: whose actor and encoder choose the next action."""

FollowFn: TypeAlias = Callable[[Params, Params, Array], Params]
"""`(params, target_params, step) -> target_params`."""

AugmentFn: TypeAlias = Callable[[Transition, Array], Transition]
"""`(transition, key) -> transition`, for one sample. The key is consumed."""


def greedy(action: Array, key: Array, step: Array) -> Array:
    """The action of the policy as it is."""
    return action


def smoothed(sigma: Array | float, clip: Array | float) -> ActionFn:
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


def with_target(params: Params, target_params: Params) -> Params:
    """The target actor chooses the next action (DDPG, TD3)."""
    return target_params


def with_online(params: Params, target_params: Params) -> Params:
    """The online actor chooses the next action (DrQ-v2, FastTD3)."""
    return params


def unchanged(transition: Transition, key: Array) -> Transition:
    """No augmentation."""
    return transition


def polyak(tau: Array | float) -> FollowFn:
    """Targets follow by `soft_update` after every round."""
    return lambda params, target_params, step: soft_update(params, target_params, tau)


def follow_not(params: Params, target_params: Params, step: Array) -> Params:
    """Targets stay."""
    return target_params


def polyak_critic(tau: Array | float) -> FollowFn:
    """The target critic alone follows by `soft_update`."""
    return lambda params, target_params, step: target_params._replace(
        critic=soft_update(params.critic, target_params.critic, tau)
    )
