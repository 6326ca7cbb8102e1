"""The episodes in progress, so that a resumed run can take them up where they were.

An environment of gymnasium cannot be asked for its state, but an episode is a function of its seed and of the actions
in it. So these are kept, and played again in fresh environments; what is seen then is compared with what was seen.
Between two episodes there is nothing to be compared, so the one before is played again, out of the replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ddpg_jax.types import HostArray

if TYPE_CHECKING:
    from ddpg_jax.envs.host.workers import HostEnv

_FIRST_ROOM = 64


class PastEpisodes(NamedTuple):
    """The last whole episodes of environments that are between two; all end with the last of H steps.

    Attributes:
      length: steps of the episode, `[S, E]`; 0 where an environment is amid an episode, or where it is not known.
      action: `[H, S, E, A]`.
      reward: `[H, S, E]`.
      next_obs: `[H, S, E, *O]`, or the newest picture of each, `[H, S, E, H, W, C]`, where pictures are kept once.
    """

    length: HostArray
    action: HostArray
    reward: HostArray
    next_obs: HostArray


class Replay(NamedTuple):
    """Where fresh environments are after they have played episodes again.

    Attributes:
      obs: to act on next, `[S, E, *O]`.
      again: where that is the first of a new episode, as the one in progress did not repeat itself to the bit, bool
        `[S, E]`.
      unlike: where it was the last whole episode that did not, bool `[S, E]`.
    """

    obs: HostArray
    again: HostArray
    unlike: HostArray


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
        self._room: HostArray = np.zeros((0, *shape, 0), np.float32)  # the actions are a part of it
        self._first = self._stop = 0

    def on_step(self, action: HostArray, done: HostArray) -> None:
        """Notes a step of all lanes.

        Args:
          action: `[S, E, A]`; copied, as one of an array of jax would keep the whole of it.
          done: where an episode ended with it, bool `[S, E]`.
        """
        if self._stop == len(self._room):
            self._make_room(action.shape)
        self._room[self._stop] = action
        self._stop += 1
        self._now += 1
        if done.any():
            self._episode += done
            self._began[done] = self._now
            self._first = self._stop - (self._now - int(self._began.min()))

    def state(self, action_size: int) -> dict[str, HostArray]:
        """What is needed to play the episodes again.

        Returns:
          `episode`, numbers `[S, E]`; `length`, steps in them so far, `[S, E]`; and the `actions` of the last steps,
          `[H, S, E, A]`, H the largest length.
        """
        empty = np.zeros((0, *self._episode.shape, action_size), np.float32)
        actions = self._room[self._first : self._stop].copy() if self._stop > self._first else empty
        return {"episode": self._episode.copy(), "length": self._now - self._began, "actions": actions}

    def restore(self, state: Mapping[str, HostArray], again: HostArray) -> None:
        """Takes up the episodes of another journal, but for those that were begun again, bool `[S, E]`."""
        self._episode[...] = state["episode"] + again
        self._now = len(state["actions"])
        self._began[...] = np.where(again, self._now, self._now - state["length"])
        self._room = state["actions"].copy()
        self._first, self._stop = 0, self._now

    def _make_room(self, shape: tuple[int, ...]) -> None:
        """Moves the actions to the front, of a larger array if they fill more than half of this."""
        kept, room = self._room[self._first : self._stop], self._room
        if 2 * len(kept) >= len(room):
            room = np.zeros((max(_FIRST_ROOM, 2 * len(kept)), *shape), np.float32)
        if len(kept):
            room[: len(kept)] = kept
        self._room, self._first, self._stop = room, 0, len(kept)


def replay_episodes(
    lanes: HostEnv, state: Mapping[str, HostArray], obs: HostArray, returns: HostArray, past: PastEpisodes | None = None
) -> Replay:
    """Brings fresh environments to where those of an `EpisodeLog` were.

    Args:
      lanes: the environments.
      state: as `EpisodeLog.state` gave it.
      obs: observations that were to be acted on next, `[S, E, *O]`.
      returns: sums of rewards of the episodes in progress, `[S, E]`.
      past: whole episodes, of environments that had just begun another.

    Raises:
      EnvironmentFault: an environment failed.
      Interrupted: the environments were asked to stop.
    """
    episode, length, actions = state["episode"], state["length"], state["actions"]
    if past is None:
        past = PastEpisodes(np.zeros_like(length), actions[:0], actions[:0, ..., 0], obs[None][:0])
    whole = past.length > 0
    length = np.where(whole, past.length, length)
    seen, total = lanes.reset(episode - whole), np.zeros(returns.shape)
    ended, unlike = np.zeros(returns.shape, bool), np.zeros(returns.shape, bool)
    for left in range(int(length.max()), 0, -1):
        active: HostArray = left <= length
        action = np.zeros((*returns.shape, actions.shape[-1]), np.float32)
        for which, source in ((~whole, actions), (whole, past.action)):
            if left <= len(source):
                action[which] = source[-left][which]
        step = lanes.step(action, active)
        done = step.terminated | step.truncated
        total += np.where(whole, 0.0, step.reward)
        ended |= done & ~whole
        seen[active] = step.obs[active]
        if left <= len(past.action):
            seen_next = step.next_obs if past.next_obs.ndim > step.next_obs.ndim else step.next_obs[:, :, -1]
            other = (step.reward != past.reward[-left]) | _differs(seen_next, past.next_obs[-left])
            unlike |= whole & active & (other | (done != (left == 1)))
    if unlike.any():  # wherever they are in the episode before
        seen[unlike] = lanes.reset(episode, unlike)[unlike]
    again = ended | (total != returns) | _differs(seen, obs)
    return Replay(lanes.reset(episode + 1, again) if again.any() else seen, again, unlike)


def _differs(a: HostArray, b: HostArray) -> HostArray:
    """Where observations `[S, E, *O]` are not equal, bool `[S, E]`."""
    return (a != b).reshape(*a.shape[:2], -1).any(-1)
