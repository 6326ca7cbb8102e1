"""An environment as people have them: goals in a dictionary, matrices, actions of any shape and without bounds."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class Brought(gymnasium.Env):
    """A hand of 6 components on its way to a goal; one of its numbers is noise of each step.

    Args:
      form: "dict", "matrix" or "vector", of the observation.
      action: shape of the action, of 6 numbers, or `()` for one that moves all.
      bounded: whether the actions have bounds.
      end: steps of an episode.
      wild: whether what an episode does depends on how many there were before.
    """

    alive: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def __init__(
        self, form: str = "dict", action: Any = (2, 3), bounded: bool = True, end: int = 7, wild: bool = False
    ):
        bound = 1.0 if bounded else np.inf
        self.action_space = Box(-bound, bound, tuple(action), np.float32)
        parts = {"goal": Box(-2, 2, (2, 3), np.float64), "hand": Box(-9, 9, (6,)), "clock": Box(0, 99, (), np.int64)}
        spaces = {"dict": Dict(parts), "matrix": Box(-9, 9, (2, 6), np.float32), "vector": Box(-9, 9, (12,))}
        self.observation_space, self._form, self._end = spaces[form], form, end
        self._wild, self._episodes, self._open = wild, 0, True
        Brought.alive += 1
        Brought.most = max(Brought.most, Brought.alive)

    def _obs(self) -> Any:
        if self._form == "dict":
            return {"goal": self._goal.reshape(2, 3), "hand": self._hand, "clock": np.int64(self._steps)}
        both = np.stack([self._goal, self._hand]).astype(np.float32)
        return both if self._form == "matrix" else both.ravel()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._steps, self._episodes = 0, self._episodes + 1
        self._goal, self._hand = self.np_random.uniform(-1, 1, 6), np.zeros(6, np.float32)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        assert action.shape == self.action_space.shape
        assert action.dtype == np.float32
        self._steps += 1
        drift = self.np_random.normal(0, 0.05, 6) + 0.1 * self._wild * self._episodes
        self._hand = np.clip(self._hand + 0.3 * action.ravel() + drift, -9, 9).astype(np.float32)
        distance = float(np.abs(self._hand - self._goal).mean())
        info = {"is_success": distance < 0.5, "distance": distance, "name": "brought"}
        return self._obs(), -distance, False, self._steps >= self._end, info

    def close(self) -> None:
        Brought.alive -= self._open
        self._open = False


gymnasium.register("Brought-v0", "brought_envs:Brought")
