"""Residual blocks of batch normalisation and weights of length 1, FlashSAC's network. It imports flax.linen.

No layer but the last has biases: each is followed by a normalisation, whose scales and shifts are of one length.

References:
  Kim et al., "FlashSAC: fast and stable off-policy reinforcement learning for high-dimensional robot control"
  (arXiv:2604.04539).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.agents import sphere
from ddpg_jax.agents.sphere import UnitDense
from ddpg_jax.types import Array, Tree

if TYPE_CHECKING:
    from ddpg_jax.agents.modules import Architecture

NORMS = ("BatchNorm", "RMSNorm")
"""What the names of the normalisations begin with whose scales and shifts are kept at one length."""


def project(params: Tree) -> Tree:
    """Parameters whose weights have columns of length 1 again, and whose normalisations are of length sqrt(d) again.

    That length is of the scales `[..., d]` and the shifts `[..., d]` together, so of the scales alone where there are
    no shifts.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, node: _to_root_of_size(node) if _is_norm(path) else node,
        sphere.project(params),
        is_leaf=lambda node: isinstance(node, dict) and "scale" in node,
    )


def _is_norm(path: tuple[object, ...]) -> bool:
    return str(getattr(path[-1], "key", "")).startswith(NORMS)


def _to_root_of_size(node: dict[str, Array]) -> dict[str, Array]:
    squares = sum(jnp.sum(jnp.square(x), -1, keepdims=True) for x in node.values())
    size = node["scale"].shape[-1]
    return {name: x * jnp.sqrt(size / jnp.maximum(squares, 1e-8)) for name, x in node.items()}


class BatchBlocks(nn.Module):
    """An embedding of the normalised input, blocks four times as wide inside, a normalisation of each sample, a head.

    Attributes:
      architecture: its hidden widths, one for each block, are equal.
      outputs: of the head.
      orthogonal: how weights are drawn, before their columns are brought to length 1.
      product: of weights, but for the head's.
      normalize: by the moments of a batch, `(x [H], learning, axes) -> [H]`.
    """

    architecture: Architecture
    outputs: int
    orthogonal: Callable[..., Array]
    product: Callable[..., Array]
    normalize: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array, late: Array | None = None, learning: bool = False) -> tuple[Array, Array]:
        """The outputs `[outputs]`, and which hidden units answer, bool `[H]`."""
        hidden, active = self.architecture.hidden, list[Array]()
        width, axes = hidden[0], self.architecture.batch_axes
        inputs = jnp.concatenate([x, *([] if late is None else [late])])
        x = self.dense(width, self.normalize(inputs, learning, axes))
        for _ in hidden:
            wide = nn.relu(self.normalize(self.dense(4 * width, x), learning, axes))
            active.append(wide > 0)
            x = x + nn.relu(self.normalize(self.dense(width, wide), learning, axes))
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
        head = UnitDense(self.outputs, self.orthogonal, jax.lax.dot_general)
        return head(nn.RMSNorm()(x)) + bias, jnp.concatenate(active)

    def dense(self, size: int, x: Array) -> Array:
        """The next layer."""
        return UnitDense(size, self.orthogonal, self.product)(x)
