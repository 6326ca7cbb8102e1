"""A sum tree in device memory, as pure functions for one seed; seeds are added by `vmap`.

A node holds the sum of its children, which lie side by side, so a level costs one gather of `FAN_OUT` numbers. Nodes
are recomputed from their children and never incremented: nothing drifts. All sums are written out in a fixed order, so
neither `vmap` nor the shape of a batch changes a bit.

A draw takes a fresh random number at each level: its 2^-23 are then those of a choice among a few children, not of one
among a million slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.types import Array
from ddpg_jax.xla.gather import prefetch

FAN_OUT = 16
"""Children of a node, a cache line of them. On a CPU faster than 8 and 32 for a million slots."""

SumTree: TypeAlias = tuple[Array, ...]
"""Levels from the highest, of one node's children, to the slots; float32, lengths are multiples of `FAN_OUT`."""


def empty(slots: int) -> SumTree:
    """A tree in which all slots hold zero."""
    lengths = [_rounded_up(slots)]
    while lengths[0] > FAN_OUT:
        lengths.insert(0, _rounded_up(lengths[0] // FAN_OUT))
    return tuple(jnp.zeros(length) for length in lengths)


def get(tree: SumTree, slots: Array) -> Array:
    """Numbers of slots, of the same shape."""
    return tree[-1].at[slots].get(mode="promise_in_bounds")


def set_slots(tree: SumTree, slots: Array, values: Array) -> SumTree:
    """Changes numbers; of several for one slot the largest stays.

    Args:
      tree: before.
      slots: int32 `[n]`.
      values: `[n]`, finite, not negative.
    """
    levels = [tree[-1].at[slots].set(0.0, mode="promise_in_bounds").at[slots].max(values, mode="promise_in_bounds")]
    for parents in reversed(tree[:-1]):
        slots = slots // FAN_OUT
        sums = _running_sums(levels[0], slots)[-1]
        levels.insert(0, parents.at[slots].set(sums, mode="promise_in_bounds"))
    return tuple(levels)


def fill(tree: SumTree, start: Array, count: int, value: Array) -> SumTree:
    """Changes neighbours to one number, by slices and without a scatter.

    Args:
      tree: before.
      start: first slot, int32 `[]`.
      count: how many; all of them are slots.
      value: finite, not negative, `[]`.
    """
    return fill_several(tree, [(start, value)], count)


def fill_several(tree: SumTree, ranges: Sequence[tuple[Array, Array]], count: int) -> SumTree:
    """`fill` with several ranges, the later over the earlier; no level is read before all of it is written.

    Args:
      tree: before.
      ranges: `(start, value)` of each.
      count: slots of each.
    """
    slots, starts = tree[-1], [start for start, _ in ranges]
    for start, value in ranges:
        slots = jax.lax.dynamic_update_slice(slots, jnp.full(count, value), (start,))
    levels = [slots]
    for parents in reversed(tree[:-1]):
        most = levels[0].shape[0] // FAN_OUT
        count = min((count - 1) // FAN_OUT + 2, most)  # that many nodes at most have changed children
        starts = [jnp.minimum(start // FAN_OUT, most - count) for start in starts]
        sums = [_running_sums(levels[0], start + jnp.arange(count))[-1] for start in starts]
        for start, new in zip(starts, sums, strict=True):
            parents = jax.lax.dynamic_update_slice(parents, new, (start,))
        levels.insert(0, parents)
    return tuple(levels)


def draw(tree: SumTree, key: Array, shape: tuple[int, ...]) -> Array:
    """Slots, each with the probability of its share in the sum, never one that holds zero unless all do.

    Args:
      tree: the numbers.
      key: consumed.
      shape: of what is returned.
    """
    node = jnp.zeros(shape, jnp.int32)
    for level, share in zip(tree, jax.random.uniform(key, (len(tree), *shape)), strict=True):
        running = _running_sums(level, node)
        mass = share * running[-1]
        child = sum((each <= mass).astype(jnp.int32) for each in running[:-1])  # the first whose sum exceeds the mass
        node = node * FAN_OUT + child
    return node


def coarse_level(tree: SumTree, nodes: int = 1024) -> int:
    """The highest level with so many nodes at least, by its number from the top; the slots, where none has."""
    return next((i for i, level in enumerate(tree) if level.shape[0] >= nodes), len(tree) - 1)


def first_slots(tree: SumTree, level: int) -> Array:
    """The first slot below each node of a level, int32."""
    return jnp.arange(tree[level].shape[0], dtype=jnp.int32) * FAN_OUT ** (len(tree) - 1 - level)


def scale(tree: SumTree, level: int, factors: Array) -> SumTree:
    """The tree, to draw from alone, as if all slots below each node of a level were multiplied by one number.

    Args:
      tree: before.
      level: its number from the top.
      factors: not negative, one for each of its nodes.
    """
    levels = [tree[level] * factors, *tree[level + 1 :]]
    for parents in reversed(tree[:level]):
        sums = _running_sums(levels[0], jnp.arange(levels[0].shape[0] // FAN_OUT))[-1]
        levels.insert(0, jnp.pad(sums, (0, parents.shape[0] - sums.shape[0])))
    return tuple(levels)


def _rounded_up(count: int) -> int:
    return -(-count // FAN_OUT) * FAN_OUT


def _running_sums(level: Array, node: Array) -> list[Array]:
    """Of the children of nodes, one after the other: `FAN_OUT` arrays of the shape of `node`."""
    children = level.reshape(-1, FAN_OUT)
    children = children.at[prefetch(children, node)].get(mode="promise_in_bounds")
    return list(accumulate(children[..., i] for i in range(FAN_OUT)))
