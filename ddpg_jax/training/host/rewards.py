"""The scale of rewards on the host loop: statistics of each seed, which a checkpoint holds to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ddpg_jax.equations.rewards import PRIOR_SIZE, ReturnMoments, RewardMeasure
from ddpg_jax.types import HostArray, TrainState


class RewardScale:
    """Running moments of what is summed of the rewards of S seeds, in float64.

    Args:
      shape: (S, E).
      measure: what that is.
    """

    def __init__(self, shape: tuple[int, int], measure: RewardMeasure) -> None:
        seeds = shape[0]
        self._measure = measure
        self._moments = ReturnMoments(
            np.zeros(shape),
            np.full(seeds, PRIOR_SIZE),
            np.zeros(seeds),
            np.ones(seeds, np.float64),
            measure.begin(np.zeros(seeds)),
        )

    def on_step(self, reward: HostArray, done: HostArray) -> None:
        """Notes the rewards of a step, `[S, E]`, and where an episode ended with it, bool `[S, E]`."""
        self._moments = self._measure.observe(self._moments, reward.astype(np.float64))
        self.abandon(done)

    def abandon(self, lanes: HostArray) -> None:
        """Begins the return of some lanes anew, bool `[S, E]`."""
        self._moments.returns[lanes] = 0.0

    def put(self, state: TrainState) -> TrainState:
        """The learner, leaves `[S, ...]`, with the scale of now."""
        scale = self._measure.scale(self._moments).astype(np.float32)
        return state._replace(stats=state.stats._replace(reward=scale))

    def state(self) -> dict[str, HostArray]:
        """All that is noted, by name, copies."""
        return {name: np.copy(x) for name, x in self._moments._asdict().items() if isinstance(x, np.ndarray)}

    def restore(self, state: Mapping[str, HostArray]) -> None:
        """Takes up what `state` gave."""
        self._moments = ReturnMoments(**{name: np.copy(state[name]) for name in self.state()})
