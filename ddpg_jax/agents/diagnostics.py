"""What an update looks at: norms, shares and whether numbers are finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.agents.slots import LearnAux
from ddpg_jax.types import Array, Tree
from ddpg_jax.xla.norm import global_norm


def all_finite(*sizes: Any) -> Array:
    """Whether all of these are, `[]`; by their sum, as one operation costs what one size does."""
    return jnp.isfinite(sum(sizes, jnp.zeros(())))


def zero_if_overflowing(td_error: Array) -> Array:
    """Errors, 0 for those whose squares are no float32, so that no replay asks for their transitions before others."""
    return jnp.where(jnp.isfinite(jnp.square(td_error)), td_error, jnp.zeros_like(td_error))


def dead_fraction(aux: LearnAux) -> Array:
    """The share of hidden units, `[]`, that answer to no sample of the batch; `aux.active` is `[B, ...]`."""
    return jnp.mean(~jnp.any(aux.active, 0), dtype=jnp.float32)


def relative_distance(params: Tree, target_params: Tree) -> Array:
    """How far the targets are behind, relative to the size of the parameters, `[]`."""
    size = jnp.maximum(global_norm(params), jnp.finfo(jnp.float32).tiny)
    return global_norm(jax.tree.map(jnp.subtract, params, target_params)) / size
