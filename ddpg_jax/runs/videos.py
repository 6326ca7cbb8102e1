"""Videos of a finished run's policies."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ddpg_jax.config.plugins import hand_over
from ddpg_jax.envs.factory import drawn_env_maker
from ddpg_jax.envs.host.offscreen import offscreen
from ddpg_jax.envs.host.video import record_episode
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs.inference import LoadedRun
from ddpg_jax.runs.policy import episode_policy
from ddpg_jax.xla.modes import in_numeric_modes

NotifyFn: TypeAlias = Callable[[str], None]
"""Takes a line for people."""


def check_videos(run: LoadedRun, folder: str | Path) -> Path:
    """Refuses videos that cannot be recorded, before anything is run; makes their folder.

    Raises:
      ConfigError: the extra `video` is not installed, or the environment is written in JAX and cannot draw itself.
      StorageError: the folder cannot be made.
    """
    with hand_over(run.parts):
        drawn_env_maker(run.config)
    if importlib.util.find_spec("moviepy") is None:
        raise ConfigError('recording needs moviepy, which is not installed: pip install "ddpg-jax[video]"')
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot hold videos: {error}") from error
    return folder


@in_numeric_modes
def record_videos(run: LoadedRun, folder: str | Path, notify: NotifyFn | None = None) -> list[Path]:
    """Records one evaluation episode of each seed as an MP4 file; beside the scene, what an agent from pixels sees.

    Args:
      run: the run.
      folder: where the files go; it is made.
      notify: told which seed is being recorded.

    Returns:
      The files, one for each seed.

    Raises:
      ConfigError: as in `check_videos`, and StorageError too.
      EnvironmentFault: the environment cannot draw itself.
    """
    folder, env, seeds = check_videos(run, folder), run.config.env, run.config.seed_list
    paths: list[Path] = []
    with hand_over(run.parts), offscreen():
        make = drawn_env_maker(run.config)
        for i, seed in enumerate(seeds):
            if notify is not None:
                notify(f"recording an episode of seed {seed} ({i + 1} of {len(seeds)})")
            paths.append(record_episode(make, episode_policy(run, i), folder, f"seed-{seed}", env.id))
    return paths
