"""The replay of the host loop for stacks of pictures: a ring that keeps each picture once, and rebuilds the stacks.

Which pictures a stack is made of is arithmetic, and is told in `replay.stacks`. What was added is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.replay.stacks import BEGINS, FIRSTS, StackShape, stack_shape
from ddpg_jax.types import EnvSpec, HostArray

FRAMES = "frames"
"""Name of the rows' pictures, among what `FrameRing.rows` gives."""


def frame_row_dtype(spec: EnvSpec) -> np.dtype[np.void]:
    """The record of one step without its picture; episodes of a lane are numbered from 1. 4-byte aligned."""
    return np.dtype(
        [
            ("action", "float32", (spec.action_size,)),
            ("reward", "float32"),
            ("since", "int32"),
            ("episode", "int32"),
            ("terminated", "bool"),
            ("truncated", "bool"),
        ],
        align=True,
    )


class FrameRing(Ring):
    """A ring of transitions whose observations are stacks of pictures, `[k, H, W, C]`, each of which is kept once.

    Of a step it keeps the newest picture of the true successor, and of an episode its first picture beside. A
    transition may begin at the newest T - k rows: of those all pictures are in the ring. Where the first picture of an
    episode is wanted and lost, as more than T / 8 episodes lie in the ring, the transition has weight 0.

    Args:
      spec: as in `Ring`, with `stack`, and so are `seeds`, `num_envs`, `capacity`, `n_step` and `gamma`.
      seeds: S of them.
      num_envs: E.
      capacity: transitions of each seed.
      n_step: rows folded into a transition at most.
      gamma: discount of one step.
      more: arguments of the ring that this one is put before.

    Raises:
      ConfigError: it would not fit into free memory, or holds no stack. Nothing has been allocated then.
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
        **more: Any,
    ) -> None:
        self.stacks = stack_shape(spec, capacity, num_envs)
        sizes = {"num_envs": num_envs, "capacity": capacity, "n_step": n_step, "gamma": gamma}
        super().__init__(spec, seeds, **sizes, **more)
        self._pictures = np.zeros((self.stacks.places, len(seeds), num_envs, *spec.obs_shape[1:]), spec.obs_dtype)
        self._flat_pictures = self._pictures.reshape(-1, prod(spec.obs_shape[1:]))

    @property
    def nbytes(self) -> int:
        """Memory of the rows and of the pictures, in bytes."""
        return super().nbytes + self._pictures.nbytes

    @property
    def starts(self) -> int:
        """Rows of an environment at which a transition may begin now, the newest."""
        return min(self._length, self.stacks.most_starts)

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Uniform indices of transitions whose pictures are all there, `[S, U, B]`; as `Ring.draw`."""
        num_envs = self._shape[2]
        draws = self._random(updates, batch_size, call)
        draws *= self.starts * num_envs
        return draws.astype(np.int64) + (self._length - self.starts) * num_envs

    def weights(self, index: HostArray) -> HostArray:
        """As the ring before gives them; 0 where a picture is lost."""
        age, lane = self._place(index)
        rows, newest = self._take(age, lane), self._rows[(self._added - 1) % self._shape[0]]["episode"]
        lost = self.stacks.is_lost(rows["since"], rows["episode"], newest.reshape(-1)[lane])
        return np.where(lost, np.float32(0), super().weights(index))

    def rows(self, first: int, stop: int) -> dict[str, HostArray]:
        """As `Ring.rows`; also the pictures, which rows begin an episode, and the first pictures of those in order."""
        numbers = np.arange(first, stop)
        rows = self._rows.take(numbers, 0, mode="wrap")
        begins = rows["since"] == 0
        frames = self._pictures[: self._shape[0]].take(numbers, 0, mode="wrap")
        firsts = self._pictures[self._first_places(rows, begins)]
        return super().rows(first, stop) | {FRAMES: frames, BEGINS: begins, FIRSTS: firsts}

    def _put(self, where: HostArray, block: Mapping[str, HostArray]) -> None:
        super()._put(where, block)
        rows = self._rows[where]
        begins = rows["since"] == 0
        if not (np.array_equal(begins, block[BEGINS]) and len(block[FIRSTS]) == begins.sum()):
            raise ValueError(f"{len(block[FIRSTS])} first pictures are not those of {begins.sum()} episodes")
        self._pictures[where] = block[FRAMES]
        self._pictures[self._first_places(rows, begins)] = block[FIRSTS]  # of several at one place the last stays

    def _first_places(self, rows: HostArray, begins: HostArray) -> tuple[HostArray, ...]:
        """Where the first pictures of the episodes lie that begin with some rows `[..., S, E]`."""
        return self.stacks.first_place(rows["episode"][begins]), *np.nonzero(begins)[-2:]

    def _keep_observations(self, row: HostArray, obs: HostArray, next_obs: HostArray) -> None:
        steps = self._shape[0]
        before = self._rows[(self._added - 1) % steps]
        begins = before["terminated"] | before["truncated"] | (self._added == 0)
        row["since"] = np.where(begins, 0, before["since"] + 1)
        row["episode"] = before["episode"] + begins
        self._pictures[self._added % steps] = next_obs[:, :, -1]
        if begins.any():
            self._pictures[self._first_places(row, begins)] = obs[:, :, -1][begins]

    def _observations(
        self, index: HostArray, place: tuple[HostArray, HostArray], first: HostArray, last: HostArray
    ) -> tuple[HostArray, HostArray]:
        (age, lane), since = place, first["since"]
        row = age + (self._added - self._length)
        ends = (row - 1, since), (row + last, since + last + 1)
        obs, next_obs = (self._stacks_at(newest, known, first["episode"], lane) for newest, known in ends)
        return obs, next_obs

    def _stacks_at(self, newest: HostArray, known: HostArray, episode: HostArray, lane: HostArray) -> HostArray:
        """Stacks `[..., k, H, W, C]` in memory of their own; arguments as in `StackShape.stack_places`."""
        places = self.stacks.stack_places(newest, known, episode)
        taken = self._flat_pictures.take(places * (self._shape[1] * self._shape[2]) + lane[..., None], 0)
        return taken.reshape(*newest.shape, *self.spec.obs_shape)

    def _describe_row(self, spec: EnvSpec) -> np.dtype[np.void]:
        return frame_row_dtype(spec)

    def _lane_bytes(self, steps: int) -> int:
        pictures = StackShape(steps, self.spec.stack).places
        return super()._lane_bytes(steps) + pictures * prod(self.spec.obs_shape[1:])


class PrioritizedFrameRing(FrameRing, PrioritizedRing):
    """A ring of pictures whose transitions are drawn in proportion to their priorities.

    A row has none any more when one of the pictures before it is about to be overwritten. An index is as in
    `PrioritizedRing`.

    Args and errors are those of `FrameRing`, and `rule`, how priorities and weights come about.
    """

    @property
    def oldest_start(self) -> int:
        """The smallest index at which a transition may begin."""
        return (self._added - self.starts) * self._shape[2]

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Indices `[S, U, B]` for one call of the update, in proportion to the priorities, with replacement."""
        return PrioritizedRing.draw(self, updates, batch_size, call)

    def _enter(self, place: int) -> None:
        self._fill(place, self._largest)
        self._fill((place + self.stacks.stack) % self._shape[0], np.zeros_like(self._largest))
