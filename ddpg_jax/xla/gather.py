"""Reading rows of a large table in device memory without waiting for each."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ddpg_jax.types import Array

LINE = 16
"""Numbers of 32 bits in a cache line."""


def prefetch(table: Array, rows: Array) -> Array:
    """Numbers of rows that are about to be gathered; on a CPU, all their cache lines are on the way by then.

    A gather copies row after row, number by number, and so waits for one row of main memory at a time. Reading one
    number of each cache line before lets the processor wait for many at once: drawing 256 of 10^6 rows of 43 columns
    takes 17 us instead of 33. Elsewhere nothing is read.

    Args:
      table: float32 `[N, K]`.
      rows: int32 `[...]`, from 0 to N − 1.

    Returns:
      The same numbers.
    """
    width = table.shape[1]
    last = {width - 1} if width % LINE else set[int]()  # rows are not where lines begin then
    columns = jnp.array(sorted({*range(0, width, LINE), *last}))

    def read(table: Array, rows: Array) -> Array:
        seen = table.at[rows[None], columns.reshape(-1, *[1] * rows.ndim)].get(mode="promise_in_bounds")
        return jnp.where(jnp.count_nonzero(seen) >= 0, rows, 0)  # always; but the compiler cannot leave the reading out

    return jax.lax.platform_dependent(table, rows, cpu=read, default=lambda table, rows: rows)
