"""The replay of the host loop for agents with memory: windows of consecutive steps out of the rows of the same ring.

Nothing is stored twice: a window is read from the rows when it is drawn, and windows overlap as they like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import ReadRowsFn, Ring
from ddpg_jax.replay.windows import StepRows, WindowShape, kept_age, kept_places, make_windows
from ddpg_jax.types import Batch, EnvSpec, HostArray


class SequenceRing(Ring):
    """A ring that hands out windows, drawn uniformly among those that are whole.

    The index of a window is that of its first row. It may begin at every row from which on W steps are stored; with
    `keep_every` only at those of them whose place in the ring is a multiple of it, for which `keep` was given a state.

    Args:
      spec: as in `Ring`, and so are `seeds`, `num_envs`, `capacity`, `n_step` and `gamma`.
      seeds: S of them.
      num_envs: E.
      capacity: transitions of each seed.
      n_step: rows folded into a transition at most.
      gamma: discount of one step.
      length: steps of a window that are learned from, L.
      burn_in: steps before them, b; W = b + L.
      keep_every: P, steps between two states that are kept; 0: none is.
      carry_size: K, numbers of a state; 0 where none is kept.
      more: arguments of the ring that this one is put before.

    Raises:
      ConfigError: it would not fit into free memory. Nothing has been allocated then.
    """

    def __init__(
        self,
        spec: EnvSpec,
        seeds: Sequence[int],
        *,
        num_envs: int,
        capacity: int,
        n_step: int,
        gamma: float,
        length: int,
        burn_in: int,
        keep_every: int = 0,
        carry_size: int = 0,
        **more: Any,
    ) -> None:
        self.windows = WindowShape(length, burn_in, n_step, keep_every)
        if keep_every:
            self._bytes_beside += -(-4 * carry_size // keep_every)
        sizes = {"num_envs": num_envs, "capacity": capacity, "n_step": n_step, "gamma": gamma}
        super().__init__(spec, seeds, **sizes, **more)
        self._offsets = np.arange(-1, self.windows.steps)
        places, num_seeds, _ = self._shape
        kept = -(-places // keep_every) if keep_every else 0
        self._kept = np.zeros((kept, num_seeds, num_envs, carry_size), np.float32)

    @property
    def nbytes(self) -> int:
        """Memory of the rows and of the states that are kept, in bytes."""
        return super().nbytes + self._kept.nbytes

    @property
    def keeps_next(self) -> bool:
        """Whether `keep` is to be called before the next `add`."""
        every = self.windows.keep_every
        return every > 0 and self._next_place % every == 0

    def keep(self, carry: HostArray) -> None:
        """Keeps what is remembered before the step that is added next.

        Args:
          carry: `[S, E, K]`.

        Raises:
          ValueError: none is kept there; see `keeps_next`.
        """
        if not self.keeps_next:
            raise ValueError(
                f"no state is kept before step {self._added} (keep_every={self.windows.keep_every}, a ring of "
                f"{self._shape[0]} steps); call keep only where keeps_next is true"
            )
        self._kept[self._next_place // self.windows.keep_every] = carry

    def extra_state(self) -> dict[str, HostArray]:
        """As `Ring.extra_state`, and the states that are kept, `[⌈T/P⌉, S, E, K]`."""
        return super().extra_state() | ({"kept": self._kept.copy()} if self.windows.keep_every else {})

    def restore(self, first: int, stop: int, read: ReadRowsFn, extra_state: Mapping[str, HostArray]) -> None:
        """As `Ring.restore`."""
        super().restore(first, stop, read, extra_state)
        if self.windows.keep_every:
            self._kept[:] = extra_state["kept"]

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Uniform indices of whole windows, `[S, U, B]`; as `Ring.draw`.

        Raises:
          ValueError: no window is whole.
        """
        num_envs, number = self._shape[2], self.starts
        draws = self._random(updates, batch_size, call)
        draws *= number * num_envs
        which = draws.astype(np.int64)
        return self._age_of(which // num_envs) * num_envs + which % num_envs

    @property
    def starts(self) -> int:
        """Rows of an environment at which a window may begin now.

        Raises:
          ValueError: there is none.
        """
        whole, every = self.windows.whole, self.windows.keep_every
        count = self._length - whole + 1
        number = int(self._kept_places(count)[1]) if every and count > 0 else count
        if number <= 0:
            raise ValueError(
                f"the ring holds {self._length} steps of each environment and no window of {whole} to draw"
                f"{f', beginning at a multiple of {every}' if every else ''}; add more before drawing"
            )
        return number

    def _kept_places(self, count: int) -> tuple[Any, Any]:
        return kept_places(np.asarray(self._place_of(0)), count, self._shape[0], self.windows.keep_every)

    def _age_of(self, start: HostArray) -> HostArray:
        """Of the rows at which a window may begin, from the oldest on."""
        if not self.windows.keep_every:
            return start
        first, _ = self._kept_places(1)
        return kept_age(start, first, self._place_of(0), self._shape[0], self.windows.keep_every)

    def words(self, index: HostArray) -> HostArray:
        """The rows of windows as they are stored, and the one before each of them.

        Args:
          index: `[S, ...]`, as in `gather`.

        Returns:
          float32 `[S, ..., 1 + N, K]` in memory of its own: the K words of a row of `row_dtype`, whatever they mean.
        """
        rows = self._take_windows(index)
        return rows.view(np.float32).reshape(*rows.shape, -1)

    def facts(self, index: HostArray) -> HostArray:
        """What windows do not tell themselves, side by side.

        Args:
          index: `[S, ...]`, as in `gather`.

        Returns:
          float32 `[S, ..., 3 + K]`: whether the row before is stored, how many rows from the first on are (or N where
          it is more), the weight, and the state that was kept.
        """
        age = self._place(index)[0]
        columns = np.stack([age > 0, np.minimum(self._length - age, self.windows.steps), self.weights(index)], -1)
        return np.concatenate([columns, self._carry(index)], -1, dtype=np.float32)

    def step_rows(self, index: HostArray) -> StepRows:
        """The rows of windows and the one before each of them, `[S, ..., 1 + N]`, as `make_windows` takes them."""
        rows = self._take_windows(index)
        own = rows[..., 1:]
        ends = rows["terminated"], rows["truncated"]
        return StepRows(own["obs"], rows["action"], rows["reward"], own["next_obs"], *ends)

    def gather(self, index: HostArray) -> Batch:
        """The windows that begin at given rows.

        Args:
          index: `[S, ...]`, as `draw` gives it.

        Returns:
          A batch of windows with leaves `[S, ..., *]`, in memory of its own, and the same index.
        """
        age = self._place(index)[0]
        carry = self._carry(index) if self.windows.keep_every else ()
        data = make_windows(
            self.step_rows(index), age > 0, self._length - age, n_step=self.n_step, gamma=self.gamma, carry=carry
        )
        return Batch(data, self.weights(index), index)

    @property
    def _next_place(self) -> int:
        return self._added % self._shape[0]

    def _place_of(self, age: Any) -> Any:
        """Place in the ring, from 0 to T - 1."""
        return (age + (self._added - self._length)) % self._shape[0]

    def _take_windows(self, index: HostArray) -> HostArray:
        age, lane = self._place(index)
        return self._take(age[..., None] + self._offsets, lane[..., None])

    def _carry(self, index: HostArray) -> HostArray:
        """States that were kept for rows, `[S, ..., K]`; without numbers where none are."""
        age, lane = self._place(index)
        if not self.windows.keep_every:
            return np.zeros((*index.shape, 0), np.float32)
        lanes = self._shape[1] * self._shape[2]
        which = self._place_of(age) // self.windows.keep_every * lanes + lane
        return self._kept.reshape(-1, self._kept.shape[-1]).take(which, 0)


class PrioritizedSequenceRing(SequenceRing, PrioritizedRing):
    """A ring that hands out windows in proportion to their priorities, each that of its first row in the tree.

    A row has none until its window is whole, and gets the largest so far then. An index is as in `PrioritizedRing`.

    Args and errors are those of `SequenceRing`, and `rule`, how priorities and weights come about.

    References:
      Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", section 2.3 (ICLR 2019).
    """

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Indices `[S, U, B]` of windows that are whole, in proportion to their priorities, with replacement.

        Raises:
          ValueError: no window is whole.
        """
        _ = self.starts
        return PrioritizedRing.draw(self, updates, batch_size, call)

    def _enter(self, place: int) -> None:
        self._fill(place, np.zeros_like(self._largest))
        start = (place - self.windows.whole + 1) % self._shape[0]
        kept = not self.windows.keep_every or start % self.windows.keep_every == 0
        if kept and self._length >= self.windows.whole:
            self._fill(start, self._largest)
