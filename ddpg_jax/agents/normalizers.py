"""Observations brought to one scale by running moments, for one seed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents.slots import Normalizer
from ddpg_jax.types import Array


class Moments(NamedTuple):
    """Running moments of observations.

    Attributes:
      size: observations so far, float32 `[]`. Plain, one more at a time, it stops at 2^24, from where each observation
        counts by a share of 2^-24; the mean stalls sooner, where that share of an offset is less than its last bit.
      mean: `[*O]`.
      variance: `[*O]`.
    """

    size: Array
    mean: Array
    variance: Array


class CompensatedMoments(NamedTuple):
    """Running moments, and beside them what float32 could not add yet.

    Attributes:
      size: as in `Moments`.
      mean: likewise.
      variance: likewise.
      rest: what is to be added to each of them.
    """

    size: Array
    mean: Array
    variance: Array
    rest: Moments


UNCHANGED = Normalizer(init=lambda: (), observe=lambda moments, obs: moments, apply=lambda moments, obs: obs)
"""Observations as they are."""


def running(
    obs_shape: tuple[int, ...], epsilon: float = 1e-8, clip: float = 10.0, *, plain: bool = False
) -> Normalizer:
    """Observations less their mean, over their deviation, by the moments of all that the seed has acted on.

    The environments of one seed are merged, those of different seeds never. Moments are not taken from minibatches, in
    which old observations come again and again.

    Args:
      obs_shape: `*O`.
      epsilon: added to the deviation, in units of the observation.
      clip: normalised observations are kept within it, on both sides of 0; 0: they are not.
      plain: float32 forgets what it rounds away, as in earlier versions, whose runs go on so.

    References:
      Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), eq.
      2.1; Knuth, "The art of computer programming", volume 2, section 4.2.2, theorem B, for what a sum rounds away.
    """

    def init() -> Moments:
        return Moments(jnp.zeros(()), jnp.zeros(obs_shape), jnp.ones(obs_shape))

    def apply(moments: Moments | CompensatedMoments, obs: Array) -> Array:
        scaled = (obs - moments.mean) / (jnp.sqrt(moments.variance) + epsilon)
        if not clip:
            return scaled
        return jnp.where(jnp.isfinite(obs), jnp.clip(scaled, -clip, clip), obs)  # what is not finite is to be noticed

    if plain:
        return Normalizer(init, _observe, apply)
    return Normalizer(lambda: CompensatedMoments(*init(), jax.tree.map(jnp.zeros_like, init())), _compensate, apply)


def _observe(moments: Moments, obs: Array) -> Moments:
    size = moments.size + obs.shape[0]
    share = obs.shape[0] / size
    mean, variance = obs.mean(0), obs.var(0)
    offset = mean - moments.mean
    spread = variance + (1.0 - share) * jnp.square(offset)
    return Moments(size, moments.mean + share * offset, moments.variance + share * (spread - moments.variance))


def _compensate(moments: CompensatedMoments, obs: Array) -> CompensatedMoments:
    rest = moments.rest
    size, size_rest = _add(moments.size, rest.size, obs.shape[0] * jnp.ones(()))
    share = obs.shape[0] / size
    centred = obs - moments.mean[None]  # nearly exact, as those that matter are near the mean
    offset = centred.mean(0) - rest.mean
    spread = centred.var(0) + (1.0 - share) * jnp.square(offset)
    mean, mean_rest = _add(moments.mean, rest.mean, share * offset)
    before = jnp.where(moments.size > 0, moments.variance, 0.0)  # from 1, the smallest would be rounded away
    variance, variance_rest = _add(before, rest.variance, share * (spread - before - rest.variance))
    return CompensatedMoments(size, mean, variance, Moments(size_rest, mean_rest, variance_rest))


def _add(total: Array, rest: Array, change: Array) -> tuple[Array, Array]:
    """The sum as float32 holds it, and what is left of it, which together are exact."""
    change = change + rest
    new = total + change
    added = new - total
    return new, (total - (new - added)) + (change - added)
