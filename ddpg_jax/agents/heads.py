"""Critic heads: what the outputs `[M, Z]` of the critics mean, for one sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from ddpg_jax.agents.slots import CriticHead
from ddpg_jax.equations.distributional import cross_entropy, mean, move, project
from ddpg_jax.equations.returns import bootstrapped_return
from ddpg_jax.types import Array, Tree

ReduceFn: TypeAlias = Callable[[Array], Array]
"""Joins the values `[M]` of the critics to one, `[]`."""

JoinFn: TypeAlias = Callable[[Array, Array], Array]
"""`(places [Z], logits [M, Z]) -> probabilities [Z]`: one distribution out of those of the critics; places
are where the atoms go in the target."""

ChooseFn: TypeAlias = Callable[[Array, Array], Array]
"""`(outputs [M, Z], key) -> outputs [N, Z]`: the critics that count in a target. The key is consumed."""


def first(values: Array) -> Array:
    """The value of the first critic, `[M] -> []`."""
    return values[0]


def _select_actor_critics(ascend: ReduceFn) -> Callable[[Tree], Tree]:
    """The critics that a joined value needs, so that the others are not computed in vain."""
    return (lambda critics: jax.tree.map(lambda x: x[:1], critics)) if ascend is first else lambda critics: critics


def every(outputs: Array, key: Array) -> Array:
    """All critics count."""
    return outputs


def random_subset(size: int) -> ChooseFn:
    """A few critics, drawn anew for each update.

    References:
      Chen et al., "Randomized ensembled double Q-learning", Algorithm 1 (arXiv:2101.05982).
    """
    return lambda outputs, key: jax.random.permutation(key, outputs)[:size]


def scalar(bootstrap: ReduceFn = jnp.min, ascend: ReduceFn = first, choose: ChooseFn = every) -> CriticHead:
    """Critics that predict the expected return, regressed by squared error.

    The loss of one sample is the sum over critics of (y − Q_i)², without a factor one half (see docs/fidelity.md); its
    temporal-difference error is the mean over critics of |y − Q_i|, so that critics who disagree do not cancel.

    Args:
      bootstrap: joins the critics in the target; with one critic all choices are the same.
      ascend: joins the critics in the actor's loss.
      choose: the critics that count in the target.

    Returns:
      A head for critics with Z = 1.

    References:
      Lillicrap et al., Algorithm 1 (arXiv:1509.02971); Fujimoto et al., Algorithm 1 (arXiv:1802.09477).
    """

    def target(reward: Array, discount: Array, next_outputs: Array, key: Array) -> Array:
        return bootstrapped_return(reward, discount, bootstrap(choose(next_outputs, key)[:, 0]))

    def loss(outputs: Array, y: Array) -> tuple[Array, Array]:
        td_errors = y - outputs[:, 0]
        return jnp.sum(jnp.square(td_errors)), jnp.mean(jnp.abs(td_errors))

    def value(outputs: Array) -> Array:
        return ascend(outputs[:, 0])

    return CriticHead(target, loss, value, _select_actor_critics(ascend))


def robust(bootstrap: ReduceFn = jnp.min, ascend: ReduceFn = jnp.mean, threshold: float = 1.0) -> CriticHead:
    """Critics that predict the expected return, regressed by the Huber loss, for priorities by large errors only.

    The loss of one sample is the sum over critics; its temporal-difference error is the largest of theirs, and no less
    than the threshold: below it the loss weighs errors by their size already, so draws need not.

    Args:
      bootstrap: joins the critics in the target.
      ascend: joins the critics in the actor's loss.
      threshold: κ, from which on the loss is linear.

    Returns:
      A head for critics with Z = 1.

    References:
      Fujimoto et al., "An equivalence between loss functions and non-uniform sampling in experience replay"
      (arXiv:2007.06049), LAP.
    """

    def loss(outputs: Array, y: Array) -> tuple[Array, Array]:
        td_errors = y - outputs[:, 0]
        largest = jnp.max(jnp.abs(td_errors))
        return jnp.sum(optax.losses.huber_loss(td_errors, delta=threshold)), jnp.maximum(largest, threshold)

    return scalar(bootstrap, ascend)._replace(loss=loss)


def lowest(places: Array, logits: Array) -> Array:
    """The whole distribution of the critic with the lowest mean, `[Z], [M, Z] -> [Z]`.

    It is lowest where the atoms go, so after the projection: what lies beyond an end of the support counts as that end.
    """
    return jax.nn.softmax(logits[jnp.argmin(jax.vmap(mean, (None, 0))(places, logits))])


def average(places: Array, logits: Array) -> Array:
    """The average of the critics' distributions, `[Z], [M, Z] -> [Z]`."""
    return jnp.mean(jax.nn.softmax(logits), 0)


def categorical(
    atoms: Array, bootstrap: JoinFn = lowest, ascend: ReduceFn = first, choose: ChooseFn = every
) -> CriticHead:
    """Critics that predict the distribution of the return on fixed atoms, by cross-entropy.

    The loss of one sample is the sum over critics; its temporal-difference error is that of the means, in size, and of
    several critics the average.

    Args:
      atoms: equally spaced and rising, `[Z]`.
      bootstrap: joins the critics' distributions in the target.
      ascend: joins the means of the critics in the actor's loss.
      choose: the critics that count in the target.

    Returns:
      A head for critics with Z atoms, whose outputs are logits.

    References:
      Barth-Maron et al., Algorithm 1 (arXiv:1804.08617); Seo et al., "FastTD3" (arXiv:2505.22642) for the minimum.
    """

    def target(reward: Array, discount: Array, next_outputs: Array, key: Array) -> Array:
        probabilities = bootstrap(move(atoms, reward, discount), choose(next_outputs, key))
        return project(atoms, probabilities, reward, discount)

    def loss(outputs: Array, y: Array) -> tuple[Array, Array]:
        means = jax.vmap(mean, (None, 0))(atoms, outputs)
        sizes = jnp.abs(jnp.sum(atoms * y) - means)
        return jnp.sum(jax.vmap(cross_entropy, (None, 0))(y, outputs)), jnp.mean(sizes)

    def value(outputs: Array) -> Array:
        return ascend(jax.vmap(mean, (None, 0))(atoms, outputs))

    return CriticHead(target, loss, value, _select_actor_critics(ascend))
