"""A global norm as the norm of one vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ddpg_jax.types import Array, Tree


def global_norm(tree: Tree) -> Array:
    """The global norm of a tree's leaves, `[]`, of none 0; as one vector it is one kernel instead of many.

    The vector is `[1, N]`: with more than one thread XLA's CPU compiler joins the pieces of an `[N]` with masks, those
    of two critics of 256-256 in 1 ms or more, not 30 us.
    """
    pieces = [jnp.zeros((1, 0)), *(leaf.reshape(1, -1) for leaf in jax.tree.leaves(tree))]
    return jnp.linalg.norm(jnp.concatenate(pieces, 1))
