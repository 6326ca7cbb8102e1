"""Videos of episodes, recorded by gymnasium."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ddpg_jax.envs.host.make import make_env, reset_env
from ddpg_jax.envs.host.offscreen import offscreen
from ddpg_jax.envs.host.painters import follow
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import HostArray


def draw_frame(identifier: str) -> str:
    """Draws a frame of an environment as it begins, and says how large it is and, of MuJoCo, what has drawn it.

    Raises:
      EnvironmentFault: it cannot be made or drawn.
    """
    with offscreen():
        env = make_env(identifier, None, {}, render_mode="rgb_array")
        try:
            env.reset(seed=0)
            frame = np.asarray(env.render())
        except Exception as error:  # whatever its drawing library raises
            raise _cannot_draw(identifier, error) from error
        finally:
            _close(env)
        viewer = getattr(getattr(env.unwrapped, "mujoco_renderer", None), "viewer", None)
        backend = f" by {os.environ.get('MUJOCO_GL', 'the first OpenGL that works')}" if viewer is not None else ""
    if frame.ndim != 3 or np.ptp(frame) == 0:
        raise EnvironmentFault(f"env.id={identifier!r} draws an empty frame of shape {frame.shape}")
    return f"{frame.shape[1]} x {frame.shape[0]}{backend}"


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
