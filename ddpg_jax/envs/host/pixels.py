"""Pictures in the place of observations, around any environment of gymnasium that can draw itself.

The twin for environments written in JAX is in `envs/device/pixels.py`: the same stacks, rewards and ends.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ddpg_jax.envs.host.painters import make_painter, release, resize
from ddpg_jax.envs.host.spaces import divided, value_of
from ddpg_jax.envs.mixed import number_rows, put_below
from ddpg_jax.envs.pictures import View, to_gray
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import HostArray, ObsPart

GymEnv: TypeAlias = "gymnasium.Env[Any, Any]"

_SCENE = 480
"""Height of a video's frames."""


class Pixels(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment as its pictures show it: observations `uint8 [stack, size, size, C]`, the newest last.

    A step is one decision: the action is held for `repeat` steps of the environment, whose rewards are summed, and for
    fewer where the episode ends before; `info` is that of the last. The first picture of an episode stands in for those
    before it. `render` shows the scene, and beside it the newest picture that the agent sees.

    The numbers that the environment observes lie in rows below each picture if the view has proprioception; see
    `envs.mixed`.

    Args:
      env: the environment, made with the render mode `rgb_array`.
      identifier: its id, for messages.
      view: how it is seen.

    Raises:
      EnvironmentFault: it has no such camera, or does not observe what is to be seen.
    """

    def __init__(self, env: GymEnv, identifier: str, view: View) -> None:
        super().__init__(env)
        self.view = view
        self._paint = make_painter(env, identifier, view.camera)
        self._identifier = identifier
        self._image, self._numbers = _observed_parts(env, identifier, view)
        row_shape = (view.size, view.channels)
        shape = (view.stack, view.size + number_rows(self.proprioception, row_shape), *row_shape)
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.metadata = env.metadata | {"render_fps": (env.metadata.get("render_fps") or 30) / view.repeat}
        self._stack = np.zeros(shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[HostArray, dict[str, Any]]:
        """Begins an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._stack = np.broadcast_to(self._picture([self._draw()]), self._stack.shape)
        return self._stack.copy(), info

    def step(self, action: Any) -> tuple[HostArray, Any, Any, Any, dict[str, Any]]:
        """Holds an action for `repeat` steps, or to the end of the episode."""
        total: Any
        self._observation, total, terminated, truncated, info = self.env.step(action)
        frames = [self._draw()] if self.view.draw_each else []
        for _ in range(self.view.repeat - 1):
            if terminated or truncated:
                break
            self._observation, reward, terminated, truncated, info = self.env.step(action)
            total = total + reward
            if self.view.draw_each:
                frames.append(self._draw())
        self._stack = np.concatenate([self._stack[1:], self._picture(frames or [self._draw()])[None]])
        return self._stack.copy(), total, terminated, truncated, info

    def render(self) -> Any:
        """The scene, and the newest picture of the stack beside it, enlarged by a whole number."""
        channels = self.view.channels // self.view.drawn
        newest = np.repeat(self._stack[-1][: self.view.size, :, -channels:], 3 // channels, -1)
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

    @property
    def proprioception(self) -> int:
        """P: numbers below each picture."""
        return self._numbers[-1].stop if self._numbers else 0

    def _draw(self) -> HostArray:
        size = self.view.size
        frame = self._paint(size) if self._image is None else _sized(value_of(self._observation, self._image), size)
        return to_gray(frame) if self.view.gray else frame

    def _picture(self, frames: list[HostArray]) -> HostArray:
        """What was drawn of a decision as one picture `[H, W, C]`; the last stands in for those after an end."""
        picture = np.concatenate(frames + frames[-1:] * (self.view.drawn - len(frames)), -1)
        return put_below(picture, self._felt()) if self._numbers else picture

    def _felt(self) -> HostArray:
        """The numbers that the environment observes, `float32 [P]`.

        Raises:
          EnvironmentFault: they are not finite.
        """
        numbers = np.concatenate([np.ravel(value_of(self._observation, part)) for part in self._numbers])
        numbers = numbers.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise EnvironmentFault(f"env.id={self._identifier!r} observes {numbers}: expected finite numbers")
        return numbers


def see_pixels(env: GymEnv, identifier: str, view: View) -> GymEnv:
    """The environment as its pictures show it.

    Raises:
      EnvironmentFault: as in `Pixels`, or it is in a wrapper that changes observations, which are not seen.
    """
    layer = env
    while isinstance(layer, gymnasium.Wrapper) and not (view.observed or view.proprioception):
        if isinstance(layer, gymnasium.ObservationWrapper):
            name = type(layer).__name__
            raise EnvironmentFault(f"env.wrappers: {name} has no effect with env.pixels, which hides what it changes")
        layer = layer.env
    return Pixels(env, identifier, view)


def find_pixels(env: GymEnv) -> Pixels | None:
    """What shows the pictures of an environment, in its wrappers; None where it is not seen so."""
    layer = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, Pixels):
            return layer
        layer = layer.env
    return None


def _observed_parts(env: GymEnv, identifier: str, view: View) -> tuple[ObsPart | None, tuple[ObsPart, ...]]:
    """The image that is seen in the place of the scene, and the numbers beside the picture.

    Raises:
      EnvironmentFault: they are not in what the environment observes.
    """
    if not (view.observed or view.proprioception):
        return None, ()
    images, numbers = divided(env.observation_space)
    images = tuple(each for each in images if len(each.shape) == 3 and each.shape[-1] in (1, 3))
    if view.observed and len(images) != 1:
        names = ", ".join(f"{each.name or 'observation'}{list(each.shape)}" for each in images) or "none"
        raise EnvironmentFault(
            f'env.pixels.source="observation": env.id={identifier!r} observes {env.observation_space}, whose images '
            f"uint8[height, width, 1 or 3] are: {names}; expected one, which gymnasium.wrappers.FilterObservation "
            "can leave"
        )
    if view.proprioception and not numbers:
        raise EnvironmentFault(f"env.pixels.proprioception: env.id={identifier!r} observes no numbers: leave it out")
    return images[0] if view.observed else None, numbers if view.proprioception else ()


def _sized(image: HostArray, size: int) -> HostArray:
    """An image that was observed, `uint8 [H, W, 1 or 3]`, as a picture `[size, size, 3]`."""
    picture = resize(image, size)
    return picture if picture.shape[-1] == 3 else np.repeat(picture, 3, -1)


def _centred(picture: HostArray, height: int) -> HostArray:
    """A picture between black bars, of even width and height, as videos want them."""
    missing, odd = height + height % 2 - len(picture), picture.shape[1] % 2
    return np.pad(picture, ((missing // 2, missing - missing // 2), (0, odd), (0, 0)))
