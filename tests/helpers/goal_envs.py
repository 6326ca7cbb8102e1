"""Environments that are told which goal to reach; a fresh process imports this module by its name."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

NEAR = 0.15


def _goal_space(shape: tuple[int, ...]) -> Box:
    return Box(-1, 1, shape, np.float64)


class Reach(gymnasium.Env):
    """A point in the plane that moves by at most 0.2 a step; reward 0 near the goal, else -1.

    Args:
      shape: of a goal.
      batches: whether rewards are computed for a batch of goals; else the norm is taken over all of them.
      ends: whether an episode ends where the goal is reached.
      end: step that cuts the episode.
    """

    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, shape: tuple[int, ...] = (2,), batches: bool = True, ends: bool = False, end: int = 20) -> None:
        goal = _goal_space(tuple(shape))
        self.observation_space = Dict(
            {"observation": Box(-1, 1, (1,), np.float32), "achieved_goal": goal, "desired_goal": goal}
        )
        self._shape, self._batches, self._ends, self._end = tuple(shape), batches, ends, end

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._place, self._steps = np.zeros(self._shape), 0
        self._goal = self.np_random.uniform(-0.9, 0.9, self._shape)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        self._place = np.clip(self._place + 0.2 * action.reshape(self._shape), -1, 1)
        self._steps += 1
        reward = self.compute_reward(self._place, self._goal, {})
        reached = self._ends and bool(self.compute_terminated(self._place, self._goal, {}))
        return self._observe(), float(reward), reached, self._steps == self._end, {}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        return -np.asarray(self._distance(achieved_goal, desired_goal) > NEAR).astype(np.float32)

    def compute_terminated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        return self._ends and self._distance(achieved_goal, desired_goal) <= NEAR

    def _distance(self, one: np.ndarray, other: np.ndarray) -> Any:
        axes = tuple(range(-len(self._shape), 0)) if self._batches else None
        return np.sqrt(np.square(one - other).sum(axes))

    def _observe(self) -> dict[str, np.ndarray]:
        steps = np.array([self._steps / self._end], np.float32)
        return {"observation": steps, "achieved_goal": self._place.copy(), "desired_goal": self._goal.copy()}


gymnasium.register("Reach-v0", "goal_envs:Reach")
