"""Prioritised replay of the host loop: the ring, and a sum tree of the priorities of its rows.

Proportional prioritisation of Schaul et al., "Prioritized experience replay" (arXiv:1511.05952): a transition is drawn
with probability P = p / Σp and weighted as `equations.priorities` has it. Draws are independent, not stratified: so
alpha = 0 is uniform replay, number by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ddpg_jax.equations.priorities import Prioritization, annealed_beta, fading, importance_weight, priority
from ddpg_jax.replay.host.ring import ReadRowsFn, Ring
from ddpg_jax.replay.host.sum_tree import BYTES_PER_SLOT, SumTree
from ddpg_jax.types import EnvSpec, HostArray, Step

_NONE = np.finfo(np.float64).tiny
"""The priority of a row that is not there, which is asked for while the loop compiles."""


class PrioritizedRing(Ring):
    """A ring whose transitions are drawn in proportion to their priorities.

    An index is the number of a row since the run began, step·E + environment, so that an error that comes back late is
    still told whose it is. Until the ring has gone round, it is that of `Ring`.

    Args:
      spec: as in `Ring`, and so are `seeds`, `num_envs`, `capacity`, `n_step` and `gamma`.
      seeds: S of them.
      num_envs: E.
      capacity: transitions of each seed.
      n_step: rows folded into a transition at most.
      gamma: discount of one step.
      rule: how priorities and weights come about.

    Raises:
      ConfigError: it would not fit into free memory. Nothing has been allocated then.
    """

    weighted: ClassVar[bool] = True
    _bytes_beside: int = BYTES_PER_SLOT

    def __init__(
        self,
        spec: EnvSpec,
        seeds: Sequence[int],
        *,
        num_envs: int,
        capacity: int,
        n_step: int,
        gamma: float,
        rule: Prioritization,
    ) -> None:
        super().__init__(spec, seeds, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=gamma)
        self.tree = SumTree(len(seeds), self._shape[0] * num_envs)
        self._rule = rule
        self._beta = rule.beta  # of the last draw
        self._largest = np.ones(len(seeds))  # priority so far

    @property
    def nbytes(self) -> int:
        """Memory of the rows and the tree, in bytes."""
        return super().nbytes + self.tree.nbytes

    @property
    def oldest(self) -> int:
        """The smallest index that is still stored."""
        return (self._added - self._length) * self._shape[2]

    @property
    def oldest_start(self) -> int:
        """The smallest index at which a transition may begin."""
        return self.oldest

    def add(self, obs: HostArray, action: HostArray, step: Step) -> None:
        """As `Ring.add`; the new rows get the largest priority that any row has had so far."""
        place = self._added % self._shape[0]
        super().add(obs, action, step)
        self._enter(place)

    def extra_state(self) -> dict[str, HostArray]:
        """As `Ring.extra_state`: the priorities, `[S, N]`, and the largest so far, `[S]`."""
        slots = np.broadcast_to(np.arange(self._slots), (len(self._largest), self._slots))
        return {"priorities": self.tree.get(slots), "largest": self._largest.copy()}

    def restore(self, first: int, stop: int, read: ReadRowsFn, extra_state: Mapping[str, HostArray]) -> None:
        """As `Ring.restore`; the sums above the priorities come out the same, as they are never incremented."""
        super().restore(first, stop, read, extra_state)
        priorities, largest = extra_state["priorities"], extra_state["largest"]
        self.tree.set(np.broadcast_to(np.arange(self._slots), priorities.shape), priorities)
        self._largest[:] = largest

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Indices `[S, U, B]` for one call of the update, in proportion to the priorities, with replacement."""
        mass = self._random(updates, batch_size, call).reshape(len(self._largest), -1)
        if self._rule.fades:
            slots = self.tree.find_scaled(mass, self._left_of_priorities()).reshape(-1, updates, batch_size)
        else:
            mass *= self.tree.total[:, None]
            slots = self.tree.find(mass).reshape(-1, updates, batch_size)
        self._beta = annealed_beta(np.asarray(call * updates), self._rule)
        return (slots - self.oldest) % self._slots + self.oldest

    def weights(self, index: HostArray) -> HostArray:
        """Importance weights of rows, at their priorities of now and with the beta of the last draw.

        Args:
          index: `[S, ..., B]`; the last axis is a batch.

        Returns:
          float32, of the same shape, the largest of each batch 1.
        """
        priorities = np.maximum(self.tree.get(self._slot(index)), _NONE).reshape(index.shape)
        return importance_weight(priorities, self._beta).astype(np.float32)

    def write_back(self, index: HostArray, td_error: Any) -> None:
        """Sets the priorities of transitions that were learned from.

        A row that has been overwritten since, or is no start any more, is left alone; of several errors of one row the
        largest counts.

        Args:
          index: as it was drawn, `[S, U, B]`.
          td_error: `[S, U, B]`, an array of the host or of the device.
        """
        index = index.reshape(len(index), -1)
        values = priority(np.asarray(td_error, np.float64).reshape(index.shape), self._rule)
        keep = index >= self.oldest_start
        self.tree.set(self._slot(index), values, keep)
        np.maximum(self._largest, values.max(1, initial=0.0, where=keep), out=self._largest)

    def _left_of_priorities(self) -> HostArray:
        """What age leaves of priorities, for each node at the top of the tree that of its first row, `[nodes]`."""
        age = (self._added - 1 - self.tree.first_slots // self._shape[2]) % self._shape[0] * self._shape[2]
        return fading(age.astype(np.float64), self._rule)

    def _enter(self, place: int) -> None:
        """Sets the priorities that a step brings with it, which was written at a place of the ring."""
        self._fill(place, self._largest)

    def _fill(self, place: int, values: HostArray) -> None:
        """Gives the rows at a place of the ring one priority, `[S]`."""
        first = place * self._shape[2]
        self.tree.fill(first, first + self._shape[2], values)

    @property
    def _slots(self) -> int:
        return self._shape[0] * self._shape[2]

    def _slot(self, index: HostArray) -> HostArray:
        """Where rows stand in the tree, `[S, n]`."""
        return index.reshape(len(index), -1) % self._slots

    def _place(self, index: HostArray) -> tuple[HostArray, HostArray]:
        return super()._place(index - self.oldest)
