"""Critic heads: what the outputs `[M, Z]` of the critics mean, for one sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from ddpg_jax.equations.returns import bootstrapped_return
from ddpg_jax.types import Array, CriticHead

ReduceFn: TypeAlias = Callable[[Array], Array]
"""Joins the values `[M]` of the critics to one, `[]`."""


def first(values: Array) -> Array:
    """The value of the first critic, `[M] -> []`."""
    return values[0]


def scalar(bootstrap: ReduceFn = jnp.min, ascend: ReduceFn = first) -> CriticHead:
    """Critics that predict the expected return, regressed by squared error.

    The loss of one sample is the sum over critics of (y − Q_i)², without a factor one half (see docs/fidelity.md).

    Args:
      bootstrap: joins the critics in the target; with one critic all choices are the same.
      ascend: joins the critics in the actor's loss.

    Returns:
      A head for critics with Z = 1.

    References:
      Lillicrap et al., Algorithm 1 (arXiv:1509.02971); Fujimoto et al., Algorithm 1 (arXiv:1802.09477).
    """

    def target(reward: Array, discount: Array, next_outputs: Array) -> Array:
        return bootstrapped_return(reward, discount, bootstrap(next_outputs[:, 0]))

    def loss(outputs: Array, y: Array) -> tuple[Array, Array]:
        td_errors = y - outputs[:, 0]
        return jnp.sum(jnp.square(td_errors)), jnp.mean(td_errors)

    def value(outputs: Array) -> Array:
        return ascend(outputs[:, 0])

    return CriticHead(target, loss, value)
