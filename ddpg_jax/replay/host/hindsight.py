"""Hindsight experience replay of the host loop: transitions that are given goals which were achieved later.

Strategy `future` of Andrychowicz et al., "Hindsight experience replay" (arXiv:1707.01495, section 3.3 and appendix A).
Nothing is stored twice: a goal is replaced when a batch is drawn, and the reward computed anew by the environment's own
rule. So the rows, and what a checkpoint keeps of them, are those of `Ring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ddpg_jax.replay.host.ring import ReadRowsFn, Ring
from ddpg_jax.rng import HostStream
from ddpg_jax.types import EnvSpec, HostArray, Step

if TYPE_CHECKING:
    from ddpg_jax.envs.host.goals import GoalTask

_GOES_ON = np.iinfo(np.int64).max
"""In the place of an episode's last row, while there is none."""


class HindsightRing(Ring):
    """A ring that replaces goals as it draws.

    A transition of time t gets, with probability `relabel`, the goal that the step of a time t′ achieved; t′ is uniform
    from t to the last step that is stored of its episode. Which one is part of the index: index = row + N·ahead, where
    N is the number of slots of a seed, and ahead is 0 for the transition's own goal, and else t' − t + 1. So what
    `gather` and `words` give is a function of the index and of the rows.

    In a window of n steps the reward of every step is that of the new goal; where the environment says by which goals
    it terminates, a step that the new goal does not end, but that was the last of its episode, counts as cut.

    Args:
      spec: as in `Ring`, and so are `seeds`, `num_envs`, `capacity`, `n_step` and `gamma`.
      seeds: S of them.
      num_envs: E.
      capacity: transitions of each seed.
      n_step: rows folded into a transition at most.
      gamma: discount of one step.
      goals: where goals stand in an observation, and what is rewarded.
      relabel: the probability, in [0, 1].

    Raises:
      ConfigError: it would not fit into free memory. Nothing has been allocated then.
    """

    _bytes_beside: int = 8

    def __init__(
        self,
        spec: EnvSpec,
        seeds: Sequence[int],
        *,
        num_envs: int,
        capacity: int,
        n_step: int,
        gamma: float,
        goals: GoalTask,
        relabel: float,
    ) -> None:
        super().__init__(spec, seeds, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=gamma)
        self._goals, self._relabel = goals, relabel
        self._achieved = self._flat["next_obs"][:, goals.achieved]  # a view
        self._goal_streams = [HostStream(seed, "hindsight") for seed in seeds]
        lanes = len(seeds) * num_envs
        self._last = np.full((lanes, self._shape[0]), _GOES_ON)  # last row of the episode, numbered since the run began
        self._began = np.zeros(lanes, np.int64)  # first row of the episode in progress, likewise

    @property
    def nbytes(self) -> int:
        """Memory of the rows and of where their episodes end, in bytes."""
        return super().nbytes + self._last.nbytes

    def add(self, obs: HostArray, action: HostArray, step: Step) -> None:
        """As `Ring.add`."""
        super().add(obs, action, step)
        self._last[:, (self._added - 1) % self._shape[0]] = _GOES_ON
        self._end_episodes(step.terminated | step.truncated)

    def cut(self, lanes: HostArray) -> None:
        """As `Ring.cut`."""
        super().cut(lanes)
        self._end_episodes(lanes)

    def restore(self, first: int, stop: int, read: ReadRowsFn, extra_state: Mapping[str, HostArray]) -> None:
        """As `Ring.restore`; where episodes end is told by the rows."""
        super().restore(first, stop, read, extra_state)
        number = np.arange(first, stop)
        done = (self._rows["terminated"] | self._rows["truncated"]).take(number, 0, mode="wrap")
        done = done.reshape(len(number), len(self._began))
        last = np.where(done, number[:, None], _GOES_ON)
        self._last[:, number % self._shape[0]] = np.minimum.accumulate(last[::-1], 0)[::-1].T
        self._began[:] = np.where(done, number[:, None] + 1, first).max(0, initial=first)

    def draw(self, updates: int, batch_size: int, call: int) -> HostArray:
        """Indices `[S, U, B]` for one call of the update: the rows that `Ring` would draw, and their goals."""
        index = super().draw(updates, batch_size, call)
        age, lane = self._place(index)
        draws = np.empty((len(index), 2, updates, batch_size))
        for stream, out in zip(self._goal_streams, draws, strict=True):
            stream.at(call).random(out=out)
        ahead = (draws[:, 1] * (self._last_age(age, lane) - age + 1)).astype(np.int64) + 1
        return index + np.where(draws[:, 0] < self._relabel, ahead, 0) * self._slots

    @property
    def _slots(self) -> int:
        return self._shape[0] * self._shape[2]

    def _end_episodes(self, lanes: HostArray) -> None:
        """Notes that the newest rows are the last of their episodes."""
        oldest = self._added - self._length
        for lane in np.flatnonzero(lanes):
            rows = np.arange(max(int(self._began[lane]), oldest), self._added)
            self._last[lane, rows % self._shape[0]] = self._added - 1
            self._began[lane] = self._added

    def _last_age(self, age: HostArray, lane: HostArray) -> HostArray:
        """Age of the last row that is stored of an episode; it is newer than the row, so never overwritten before."""
        oldest, steps = self._added - self._length, self._shape[0]
        last = self._last.reshape(-1).take(lane * steps + (age + oldest) % steps)
        return np.minimum(last, self._added - 1) - oldest

    def _place(self, index: HostArray) -> tuple[HostArray, HostArray]:
        return super()._place(index % self._slots)

    def _read(self, index: HostArray, place: tuple[HostArray, HostArray], offset: HostArray | int) -> HostArray:
        """As `Ring._read`, with other goals; rows beyond an episode's end stay as they are."""
        rows, (age, lane) = super()._read(index, place, offset), place
        ahead = index // self._slots
        other = ahead > 0
        if self.n_step > 1:
            other &= age + offset <= self._last_age(age, lane)
        chosen = np.flatnonzero(other)
        if len(chosen):
            achieving = self._slot_of(age + ahead - 1, lane).reshape(-1)[chosen]
            _replace_goals(rows.reshape(-1), chosen, self._achieved[achieving], self._goals)
        return rows


def _replace_goals(rows: HostArray, chosen: HostArray, goal: HostArray, task: GoalTask) -> None:
    """Gives some of the rows `[N]` a goal each, `[len(chosen), G]`, and what is then reported of their steps."""
    rows["obs"][chosen, task.desired] = goal
    rows["next_obs"][chosen, task.desired] = goal
    achieved = rows["next_obs"][chosen, task.achieved]
    rows["reward"][chosen] = task.compute_reward(achieved, goal)
    if task.compute_terminated is not None:
        rows["truncated"][chosen] |= rows["terminated"][chosen]
        rows["terminated"][chosen] = task.compute_terminated(achieved, goal)
