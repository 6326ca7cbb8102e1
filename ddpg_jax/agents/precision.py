"""In what precision products are taken: bfloat16 factors, and full float32 on accelerators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.types import Agent, Array

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


def bfloat16_dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any = None, **options: Any) -> Array:
    """`bfloat16_dot` in the form that flax asks for."""
    return bfloat16_dot(x, kernel)


def in_float32(agent: Agent) -> Agent:
    """The same agent with full products of float32 factors, for which some accelerators take less by default."""

    def under(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            with jax.default_matmul_precision("float32"):
                return function(*arguments)

        return call

    acting = {"act": under(agent.act), "policy": under(agent.policy)}
    return agent._replace(
        **acting, update=under(agent.update), value=under(agent.value), diagnose=under(agent.diagnose)
    )
