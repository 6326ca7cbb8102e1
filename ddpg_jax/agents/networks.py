"""Networks as pairs of pure functions of one sample. The only module that imports flax.linen.

A critic returns `[Z]` outputs; `ensemble` turns one critic into M of them, `[M, Z]`, with parameters of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.types import Array, Network, Tree

Initializer: TypeAlias = Literal["fan_in", "lecun_normal"]
Activation: TypeAlias = Literal["relu", "elu", "tanh", "silu"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "elu": nn.elu,
    "tanh": nn.tanh,
    "silu": nn.silu,
}


def symmetric_uniform(limit: float) -> Callable[..., Array]:
    """An initialiser that draws from U(−limit, limit)."""

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, tuple(shape), dtype, -limit, limit)

    return init


_product = partial(jnp.matmul, precision=jax.lax.Precision.DEFAULT)  # of factors that are rounded already


@jax.custom_jvp
def bfloat16_dot(x: Array, kernel: Array) -> Array:
    """The product x·W of factors rounded to bfloat16, summed and returned in float32, `[I], [I, Z] -> [Z]`.

    In the backward pass the factors are rounded alike, and so are the products, as is usual; parameters, activations
    and gradients are float32 outside of it.
    """
    return _product(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


@bfloat16_dot.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, kernel), (dx, d_kernel) = (tuple(a.astype(jnp.bfloat16) for a in pair) for pair in (primals, tangents))
    tangent = _product(dx, kernel).astype(jnp.float32) + _product(x, d_kernel).astype(jnp.float32)
    return bfloat16_dot(*primals), tangent


def _bfloat16_dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any = None, **options: Any) -> Array:
    """`bfloat16_dot` in the form that flax asks for."""
    return bfloat16_dot(x, kernel)


_PRODUCTS: dict[str, Callable[..., Array]] = {"float32": jax.lax.dot_general, "bfloat16": _bfloat16_dot_general}


def _dense(
    size: int, fan_in: int, initializer: Initializer, precision: Precision, scale: float | None = None
) -> nn.Dense:
    """A dense layer; `scale` overrides the initialiser by U(−scale, scale) for weights and biases."""
    product = _PRODUCTS[precision]
    if scale is None and initializer == "lecun_normal":
        return nn.Dense(size, dot_general=product)
    uniform = symmetric_uniform(fan_in**-0.5 if scale is None else scale)
    return nn.Dense(size, kernel_init=uniform, bias_init=uniform, dot_general=product)


class _MLP(nn.Module):
    """Dense layers; `late`, if any, is concatenated to the input of hidden layer `late_layer`."""

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation
    initializer: Initializer
    final_scale: float | None
    precision: Precision
    late_layer: int = 0

    @nn.compact
    def __call__(self, x: Array, late: Array | None = None) -> Array:
        for i, width in enumerate(self.hidden):
            if late is not None and i == self.late_layer:
                x = jnp.concatenate([x, late])
            x = _ACTIVATIONS[self.activation](_dense(width, x.shape[-1], self.initializer, self.precision)(x))
        return _dense(self.outputs, x.shape[-1], self.initializer, "float32", self.final_scale)(x)


def identity() -> Network:
    """The encoder of agents that see the state: no parameters, returns the observation."""
    return Network(init=lambda key: (), apply=lambda params, obs: obs)


def mlp_actor(
    obs_size: int,
    action_size: int,
    hidden: Sequence[int],
    *,
    activation: Activation = "relu",
    initializer: Initializer = "fan_in",
    final_scale: float | None = None,
    precision: Precision = "float32",
) -> Network:
    """A deterministic policy, mu(s) = tanh(MLP(s)).

    Args:
      obs_size: O, size of the encoded observation `[O]`.
      action_size: A.
      hidden: widths of the hidden layers.
      activation: of the hidden layers.
      initializer: of the hidden layers, and of the last where `final_scale` is None. "fan_in" is U(±1/sqrt(fan_in))
        for weights and biases (Lillicrap et al., section 7); "lecun_normal" is that of flax, with zero biases.
      final_scale: the last layer is drawn from U(±final_scale); 3e-3 in Lillicrap et al.
      precision: of the factors of the hidden layers' matrix products; all else is float32, the last layer included: it
        costs little, and actions and predicted returns are not rounded.

    Returns:
      A network `(params, obs [O]) -> action [A]` in [-1, 1].
    """
    module = _MLP(tuple(hidden), action_size, activation, initializer, final_scale, precision)

    def init(key: Array) -> Tree:
        return module.init(key, jnp.zeros(obs_size))

    def apply(params: Tree, obs: Array) -> Array:
        return jnp.tanh(module.apply(params, obs))  # pyright: ignore[reportArgumentType]

    return Network(init, apply)


def mlp_critic(
    obs_size: int,
    action_size: int,
    hidden: Sequence[int],
    *,
    action_layer: int = 0,
    activation: Activation = "relu",
    initializer: Initializer = "fan_in",
    final_scale: float | None = None,
    precision: Precision = "float32",
    outputs: int = 1,
) -> Network:
    """An action-value network Q(s, a).

    Args:
      obs_size: O, size of the encoded observation `[O]`.
      action_size: A.
      hidden: widths of the hidden layers.
      action_layer: the hidden layer that the action enters: 0 with the observation, 1 the second (Lillicrap et al.).
      activation: as in `mlp_actor`.
      initializer: as in `mlp_actor`.
      final_scale: as in `mlp_actor`.
      precision: as in `mlp_actor`.
      outputs: Z, 1 for a scalar critic.

    Returns:
      A network `(params, obs [O], action [A]) -> [Z]`.

    Raises:
      ValueError: `action_layer` is not a hidden layer.
    """
    if not 0 <= action_layer < len(hidden):
        raise ValueError(f"action_layer={action_layer} is not one of the {len(hidden)} hidden layers, counted from 0")
    module = _MLP(tuple(hidden), outputs, activation, initializer, final_scale, precision, action_layer)

    def init(key: Array) -> Tree:
        return module.init(key, jnp.zeros(obs_size), jnp.zeros(action_size))

    def apply(params: Tree, obs: Array, action: Array) -> Array:
        return module.apply(params, obs, action)  # pyright: ignore[reportReturnType]

    return Network(init, apply)


def ensemble(network: Network, size: int) -> Network:
    """M networks of one form, with independent parameters, on the same inputs.

    Args:
      network: `(params, *inputs) -> [Z]`.
      size: M, at least 1.

    Returns:
      A network `(params, *inputs) -> [M, Z]`; every leaf of its parameters has a leading `[M]`.
    """

    def init(key: Array) -> Tree:
        return jax.vmap(network.init)(jax.random.split(key, size))

    def apply(params: Tree, *inputs: Array) -> Array:
        return jax.vmap(lambda p: network.apply(p, *inputs))(params)

    return Network(init, apply)
