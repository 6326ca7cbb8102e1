"""Pictures in the place of observations, around any environment of gymnasium that can draw itself.

The twin for environments written in JAX is in `envs/device/pixels.py`: the same stacks, rewards and ends.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ddpg_jax.envs.host.painters import make_painter, release
from ddpg_jax.envs.pictures import View, to_gray
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import HostArray

GymEnv: TypeAlias = "gymnasium.Env[Any, Any]"

_SCENE = 480
"""Height of a video's frames."""


class Pixels(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment as its pictures show it: observations `uint8 [stack, size, size, C]`, the newest last.

    A step is one decision: the action is held for `repeat` steps of the environment, whose rewards are summed, and for
    fewer where the episode ends before; `info` is that of the last. The first picture of an episode stands in for those
    before it. `render` shows the scene, and beside it the newest picture that the agent sees.

    Args:
      env: the environment, made with the render mode `rgb_array`.
      identifier: its id, for messages.
      view: how it is seen.

    Raises:
      EnvironmentFault: it has no such camera.
    """

    def __init__(self, env: GymEnv, identifier: str, view: View) -> None:
        super().__init__(env)
        self.view = view
        self._paint = make_painter(env, identifier, view.camera)
        shape = (view.stack, view.size, view.size, view.channels)
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.metadata = env.metadata | {"render_fps": (env.metadata.get("render_fps") or 30) / view.repeat}
        self._stack = np.zeros(shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[HostArray, dict[str, Any]]:
        """Begins an episode."""
        _, info = self.env.reset(seed=seed, options=options)
        self._stack = np.broadcast_to(self._picture([self._draw()]), self._stack.shape)
        return self._stack.copy(), info

    def step(self, action: Any) -> tuple[HostArray, Any, Any, Any, dict[str, Any]]:
        """Holds an action for `repeat` steps, or to the end of the episode."""
        total: Any
        _, total, terminated, truncated, info = self.env.step(action)
        frames = [self._draw()] if self.view.draw_each else []
        for _ in range(self.view.repeat - 1):
            if terminated or truncated:
                break
            _, reward, terminated, truncated, info = self.env.step(action)
            total = total + reward
            if self.view.draw_each:
                frames.append(self._draw())
        self._stack = np.concatenate([self._stack[1:], self._picture(frames or [self._draw()])[None]])
        return self._stack.copy(), total, terminated, truncated, info

    def render(self) -> Any:
        """The scene, and the newest picture of the stack beside it, enlarged by a whole number."""
        channels = self.view.channels // self.view.drawn
        newest = np.repeat(self._stack[-1][..., -channels:], 3 // channels, -1)
        times = max(1, _SCENE // self.view.size)
        newest = newest.repeat(times, 0).repeat(times, 1)
        scene = self._paint(_SCENE)
        height = max(len(scene), len(newest))
        return np.concatenate([_centred(scene, height), _centred(newest, height)], 1)

    def close(self) -> None:
        """Closes the environment."""
        renderer = getattr(self.env.unwrapped, "mujoco_renderer", None)
        if renderer is not None:
            release(renderer)
        self.env.close()

    def _draw(self) -> HostArray:
        frame = self._paint(self.view.size)
        return to_gray(frame) if self.view.gray else frame

    def _picture(self, frames: list[HostArray]) -> HostArray:
        """What was drawn of a decision as one picture `[H, W, C]`; the last stands in for those after an end."""
        return np.concatenate(frames + frames[-1:] * (self.view.drawn - len(frames)), -1)


def see_pixels(env: GymEnv, identifier: str, view: View) -> GymEnv:
    """The environment as its pictures show it.

    Raises:
      EnvironmentFault: it has no such camera, or is in a wrapper that changes observations, which are not seen.
    """
    layer = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, gymnasium.ObservationWrapper):
            name = type(layer).__name__
            raise EnvironmentFault(f"env.wrappers: {name} has no effect with env.pixels, which hides what it changes")
        layer = layer.env
    return Pixels(env, identifier, view)


def seen_stack(env: GymEnv) -> int:
    """Pictures of an observation, where the environment is seen as such; else 0."""
    layer = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, Pixels):
            return layer.view.stack
        layer = layer.env
    return 0


def _centred(picture: HostArray, height: int) -> HostArray:
    """A picture between black bars, of even width and height, as videos want them."""
    missing, odd = height + height % 2 - len(picture), picture.shape[1] % 2
    return np.pad(picture, ((missing // 2, missing - missing // 2), (0, odd), (0, 0)))
