"""Numbers beside pictures, as agents with cameras and joints see them: one array of bytes holds both.

A picture `[H, W, C]` and P numbers become `[H + r, W, C]`: the bytes of the numbers, as float32, fill further rows
below the picture, so whatever keeps, stacks and stores pictures keeps them too, to the bit. NumPy and JAX do the
same.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ddpg_jax.envs.pictures import namespace


def number_rows(numbers: int, row_shape: tuple[int, ...]) -> int:
    """r: how many rows `[W, C]` the bytes of some numbers fill."""
    return -(-4 * numbers // prod(row_shape))


def put_below(picture: Any, numbers: Any) -> Any:
    """Numbers `[P]` below a picture, `uint8 [H, W, C] -> [H + r, W, C]`; where there are none, the picture itself."""
    if not numbers.shape[0]:
        return picture
    xp, row_shape = namespace(picture), picture.shape[1:]
    rows = number_rows(numbers.shape[0], row_shape)
    below = _as_bytes(numbers.astype(np.float32))
    below = xp.concatenate([below, xp.zeros(rows * prod(row_shape) - below.shape[0], np.uint8)])
    return xp.concatenate([picture, below.reshape(rows, *row_shape)])


def split_rows(pictures: Any, numbers: int) -> tuple[Any, Any]:
    """Pictures and what lies below them.

    Args:
      pictures: `uint8 [..., H + r, W, C]`.
      numbers: P; r is `number_rows(P, (W, C))`.

    Returns:
      `[..., H, W, C]` and `[..., r, W, C]`.
    """
    height = pictures.shape[-3] - number_rows(numbers, pictures.shape[-2:])
    return pictures[..., :height, :, :], pictures[..., height:, :, :]


def numbers_in(rows: Any, numbers: int) -> Any:
    """The numbers whose bytes fill rows, `uint8 [..., r, W, C] -> float32 [..., P]`."""
    flat = rows.reshape(*rows.shape[:-3], -1)[..., : 4 * numbers]
    if namespace(rows) is np:
        return np.ascontiguousarray(flat).view(np.float32)
    import jax

    # Put together by hand: jax.export refines no cast that joins four bytes where the batch is free.
    each = flat.reshape(*flat.shape[:-1], numbers, 4).astype(np.uint32)
    bits = each[..., 0] | each[..., 1] << 8 | each[..., 2] << 16 | each[..., 3] << 24
    return jax.lax.bitcast_convert_type(bits, np.float32)


def _as_bytes(numbers: Any) -> Any:
    """`float32 [P] -> uint8 [4·P]`."""
    if namespace(numbers) is np:
        return np.ascontiguousarray(numbers).view(np.uint8)
    import jax

    return jax.lax.bitcast_convert_type(numbers, np.uint8).reshape(-1)
