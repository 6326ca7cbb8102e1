"""Videos of episodes, recorded by gymnasium."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import HostArray


def record_episode(
    make: Callable[[], Any], policy: Callable[[HostArray], HostArray], folder: Path, name: str, identifier: str
) -> Path:
    """Records the first episode of the bank of evaluation seeds.

    Args:
      make: makes an environment with the render mode `rgb_array`.
      policy: `obs [E, *O] -> action [E, A]`, in the environment's units.
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the folder may exist
            recorder = gymnasium.wrappers.RecordVideo(
                plain, str(folder), episode_trigger=lambda episode: True, name_prefix=name, disable_logger=True
            )
            obs, _ = recorder.reset(seed=evaluation_seeds(1)(0, 0))
            done = False
            while not done:
                action = policy(np.asarray(obs, np.float32)[None])[0].astype(plain.action_space.dtype)
                obs, _, terminated, truncated, _ = recorder.step(action)
                done = terminated or truncated
            recorder.close()
    except Exception as error:  # whatever its drawing library raises
        plain.close()
        raise EnvironmentFault(f"env.id={identifier!r} cannot be drawn: {error}") from error
    written = folder / f"{name}-episode-0.mp4"
    return written.rename(folder / f"{name}.mp4")
