"""SimbaV2: networks whose features and weights have length 1. It imports flax.linen.

Lengths are learned apart, by scales: `Scale` and the share of a block that is taken over.

References:
  Lee et al., "Hyperspherical normalization for scalable deep reinforcement learning" (arXiv:2502.15280).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.types import Array, Tree

if TYPE_CHECKING:
    from ddpg_jax.agents.modules import Architecture

SHIFT = 3.0
"""Stands beside the inputs before they are brought to length 1, so that their length is not lost."""

KEEP_ABOVE_ZERO = 1e-8
"""Added to a hidden layer, which may be 0 throughout and then has no direction."""

UNIT = "unit_kernel"
"""The name of weights whose columns have length 1."""


def unit(x: Array, axis: int = -1) -> Array:
    """Brought to length 1 along an axis; what has length 0 stays 0, and so does its gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis, keepdims=True), 1e-16))


def project(params: Tree) -> Tree:
    """Parameters whose weights named `UNIT`, `[..., inputs, outputs]`, have columns of length 1 again."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: unit(leaf, -2) if getattr(path[-1], "key", None) == UNIT else leaf, params
    )


class SimbaV2(nn.Module):
    """An embedding, blocks of which the sphere's line between input and output is gone along, and a head.

    Attributes:
      architecture: its hidden widths, one for each block, are equal; a block is four times as wide inside.
      outputs: of the head.
      orthogonal: how weights are drawn, before their columns are brought to length 1.
      product: of weights, but for the head's last.
    """

    architecture: Architecture
    outputs: int
    orthogonal: Callable[..., Array]
    product: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array, late: Array | None = None, learning: bool = False) -> tuple[Array, Array]:
        """The outputs `[outputs]`, and which hidden units answer, bool `[H]`."""
        del learning
        hidden, active = self.architecture.hidden, list[Array]()
        width, blocks = hidden[0], len(hidden)
        scale = (2 / width) ** 0.5
        inputs = [x, *([] if late is None else [late]), jnp.full(1, SHIFT, x.dtype)]
        x = unit(Scale(scale, scale)(self.dense(width, unit(jnp.concatenate(inputs)))))
        for _ in hidden:
            wide = Scale(scale / 2, scale / 2)(self.dense(4 * width, x))
            active.append(nn.relu(wide) > 0)
            inside = unit(self.dense(width, nn.relu(wide) + KEEP_ABOVE_ZERO))
            x = unit(x + Scale(1 / (blocks + 1), width**-0.5)(inside - x))
        x = Scale(1.0, 1.0)(self.dense(width, x))
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
        return UnitDense(self.outputs, self.orthogonal, jax.lax.dot_general)(x) + bias, jnp.concatenate(active)

    def dense(self, size: int, x: Array) -> Array:
        """The next layer."""
        return UnitDense(size, self.orthogonal, self.product)(x)


class UnitDense(nn.Module):
    """A layer without biases, drawn with columns of length 1.

    Attributes:
      size: of its output.
      orthogonal: how the weights are drawn before that.
      product: of an input and the weights.
    """

    size: int
    orthogonal: Callable[..., Array]
    product: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The product, `[inputs] -> [size]`."""

        def init(key: Array, shape: Sequence[int]) -> Array:
            return unit(self.orthogonal(key, shape), -2)

        kernel: Any = self.param(UNIT, init, (x.shape[-1], self.size))
        return self.product(x, kernel, (((0,), (0,)), ((), ())))


class Scale(nn.Module):
    """Factors of a layer that are learned.

    Attributes:
      first: what they are at the beginning.
      stored: what the parameters are then; an optimiser's step is so much larger or smaller beside it.
    """

    first: float
    stored: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Each feature by its factor."""
        factors: Any = self.param("factors", nn.initializers.constant(self.stored), x.shape)
        return x * factors * (self.first / self.stored)
