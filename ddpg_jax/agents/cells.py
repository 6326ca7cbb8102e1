"""Recurrent cells as small bundles of pure functions of one sample: LSTM, GRU, and the linear recurrence LRU.

What an input contributes does not depend on what is remembered, so all N steps of a window are projected by one product
before the recurrence begins. Where an episode begins, a cell starts from zeros again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.agents.modules import orthogonal
from ddpg_jax.agents.precision import bfloat16_dot
from ddpg_jax.types import Array, Tree
from ddpg_jax.xla.recurrence import Complex, linear_recurrence, multiply

CellName: TypeAlias = Literal["lstm", "gru", "lru"]
ProductFn: TypeAlias = Callable[[Array, Array], Array]
"""`(x [I], kernel [I, Z]) -> [Z]`."""

PRODUCTS: dict[str, ProductFn] = {"float32": jnp.dot, "bfloat16": bfloat16_dot}

SLOWEST, FASTEST, LARGEST_PHASE = 0.999, 0.5, 0.5 * jnp.pi
"""The moduli that states of an LRU fade by in a step lie between the first two, their phases from 0 to the third."""


class Cell(NamedTuple):
    """What remembers, for one sample.

    Attributes:
      init: `key -> params`.
      carry: `() -> carry`, before the first step: zeros, float32.
      project: `(params, x [X]) -> projected`, what an input contributes to the step.
      step: `(params, carry, projected) -> carry`.
      output: `(params, carry) -> [H]`, what is told of the carry.
      unroll: `(params, carry, projected [N, ...], first [N]) -> carry [N, ...]`, after each of N steps; the carry is
        zeros again before a step that is `first`, bool.
    """

    init: Callable[[Array], Tree]
    carry: Callable[[], Tree]
    project: Callable[[Tree, Array], Tree]
    step: Callable[[Tree, Tree, Tree], Tree]
    output: Callable[[Tree, Tree], Array]
    unroll: Callable[[Tree, Tree, Tree, Array], Tree]


def forget(carry: Tree, first: Array) -> Tree:
    """The carry, or zeros where an episode begins."""
    return jax.tree.map(lambda leaf: jnp.where(first, jnp.zeros_like(leaf), leaf), carry)


def lstm(size_in: int, hidden: int, precision: str = "float32") -> Cell:
    """Long short-term memory: c ← σ(f)·c + σ(i)·tanh(g), h = σ(o)·tanh(c), gates [i, f, g, o] = x·W + h·R + b.

    Each gate's kernels are orthogonal, biases 0, but that of f is 1: a cell that keeps but half of its memory in a step
    passes no gradient through 30 of them, and would have to learn to keep from what it cannot see.

    Args:
      size_in: X.
      hidden: H; the carry is (h `[H]`, c `[H]`).
      precision: of the factors of the products, "float32" or "bfloat16".

    References:
      Hochreiter and Schmidhuber, "Long short-term memory" (1997); Gers et al., "Learning to forget" (2000); Jozefowicz
      et al., "An empirical exploration of recurrent network architectures" (2015), section 2.2, for the bias.
    """
    product = PRODUCTS[precision]

    def init(key: Array) -> Tree:
        bias = jnp.zeros((4, hidden)).at[1].set(1.0).reshape(-1)
        return _kernels(key, size_in, hidden, 4) | {"bias": bias}

    def step(params: Tree, carry: Tree, projected: Tree) -> Tree:
        h, c = carry
        i, f, g, o = jnp.split(projected + product(h, params["recurrent"]), 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return Cell(
        init=init,
        carry=lambda: (jnp.zeros(hidden), jnp.zeros(hidden)),
        project=lambda params, x: product(x, params["input"]) + params["bias"],
        step=step,
        output=lambda params, carry: carry[0],
        unroll=_one_by_one(step),
    )


def gru(size_in: int, hidden: int, precision: str = "float32") -> Cell:
    """Gated recurrent unit: h ← σ(z)·h + (1 − σ(z))·tanh(n + σ(r)·(h·R_n + b_n)).

    Of [r, z, n] = x·W + b, the first two have h·R_r and h·R_z added. All is drawn as in `lstm`, where f has the part
    that z has here. The carry is h `[H]`.

    References:
      Cho et al., "Learning phrase representations using RNN encoder-decoder" (arXiv:1406.1078), with the reset gate
      behind the product, as cuDNN and flax have it.
    """
    product = PRODUCTS[precision]

    def init(key: Array) -> Tree:
        bias = jnp.zeros((3, hidden)).at[1].set(1.0).reshape(-1)
        return _kernels(key, size_in, hidden, 3) | {"bias": bias, "recurrent_bias": jnp.zeros(hidden)}

    def step(params: Tree, carry: Tree, projected: Tree) -> Tree:
        told, recalled = jnp.split(projected, 3), jnp.split(product(carry, params["recurrent"]), 3)
        r, z = (jax.nn.sigmoid(x + h) for x, h in zip(told[:2], recalled[:2], strict=True))
        new = jnp.tanh(told[2] + r * (recalled[2] + params["recurrent_bias"]))
        return z * carry + (1 - z) * new

    return Cell(
        init=init,
        carry=lambda: jnp.zeros(hidden),
        project=lambda params, x: product(x, params["input"]) + params["bias"],
        step=step,
        output=lambda params, carry: carry,
        unroll=_one_by_one(step),
    )


def lru(size_in: int, hidden: int, precision: str = "float32") -> Cell:
    """Linear recurrent unit: h ← λ·h + γ·(x·B) in H complex states, and GELU([Re h, Im h]·C) `[H]` is told of them.

    λ = exp(−exp(ν) + i·exp(θ)), so that |λ| < 1 whatever is learned, and γ is sqrt(1 − |λ|²) at the start. The moduli
    are drawn evenly from the ring between `FASTEST` and `SLOWEST`, the phases from 0 to `LARGEST_PHASE`. There is no
    D·x: the network that remembers has a branch around the cell. The carry is (Re h, Im h), each `[H]`.

    References:
      Orvieto et al., "Resurrecting recurrent neural networks for long sequences", section 3 (arXiv:2303.06349).
    """
    product = PRODUCTS[precision]

    def init(key: Array) -> Tree:
        keys = jax.random.split(key, 4)
        square = jax.random.uniform(keys[0], (hidden,), minval=FASTEST**2, maxval=SLOWEST**2)
        phase = jax.random.uniform(keys[1], (hidden,), minval=1e-3, maxval=LARGEST_PHASE)
        return {
            "decay": jnp.log(-0.5 * jnp.log(square)),
            "phase": jnp.log(phase),
            "scale": 0.5 * jnp.log1p(-square),
            "input": jax.random.normal(keys[2], (size_in, 2 * hidden)) * (2 * size_in) ** -0.5,
            "output": jax.random.normal(keys[3], (2 * hidden, hidden)) * hidden**-0.5,
        }

    def factor(params: Tree) -> Complex:
        modulus, phase = jnp.exp(-jnp.exp(params["decay"])), jnp.exp(params["phase"])
        return modulus * jnp.cos(phase), modulus * jnp.sin(phase)

    def project(params: Tree, x: Array) -> Tree:
        scale = jnp.tile(jnp.exp(params["scale"]), 2)[None]
        return tuple(jnp.split(product(x, scale * params["input"]), 2))

    def step(params: Tree, carry: Tree, projected: Tree) -> Tree:
        real, imaginary = multiply(factor(params), carry)
        return real + projected[0], imaginary + projected[1]

    def unroll(params: Tree, carry: Tree, projected: Tree, first: Array) -> Tree:
        start = multiply(factor(params), forget(carry, first[0]))
        inputs = tuple(each.at[0].add(before) for each, before in zip(projected, start, strict=True))
        keep = jnp.where(first, jnp.zeros_like(inputs[0][:, 0]), jnp.ones_like(inputs[0][:, 0]))
        return linear_recurrence(factor(params), inputs, keep)

    return Cell(
        init=init,
        carry=lambda: (jnp.zeros(hidden), jnp.zeros(hidden)),
        project=project,
        step=step,
        output=lambda params, carry: jax.nn.gelu(product(jnp.concatenate(carry), params["output"])),
        unroll=unroll,
    )


CELLS: dict[str, Callable[..., Cell]] = {"lstm": lstm, "gru": gru, "lru": lru}
"""`(size_in, hidden, precision) -> Cell`, by name."""


def _kernels(key: Array, size_in: int, hidden: int, gates: int) -> dict[str, Array]:
    """Kernels of the input and of the recurrence, `[X, gates·H]` and `[H, gates·H]`, orthogonal gate by gate."""
    draw = orthogonal()

    def drawn(key: Array, size: int) -> Array:
        kernels = jax.vmap(lambda each: draw(each, (size, hidden)))(jax.random.split(key, gates))
        return kernels.swapaxes(0, 1).reshape(size, gates * hidden)

    of_input, of_recurrence = jax.random.split(key)
    return {"input": drawn(of_input, size_in), "recurrent": drawn(of_recurrence, hidden)}


def _one_by_one(step: Callable[[Tree, Tree, Tree], Tree]) -> Callable[[Tree, Tree, Tree, Array], Tree]:
    """`Cell.unroll` of a step that waits for the one before."""

    def unroll(params: Tree, carry: Tree, projected: Tree, first: Array) -> Tree:
        def one(carry: Tree, now: tuple[Tree, Array]) -> tuple[Tree, Tree]:
            carry = step(params, forget(carry, now[1]), now[0])
            return carry, carry

        return jax.lax.scan(one, carry, (projected, first))[1]

    return unroll
