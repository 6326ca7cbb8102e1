"""Flax modules and their initialisers: MLP and SimBa.

Beside `sphere` and `batch_blocks`, whose networks are made here too, the only module that imports flax.linen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.agents.batch_blocks import BatchBlocks
from ddpg_jax.agents.precision import bfloat16_dot_general
from ddpg_jax.agents.slots import LearnAux, Network
from ddpg_jax.agents.sphere import SimbaV2
from ddpg_jax.equations.embeddings import avg_l1_norm
from ddpg_jax.types import BATCH, Array, Tree
from ddpg_jax.xla.dot import FEW_OUTPUTS, transposed_dot_general

Initializer: TypeAlias = Literal["fan_in", "lecun_normal", "orthogonal", "truncated_normal"]
Activation: TypeAlias = Literal["relu", "elu", "tanh", "silu"]
Precision: TypeAlias = Literal["float32", "bfloat16"]
Normalization: TypeAlias = Literal["none", "layer", "batch"]
ArchitectureName: TypeAlias = Literal["mlp", "simba", "simba_v2", "flash"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
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


def truncated_normal(deviation: float = 0.02) -> Callable[..., Array]:
    """An initialiser that draws from N(0, deviation²) what is within two deviations; TFLearn's default."""
    return nn.initializers.truncated_normal(deviation)


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """An initialiser of kernels whose columns, or rows where they are fewer, are orthogonal and of length `scale`.

    The same numbers as jax.nn.initializers.orthogonal but for rounding, by Gram-Schmidt done twice over. jax's asks
    LAPACK, whose calls wait for each other for ever where several devices of one CPU make them at once.
    """

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        columns = shape[-1]
        rows = prod(shape) // columns
        drawn = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype).T

        def project(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            basis, vector = carry
            along = jnp.matmul(basis, vector, precision="highest")
            return basis, vector - jnp.matmul(along, basis, precision="highest")

        def add(i: Array, basis: Array) -> Array:
            _, vector = jax.lax.fori_loop(0, 2, project, (basis, drawn[i]))
            vector = vector * jax.lax.rsqrt(jnp.sum(jnp.square(vector)))
            return jax.lax.dynamic_update_index_in_dim(basis, vector, i, 0)

        basis = jax.lax.fori_loop(0, drawn.shape[0], add, jnp.zeros_like(drawn))
        return scale * (basis.T if rows >= columns else basis).reshape(shape)

    return init


_PRODUCTS: dict[str, Callable[..., Array]] = {"float32": jax.lax.dot_general, "bfloat16": bfloat16_dot_general}


class LayerInit(NamedTuple):
    """How a dense layer is drawn.

    Attributes:
      kernel: initialiser of the weights.
      bias: initialiser of the biases.
    """

    kernel: Callable[..., Array]
    bias: Callable[..., Array]


def uniform_init(limit: float) -> LayerInit:
    """Weights and biases from U(−limit, limit)."""
    return LayerInit(symmetric_uniform(limit), symmetric_uniform(limit))


def normal_init(deviation: float) -> LayerInit:
    """Weights from N(0, deviation²), biases 0."""
    return LayerInit(nn.initializers.normal(deviation), nn.initializers.zeros)


_LAYER_INITS: dict[str, Callable[[int], LayerInit]] = {
    "fan_in": lambda fan_in: uniform_init(fan_in**-0.5),
    "lecun_normal": lambda fan_in: LayerInit(nn.initializers.lecun_normal(), nn.initializers.zeros),
    "orthogonal": lambda fan_in: LayerInit(orthogonal(), nn.initializers.zeros),
    "truncated_normal": lambda fan_in: LayerInit(truncated_normal(), nn.initializers.zeros),
}


class Architecture(NamedTuple):
    """What a network is made of, its inputs and outputs aside.

    Attributes:
      hidden: widths of the hidden layers, or of the residual blocks, which are equal.
      activation: of the hidden layers.
      initializer: of the hidden layers, and of the last where `final` is None. "fan_in" is U(±1/sqrt(fan_in)) for
        weights and biases (Lillicrap et al., section 7); "lecun_normal" and "orthogonal" are those of flax, and
        "truncated_normal" is N(0, 0.02²) within two deviations, with zero biases.
      final: how the last layer is drawn; `uniform_init(3e-3)` in Lillicrap et al.
      precision: of the factors of the hidden layers' matrix products; all else is float32, the last layer included: it
        costs little, and actions and predicted returns are not rounded.
      normalization: between a hidden layer's product and its activation: "layer" (Ba et al., arXiv:1607.06450), or
        "batch" as in Lillicrap et al., section 3: of the observation too, and in a critic only where no action has
        entered.
      kind: "mlp"; "simba": pre-normalised residual blocks (Lee et al., arXiv:2410.09754); "simba_v2": see `sphere`;
        "flash": see `batch_blocks`.
      batch_axes: names of the axes over which batch normalisation takes its moments.
    """

    hidden: tuple[int, ...]
    activation: Activation = "relu"
    initializer: Initializer = "fan_in"
    final: LayerInit | None = None
    precision: Precision = "float32"
    normalization: Normalization = "none"
    kind: ArchitectureName = "mlp"
    batch_axes: tuple[str, ...] = (BATCH,)

    def dense(self, size: int, fan_in: int) -> nn.Dense:
        """A hidden layer."""
        layer_init = _LAYER_INITS[self.initializer](fan_in)
        return nn.Dense(
            size, kernel_init=layer_init.kernel, bias_init=layer_init.bias, dot_general=_PRODUCTS[self.precision]
        )

    def last(self, size: int, fan_in: int) -> nn.Dense:
        """The last layer."""
        layer_init = self.final or _LAYER_INITS[self.initializer](fan_in)
        product = transposed_dot_general if size < FEW_OUTPUTS else jax.lax.dot_general
        return nn.Dense(size, kernel_init=layer_init.kernel, bias_init=layer_init.bias, dot_general=product)


NormFn: TypeAlias = Callable[[Array, bool, tuple[str, ...]], Array]
"""`(x [H], learning, batch_axes) -> [H]`, inside a module."""


def _as_it_is(x: Array, learning: bool, axes: tuple[str, ...]) -> Array:
    return x


def _layer_norm(x: Array, learning: bool, axes: tuple[str, ...]) -> Array:
    return nn.LayerNorm()(x)


def _batch_norm(x: Array, learning: bool, axes: tuple[str, ...]) -> Array:
    """By the moments of the batch while it learns, of which the running moments keep a hundredth."""
    over: Any = axes
    norm = nn.BatchNorm(use_running_average=not learning, axis_name=over, use_fast_variance=False)
    return norm(x)


class _Norms(NamedTuple):
    """What normalises the observation, hidden layers before the action enters, and those after."""

    observed: NormFn
    before: NormFn
    after: NormFn


_NORMS = {
    "none": _Norms(_as_it_is, _as_it_is, _as_it_is),
    "layer": _Norms(_as_it_is, _layer_norm, _layer_norm),
    "batch": _Norms(_batch_norm, _batch_norm, _as_it_is),
}


class _MLP(nn.Module):
    """Dense layers; `late`, if any, is concatenated to the input of hidden layer `late_layer`."""

    architecture: Architecture
    outputs: int
    late_layer: int = 0

    @nn.compact
    def __call__(self, x: Array, late: Array | None = None, learning: bool = False) -> tuple[Array, Array]:
        norms, active, axes = _NORMS[self.architecture.normalization], list[Array](), self.architecture.batch_axes
        norm, x = norms.before, norms.observed(x, learning, axes)
        for i, width in enumerate(self.architecture.hidden):
            if late is not None and i == self.late_layer:
                x, norm = jnp.concatenate([x, late]), norms.after
            x = norm(self.architecture.dense(width, x.shape[-1])(x), learning, axes)
            x = ACTIVATIONS[self.architecture.activation](x)
            active.append(x)
        return self.architecture.last(self.outputs, x.shape[-1])(x), _answering(active)


class _Embedded(nn.Module):
    """A linear layer of what is seen, brought to the scale of the embeddings that join it, and dense layers of both.

    The last input holds the embeddings; those before it are seen side by side.
    """

    architecture: Architecture
    width: int
    outputs: int

    @nn.compact
    def __call__(self, *inputs: Array, learning: bool = False) -> tuple[Array, Array]:
        seen = jnp.concatenate(inputs[:-1])
        x = avg_l1_norm(self.architecture.dense(self.width, seen.shape[-1])(seen))
        behind = _MLP(self.architecture, self.outputs, name="behind")
        return behind(jnp.concatenate([x, inputs[-1]]), learning=learning)


class _Pair(nn.Module):
    """An activated layer of the second input, which joins the first, and dense layers of both."""

    architecture: Architecture
    width: int
    outputs: int

    @nn.compact
    def __call__(self, first: Array, second: Array, learning: bool = False) -> tuple[Array, Array]:
        x = self.architecture.dense(self.width, second.shape[-1])(second)
        x = ACTIVATIONS[self.architecture.activation](x)
        behind = _MLP(self.architecture, self.outputs, name="behind")
        return behind(jnp.concatenate([first, x]), learning=learning)


class _SimBa(nn.Module):
    """A linear embedding, residual blocks of LayerNorm, four times the width and back, and a last LayerNorm."""

    architecture: Architecture
    outputs: int

    @nn.compact
    def __call__(self, x: Array, late: Array | None = None, learning: bool = False) -> tuple[Array, Array]:
        width, active = self.architecture.hidden[0], list[Array]()
        x = self.architecture.dense(width, x.shape[-1])(x if late is None else jnp.concatenate([x, late]))
        for _ in self.architecture.hidden:
            wide = self.architecture.dense(4 * width, width)(nn.LayerNorm()(x))
            active.append(ACTIVATIONS[self.architecture.activation](wide))
            x = x + self.architecture.dense(width, 4 * width)(active[-1])
        return self.architecture.last(self.outputs, width)(nn.LayerNorm()(x)), _answering(active)


class _Trunk(nn.Module):
    """A layer, its normalisation, and tanh."""

    architecture: Architecture
    width: int

    @nn.compact
    def __call__(self, x: Array, learning: bool = False) -> tuple[Array, Array]:
        x = jnp.tanh(nn.LayerNorm()(self.architecture.dense(self.width, x.shape[-1])(x)))
        return x, _answering([x])


def _answering(layers: list[Array]) -> Array:
    """Which hidden units do not stand still at 0, bool `[H]`; of a linear network one that does not."""
    return jnp.concatenate(layers) != 0 if layers else jnp.ones(1, bool)


def make_module(architecture: Architecture, outputs: int, late_layer: int = 0) -> nn.Module:
    """The module that a shape describes; `late_layer` is the hidden layer that a second input enters."""
    if architecture.kind == "simba":
        return _SimBa(architecture, outputs)
    if architecture.kind == "simba_v2":
        return SimbaV2(architecture, outputs, orthogonal(), _PRODUCTS[architecture.precision])
    if architecture.kind == "flash":
        return BatchBlocks(architecture, outputs, orthogonal(), _PRODUCTS[architecture.precision], _batch_norm)
    return _MLP(architecture, outputs, late_layer)


def make_embedded(architecture: Architecture, width: int, outputs: int) -> nn.Module:
    """The module of a network beside embeddings; `width` is that of the layer that takes in what is seen."""
    return _Embedded(architecture, width, outputs)


def make_pair(architecture: Architecture, width: int, outputs: int) -> nn.Module:
    """The module that joins two inputs; `width` is that of the layer that takes in the second."""
    return _Pair(architecture, width, outputs)


def make_trunk(architecture: Architecture, width: int) -> nn.Module:
    """The module of a trunk, of which the architecture says how its layer is drawn and multiplied."""
    return _Trunk(architecture, width)


def make_network(module: nn.Module, sizes: tuple[int, ...], last: Callable[[Array], Array]) -> Network:
    """The pure functions of a module with inputs of the given sizes; `last` is applied to its output."""
    zeros = [jnp.zeros(size) for size in sizes]

    def variables(key: Array) -> dict[str, Tree]:
        return dict(module.init(key, *zeros))

    def init(key: Array) -> Tree:
        return {"params": variables(key)["params"]}

    def moments() -> Tree:
        shapes = jax.eval_shape(variables, jax.random.key(0)).get("batch_stats", ())
        fill = {"mean": jnp.zeros, "var": jnp.ones}
        return jax.tree_util.tree_map_with_path(lambda path, leaf: fill[path[-1].key](leaf.shape), shapes)

    def join_moments(params: Tree, moments: Tree) -> Tree:
        return params | {"batch_stats": moments} if moments else params

    def apply(params: Tree, moments: Tree, *inputs: Array) -> Array:
        output: Any = module.apply(join_moments(params, moments), *inputs)
        return last(output[0])

    def learn(params: Tree, moments: Tree, *inputs: Array) -> tuple[Array, LearnAux]:
        outputs: Any = module.apply(join_moments(params, moments), *inputs, learning=True, mutable=["batch_stats"])
        (output, active), changed = outputs
        return last(output), LearnAux(changed.get("batch_stats", ()), active)

    return Network(init, moments, apply, learn)
