"""Categorical distributions of returns on fixed, equally spaced atoms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ddpg_jax.types import Array


def move(atoms: Array, reward: Array, discount: Array) -> Array:
    """Where atoms z go, r + d·z, clipped to the ends of the support, `[Z], [], [] -> [Z]`.

    The mean of a distribution there is that of its projection, which shares each mass between two atoms around it.
    """
    return jnp.clip(reward + discount * atoms, atoms[0], atoms[-1])


def project(atoms: Array, probabilities: Array, reward: Array, discount: Array) -> Array:
    """The distribution of r + d·Z, projected onto the atoms of Z.

    Each atom z_j moves to r + d·z_j, clipped to the ends of the support, and its mass is shared by the two atoms around
    it, each by its nearness. Mass is conserved, and so is the mean inside the support.

    Args:
      atoms: z, equally spaced and rising, `[Z]`.
      probabilities: of the atoms at the successor, `[Z]`.
      reward: r, sum of gamma^i r_i over n steps, `[]`.
      discount: d = gamma^n·(1 − terminated), `[]`.

    Returns:
      Probabilities of the atoms, `[Z]`.

    References:
      Bellemare et al., "A distributional perspective on reinforcement learning", eq. 7 (arXiv:1707.06887);
      Barth-Maron et al., "Distributed distributional deterministic policy gradients", appendix A (arXiv:1804.08617).
    """
    spacing = (atoms[-1] - atoms[0]) / (atoms.shape[0] - 1)
    moved = move(atoms, reward, discount)
    nearness = jnp.clip(1.0 - jnp.abs(moved[None, :] - atoms[:, None]) / spacing, 0.0, 1.0)
    return nearness @ probabilities


def symexp(x: Array) -> Array:
    """The inverse of the symmetric logarithm, sign(x)·(exp |x| − 1), of any shape.

    References:
      Hafner et al., "Mastering diverse domains through world models" (arXiv:2301.04104).
    """
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def two_hot(places: Array, x: Array) -> Array:
    """The distribution on two neighbouring places whose mean is a number, clipped to the ends.

    Args:
      places: rising, not necessarily equally spaced, `[Z]`.
      x: `[]`.

    Returns:
      Probabilities of the places, `[Z]`.

    References:
      Hafner et al. (arXiv:2301.04104), two-hot encoding.
    """
    passed = jnp.clip((x - places[:-1]) / jnp.diff(places), 0.0, 1.0)  # how much of each gap lies below x
    return jnp.append(1.0, passed) - jnp.append(passed, 0.0)


def mean(atoms: Array, logits: Array) -> Array:
    """The mean of a categorical distribution, `[Z], [Z] -> []`."""
    return jnp.sum(atoms * jax.nn.softmax(logits))


def cross_entropy(probabilities: Array, logits: Array) -> Array:
    """Cross-entropy −sum_i p_i·log q_i of predicted logits under a target, `[Z], [Z] -> []`.

    References:
      Barth-Maron et al., eq. 4.
    """
    return -jnp.sum(probabilities * jax.nn.log_softmax(logits))
