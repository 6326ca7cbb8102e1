"""The replay of the host loop: one NumPy ring for all seeds, written in place.

It stores what happened, one row a step; `sample` folds up to n rows into a transition. So n and gamma belong to
sampling, and a time limit never has to be told apart from a termination in the data.

A row is one record of a structured array laid out `[T, S, E]`: a step of all lanes is one contiguous block, and drawing
transitions is one gather of whole records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddpg_jax.equations.returns import fold_steps
from ddpg_jax.errors import ConfigError
from ddpg_jax.memory import available_bytes, human_bytes
from ddpg_jax.rng import HostStream
from ddpg_jax.types import Batch, EnvSpec, HostArray, Step, Transition


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

    def __init__(
        self, spec: EnvSpec, seeds: Sequence[int], *, num_envs: int, capacity: int, n_step: int, gamma: float
    ) -> None:
        self._shape = (-(-capacity // num_envs), len(seeds), num_envs)
        dtype = row_dtype(spec)
        _check_memory(dtype.itemsize, self._shape)
        self._rows = np.zeros(self._shape, dtype)
        self._flat = self._rows.reshape(-1)
        self._streams = [HostStream(seed, "replay") for seed in seeds]
        self._n_step, self._gamma = n_step, np.float32(gamma)
        self._head = 0  # where the next row goes
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
        row = self._rows[self._head]
        row["obs"] = obs
        row["action"] = action
        row["reward"] = step.reward
        row["next_obs"] = step.next_obs
        row["terminated"] = step.terminated
        row["truncated"] = step.truncated
        self._head = (self._head + 1) % self._shape[0]
        self._length = min(self._length + 1, self._shape[0])

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
        if not self._length:
            raise ValueError("nothing has been added to the ring; add at least one step before sampling")
        draws = [stream.at(call).random((updates, batch_size)) for stream in self._streams]
        return self.gather((np.stack(draws) * len(self)).astype(np.int64))

    def gather(self, index: HostArray) -> Batch:
        """The transitions that begin at given rows.

        Args:
          index: `[S, ...]`, from 0 to `len(self)` - 1, oldest first: age·E + environment.

        Returns:
          A batch with leaves `[S, ..., *]`, in memory of its own, and the same index.
        """
        size, num_seeds, num_envs = self._shape
        age, env = np.divmod(index, num_envs)
        seed = np.arange(num_seeds).reshape(-1, *[1] * (index.ndim - 1))
        oldest = self._head - self._length
        lane = seed * num_envs + env

        def take(offset: HostArray | int) -> HostArray:
            return self._flat.take((oldest + age + offset) % size * (num_seeds * num_envs) + lane)

        first = take(0)
        window = [first, *(take(i) for i in range(1, self._n_step))]
        columns = {
            name: np.stack([rows[name] for rows in window], -1) for name in ("reward", "terminated", "truncated")
        }
        reward, discount, last = fold_steps(**columns, available=self._length - age, gamma=self._gamma)
        end = first if self._n_step == 1 else take(last)
        data = Transition(first["obs"], first["action"], reward, discount, end["next_obs"])
        return Batch(data, np.ones(index.shape, np.float32), index)


def _check_memory(row_bytes: int, shape: tuple[int, int, int]) -> None:
    steps, num_seeds, num_envs = shape
    needed, free = row_bytes * steps * num_seeds * num_envs, available_bytes()
    if needed > free:
        largest = free // (row_bytes * num_seeds * num_envs) * num_envs
        raise ConfigError(
            f"replay.capacity={steps * num_envs} needs {human_bytes(needed)} for {num_seeds} seeds, "
            f"{human_bytes(free)} are free; the largest that fits is {largest}"
        )
