"""The episodes in progress, so that a resumed run can take them up where they were.

An environment of gymnasium cannot be asked for its state, but an episode is a function of its seed and of the actions
in it. So these are kept, and played again in fresh environments; what is seen then is compared with what was seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ddpg_jax.types import HostArray

if TYPE_CHECKING:
    from ddpg_jax.envs.host.workers import HostEnv


class EpisodeLog:
    """Numbers of the episodes in progress of S x E lanes, and the actions taken in them so far.

    All lanes step together, so the actions of one step are one array. Those from before the oldest episode in progress
    are forgotten.

    Args:
      shape: (S, E).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._episode = np.zeros(shape, np.int64)
        self._began = np.zeros(shape, np.int64)  # step at which the episode began
        self._now = 0
        self._actions = deque[HostArray]()

    def on_step(self, action: HostArray, done: HostArray) -> None:
        """Notes a step of all lanes.

        Args:
          action: `[S, E, A]`; kept, so do not write into it.
          done: where an episode ended with it, bool `[S, E]`.
        """
        self._actions.append(action)
        self._now += 1
        if done.any():
            self._episode += done
            self._began[done] = self._now
            while len(self._actions) > self._now - int(self._began.min()):
                self._actions.popleft()

    def state(self, action_size: int) -> dict[str, HostArray]:
        """What is needed to play the episodes again.

        Returns:
          `episode`, numbers `[S, E]`; `length`, steps in them so far, `[S, E]`; and the `actions` of the last steps,
          `[H, S, E, A]`, H the largest length.
        """
        empty = np.zeros((0, *self._episode.shape, action_size), np.float32)
        actions = np.stack(self._actions).astype(np.float32) if self._actions else empty
        return {"episode": self._episode.copy(), "length": self._now - self._began, "actions": actions}

    def restore(self, state: Mapping[str, HostArray], again: HostArray) -> None:
        """Takes up the episodes of another journal, but for those that were begun again, bool `[S, E]`."""
        self._episode[...] = state["episode"] + again
        self._now = len(state["actions"])
        self._began[...] = np.where(again, self._now, self._now - state["length"])
        self._actions = deque(state["actions"])


def replay_episodes(
    lanes: HostEnv, state: Mapping[str, HostArray], obs: HostArray, returns: HostArray
) -> tuple[HostArray, HostArray]:
    """Brings fresh environments to where those of a `EpisodeLog` were.

    Args:
      lanes: the environments.
      state: as `EpisodeLog.state` gave it.
      obs: observations that were to be acted on next, `[S, E, *O]`.
      returns: sums of rewards of the episodes in progress, `[S, E]`.

    Returns:
      Observations to act on next, `[S, E, *O]`, and where they are those of a new episode, because the environment did
      not repeat itself to the bit, bool `[S, E]`.

    Raises:
      EnvironmentFault: an environment failed.
    """
    episode, length, actions = state["episode"], state["length"], state["actions"]
    seen, total, ended = lanes.reset(episode), np.zeros(returns.shape), np.zeros(returns.shape, bool)
    for t, action in enumerate(actions):
        active: HostArray = len(actions) - t <= length
        step = lanes.step(action, active)
        total += step.reward
        ended |= step.terminated | step.truncated
        seen[active] = step.obs[active]
    differs: HostArray = ended | (total != returns) | (seen != obs).reshape(*returns.shape, -1).any(-1)
    return (lanes.reset(episode + 1, differs) if differs.any() else seen), differs
