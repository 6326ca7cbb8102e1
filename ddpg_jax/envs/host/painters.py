"""How an environment of gymnasium is drawn at a size: by its simulator, or averaged from the picture it gives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import PendulumEnv

from ddpg_jax.envs.host.from_device import FromDevice
from ddpg_jax.envs.host.offscreen import offscreen
from ddpg_jax.envs.pictures import draw_pendulum
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import HostArray

PaintFn: TypeAlias = "Callable[[int], HostArray]"
"""`size -> uint8 [size, size, 3]`, of the environment as it is now."""

GymEnv: TypeAlias = "gymnasium.Env[Any, Any]"

SHADOWS = 512
"""Height and width of the map of shadows at most, in pixels."""

TRACK = "track"
"""The camera of gymnasium's MuJoCo models that follows the body."""


def make_painter(env: GymEnv, identifier: str, camera: int | str | None) -> PaintFn:
    """What draws an environment.

    Of Pendulum-v1 and of environments written in JAX, the functions of `envs/pictures.py`: gymnasium's own drawing of a
    pendulum shows the last torque. MuJoCo's, and dm_control's behind shimmy, are drawn at the size that is wanted, all
    others averaged from the picture they give.

    Args:
      env: the environment, made with the render mode `rgb_array`; it may be wrapped.
      identifier: its id, for messages.
      camera: number or name of the camera; None: the one that follows the body where there is one, or the first.

    Raises:
      EnvironmentFault: it has no such camera.
    """
    inner: Any = env.unwrapped
    if getattr(inner, "mujoco_renderer", None) is not None:
        return _mujoco(env, identifier, camera)
    if hasattr(inner, "render_kwargs") and hasattr(getattr(inner, "_env", None), "physics"):
        return _dm_control(env, identifier, camera)
    if camera is not None:
        raise EnvironmentFault(f"env.pixels.camera={camera!r}: env.id={identifier!r} has no cameras: leave it out")
    if isinstance(inner, FromDevice):
        return inner.paint
    if type(inner) is PendulumEnv:
        return lambda size: _pendulum(inner, size)
    return lambda size: resize(_checked(env.render(), identifier), size)


def follow(env: GymEnv, camera: int | str | None = None) -> bool:
    """Draws a MuJoCo environment by a camera: the one that follows it, if its model has one and no other was asked for.

    Args:
      env: the environment.
      camera: number or name; None: as the arguments of its constructor say, or the one that follows.

    Returns:
      Whether a camera was chosen here.
    """
    renderer: Any = getattr(env.unwrapped, "mujoco_renderer", None)
    asked = {"camera_id", "camera_name", "default_camera_config"} & set(env.spec.kwargs if env.spec else ())
    if renderer is None or (asked and camera is None):
        return False
    number = camera if isinstance(camera, int) else _camera_number(renderer.model, camera or TRACK)
    if number >= 0:
        renderer.camera_id = number
    return number >= 0


def resize(frame: HostArray, size: int) -> HostArray:
    """A picture `uint8 [H, W, C]` at another size: each pixel the average of the area that it covers.

    A picture that is not square is compressed in one direction.
    """
    height, width, channels = frame.shape
    if (height, width) == (size, size):
        return frame
    rows = (_overlaps(height, size) @ frame.reshape(height, -1).astype(np.float32)).reshape(size, width, channels)
    return np.floor(np.matmul(_overlaps(width, size), rows) + np.float32(0.5)).astype(np.uint8)


def _overlaps(length: int, size: int) -> HostArray:
    """How much of each of `size` pixels every one of `length` pixels makes up, `[size, length]`; rows sum to 1."""
    ends = np.arange(size + 1) * (length / size)
    places = np.arange(length)
    shared = np.minimum(ends[1:, None], places + 1) - np.maximum(ends[:-1, None], places)
    return (np.maximum(shared, 0.0) * (size / length)).astype(np.float32)


def _mujoco(env: GymEnv, identifier: str, camera: int | str | None) -> PaintFn:
    renderer: Any = env.unwrapped.mujoco_renderer  # pyright: ignore[reportAttributeAccessIssue]
    if camera is not None:
        _require_camera(renderer.model, identifier, camera)
    follow(env, camera)
    _spare_shadows(renderer.model)
    weakref.finalize(env, release, renderer).atexit = False

    def paint(size: int) -> HostArray:
        viewer = renderer.viewer
        if viewer is None:
            renderer.width = renderer.height = size
            with offscreen():
                return np.ascontiguousarray(_checked(env.render(), identifier))
        viewer.make_context_current()  # gymnasium leaves that of the environment drawn last
        viewer.viewport.width = viewer.viewport.height = size
        return np.ascontiguousarray(_checked(env.render(), identifier))

    return paint


def _dm_control(env: GymEnv, identifier: str, camera: int | str | None) -> PaintFn:
    inner: Any = env.unwrapped
    physics = inner._env.physics
    if camera is not None:
        _require_camera(physics.model.ptr, identifier, camera)
    _spare_shadows(physics.model)
    chosen = inner.render_kwargs.get("camera_id", 0 if physics.model.ncam else -1) if camera is None else camera

    def paint(size: int) -> HostArray:
        inner.render_kwargs = inner.render_kwargs | {"height": size, "width": size, "camera_id": chosen}
        return _checked(env.render(), identifier)

    return paint


def release(renderer: Any) -> None:
    """Gives back what a viewer of gymnasium's drew with, while its own context is current.

    MuJoCo frees it by numbers, in whichever context is current: left to the garbage collector, an environment that is
    gone takes away what another one draws with, whose pictures are black from then on.
    """
    viewer = renderer.viewer
    if viewer is not None and viewer.con is not None:
        viewer.make_context_current()
        viewer.con.free()
        viewer.con = None


def _spare_shadows(model: Any) -> None:
    """Draws shadows by a small map: a large one takes most of the time where no graphics card draws."""
    model.vis.quality.shadowsize = min(int(model.vis.quality.shadowsize), SHADOWS)


def _pendulum(inner: Any, size: int) -> HostArray:
    angle, velocity = inner.state
    return draw_pendulum(np.array([np.cos(angle), np.sin(angle), velocity], np.float32), size)


def _require_camera(model: Any, identifier: str, camera: int | str) -> None:
    """Refuses a camera that a model does not have."""
    names = [model.camera(i).name or str(i) for i in range(model.ncam)]
    known = range(-1, model.ncam) if isinstance(camera, int) else names
    if camera not in known:
        there = f"there are {', '.join(names)}, by number from 0, and -1 that is free" if names else "there is -1, free"
        raise EnvironmentFault(f"env.pixels.camera={camera!r} is not in env.id={identifier!r}: {there}")


def _camera_number(model: Any, name: str) -> int:
    mujoco: Any = import_module("mujoco")
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)


def _checked(frame: Any, identifier: str) -> HostArray:
    """A picture as it was drawn.

    Raises:
      EnvironmentFault: it is none.
    """
    if isinstance(frame, Sequence) and frame:
        frame = frame[-1]
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        what = "nothing" if frame is None else f"{array.dtype}{list(array.shape)}"
        raise EnvironmentFault(f"env.id={identifier!r} draws {what}: env.pixels needs pictures uint8[height, width, 3]")
    return array
