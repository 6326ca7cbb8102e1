"""Random shifts of pictures: what DrQ learns from, for one sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.agents.slots import AugmentFn
from ddpg_jax.envs.mixed import split_rows
from ddpg_jax.types import Array, Transition

ShiftFn: TypeAlias = Callable[[Array, Array, int], Array]
"""`(pictures [..., H, W, C], offset int32 [2], pad) -> pictures`: row i is row i + offset[0] - pad of before, columns
likewise, and the edge goes on beyond the edge. Offsets go from 0 to 2·pad."""


def shift_bytes(pictures: Array, offset: Array, pad: int) -> Array:
    """A `ShiftFn` that copies whole pixels, of any dtype."""
    height, width = pictures.shape[-3:-1]
    rows, columns = (
        jnp.clip(jnp.arange(side) + start - pad, 0, side - 1)
        for side, start in zip((height, width), offset, strict=True)
    )
    return jnp.take(jnp.take(pictures, rows, axis=-3), columns, axis=-2)


def shift_bilinear(pictures: Array, offset: Array, pad: int) -> Array:
    """A `ShiftFn` that samples between pixels, as published, where offsets are whole; it returns the dtype it is given.

    References:
      Yarats et al., "Mastering visual continuous control", section 3.1 (arXiv:2107.09645).
    """
    spread = [(0, 0)] * (pictures.ndim - 3) + [(pad, pad), (pad, pad), (0, 0)]
    x = jnp.pad(pictures, spread, mode="edge").astype(jnp.float32)
    for axis, side, start in zip((-3, -2), pictures.shape[-3:-1], offset, strict=True):
        full = side + 2 * pad
        centre = (2 * jnp.arange(side, dtype=jnp.float32) + 1 + 2 * start.astype(jnp.float32)) / full - 1  # in [-1, 1]
        place = ((centre + 1) * full - 1) / 2
        low = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, full - 1)
        share = (place - low.astype(jnp.float32)).reshape(*[1] * (x.ndim + axis), -1, *[1] * (-axis - 1))
        x = (1 - share) * jnp.take(x, low, axis) + share * jnp.take(x, jnp.minimum(low + 1, full - 1), axis)
    return jnp.round(x).astype(pictures.dtype) if jnp.issubdtype(pictures.dtype, jnp.integer) else x


SHIFTS: dict[str, ShiftFn] = {"none": shift_bytes, "bilinear": shift_bilinear}
"""By the names of `algorithm.encoder.interpolation`."""


def random_shift(
    pad: int, shift: ShiftFn = shift_bytes, target_copies: int = 1, online_copies: int = 1, numbers: int = 0
) -> AugmentFn:
    """Shifts the pictures of a transition by at most `pad` pixels, those of one stack alike.

    Args:
      pad: pixels.
      shift: how.
      target_copies: K, shifted successors; more than 1 are a leading axis of `next_obs`.
      online_copies: M, shifted observations; likewise of `obs`.
      numbers: P, below each picture, which stay as they are.

    References:
      Yarats et al., "Image augmentation is all you need", section 3 (arXiv:2004.13649).
    """

    def several(pictures: Array, key: Array, copies: int) -> Array:
        offsets = jax.random.randint(key, (copies, 2), 0, 2 * pad + 1)
        shown, below = split_rows(pictures, numbers)
        shifted = jax.vmap(lambda offset: jnp.concatenate([shift(shown, offset, pad), below], -3))(offsets)
        return shifted if copies > 1 else shifted[0]

    def augment(transition: Transition, key: Array) -> Transition:
        key, next_key = jax.random.split(key)
        return transition._replace(
            obs=several(transition.obs, key, online_copies),
            next_obs=several(transition.next_obs, next_key, target_copies),
        )

    return augment
