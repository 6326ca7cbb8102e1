"""Products of last layers by their weights transposed."""

from __future__ import annotations

from typing import Any

import jax

from ddpg_jax.types import Array


def transposed_dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any = None, **options: Any) -> Array:
    """The product x·W, `[I], [I, Z] -> [Z]`, by W transposed, in the form that flax asks for.

    Its gradient is then a product `[Z, B]·[B, I]`, which XLA's CPU compiler makes in far less time than
    `[I, B]·[B, Z]` where Z is a few actions; without the barrier it would turn one into the other. The figures are in
    docs/performance.md.
    """
    return jax.lax.dot_general(x, jax.lax.optimization_barrier(kernel.T), (((0,), (1,)), ((), ())), precision)


FEW_OUTPUTS = 32
"""Outputs from which on that is not done: at 17 it saved time, at 51 none."""
