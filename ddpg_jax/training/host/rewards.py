"""The scale of rewards on the host loop: statistics of each seed, which a checkpoint holds to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ddpg_jax.equations.rewards import PRIOR_SIZE, ReturnMoments, observe_rewards, reward_scale
from ddpg_jax.types import HostArray, TrainState


class RewardScale:
    """Running moments of the discounted returns of S seeds, in float64.

    Args:
      shape: (S, E).
      gamma: discount of one step.
    """

    def __init__(self, shape: tuple[int, int], gamma: float) -> None:
        seeds = shape[0]
        self._gamma = gamma
        self._moments = ReturnMoments(
            np.zeros(shape), np.full(seeds, PRIOR_SIZE), np.zeros(seeds), np.ones(seeds, np.float64)
        )

    def on_step(self, reward: HostArray, done: HostArray) -> None:
        """Notes the rewards of a step, `[S, E]`, and where an episode ended with it, bool `[S, E]`."""
        self._moments = observe_rewards(self._moments, reward.astype(np.float64), self._gamma)
        self.abandon(done)

    def abandon(self, lanes: HostArray) -> None:
        """Begins the return of some lanes anew, bool `[S, E]`."""
        self._moments.returns[lanes] = 0.0

    def put(self, state: TrainState) -> TrainState:
        """The learner, leaves `[S, ...]`, with the scale of now."""
        scale = reward_scale(self._moments).astype(np.float32)
        return state._replace(stats=state.stats._replace(reward=scale))

    def state(self) -> dict[str, HostArray]:
        """All that is noted, by name, copies."""
        return {name: np.copy(values) for name, values in self._moments._asdict().items()}

    def restore(self, state: Mapping[str, HostArray]) -> None:
        """Takes up what `state` gave."""
        self._moments = ReturnMoments(**{name: np.copy(state[name]) for name in ReturnMoments._fields})
