"""Pictures of our own tasks, drawn by arithmetic: one observation `[*O]` -> a picture `uint8 [size, size, 3]`.

A picture shows positions alone: two of them tell a velocity, one does not, and what the agent does is not drawn. Each
shape covers a pixel by clip(half-width + 1/2 − distance, 0, 1), with the distance from the pixel's centre, so edges are
smooth and a movement of less than a pixel is seen. NumPy and JAX go through the same lines: which of them computes is
told by the observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

DrawFn: TypeAlias = Callable[[Any, int], Any]
"""`(obs [*O], size) -> uint8 [size, size, 3]`, of NumPy for an array of NumPy and of JAX for one of JAX."""


class View(NamedTuple):
    """How an environment is seen, as `[env.pixels]` says it.

    Attributes:
      size: height and width of a picture.
      gray: one channel of brightness in the place of three.
      stack: pictures of an observation, k.
      repeat: steps of the environment that an action is held for.
      draw_each: whether each of these steps is drawn, side by side as channels of one picture; otherwise the last is.
      camera: number or name; None: the environment's own.
      observed: whether the picture is the image that the environment observes; otherwise it is drawn.
      proprioception: whether the numbers that the environment observes are seen beside the picture.
    """

    size: int
    gray: bool = False
    stack: int = 3
    repeat: int = 1
    draw_each: bool = False
    camera: int | str | None = None
    observed: bool = False
    proprioception: bool = False

    @property
    def drawn(self) -> int:
        """Steps of a decision that a picture shows."""
        return self.repeat if self.draw_each else 1

    @property
    def channels(self) -> int:
        """Channels of a picture, C."""
        return (1 if self.gray else 3) * self.drawn


_WHITE, _BLACK, _GRAY = (255.0, 255.0, 255.0), (0.0, 0.0, 0.0), (150.0, 150.0, 150.0)
_RED, _BLUE, _LIGHT_BLUE = (204.0, 77.0, 77.0), (40.0, 60.0, 130.0), (150.0, 190.0, 245.0)


class Canvas:
    """A white picture that shapes are drawn on, one over the other.

    Args:
      like: an array of the library that computes.
      size: height and width in pixels.
      reach: of the scene, which is the square [-reach, reach]²; x to the right, y upward.
    """

    def __init__(self, like: Any, size: int, reach: float) -> None:
        self.xp = namespace(like)
        places = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)
        self._x, self._y = places[None, :], -places[:, None]
        self._scale, self._pixels = np.float32(1 / reach), np.float32(size / 2)
        self._colour: Any = np.asarray([[_WHITE]], np.float32)

    def segment(self, start: tuple[Any, Any], end: tuple[Any, Any], width: float, colour: tuple[float, ...]) -> None:
        """Draws a line with round ends between two points of the scene; a point is its (x, y)."""
        (ax, ay), (bx, by) = ([each * self._scale for each in point] for point in (start, end))
        dx, dy = bx - ax, by - ay
        along = ((self._x - ax) * dx + (self._y - ay) * dy) / (dx * dx + dy * dy)
        along = self.xp.clip(along, 0.0, 1.0)
        self._cover(self._x - ax - along * dx, self._y - ay - along * dy, width / 2, colour)

    def disc(self, centre: tuple[Any, Any], radius: float, colour: tuple[float, ...]) -> None:
        """Draws a filled circle around a point of the scene."""
        x, y = (each * self._scale for each in centre)
        self._cover(self._x - x, self._y - y, radius, colour)

    def picture(self) -> Any:
        """What was drawn, `uint8 [size, size, 3]`."""
        return self.xp.floor(self._colour + np.float32(0.5)).astype(np.uint8)

    def _cover(self, dx: Any, dy: Any, radius: float, colour: tuple[float, ...]) -> None:
        """Lays a colour over the pixels that lie within a radius of something; `dx` and `dy` are its distances."""
        distance = self.xp.sqrt(dx * dx + dy * dy)
        within = (np.float32(radius) * self._scale - distance) * self._pixels + np.float32(0.5)
        covered = self.xp.clip(within, 0.0, 1.0)[..., None]
        self._colour = self._colour + covered * (np.asarray([[colour]], np.float32) - self._colour)


def draw_pendulum(obs: Any, size: int) -> Any:
    """The rod of a pendulum and its pivot; of (cos, sin, ...), the angle from the upright, to the left."""
    canvas = Canvas(obs, size, reach=1.2)
    canvas.segment((0.0, 0.0), (-obs[1], obs[0]), 0.2, _RED)
    canvas.disc((0.0, 0.0), 0.06, _BLACK)
    return canvas.picture()


def draw_cartpole(obs: Any, size: int) -> Any:
    """A cart on its rail and the pole on it; of (x, cos, sin, ...), the angle from the upright, to the right."""
    canvas = Canvas(obs, size, reach=2.0)
    x, hinge = obs[0], -0.3
    canvas.segment((-1.95, hinge), (1.95, hinge), 0.06, _GRAY)
    canvas.segment((x - 0.15, hinge), (x + 0.15, hinge), 0.3, _BLUE)
    canvas.segment((x, hinge), (x + obs[2], hinge + obs[1]), 0.15, _RED)
    return canvas.picture()


def draw_reacher(obs: Any, size: int) -> Any:
    """An arm of two links and its target; of (cos, sin, cos, sin, velocities, x, y), the second angle to the first."""
    canvas = Canvas(obs, size, reach=1.1)
    elbow = 0.5 * obs[0], 0.5 * obs[1]
    both = obs[0] * obs[2] - obs[1] * obs[3], obs[1] * obs[2] + obs[0] * obs[3]
    tip = elbow[0] + 0.5 * both[0], elbow[1] + 0.5 * both[1]
    canvas.disc((obs[6], obs[7]), 0.13, _RED)
    canvas.segment((0.0, 0.0), elbow, 0.13, _BLUE)
    canvas.segment(elbow, tip, 0.1, _LIGHT_BLUE)
    canvas.disc(tip, 0.06, _BLACK)
    return canvas.picture()


def to_gray(picture: Any) -> Any:
    """The brightness of a picture, `uint8 [H, W, 3] -> uint8 [H, W, 1]`, by the weights of ITU-R BT.601.

    The sum is one of whole numbers, so NumPy and JAX give the same bits.
    """
    weights = np.array([299, 587, 114], np.int32).reshape((1,) * (picture.ndim - 1) + (3,))
    total = (picture.astype(np.int32) * weights).sum(-1, keepdims=True, dtype=np.int32)
    return ((total + np.int32(500)) // np.int32(1000)).astype(np.uint8)


def namespace(array: Any) -> Any:
    """NumPy for its arrays and numbers, else `jax.numpy`."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    import jax.numpy as jnp

    return jnp
