"""Numbers of many slots, changed and drawn in proportion in O(log N): a NumPy tree of sums for all seeds at once.

A node holds the sum of its two children, recomputed from them and never incremented, so nothing drifts. The tree has no
root: from about a thousand nodes upward the running sum of a level serves instead, whose search is one call of NumPy
where a level is five. So the slots need not be padded to a power of two either.
"""

from __future__ import annotations

import numpy as np

from ddpg_jax.types import HostArray

TOP = 1024
"""Nodes of the highest level at most."""

BYTES_PER_SLOT = 16
"""Memory of one slot and its share of the nodes above."""


class SumTree:
    """Non-negative numbers, zero at first, in N slots of each of S seeds.

    All seeds lie in one array a level, so that children of node i are 2i and 2i + 1 whatever the seed.

    Args:
      seeds: S.
      slots: N.
      top: nodes of the highest level at most.
    """

    def __init__(self, seeds: int, slots: int, top: int = TOP) -> None:
        depth = max(0, (-(-slots // top) - 1).bit_length())
        nodes = -(-slots // 2**depth)
        self._levels = [np.zeros(seeds * nodes * 2**k) for k in range(depth + 1)]  # from the highest to the slots
        self._pairs = [level.reshape(-1, 2) for level in self._levels[1:]]
        self._by_seed = [level.reshape(seeds, -1) for level in self._levels]
        self._bounds = np.zeros((seeds, nodes + 1))  # running sums of the highest level
        self._first_bound = np.arange(seeds)[:, None] * (nodes + 1)
        self._first_node = np.arange(seeds)[:, None] * nodes
        self._first_slot = self._first_node * 2**depth
        self.first_slots = np.arange(nodes) * 2**depth  # of the nodes of the highest level

    @property
    def total(self) -> HostArray:
        """Sums of all slots, `[S]`; read it, do not write into it."""
        return self._bounds[:, -1]

    @property
    def nbytes(self) -> int:
        """Memory of the tree, in bytes."""
        return sum(level.nbytes for level in self._levels) + self._bounds.nbytes

    def get(self, slots: HostArray) -> HostArray:
        """Numbers `[S, n]` of slots `[S, n]`."""
        return self._levels[-1].take(slots + self._first_slot)

    def set(self, slots: HostArray, values: HostArray, keep: HostArray | None = None) -> None:
        """Changes numbers; of several for one slot the largest stays.

        Args:
          slots: `[S, n]`.
          values: `[S, n]`, finite, not negative.
          keep: which of them count, bool `[S, n]`; None: all.
        """
        node = slots + self._first_slot
        node, values = (x.reshape(-1) if keep is None else x[keep] for x in (node, values))
        leaves = self._levels[-1]
        leaves[node] = 0
        np.maximum.at(leaves, node, values)
        for parents, pairs in zip(reversed(self._levels[:-1]), reversed(self._pairs), strict=True):
            node = node >> 1
            both = pairs.take(node, 0)
            parents[node] = both[:, 0] + both[:, 1]
        self._by_seed[0].cumsum(1, out=self._bounds[:, 1:])

    def fill(self, start: int, stop: int, values: HostArray) -> None:
        """Changes neighbours to one number.

        Args:
          start: first slot.
          stop: the slot after the last.
          values: one for each seed, `[S]`, finite, not negative.
        """
        self._by_seed[-1][:, start:stop] = values[:, None]
        for parents, children in zip(reversed(self._by_seed[:-1]), reversed(self._by_seed[1:]), strict=True):
            start, stop = start // 2, (stop + 1) // 2
            left, right = children[:, 2 * start : 2 * stop : 2], children[:, 2 * start + 1 : 2 * stop : 2]
            np.add(left, right, out=parents[:, start:stop])
        self._by_seed[0].cumsum(1, out=self._bounds[:, 1:])

    def find(self, mass: HostArray) -> HostArray:
        """The slots in which the running sum of all numbers first exceeds given masses, never one that holds zero.

        Args:
          mass: `[S, n]`, from 0 to below `total`.

        Returns:
          Slots `[S, n]`.
        """
        node = _last_below(self._bounds, mass)
        return self._descend(node, mass - self._bounds.take(node + self._first_bound))

    def find_scaled(self, share: HostArray, scale: HostArray) -> HostArray:
        """`find`, where all numbers below a node of the highest level are multiplied by one.

        Args:
          share: of the sum of all that is multiplied so, `[S, n]`, from 0 to below 1.
          scale: positive, one for each node of the highest level, `[nodes]`; `first_slots` are the first below them.

        Returns:
          Slots `[S, n]`.
        """
        bounds = np.zeros_like(self._bounds)
        (self._by_seed[0] * scale).cumsum(1, out=bounds[:, 1:])
        mass = share * bounds[:, -1:]
        node = _last_below(bounds, mass)
        return self._descend(node, (mass - bounds.take(node + self._first_bound)) / scale[node])

    def _descend(self, node: HostArray, rest: HostArray) -> HostArray:
        """From nodes of the highest level, `[S, n]`, by what is left of the masses, to slots."""
        node = node + self._first_node
        for level in self._levels[1:]:
            node += node
            left = level.take(node)
            right = rest >= left
            left *= right
            rest -= left
            node += right
        leaves = self._levels[-1]
        while not (found := leaves.take(node)).all():  # rounding led past the last slot of a node that holds anything
            node -= found == 0
        return node - self._first_slot


def _last_below(bounds: HostArray, mass: HostArray) -> HostArray:
    """The last of the running sums `[S, nodes + 1]` that does not exceed each mass, `[S, n]`."""
    return np.stack([row.searchsorted(m, "right") for row, m in zip(bounds, mass, strict=True)]) - 1
