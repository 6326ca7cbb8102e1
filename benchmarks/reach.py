"""An arm of three joints whose tip must reach a point in space, as FetchReach asks it of a robot, without a simulator.

The reward is -1 in a step that ends further than 5 cm from the goal, else 0, so a policy that has not found the goal
yet learns nothing of where it is. The arm turns about the vertical, and has two links of half a metre; a joint moves by
at most 0.1 rad a step. An episode has 50 steps and begins with the same posture; goals are drawn by postures.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

LINK, SPEED, NEAR = 0.5, 0.1, 0.05
LOW, HIGH = np.array([-pi, 0.0, -2.5]), np.array([pi, pi / 2, 0.0])
START = np.array([0.0, pi / 4, -pi / 2])
SPACE = Box(-np.inf, np.inf, (3,), np.float64)


class ReachArm(gymnasium.Env[Any, Any]):
    """The task."""

    observation_space = Dict(
        {
            "observation": Box(-np.inf, np.inf, (6,), np.float64),
            "achieved_goal": SPACE,
            "desired_goal": SPACE,
        }
    )
    action_space = Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with a new goal."""
        super().reset(seed=seed)
        self._joints, self._goal = START.copy(), tip(self.np_random.uniform(LOW, HIGH))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves the joints."""
        self._joints = np.clip(self._joints + SPEED * action, LOW, HIGH)
        seen = self._observe()
        reward = float(self.compute_reward(seen["achieved_goal"], self._goal, {}))
        return seen, reward, False, False, {"is_success": reward == 0.0}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """0 near the goal, else -1; of goals `[..., 3]`."""
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > NEAR).astype(np.float32)

    def _observe(self) -> dict[str, Any]:
        posture = np.concatenate([np.cos(self._joints), np.sin(self._joints)])
        return {"observation": posture, "achieved_goal": tip(self._joints), "desired_goal": self._goal.copy()}


def tip(joints: Any) -> Any:
    """Where the tip is, `[3]`."""
    turn, shoulder, both = float(joints[0]), float(joints[1]), float(joints[1] + joints[2])
    reach = LINK * (cos(shoulder) + cos(both))
    return np.array([reach * cos(turn), reach * sin(turn), LINK * (sin(shoulder) + sin(both))])


gymnasium.register("ReachArm-v0", "reach:ReachArm", max_episode_steps=50)
