"""Exploration noise that is added to the action, for one environment, in units of half the action range.

Actions live in [-1, 1], so a scale of 0.1 is a tenth of half the range of every component, whatever its bounds.
Exploration of any other kind is in `exploration`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.agents.slots import Noise
from ddpg_jax.rng import stream_key
from ddpg_jax.types import Array, Tree

ScaleFn: TypeAlias = Callable[[Array, Array], Array]
"""`(steps, episodes) -> scale []`, of one environment: its exploring steps so far, and its episodes before this one,
both int32 `[]`."""

_COUNTED = 2**31 - 2


def zero(action_size: int) -> Noise:
    """No exploration."""
    return Noise(init=lambda: (), sample=lambda state, key, first: (jnp.zeros(action_size), state))


def gaussian(action_size: int, sigma: Array | float) -> Noise:
    """Independent normal noise N(0, sigma²) at each step.

    Args:
      action_size: A.
      sigma: standard deviation, `[]`.

    Returns:
      The noise; it has no state.

    References:
      Fujimoto et al., section 6.1 (arXiv:1802.09477).
    """

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        return sigma * jax.random.normal(key, (action_size,)), state

    return Noise(init=lambda: (), sample=sample)


def ornstein_uhlenbeck(action_size: int, theta: Array | float, sigma: Array | float, dt: Array | float) -> Noise:
    """Temporally correlated noise, x ← x − theta·x·dt + sigma·sqrt(dt)·N(0, 1), back at 0 when an episode starts.

    Args:
      action_size: A.
      theta: rate of return to 0, `[]`, per unit of time.
      sigma: diffusion, `[]`; the stationary deviation is about sigma/sqrt(2·theta).
      dt: time between two steps, `[]`. With dt = 1 and theta = 0.15, sigma = 0.2 it is the process of the paper.

    Returns:
      The noise; its state x is `[A]`.

    References:
      Uhlenbeck and Ornstein, "On the theory of the Brownian motion" (1930); Lillicrap et al., section 7.
    """

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        x = jnp.where(first, jnp.zeros_like(state), state)
        x = x - theta * x * dt + sigma * jnp.sqrt(dt) * jax.random.normal(key, (action_size,))
        return x, x

    return Noise(init=lambda: jnp.zeros(action_size), sample=sample)


def gaussian_per_env(action_size: int, sigma_min: Array | float, sigma_max: Array | float) -> Noise:
    """Normal noise whose deviation is drawn from U(sigma_min, sigma_max) for each environment and episode.

    Args:
      action_size: A.
      sigma_min: smallest deviation, `[]`.
      sigma_max: largest deviation, `[]`.

    Returns:
      The noise; its state is the deviation `[]`, -1 before the first is drawn.

    References:
      Seo et al., "FastTD3: simple, fast, and capable reinforcement learning for humanoid control" (arXiv:2505.22642).
    """

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        scale_key, noise_key = jax.random.split(key)
        drawn = jax.random.uniform(scale_key, (), minval=sigma_min, maxval=sigma_max)
        sigma = jnp.where(first | (state < 0), drawn, state)
        return sigma * jax.random.normal(noise_key, (action_size,)), sigma

    return Noise(init=lambda: jnp.full((), -1.0), sample=sample)


class Held(NamedTuple):
    """The state of `held`.

    Attributes:
      noise: of the noise that is held.
      value: what was drawn last, `[A]`.
      left: steps for which it is still held, int32 `[]`.
    """

    noise: Tree
    value: Array
    left: Array


def held(noise: Noise, action_size: int, longest: int) -> Noise:
    """Noise of which each draw is held for some steps, but not beyond the end of an episode.

    The number of steps k is drawn anew with each draw, with probability in proportion to 1/k² up to the longest: a zeta
    law of exponent 2, cut off. With longest = 1 it is the noise itself.

    Args:
      noise: what is held; its state goes on with each draw only.
      action_size: A.
      longest: largest number of steps, at least 1.

    References:
      Dabney et al., "Temporally-extended epsilon-greedy exploration" (arXiv:2006.01782) for the law; Kim et
      al., "FlashSAC" (arXiv:2604.04539), where k is at most 16.
    """
    shares = 1.0 / np.arange(1, longest + 1) ** 2
    reached = np.cumsum(shares / shares.sum())[:-1].astype(np.float32)

    def init() -> Tree:
        return Held(noise.init(), jnp.zeros(action_size), jnp.zeros((), jnp.int32))

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        drawn, inner = noise.sample(state.noise, key, first)
        steps = 1 + jnp.sum(jax.random.uniform(stream_key(key, "hold")) >= reached, dtype=jnp.int32)
        new, old = Held(inner, drawn, steps), state
        now: Held = jax.tree.map(partial(jnp.where, first | (state.left == 0)), new, old)
        return now.value, now._replace(left=now.left - 1)

    return Noise(init, sample)


class Counted(NamedTuple):
    """The state of `scheduled`.

    Attributes:
      noise: of the noise that is scaled.
      steps: of exploration so far, int32 `[]`; it stops before it overflows.
      episodes: begun since the first step, int32 `[]`.
    """

    noise: Tree
    steps: Array
    episodes: Array


def scheduled(noise: Noise, scale: ScaleFn) -> Noise:
    """Noise of unit scale, times a scale that follows a schedule.

    The first step is of episode 0 whether the episode begins with it or, after the warm-up, in the middle of it.
    """

    def init() -> Tree:
        return Counted(noise.init(), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def sample(state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        episodes = state.episodes + (first & (state.steps > 0)).astype(jnp.int32)
        drawn, inner = noise.sample(state.noise, key, first)
        counted = Counted(inner, jnp.minimum(state.steps, _COUNTED) + 1, jnp.minimum(episodes, _COUNTED))
        return scale(state.steps, episodes) * drawn, counted

    return Noise(init, sample)


def linear(begin: Array | float, end: Array | float, steps: float) -> ScaleFn:
    """The scale goes from `begin` to `end` by equal differences, in as many steps of one environment, and stays."""
    return lambda t, episodes: begin + (end - begin) * _elapsed(t, steps)


def exponential(begin: Array | float, end: Array | float, steps: float) -> ScaleFn:
    """The scale goes from `begin` to `end`, both above 0, by equal ratios, in as many steps, and stays."""

    def scale(t: Array, episodes: Array) -> Array:
        passed = _elapsed(t, steps)
        return begin ** (1 - passed) * end**passed

    return scale


def inverse_episode(begin: Array | float) -> ScaleFn:
    """The scale is begin/(1 + episode), and so constant within an episode."""
    return lambda t, episodes: begin / (1.0 + episodes.astype(jnp.float32))


def _elapsed(t: Array, steps: float) -> Array:
    """The part of the schedule that has passed, in [0, 1]."""
    return jnp.minimum(t.astype(jnp.float32) / steps, 1.0)
