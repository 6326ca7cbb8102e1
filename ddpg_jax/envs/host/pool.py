"""Evaluation episodes that take turns in fewer environments than there are episodes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from ddpg_jax.envs.host.traits import limit_evaluation
from ddpg_jax.types import HostArray, Step

if TYPE_CHECKING:
    from ddpg_jax.envs.host.make import GymEnv
    from ddpg_jax.envs.host.traits import Traits
    from ddpg_jax.envs.host.vector import VectorEnv
    from ddpg_jax.envs.host.workers import HostEnv
    from ddpg_jax.types import EnvSpec

INSTANCES = 32
"""Environments of an evaluation in one process, unless a number is given: beyond, a step of them all takes so long that
nothing is gained by more."""


class Pool:
    """S x N evaluation episodes in P environments.

    Environment p runs the episodes of its part of the flattened S x N in order, each whole; where P is S x N all run at
    once. To the policy they are S x N lanes, of which those that are running count: so an action does not depend on P.

    Args:
      lanes: 1 x P environments with the seeds of `pooled_seeds`.
      shape: (S, N).
    """

    def __init__(self, lanes: HostEnv, shape: tuple[int, int]) -> None:
        self._lanes, self._shape = lanes, shape
        self.spec: EnvSpec = lanes.spec
        self.traits: Traits = lanes.traits
        self._count = shape[0] * shape[1]
        self._info: HostArray = np.zeros(0)
        self._obs: HostArray = np.zeros((self._count, *self.spec.obs_shape), self.spec.obs_dtype)
        self._now = self._stop = np.zeros(0, np.int64)

    @property
    def running(self) -> HostArray:
        """Which episodes are running, bool `[S, N]`."""
        found = np.zeros(self._count, bool)
        found[self._now[self._now < self._stop]] = True
        return found.reshape(self._shape)

    @property
    def ended_info(self) -> HostArray:
        """As `VectorEnv.ended_info`, of the episodes that have ended."""
        return self._info.reshape(*self._shape, -1)

    def reset(self) -> HostArray:
        """Begins the first episode of every environment.

        Returns:
          Observations `[S, N, *O]`; 0 where no episode is running yet.
        """
        fresh = self._lanes.ended_info[0]
        cuts = np.linspace(0, self._count, len(fresh) + 1).astype(np.int64)
        self._now, self._stop = (np.array(each, np.int64) for each in zip(*pairwise(cuts.tolist()), strict=True))
        self._info = np.full((self._count, fresh.shape[1]), np.nan)
        self._obs[:] = 0
        self._obs[self._now] = self._lanes.reset(self._now[None])[0]
        return self._reshape(self._obs)

    def step(self, action: HostArray, active: HostArray | None = None) -> Step:
        """Steps the episodes that are running; where one ends, the next of that environment begins in its own lane.

        Args:
          action: `[S, N, A]`.
          active: nothing else than `running`, or None.

        Returns:
          Leaves `[S, N, ...]`; those that are not running report reward 0 and no end.
        """
        awake = self._now < self._stop
        at, now = np.minimum(self._now, self._count - 1), self._now[awake]
        step = self._lanes.step(action.reshape(self._count, -1)[at][None], awake[None])
        report = Step(*(self._scatter(leaf[0][awake], now) for leaf in step))
        ended = awake & (step.terminated | step.truncated)[0]
        self._info[self._now[ended]] = self._lanes.ended_info[0][ended]
        self._obs[self._now[awake]] = step.next_obs[0][awake]
        self._now = self._now + ended
        begun = ended & (self._now < self._stop)
        self._obs[self._now[begun]] = step.obs[0][begun]
        return report._replace(obs=self._reshape(self._obs))

    def close(self) -> None:
        """Closes the environments."""
        self._lanes.close()

    def _scatter(self, values: HostArray, now: HostArray) -> HostArray:
        found = np.zeros((self._count, *values.shape[1:]), values.dtype)
        found[now] = values
        return self._reshape(found)

    def _reshape(self, values: HostArray) -> HostArray:
        return values.reshape(*self._shape, *values.shape[1:]).copy()


class Borrowed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment of somebody else, who closes it."""

    def close(self) -> None:
        """Leaves it open."""


def borrow(lanes: VectorEnv) -> Callable[[], GymEnv]:
    """What gives the environments of other lanes, one at each call, each with an end to its episodes.

    The episodes in progress there are lost to them.
    """
    rest = iter(lanes.instances)
    return lambda: limit_evaluation(Borrowed(next(rest)))
