"""Observations brought to one scale by running moments, for one seed."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from ddpg_jax.agents.slots import Normalizer
from ddpg_jax.types import Array


class Moments(NamedTuple):
    """Running moments of observations.

    Attributes:
      size: observations so far, float32 `[]`: an integer would overflow, this only stops growing at 2^24, where one
        more observation no longer changes a moment.
      mean: `[*O]`.
      variance: `[*O]`.
    """

    size: Array
    mean: Array
    variance: Array


UNCHANGED = Normalizer(init=lambda: (), observe=lambda moments, obs: moments, apply=lambda moments, obs: obs)
"""Observations as they are."""


def running(obs_shape: tuple[int, ...], epsilon: float = 1e-2) -> Normalizer:
    """Observations less their mean, over their deviation, by the moments of all that the seed has acted on.

    The environments of one seed are merged, those of different seeds never. Moments are not taken from minibatches, in
    which old observations come again and again.

    Args:
      obs_shape: `*O`.
      epsilon: added to the deviation, in units of the observation.

    References:
      Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), eq.
      2.1; Seo et al., "FastTD3" (arXiv:2505.22642), for epsilon.
    """

    def init() -> Moments:
        return Moments(jnp.zeros(()), jnp.zeros(obs_shape), jnp.ones(obs_shape))

    def observe(moments: Moments, obs: Array) -> Moments:
        size = moments.size + obs.shape[0]
        share = obs.shape[0] / size
        mean, variance = obs.mean(0), obs.var(0)
        offset = mean - moments.mean
        spread = variance + (1.0 - share) * jnp.square(offset)
        return Moments(size, moments.mean + share * offset, moments.variance + share * (spread - moments.variance))

    def apply(moments: Moments, obs: Array) -> Array:
        return (obs - moments.mean) / (jnp.sqrt(moments.variance) + epsilon)

    return Normalizer(init, observe, apply)
