"""Videos of episodes, recorded by gymnasium."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ddpg_jax.envs.host.make import make_env, reset_env
from ddpg_jax.envs.host.offscreen import offscreen
from ddpg_jax.envs.host.painters import follow, release
from ddpg_jax.envs.host.pixels import find_pixels
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.envs.pictures import View
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import HostArray


def draw_frame(identifier: str) -> str:
    """Draws an environment as it begins, and says how large, by what, and how fast it draws what an agent may see.

    Raises:
      EnvironmentFault: it cannot be made or drawn.
    """
    with offscreen():
        env = make_env(identifier, None, {}, render_mode="rgb_array")
        try:
            env.reset(seed=0)
            frame = np.asarray(env.render())
            renderer = getattr(env.unwrapped, "mujoco_renderer", None)
            drawn_by = (
                "" if renderer is None else f" by {os.environ.get('MUJOCO_GL', renderer.viewer.backend)}{_card()}"
            )
            if renderer is not None:
                release(renderer)
        except Exception as error:  # whatever its drawing library raises
            raise _cannot_draw(identifier, error) from error
        finally:
            _close(env)
    if frame.ndim != 3 or np.ptp(frame) == 0:
        raise EnvironmentFault(f"env.id={identifier!r} draws an empty frame of shape {frame.shape}")
    return f"{frame.shape[1]} x {frame.shape[0]}{drawn_by}, {_rate(identifier):.0f} pictures of 84 x 84 a second"


def _rate(identifier: str) -> float:
    """Pictures a second as `[env.pixels]` has them drawn, over half a second."""
    env = make_env(identifier, None, {}, view=View(84))
    try:
        env.reset(seed=0)
        began, drawn = time.perf_counter(), 0
        while time.perf_counter() - began < 0.5:
            env.step(env.action_space.sample() * 0)
            drawn += 1
        return drawn / (time.perf_counter() - began)
    except Exception as error:  # whatever its drawing library raises
        raise _cannot_draw(identifier, error) from error
    finally:
        _close(env)


def _card() -> str:
    """The name of what OpenGL says that it draws with, in brackets; "" where it does not say."""
    with suppress(Exception):  # PyOpenGL has no part in drawing by some back-ends
        gl: Any = import_module("OpenGL.GL")
        name = gl.glGetString(gl.GL_RENDERER).decode()
        return f" ({name.partition(' (')[0].partition('/')[0]})"  # without versions and buses
    return ""


def record_episode(
    make: Callable[[], Any], policy: Callable[[Any, float], HostArray], folder: Path, name: str, identifier: str
) -> Path:
    """Records the first episode of the bank of evaluation seeds.

    Args:
      make: makes an environment with the render mode `rgb_array`.
      policy: `(obs, reward) -> action` of one environment, as it gives and takes them; told the last reward.
      folder: where the file goes; it is made.
      name: name of the file, without ending.
      identifier: of the environment, for messages.

    Returns:
      The MP4 file.

    Raises:
      EnvironmentFault: the environment cannot be made or cannot draw itself.
    """
    plain = make()
    try:
        if find_pixels(plain) is None:  # which has its camera
            follow(plain)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the folder may exist
            recorder = gymnasium.wrappers.RecordVideo(
                plain, str(folder), episode_trigger=lambda episode: True, name_prefix=name, disable_logger=True
            )
            obs, _ = reset_env(recorder, evaluation_seeds(1)(0, 0))
            reward, done = 0.0, False
            while not done:
                action = policy(obs, reward).astype(plain.action_space.dtype)
                obs, rewarded, terminated, truncated, _ = recorder.step(action)
                reward = float(rewarded)
                done = terminated or truncated
            if recorder.recording:
                recorder.stop_recording()
    except Exception as error:  # whatever its drawing library raises
        _close(plain)
        raise _cannot_draw(identifier, error) from error
    _close(plain)
    written = folder / f"{name}-episode-0.mp4"
    return written.rename(folder / f"{name}.mp4")


def _cannot_draw(identifier: str, error: Exception) -> EnvironmentFault:
    drawn_by = os.environ.get("MUJOCO_GL")
    hint = f" (MUJOCO_GL={drawn_by}; egl, osmesa and glfw are possible)" if drawn_by else ""
    return EnvironmentFault(f"env.id={identifier!r} cannot be drawn: {error}{hint}")


def _close(env: Any) -> None:
    """Closes an environment, and passes over what it says of that: its frames are there."""
    with suppress(Exception):
        env.close()
