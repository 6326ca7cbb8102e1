"""The replay of the host loop: one NumPy ring for all seeds, written in place.

It stores what happened, one row a step; `sample` folds up to n rows into a transition. So n and gamma belong to
sampling, and a time limit never has to be told apart from a termination in the data.

A row is one record of a structured array laid out `[T, S, E]`: a step of all lanes is one contiguous block, and drawing
transitions is one gather of whole records.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ddpg_jax.equations.returns import fold_steps
from ddpg_jax.errors import ConfigError
from ddpg_jax.rng import HostStream
from ddpg_jax.types import Batch, EnvSpec, HostArray, Step, Transition
from ddpg_jax.xla.memory import available_bytes, human_bytes

_FOLDED = ("reward", "terminated", "truncated")
_BLOCK = 2**14

_BLOCK_BYTES = 2**26

ReadRowsFn: TypeAlias = Callable[[int, int], Mapping[str, HostArray]]
"""`(first, stop) -> rows` by name, with these numbers since the run began."""


def row_dtype(spec: EnvSpec) -> np.dtype[np.void]:
    """The record of one step: observation, action, reward, ends, true successor; 4-byte aligned."""
    return np.dtype(
        [
            ("obs", spec.obs_dtype, spec.obs_shape),
            ("action", "float32", (spec.action_size,)),
            ("reward", "float32"),
            ("next_obs", spec.obs_dtype, spec.obs_shape),
            ("terminated", "bool"),
            ("truncated", "bool"),
        ],
        align=True,
    )


class Ring:
    """A ring buffer of transitions for S seeds with E environments each.

    Args:
      spec: what observations and actions look like.
      seeds: the seeds of the run, S of them; each draws its own indices.
      num_envs: E.
      capacity: transitions of each seed; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step.

    Raises:
      ConfigError: it would not fit into free memory. Nothing has been allocated then.
    """

    weighted: ClassVar[bool] = False
    """Whether transitions have weights, and the errors of an update are wanted back."""

    _bytes_beside: int = 0
    """Memory of a transition beside its row."""

    def __init__(
        self, spec: EnvSpec, seeds: Sequence[int], *, num_envs: int, capacity: int, n_step: int, gamma: float
    ) -> None:
        self.spec, self.n_step, self.gamma = spec, n_step, np.float32(gamma)
        self.row_dtype = self._describe_row(spec)
        self._shape = (-(-capacity // num_envs), len(seeds), num_envs)
        _check_memory(self._lane_bytes, self._shape)
        self._rows = np.zeros(self._shape, self.row_dtype)
        self._flat = self._rows.reshape(-1)
        self._first_lane = np.arange(len(seeds)) * num_envs
        self._streams = [HostStream(seed, "replay") for seed in seeds]
        self._added = 0  # rows written to every lane since the run began; the next one goes to this, modulo T
        self._length = 0  # rows stored in every lane

    def __len__(self) -> int:
        """Transitions stored for each seed."""
        return self._length * self._shape[2]

    @property
    def nbytes(self) -> int:
        """Memory of the rows, in bytes."""
        return self._rows.nbytes

    def add(self, obs: HostArray, action: HostArray, step: Step) -> None:
        """Writes one step of every lane over the oldest.

        Args:
          obs: observation acted on, `[S, E, *O]`.
          action: `[S, E, A]`, in [-1, 1].
          step: what the environments reported, leaves `[S, E, ...]`.
        """
        row = self._rows[self._added % self._shape[0]]
        row["action"] = action
        row["reward"] = step.reward
        row["terminated"] = step.terminated
        row["truncated"] = step.truncated
        self._keep_observations(row, obs, step.next_obs)
        self._added += 1
        self._length = min(self._length + 1, self._shape[0])

    def _keep_observations(self, row: HostArray, obs: HostArray, next_obs: HostArray) -> None:
        """Writes what was seen in a step of all lanes, whose row is the next one."""
        row["obs"] = obs
        row["next_obs"] = next_obs

    def cut(self, lanes: HostArray) -> None:
        """Ends the episodes in progress where they are, as a time limit would; at least one step was added.

        Args:
          lanes: whose, bool `[S, E]`.
        """
        row = self._rows[(self._added - 1) % self._shape[0]]
        row["truncated"] |= lanes & ~row["terminated"]

    @property
    def row_range(self) -> tuple[int, int]:
        """The rows stored, numbered since the run began: the first, and the one after the last."""
        return self._added - self._length, self._added

    def rows(self, first: int, stop: int) -> dict[str, HostArray]:
        """Rows by their numbers since the run began, by name, copies: "rows", bytes `[stop - first, S, E, row]`."""
        taken = self._rows.take(np.arange(first, stop), 0, mode="wrap")
        return {"rows": taken.view(np.uint8).reshape(*taken.shape, self.row_dtype.itemsize)}

    def extra_state(self) -> dict[str, HostArray]:
        """What a resumed run needs beside the rows, by name, copies."""
        return {}

    def restore(self, first: int, stop: int, read: ReadRowsFn, extra_state: Mapping[str, HostArray]) -> None:
        """Fills an empty ring with what another one of the same arguments held.

        Args:
          first: as `row_range` said.
          stop: likewise.
          read: `(first, stop) -> rows`, as `rows` gave them.
          extra_state: as `extra_state` gave it.

        Raises:
          ValueError: what comes does not fit.
        """
        if not 0 <= stop - first == min(stop, self._shape[0]):
            raise ValueError(f"rows {first} to {stop} are not those of a ring of {self._shape[0]}")
        _, num_seeds, num_envs = self._shape
        count = max(1, min(_BLOCK, _BLOCK_BYTES // (self._lane_bytes(1) * num_seeds * num_envs)))
        for start in range(first, stop, count):
            end = min(start + count, stop)
            self._put(np.arange(start, end) % self._shape[0], read(start, end))
        self._added, self._length = stop, stop - first

    def _put(self, where: HostArray, block: Mapping[str, HostArray]) -> None:
        """Writes rows, as `rows` gave them, at places of the ring."""
        self._rows[where] = np.ascontiguousarray(block["rows"]).view(self.row_dtype)[..., 0]

    def sample(self, updates: int, batch_size: int, call: int) -> Batch:
        """Draws transitions uniformly, with replacement, for one call of the update.

        Args:
          updates: U.
          batch_size: B.
          call: number of the call; the draw depends on it, on the seed and on `len(self)` alone.

        Returns:
          A batch with leaves `[S, U, B, ...]` in memory of its own.

        Raises:
          ValueError: the ring is empty.
        """
        return self.gather(self.draw(updates, batch_size, call))

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Uniform indices `[S, U, B]` for one call of the update, each seed's from its own stream; as in `sample`."""
        draws = self._random(updates, batch_size, call)
        draws *= len(self)
        return draws.astype(np.int64)

    def write_back(self, index: HostArray, td_error: Any) -> None:
        """Hands back what an update said of its transitions; uniform replay asks for nothing, and gets nothing.

        Args:
          index: as it was drawn, `[S, U, B]`.
          td_error: `()`; `[S, U, B]` where `weighted`.
        """

    def words(self, index: HostArray) -> HostArray:
        """The rows at given indices as they are stored.

        Args:
          index: `[S, ...]`, as in `gather`.

        Returns:
          float32 `[S, ..., K]` in memory of its own: the K words of a row of `row_dtype`, whatever they mean.
        """
        return self._read(index, self._place(index), 0).view(np.float32).reshape(*index.shape, -1)

    def gather(self, index: HostArray) -> Batch:
        """The transitions that begin at given rows.

        Args:
          index: `[S, ...]`, from 0 to `len(self)` - 1, oldest first: age·E + environment.

        Returns:
          A batch with leaves `[S, ..., *]`, in memory of its own, and the same index.
        """
        place = self._place(index)
        window = [self._read(index, place, i) for i in range(self.n_step)]
        columns = {name: _side_by_side([rows[name] for rows in window]) for name in _FOLDED}
        reward, discount, last = fold_steps(**columns, available=self._length - place[0], gamma=self.gamma)
        obs, next_obs = self._observations(index, place, window[0], last)
        data = Transition(obs, window[0]["action"], reward, discount, next_obs)
        return Batch(data, self.weights(index), index)

    def _observations(
        self, index: HostArray, place: tuple[HostArray, HostArray], first: HostArray, last: HostArray
    ) -> tuple[HostArray, HostArray]:
        """What was acted on in the first row of transitions, and the successor of that which is `last` rows later."""
        end = first if self.n_step == 1 else self._read(index, place, last)
        return first["obs"], end["next_obs"]

    def weights(self, index: HostArray) -> HostArray:
        """Importance weights of the transitions that begin at given rows, float32, of the shape of `index`: 1 here."""
        return np.ones(index.shape, np.float32)

    def _describe_row(self, spec: EnvSpec) -> np.dtype[np.void]:
        return row_dtype(spec)

    def _lane_bytes(self, steps: int) -> int:
        """Memory of so many steps of one lane."""
        return (self.row_dtype.itemsize + self._bytes_beside) * steps

    def _random(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Numbers in [0, 1), `[S, U, B]`, each seed's from its own stream."""
        if not self._length:
            raise ValueError("nothing has been added to the ring; add at least one step before sampling")
        draws = np.empty((len(self._streams), updates, batch_size))
        for stream, out in zip(self._streams, draws, strict=True):
            stream.at(call).random(out=out)
        return draws

    def _read(self, index: HostArray, place: tuple[HostArray, HostArray], offset: HostArray | int) -> HostArray:
        """Rows that come `offset` steps after those at given indices, in memory of their own."""
        age, lane = place
        return self._take(age + offset, lane)

    def _place(self, index: HostArray) -> tuple[HostArray, HostArray]:
        """Age of the row, 0 the oldest, and number of the lane, of indices `[S, ...]`."""
        num_envs = self._shape[2]
        age, env = np.divmod(index, num_envs) if num_envs > 1 else (index, 0)
        return age, env + self._first_lane.reshape(-1, *[1] * (index.ndim - 1))

    def _take(self, age: HostArray, lane: HostArray) -> HostArray:
        """Rows, in memory of their own."""
        return self._flat.take(self._slot_of(age, lane))

    def _slot_of(self, age: HostArray, lane: HostArray) -> HostArray:
        """Where rows lie in the flattened ring."""
        return (age + (self._added - self._length)) % self._shape[0] * (self._shape[1] * self._shape[2]) + lane


def _side_by_side(columns: list[HostArray]) -> HostArray:
    """Columns `[...]` as `[..., n]`, without a copy where there is one: `np.stack` takes 4 us."""
    return columns[0][..., None] if len(columns) == 1 else np.stack(columns, -1)


def _check_memory(lane_bytes: Callable[[int], int], shape: tuple[int, int, int]) -> None:
    steps, num_seeds, num_envs = shape
    lanes, free = num_seeds * num_envs, available_bytes()
    needed = lane_bytes(steps) * lanes
    if needed > free:
        largest = max(0, bisect_right(range(steps), free // lanes, key=lane_bytes) - 1) * num_envs
        raise ConfigError(
            f"replay.capacity={steps * num_envs} needs {human_bytes(needed)} for {num_seeds} seeds, "
            f"{human_bytes(free)} are free; the largest that fits is {largest}"
        )
