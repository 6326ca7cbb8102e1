"""What takes pictures in: convolutions in front of the networks, for one sample.

Pictures come as bytes, `[k, H, W, C]` of a stack or `[H, W, C]`, and the channels of a stack are seen side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents.cells import PRODUCTS
from ddpg_jax.agents.modules import (
    ACTIVATIONS,
    Activation,
    Initializer,
    Precision,
    orthogonal,
    symmetric_uniform,
    truncated_normal,
)
from ddpg_jax.agents.networks import stateless
from ddpg_jax.agents.slots import AugmentFn, LearnAux, Network
from ddpg_jax.envs.mixed import numbers_in, split_rows
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Array, Params, Tree
from ddpg_jax.xla.convolution import convolve


class Convolutions(NamedTuple):
    """Layers without padding or pooling.

    Attributes:
      maps: channels that each gives.
      strides: of each, in both directions.
      kernel: height and width of their windows.
      initializer: as in `modules.Architecture`; orthogonal ones are scaled by sqrt(2), for what ReLU takes away.
      activation: of each.
      precision: of the factors of their products.
    """

    maps: tuple[int, ...]
    strides: tuple[int, ...]
    kernel: int = 3
    initializer: Initializer = "fan_in"
    activation: Activation = "relu"
    precision: Precision = "float32"

    def map_shape(self, obs_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Of what the last layer gives, `(H', W', Z)`.

        Raises:
          EnvironmentFault: the pictures are too small.
        """
        height, width = obs_shape[-3:-1]
        for stride in self.strides:
            height, width = ((side - self.kernel) // stride + 1 for side in (height, width))
            if min(height, width) < 1:
                raise EnvironmentFault(
                    f"pictures of {obs_shape[-3]} x {obs_shape[-2]} are too small for convolutions of {self.kernel} x "
                    f"{self.kernel} and strides {self.strides}: raise env.pixels.size, or choose another "
                    "algorithm.encoder.kind"
                )
        return height, width, self.maps[-1]


def drqv2(channels: int = 32, kernel: int = 3) -> Convolutions:
    """Four layers, 35 x 35 x 32 at 84 x 84 (Yarats et al., arXiv:2107.09645)."""
    return Convolutions((channels,) * 4, (2, 1, 1, 1), kernel)


def ddpg(channels: int = 32, kernel: int = 3) -> Convolutions:
    """Three layers of 32 maps without pooling (Lillicrap et al., section 7); kernels and strides were not published."""
    return Convolutions((channels,) * 3, (2, 2, 2), kernel)


def small(channels: int = 32, kernel: int = 3) -> Convolutions:
    """Three layers that CPUs take in their stride, for pictures of about 48 x 48."""
    return Convolutions((max(1, channels // 2), channels, channels), (2, 2, 2), kernel)


def strided(channels: int = 32, kernel: int = 3) -> Convolutions:
    """Four layers, 7 x 7 x 32 = 1568 features at 84 x 84 (Fujimoto et al., MR.Q, arXiv:2501.16142)."""
    return Convolutions((channels,) * 4, (2, 2, 2, 1), kernel)


KINDS: dict[str, Callable[[int, int], Convolutions]] = {
    "drqv2": drqv2,
    "ddpg": ddpg,
    "small": small,
    "strided": strided,
}
"""By the names of `[algorithm.encoder]`: `(channels, kernel) -> Convolutions`."""


def pixel_encoder(obs_shape: tuple[int, ...], layers: Convolutions, numbers: int = 0) -> Network:
    """Convolutions of pictures in [-0.5, 0.5]; numbers that lie below them are given on as they are.

    Args:
      obs_shape: `(k, H, W, C)` or `(H, W, C)`, of the pictures alone.
      layers: of the network.
      numbers: P, below each picture; those of the newest are given on.

    Returns:
      A network `(obs uint8 [*O]) -> features [F + P]`, the numbers last; F is `features(obs_shape, layers)`.

    Raises:
      EnvironmentFault: the pictures are too small.
    """
    layers.map_shape(obs_shape)
    seen = prod(obs_shape[:-3]) * obs_shape[-1]
    activate, product = ACTIVATIONS[layers.activation], PRODUCTS[layers.precision]

    def init(key: Array) -> Tree:
        draw = _INITS[layers.initializer]
        keys = jax.random.split(key, len(layers.maps))
        shapes = [(layers.kernel, layers.kernel, *sizes) for sizes in pairwise((seen, *layers.maps))]
        return {f"Conv_{i}": draw(k, shape) for i, (k, shape) in enumerate(zip(keys, shapes, strict=True))}

    def apply(params: Tree, obs: Array) -> Array:
        pictures, rows = split_rows(obs, numbers)
        x = side_by_side(pictures).astype(jnp.float32) / 255.0 - 0.5
        for i, stride in enumerate(layers.strides):
            layer = params[f"Conv_{i}"]
            x = activate(convolve(x, layer["kernel"], stride, product, layers.precision) + layer["bias"][None, None])
        if not numbers:
            return x.reshape(-1)
        return jnp.concatenate([x.reshape(-1), numbers_in(rows, numbers).reshape(-1, numbers)[-1]])

    return stateless(init, apply)


def features(obs_shape: tuple[int, ...], layers: Convolutions) -> int:
    """F: numbers that pictures become."""
    return prod(layers.map_shape(obs_shape))


def side_by_side(obs: Array) -> Array:
    """The pictures of a stack as the channels of one, `[k, H, W, C] -> [H, W, k·C]`."""
    if obs.ndim == 3:
        return obs
    k, height, width, channels = obs.shape
    return jnp.moveaxis(obs, 0, 2).reshape(height, width, k * channels)


def past(network: Network, numbers: int) -> Network:
    """A network without moments that the last numbers of its input go past, `[F + P] -> [Z + P]`."""
    if not numbers:
        return network

    def apply(params: Tree, x: Array) -> Array:
        return jnp.concatenate([network.apply(params, (), x[:-numbers]), x[-numbers:]])

    return stateless(network.init, apply)


class PixelSettings(NamedTuple):
    """What stands between pictures and the networks of an agent.

    Attributes:
      fronts: an encoder that actor and critics share, and what stands in front of each of them; none of them has
        moments.
      augment: of one transition; it may make several observations or successors, as a leading axis.
      axes: of what encoder, actor and critic see of one picture stack: more of them are copies.
      target_copies: K, successors made of one.
      online_copies: M, observations made of one.
    """

    fronts: Params
    augment: AugmentFn
    axes: Params
    target_copies: int = 1
    online_copies: int = 1


def in_sequence(first: Network, second: Network) -> Network:
    """Two networks without moments as one, `x -> second(first(x))`."""

    def init(key: Array) -> Tree:
        first_key, second_key = jax.random.split(key)
        return {"first": first.init(first_key), "second": second.init(second_key)}

    return stateless(init, lambda params, x: second.apply(params["second"], (), first.apply(params["first"], (), x)))


def behind(first: Network, second: Network) -> Network:
    """Two networks as one, `(x, *more) -> second(first(x), *more)`; the first has no moments.

    Parameters are `{"first": ..., "second": ...}`, and so are moments and traces, without the first.
    """

    def init(key: Array) -> Tree:
        first_key, second_key = jax.random.split(key)
        return {"first": first.init(first_key), "second": second.init(second_key)}

    def moments() -> Tree:
        return {"second": second.moments()}

    def apply(params: Tree, moments: Tree, x: Array, *more: Array) -> Array:
        seen = first.apply(params["first"], (), x)
        return second.apply(params["second"], moments["second"], seen, *more)

    def learn(params: Tree, moments: Tree, x: Array, *more: Array) -> tuple[Array, LearnAux]:
        seen = first.apply(params["first"], (), x)
        output, aux = second.learn(params["second"], moments["second"], seen, *more)
        return output, aux._replace(moments={"second": aux.moments})

    return Network(init, moments, apply, learn)


def _uniform(key: Array, shape: tuple[int, ...]) -> Tree:
    kernel_key, bias_key = jax.random.split(key)
    draw = symmetric_uniform(prod(shape[:-1]) ** -0.5)
    return {"kernel": draw(kernel_key, shape), "bias": draw(bias_key, shape[-1:])}


def _without_bias(kernel: Callable[..., Array]) -> Callable[[Array, tuple[int, ...]], Tree]:
    return lambda key, shape: {"kernel": kernel(key, shape), "bias": jnp.zeros(shape[-1:])}


_INITS: dict[str, Callable[[Array, tuple[int, ...]], Tree]] = {
    "fan_in": _uniform,
    "lecun_normal": _without_bias(jax.nn.initializers.lecun_normal()),
    "orthogonal": _without_bias(orthogonal(2**0.5)),
    "truncated_normal": _without_bias(truncated_normal()),
}
