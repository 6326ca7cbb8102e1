"""A gripper that must reach a point in space, as FetchReach asks it of a robot, without a simulator.

The reward is -1 in a step that ends further than 5 cm from the goal, else 0: until it has come upon a goal by chance, a
policy hears nothing of where goals are. The gripper begins at rest in the middle of a cube of one metre, a goal is
anywhere in it, and an episode has 50 steps, of at most 4 cm each.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

HALF, SPEED, GRIP, NEAR = 0.5, 0.04, 0.5, 0.05
POINT = Box(-HALF, HALF, (3,), np.float64)


class Reach(gymnasium.Env[Any, Any]):
    """The task."""

    observation_space = Dict(
        {"observation": Box(-SPEED, SPEED, (3,), np.float64), "achieved_goal": POINT, "desired_goal": POINT}
    )
    action_space = Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with a new goal."""
        super().reset(seed=seed)
        self._place, self._velocity = np.zeros(3), np.zeros(3)
        self._goal = self.np_random.uniform(-HALF, HALF, 3)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves the gripper, which does not turn on the spot."""
        self._velocity = GRIP * self._velocity + (1 - GRIP) * SPEED * action
        self._place = np.clip(self._place + self._velocity, -HALF, HALF)
        reward = float(self.compute_reward(self._place, self._goal, {}))
        return self._observe(), reward, False, False, {"is_success": reward == 0.0}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """0 near the goal, else -1; of goals `[..., 3]`."""
        return -(np.square(achieved_goal - desired_goal).sum(-1) > NEAR**2).astype(np.float32)

    def _observe(self) -> dict[str, Any]:
        return {"observation": self._velocity, "achieved_goal": self._place, "desired_goal": self._goal}


gymnasium.register("Reach-v0", "reach:Reach", max_episode_steps=50)
