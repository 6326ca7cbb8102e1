"""How arrays travel between host and device: few at a time, as each NumPy argument of a jitted call costs about 10 us.

Batches go by one of two ways. Beside narrow networks the host is the slower side: rows of float32 vectors travel as the
ring holds them, word for word, and are taken apart and folded on the device. Everything else, wide networks, images and
transitions of n steps, is folded by the ring and packed here. Windows for agents with memory travel as rows always, and
are made on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.equations.returns import fold_steps
from ddpg_jax.replay.host.sequences import SequenceRing
from ddpg_jax.replay.windows import StepRows, make_windows
from ddpg_jax.types import Array, Batch, HostArray, Transition, Tree

if TYPE_CHECKING:
    from ddpg_jax.replay.host.ring import Ring


class BatchTransfer(NamedTuple):
    """A way for batches.

    Attributes:
      pack: `index [S, U, B] -> packed`, on the host, in memory of its own.
      unpack: `packed -> Batch [S, U, B, ...]`, inside a program; the index stays on the host.
    """

    pack: Callable[[HostArray], Tree]
    unpack: Callable[[Any], Batch]


def batch_transfer(ring: Ring, *, raw: bool) -> BatchTransfer:
    """The faster way for the batches of a ring, as measured (docs/performance.md).

    Args:
      ring: where the batches come from.
      raw: whether rows may travel as they are stored; see `Tuning.raw_rows`.
    """
    if isinstance(ring, SequenceRing):
        return windows(ring)
    words = raw and ring.n_step == 1 and ring.spec.obs_dtype == "float32"
    return raw_rows(ring) if words else folded_batches(ring)


def folded_batches(ring: Ring) -> BatchTransfer:
    """Batches that the ring has folded."""
    return BatchTransfer(
        pack=lambda index: pack_batch(ring.gather(index)),
        unpack=lambda packed: unpack_batch(packed, ring.spec.action_size),
    )


def raw_rows(ring: Ring) -> BatchTransfer:
    """Rows as they are stored, and their weights where they have any, as one more word.

    What the ring would do with a window of one row is done on the device.
    """

    def with_weights(index: HostArray) -> HostArray:
        return np.concatenate([ring.words(index), ring.weights(index)[..., None]], -1)

    def unpack(words: Array) -> Batch:
        ends = _flag(ring, words, "terminated"), _flag(ring, words, "truncated")
        rows = jnp.ones(words.shape[:-1], jnp.int32)
        reward, discount, _ = fold_steps(_column(ring, words, "reward")[..., None], *ends, rows, ring.gamma)
        obs, action, next_obs = (_column(ring, words, name) for name in ("obs", "action", "next_obs"))
        weight = words[..., -1] if ring.weighted else jnp.ones_like(reward)
        return Batch(Transition(obs, action, reward, discount, next_obs), weight, ())

    return BatchTransfer(pack=with_weights if ring.weighted else ring.words, unpack=unpack)


def windows(ring: SequenceRing) -> BatchTransfer:
    """Windows as the rows that they are made of, and what the rows do not tell (`SequenceRing.facts`)."""
    size, float_obs = ring.spec.action_size, ring.spec.obs_dtype == "float32"

    def pack(index: HostArray) -> tuple[HostArray, ...]:
        return ring.words(index), ring.facts(index)

    def pack_images(index: HostArray) -> tuple[HostArray, ...]:
        rows = ring.step_rows(index)
        scalars = np.stack([rows.reward, rows.terminated, rows.truncated], -1)
        return np.concatenate([rows.action, scalars], -1), ring.facts(index), rows.obs, rows.next_obs

    def rows_of(words: Array, *images: Array) -> StepRows:
        if images:
            action, reward, *ends = jnp.split(words, [size, size + 1, size + 2], -1)
            return StepRows(images[0], action, reward[..., 0], images[1], *(x[..., 0] > 0 for x in ends))
        ends = (_flag(ring, words, name)[..., 0] for name in ("terminated", "truncated"))
        action, reward = (_column(ring, words, name) for name in ("action", "reward"))
        obs, next_obs = (_column(ring, words[..., 1:, :], name) for name in ("obs", "next_obs"))
        return StepRows(obs, action, reward, next_obs, *ends)

    def unpack(packed: tuple[Array, ...]) -> Batch:
        words, facts, *images = packed
        available = facts[..., 1].astype(jnp.int32)
        carry = facts[..., 3:] if ring.windows.keep_every else ()
        rows = rows_of(words, *images)
        data = make_windows(rows, facts[..., 0] > 0, available, n_step=ring.n_step, gamma=ring.gamma, carry=carry)
        return Batch(data, facts[..., 2], ())

    return BatchTransfer(pack=pack if float_obs else pack_images, unpack=unpack)


def _column(ring: Ring, words: Array, name: str) -> Array:
    """A field of rows that travelled as words, `[..., K]`."""
    layout: Any = ring.row_dtype.fields
    dtype, offset = layout[name][:2]
    values = words[..., offset // 4 : (offset + dtype.itemsize) // 4]
    return values.reshape(*words.shape[:-1], *dtype.shape)


def _flag(ring: Ring, words: Array, name: str) -> Array:
    """Likewise one of the ends, bool `[..., 1]`."""
    layout: Any = ring.row_dtype.fields
    word, byte = divmod(layout[name][1], 4)
    ends = jax.lax.bitcast_convert_type(words[..., word : word + 1], jnp.uint32)
    return (ends >> (8 * byte)) & 255 > 0


class PackedBatch(NamedTuple):
    """A batch as few arrays: each NumPy argument of a jitted call costs about 10 us.

    Attributes:
      columns: all float32 leaves side by side, `[S, U, B, K]`.
      images: `(obs, next_obs)` where they are not float32 vectors, else `()`.
    """

    columns: HostArray
    images: tuple[HostArray, ...]


def pack_batch(batch: Batch) -> PackedBatch:
    """Joins the leaves of a host batch, `[S, U, B, ...]`, into as few arrays as may be."""
    data = batch.data
    scalars = [x[..., None] for x in (data.reward, data.discount, batch.weight)]
    if data.obs.dtype != np.float32:
        return PackedBatch(np.concatenate([data.action, *scalars], -1), (data.obs, data.next_obs))
    return PackedBatch(np.concatenate([data.action, *scalars, data.obs, data.next_obs], -1), ())


def unpack_batch(packed: PackedBatch, action_size: int) -> Batch:
    """The batch that was packed, on the device; its index stays on the host."""
    cuts = [action_size, action_size + 1, action_size + 2, action_size + 3]
    action, reward, discount, weight, rest = jnp.split(packed.columns, cuts, -1)
    obs, next_obs = packed.images or jnp.split(rest, 2, -1)
    data = Transition(obs, action, reward[..., 0], discount[..., 0], next_obs)
    return Batch(data, weight[..., 0], ())


def pack_obs(obs: HostArray, first: HostArray) -> tuple[HostArray, ...]:
    """Observations `[S, E, *O]` and where an episode begins, `[S, E]`, as few arrays."""
    column = first[..., None]
    return (np.concatenate([obs, column], -1),) if obs.dtype == np.float32 else (column, obs)


def unpack_obs(seen: tuple[Array, ...]) -> tuple[Array, Array]:
    """What was packed, on the device: `(obs, first)`."""
    columns, *images = seen
    return images[0] if images else columns[..., :-1], columns[..., -1].astype(bool)
